//! Python's two ways to put values into a text: `'{}'.format(x)` and `'%s' % x`.

use super::budget::Budget;
use super::builtins::CallArguments;
use super::interpreter::Interpreter;
use super::number::Number;
use super::value::{Shape, Value};
use super::{Outcome, filters, show, wrong};
use std::rc::Rc;

/// Digits after the point. More say nothing, and Rust's own formatting ends at 65,535.
const MAX_PRECISION: usize = 1000;

/// What stands after the colon of a field, or between `%` and the letter.
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

/// A text that is read from the left.
struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    fn one_of(&mut self, wanted: &str) -> Option<char> {
        let c = self.peek().filter(|c| wanted.contains(*c))?;
        self.next();
        Some(c)
    }

    fn number(&mut self) -> Outcome<Option<usize>> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        if digits.is_empty() {
            return Ok(None);
        }
        digits.parse().map(Some).map_err(|_| wrong("a width or precision is too large"))
    }
}

impl Interpreter<'_> {
    /// `text.format(...)`; with `escape`, what is put in is made safe for HTML.
    pub fn format(
        &mut self,
        text: &str,
        given: &mut CallArguments,
        escape: bool,
    ) -> Outcome<Value> {
        let positional: Vec<Value> =
            given.positional.drain(..).map(|value| value.unwrap_or(Value::Undefined)).collect();
        let named: Vec<(Rc<str>, Value)> = given
            .named
            .drain(..)
            .map(|(name, value)| (name, value.unwrap_or(Value::Undefined)))
            .collect();
        let mut fields = Fields { positional, named, next: Some(0), escape };
        let out = self.fields(text, &mut fields, 2)?;
        Ok(Value::str(&out))
    }

    /// Replaces the fields of `text`; `depth` is how deep fields may hold fields.
    fn fields(&mut self, text: &str, fields: &mut Fields, depth: u32) -> Outcome<String> {
        self.budget.read(text.len())?;
        let (mut out, mut rest) = (String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            self.budget.make(at + 1)?;
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(wrong("format: a single } in the text"));
            }
            if depth == 0 {
                return Err(wrong("format: fields nested too deep"));
            }
            // The end of the field: its specification may hold fields.
            let (mut open, mut end) = (1, None);
            for (at, c) in rest.bytes().enumerate() {
                match c {
                    b'{' => open += 1,
                    b'}' => open -= 1,
                    _ => {}
                }
                if open == 0 {
                    end = Some(at);
                    break;
                }
            }
            let end = end.ok_or_else(|| wrong("format: a field is not closed"))?;
            self.budget.read(end)?;
            let field = self.field(&rest[..end], fields, depth)?;
            self.budget.make(field.len())?;
            out.push_str(&field);
            rest = &rest[end + 1..];
        }
        self.budget.make(rest.len())?;
        out.push_str(rest);
        Ok(out)
    }

    fn field(&mut self, field: &str, fields: &mut Fields, depth: u32) -> Outcome<Rc<str>> {
        // A colon or exclamation mark within brackets belongs to a key.
        let mut inside = false;
        let cut = field.find(|c| {
            inside = if inside { c != ']' } else { c == '[' };
            !inside && (c == ':' || c == '!')
        });
        let (name, after) = field.split_at(cut.unwrap_or(field.len()));
        let (conversion, spec) = match after.strip_prefix('!') {
            Some(after) => {
                let mut reader = Reader { rest: after };
                let conversion = reader.next();
                if !(reader.rest.is_empty() || reader.take(':')) {
                    return Err(wrong("format: one letter stands after !"));
                }
                (conversion, reader.rest)
            }
            None => (None, after.strip_prefix(':').unwrap_or(after)),
        };
        let value = self.field_value(name, fields)?;
        let spec = self.fields(spec, fields, depth - 1)?;
        let value = match conversion {
            None => value,
            Some('s') => Value::Str(self.text_of(&value)?),
            Some('r') => Value::str(&show::repr_of(&value, false, &mut self.budget)?),
            Some('a') => Value::str(&show::repr_of(&value, true, &mut self.budget)?),
            Some(other) => return Err(wrong(format!("format does not know !{other}"))),
        };
        if fields.escape && spec.is_empty() {
            let safe = filters::escaped(value, &mut self.budget)?;
            return self.text_of(&safe);
        }
        let text = self.formatted(&value, &spec)?;
        if fields.escape {
            let safe = filters::escaped(Value::Str(text), &mut self.budget)?;
            return self.text_of(&safe);
        }
        Ok(text)
    }

    /// The value of `0`, `name`, `0.attribute`, `name[key]` or the next one.
    fn field_value(&mut self, name: &str, fields: &mut Fields) -> Outcome<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut path) = name.split_at(end);
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let mut value = if first.is_empty() {
            let at = fields.next.ok_or_else(|| wrong("format: fields with and without number"))?;
            fields.next = Some(at + 1);
            fields.positional.get(at).cloned()
        } else if number(first) {
            if fields.next.is_some_and(|next| next > 0) {
                return Err(wrong("format: fields with and without number"));
            }
            fields.next = None;
            first.parse().ok().and_then(|at: usize| fields.positional.get(at).cloned())
        } else {
            fields.named.iter().find(|(name, _)| &**name == first).map(|(_, value)| value.clone())
        }
        .ok_or_else(|| wrong(format!("format: there is no value for {{{first:.40}}}")))?;
        while !path.is_empty() {
            if let Some(after) = path.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                value = self.attribute(&value, &after[..end])?;
                path = &after[end..];
            } else {
                let inner = path
                    .strip_prefix('[')
                    .and_then(|path| path.split_once(']'))
                    .ok_or_else(|| wrong("format: a key is not closed"))?;
                let key = if !inner.0.is_empty() && number(inner.0) {
                    inner.0.parse().map(Value::Int).map_err(|_| wrong("format: an index"))?
                } else {
                    Value::str(inner.0)
                };
                value = self.item(&value, &key)?;
                path = inner.1;
            }
        }
        Ok(value)
    }

    /// The value by a specification such as `>8.2f`.
    fn formatted(&mut self, value: &Value, spec: &str) -> Outcome<Rc<str>> {
        if spec.is_empty() {
            return self.text_of(value);
        }
        let spec = specification(spec)?;
        let text = match value {
            Value::Str(text) | Value::Markup(text) => {
                if spec.kind.is_some_and(|kind| kind != 's') || spec.sign.is_some() {
                    return Err(wrong("format: a string is written as s"));
                }
                cut(text, spec.precision)
            }
            other => match Number::of(other) {
                Some(Number::Int(_))
                    if spec.precision.is_some()
                        && spec.kind.is_none_or(|kind| "dnboxXc".contains(kind)) =>
                {
                    return Err(wrong("format: an integer has no precision"));
                }
                Some(number) => return number_text(number, &spec, &mut self.budget).map(Rc::from),
                None => {
                    return Err(wrong(format!(
                        "format: a {} takes no specification",
                        other.kind()
                    )));
                }
            },
        };
        padded("", text, &spec, '<', &mut self.budget).map(Rc::from)
    }

    /// `text % values`; with `escape`, what is put in is made safe for HTML.
    pub fn printf(&mut self, text: &str, values: &Value, escape: bool) -> Outcome<Value> {
        self.budget.read(text.len())?;
        let list = match values {
            Value::List(list) if list.shape == Shape::Tuple => list.items.clone(),
            other => vec![other.clone()],
        };
        self.budget.make_list(list.len())?;
        let (mut left, mut named) = (list.into_iter(), false);
        let mut out = String::new();
        let mut reader = Reader { rest: text };
        while let Some(at) = reader.rest.find('%') {
            self.budget.make(at + 1)?;
            out.push_str(&reader.rest[..at]);
            reader.rest = &reader.rest[at + 1..];
            let mut own = None;
            if let Some(after) = reader.rest.strip_prefix('(') {
                let (name, after) =
                    after.split_once(')').ok_or_else(|| wrong("%: a name is not closed"))?;
                let Value::Dict(entries) = values else {
                    return Err(wrong("%: values with names come in a dict"));
                };
                let value = entries.get(&Value::str(name), &mut self.budget)?.cloned();
                own = Some(value.ok_or_else(|| wrong(format!("%: there is no {name:.40}")))?);
                named = true;
                reader.rest = after;
            }
            let mut spec = Spec::default();
            while let Some(flag) = reader.one_of("-+ #0") {
                match flag {
                    '-' => spec.align = Some('<'),
                    '+' => spec.sign = Some('+'),
                    ' ' if spec.sign.is_none() => spec.sign = Some(' '),
                    '#' => spec.alternate = true,
                    '0' => spec.fill = Some('0'),
                    _ => {}
                }
            }
            let star = |left: &mut std::vec::IntoIter<Value>| match left.next() {
                Some(Value::Int(number)) => Ok(number),
                _ => Err(wrong("%: * needs an integer")),
            };
            spec.width = if reader.take('*') {
                let width = star(&mut left)?;
                if width < 0 {
                    spec.align = Some('<');
                }
                width.unsigned_abs() as usize
            } else {
                reader.number()?.unwrap_or(0)
            };
            if reader.take('.') {
                spec.precision = Some(if reader.take('*') {
                    usize::try_from(star(&mut left)?).unwrap_or(0)
                } else {
                    reader.number()?.unwrap_or(0)
                });
            }
            let _ = reader.one_of("hlL");
            let kind = reader.next().ok_or_else(|| wrong("%: the text ends within a field"))?;
            if kind == '%' {
                out.push('%');
                continue;
            }
            let value = match own {
                Some(value) => value,
                None => left.next().ok_or_else(|| wrong("%: fewer values than fields"))?,
            };
            let field = self.printf_field(&value, kind, spec, escape)?;
            self.budget.make(field.len())?;
            out.push_str(&field);
        }
        self.budget.make(reader.rest.len())?;
        out.push_str(reader.rest);
        let unused = left.next().is_some_and(|value| !named && !matches!(value, Value::Dict(_)));
        if unused {
            return Err(wrong("%: more values than fields"));
        }
        Ok(Value::str(&out))
    }

    fn printf_field(
        &mut self,
        value: &Value,
        kind: char,
        mut spec: Spec,
        escape: bool,
    ) -> Outcome<String> {
        // Zeros go before digits only.
        let fill = if spec.align.is_some() { None } else { spec.fill.take() };
        match kind {
            's' | 'r' | 'a' | 'c' => {
                let mut text = match (kind, value) {
                    ('s', value) => self.text_of(value)?,
                    ('c', Value::Int(code)) => u32::try_from(*code)
                        .ok()
                        .and_then(char::from_u32)
                        .map(|c| c.to_string().into())
                        .ok_or_else(|| wrong("%c: no character"))?,
                    ('c', Value::Str(text)) if text.chars().count() == 1 => text.clone(),
                    ('c', _) => return Err(wrong("%c needs a character")),
                    (_, value) => show::repr_of(value, kind == 'a', &mut self.budget)?.into(),
                };
                if escape && !matches!(value, Value::Markup(_)) {
                    let safe = filters::escaped(Value::Str(text), &mut self.budget)?;
                    text = self.text_of(&safe)?;
                }
                padded("", cut(&text, spec.precision), &spec, '>', &mut self.budget)
            }
            'd' | 'i' | 'u' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                let number = Number::of(value)
                    .ok_or_else(|| wrong(format!("%{kind}: a {} is no number", value.kind())))?;
                let number = match (kind, number) {
                    ('d' | 'i' | 'u', Number::Float(value)) if value.is_finite() => {
                        Number::Int(value as i64)
                    }
                    ('d' | 'i' | 'u' | 'o' | 'x' | 'X', Number::Float(_)) => {
                        return Err(wrong(format!("%{kind} needs an integer")));
                    }
                    (_, number) => number,
                };
                spec.kind = Some(if matches!(kind, 'i' | 'u') { 'd' } else { kind });
                if fill.is_some() {
                    (spec.fill, spec.align) = (Some('0'), Some('='));
                }
                number_text(number, &spec, &mut self.budget)
            }
            other => Err(wrong(format!("% does not know {other:?}"))),
        }
    }
}

/// The values that fields are filled with.
struct Fields {
    positional: Vec<Value>,
    named: Vec<(Rc<str>, Value)>,
    /// The next one by its place; None once a field had a number.
    next: Option<usize>,
    escape: bool,
}

/// `[[fill]align][sign][#][0][width][grouping][.precision][kind]`
fn specification(text: &str) -> Outcome<Spec> {
    let mut spec = Spec::default();
    let mut reader = Reader { rest: text };
    let mut chars = text.chars();
    let (first, second) = (chars.next(), chars.next());
    if second.is_some_and(|c| "<>=^".contains(c)) {
        (spec.fill, spec.align) = (first, second);
        reader.next();
        reader.next();
    } else {
        spec.align = reader.one_of("<>=^");
    }
    spec.sign = reader.one_of("+- ");
    spec.alternate = reader.take('#');
    if reader.take('0') && spec.fill.is_none() {
        spec.fill = Some('0');
        spec.align = spec.align.or(Some('='));
    }
    spec.width = reader.number()?.unwrap_or(0);
    spec.grouping = reader.one_of(",_");
    if reader.take('.') {
        spec.precision =
            Some(reader.number()?.ok_or_else(|| wrong("format: a point without precision"))?);
    }
    spec.kind = reader.next();
    if reader.rest.is_empty() {
        Ok(spec)
    } else {
        Err(wrong(format!("format: the specification {text:.40} is unknown")))
    }
}

/// The first `precision` characters.
fn cut(text: &str, precision: Option<usize>) -> &str {
    let end = precision.and_then(|most| text.char_indices().nth(most));
    end.map_or(text, |(at, _)| &text[..at])
}

/// `sign` and `text`, filled up to the width.
fn padded(
    sign: &str,
    text: &str,
    spec: &Spec,
    align: char,
    budget: &mut Budget,
) -> Outcome<String> {
    let align = spec.align.unwrap_or(align);
    if align == '=' && align != spec.align.unwrap_or('<') {
        return Err(wrong("format: = aligns numbers only"));
    }
    budget.read(text.len())?;
    let missing = spec.width.saturating_sub(sign.chars().count() + text.chars().count());
    let fill = spec.fill.unwrap_or(' ');
    budget.make(missing.saturating_mul(fill.len_utf8()).saturating_add(sign.len() + text.len()))?;
    let (before, within, after) = match align {
        '<' => (0, 0, missing),
        '^' => (missing / 2, 0, missing - missing / 2),
        '=' => (0, missing, 0),
        _ => (missing, 0, 0),
    };
    let mut out = String::new();
    out.extend(std::iter::repeat_n(fill, before));
    out.push_str(sign);
    out.extend(std::iter::repeat_n(fill, within));
    out.push_str(text);
    out.extend(std::iter::repeat_n(fill, after));
    Ok(out)
}

fn number_text(number: Number, spec: &Spec, budget: &mut Budget) -> Outcome<String> {
    let precision = spec.precision;
    if precision.is_some_and(|precision| precision > MAX_PRECISION) {
        return Err(wrong(format!("format: more than {MAX_PRECISION} digits after the point")));
    }
    // A float of many digits takes long to write.
    let whole = if matches!(number, Number::Float(_)) { 100 } else { 0 };
    budget.work(whole + precision.unwrap_or(0))?;
    let negative = match number {
        Number::Int(value) => value < 0,
        Number::Float(value) => value.is_sign_negative() && !value.is_nan(),
    };
    let kind = spec.kind;
    let digits = match (number, kind) {
        (Number::Int(value), None | Some('d' | 'n' | 'b' | 'o' | 'x' | 'X')) => {
            let (value, alternate) = (value.unsigned_abs(), spec.alternate);
            let text = match (kind, alternate) {
                (Some('b'), false) => format!("{value:b}"),
                (Some('b'), true) => format!("{value:#b}"),
                (Some('o'), false) => format!("{value:o}"),
                (Some('o'), true) => format!("{value:#o}"),
                (Some('x'), false) => format!("{value:x}"),
                (Some('x'), true) => format!("{value:#x}"),
                (Some('X'), false) => format!("{value:X}"),
                (Some('X'), true) => format!("{value:#X}").replace('x', "X"),
                _ => value.to_string(),
            };
            // printf pads integers to their precision by zeros.
            match precision {
                Some(precision) if kind.is_some() => format!("{text:0>precision$}"),
                Some(_) => return Err(wrong("format: an integer has no precision")),
                None => text,
            }
        }
        (Number::Int(value), Some('c')) => {
            let c = u32::try_from(value).ok().and_then(char::from_u32);
            let c = c.ok_or_else(|| wrong("format: no character has this number"))?;
            return padded("", c.encode_utf8(&mut [0; 4]), spec, '<', budget);
        }
        (number, kind) => float_text(number.as_f64().abs(), kind, precision, spec.alternate)?,
    };
    let digits = match spec.grouping {
        Some(separator) => grouped(&digits, separator),
        None => digits,
    };
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        _ => "",
    };
    padded(sign, &digits, spec, '>', budget)
}

fn float_text(
    value: f64,
    kind: Option<char>,
    precision: Option<usize>,
    alternate: bool,
) -> Outcome<String> {
    let upper = kind.is_some_and(char::is_uppercase);
    let cased = |text: String| if upper { text.to_uppercase() } else { text };
    if !value.is_finite() {
        let percent = if kind == Some('%') { "%" } else { "" };
        return Ok(cased(show::float(value)) + percent);
    }
    Ok(match kind.map(|kind| kind.to_ascii_lowercase()) {
        Some('f') => format!("{value:.*}", precision.unwrap_or(6)),
        Some('%') => format!("{:.*}%", precision.unwrap_or(6), value * 100.0),
        Some('e') => cased(with_exponent(value, precision.unwrap_or(6))),
        Some('g' | 'n') => cased(general(value, precision.unwrap_or(6), alternate, false)),
        None => match precision {
            None => show::float(value),
            Some(precision) => general(value, precision, alternate, true),
        },
        Some(other) => return Err(wrong(format!("format: a float is not written as {other}"))),
    })
}

/// `1.5e+02`
fn with_exponent(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, size) = exponent.strip_prefix('-').map_or(('+', exponent), |size| ('-', size));
    format!("{digits}e{sign}{size:0>2}")
}

/// The shorter of both ways at so many digits. `point`: with a digit after the point.
fn general(value: f64, precision: usize, alternate: bool, point: bool) -> String {
    let digits = precision.max(1);
    let text = with_exponent(value, digits - 1);
    let exponent: i64 =
        text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let most = digits as i64 - i64::from(point);
    let trimmed = |text: &str| {
        if alternate || !text.contains('.') {
            text.to_string()
        } else {
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        }
    };
    if (-4..most.max(i64::from(point))).contains(&exponent) {
        let text = trimmed(&format!("{value:.*}", (digits as i64 - 1 - exponent).max(0) as usize));
        if point && !text.contains('.') { text + ".0" } else { text }
    } else {
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
        format!("{}e{exponent}", trimmed(digits))
    }
}

/// With a separator between thousands.
fn grouped(digits: &str, separator: char) -> String {
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(end);
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(separator);
        }
        out.push(digit);
    }
    out + rest
}
