//! Values as text: as Python prints them, and as JSON.

use super::budget::Budget;
use super::compare;
use super::value::{Shape, Value};
use super::{Outcome, wrong};

/// Appends `value` as `{{ value }}` prints it.
pub fn display(value: &Value, out: &mut String, budget: &mut Budget) -> Outcome<()> {
    match value {
        Value::Undefined => Ok(()),
        Value::Str(text) | Value::Markup(text) => push(text, out, budget),
        other => repr(other, out, budget),
    }
}

fn push(text: &str, out: &mut String, budget: &mut Budget) -> Outcome<()> {
    budget.make(text.len())?;
    out.push_str(text);
    Ok(())
}

/// A value as Python's `repr` or `ascii` gives it.
pub fn repr_of(value: &Value, ascii: bool, budget: &mut Budget) -> Outcome<String> {
    let mut text = String::new();
    repr(value, &mut text, budget)?;
    if !ascii {
        return Ok(text);
    }
    budget.make(10 * text.len())?;
    let mut out = String::new();
    for c in text.chars() {
        match c as u32 {
            ..0x80 => out.push(c),
            code @ ..0x100 => escape('x', code, 2, &mut out),
            code @ ..0x10000 => escape('u', code, 4, &mut out),
            code => escape('U', code, 8, &mut out),
        }
    }
    Ok(out)
}

/// Writes a value as Python's `repr` does, as an element of a printed list. Recursion ends because
/// containers have a limited depth and every visit takes from the budget.
fn repr(value: &Value, out: &mut String, budget: &mut Budget) -> Outcome<()> {
    match value {
        Value::Undefined => push("Undefined", out, budget),
        Value::None => push("None", out, budget),
        Value::Bool(true) => push("True", out, budget),
        Value::Bool(false) => push("False", out, budget),
        Value::Int(number) => push(&number.to_string(), out, budget),
        Value::Float(number) => push(&float(*number), out, budget),
        Value::Str(text) => quote(text, out, budget),
        Value::Markup(text) => {
            push("Markup(", out, budget)?;
            quote(text, out, budget)?;
            push(")", out, budget)
        }
        Value::List(list) => match list.shape {
            Shape::List => separated(&list.items, "[", "]", ", ", out, budget, repr),
            Shape::Tuple => {
                let close = if list.items.len() == 1 { ",)" } else { ")" };
                separated(&list.items, "(", close, ", ", out, budget, repr)
            }
            Shape::View(name) => {
                push(name, out, budget)?;
                separated(&list.items, "([", "])", ", ", out, budget, repr)
            }
        },
        Value::Dict(dict) => {
            separated(&dict.entries, "{", "}", ", ", out, budget, |(key, value), out, budget| {
                repr(key, out, budget)?;
                push(": ", out, budget)?;
                repr(value, out, budget)
            })
        }
        other => Err(wrong(format!("a {} has no text", other.kind()))),
    }
}

fn separated<T>(
    items: &[T],
    open: &str,
    close: &str,
    separator: &str,
    out: &mut String,
    budget: &mut Budget,
    mut show: impl FnMut(&T, &mut String, &mut Budget) -> Outcome<()>,
) -> Outcome<()> {
    push(open, out, budget)?;
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            push(separator, out, budget)?;
        }
        show(item, out, budget)?;
    }
    push(close, out, budget)
}

/// Python's shortest form: a point always, an exponent where it is long.
pub fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".into() } else { "-inf".into() };
    }
    if number != 0.0 && !(1e-4..1e16).contains(&number.abs()) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, size) = exponent.strip_prefix('-').map_or(('+', exponent), |size| ('-', size));
        return format!("{digits}e{sign}{size:0>2}");
    }
    if number.fract() == 0.0 { format!("{number:.1}") } else { number.to_string() }
}

fn quote(text: &str, out: &mut String, budget: &mut Budget) -> Outcome<()> {
    budget.make(4 * text.len())?;
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if is_unprintable(c) => match c as u32 {
                code @ ..0x100 => escape('x', code, 2, out),
                code @ ..0x10000 => escape('u', code, 4, out),
                code => escape('U', code, 8, out),
            },
            c => out.push(c),
        }
    }
    out.push(quote);
    Ok(())
}

/// `\x1f` and its longer forms.
fn escape(letter: char, code: u32, digits: u32, out: &mut String) {
    out.extend(['\\', letter]);
    out.extend((0..digits).rev().filter_map(|at| char::from_digit(code >> (4 * at) & 15, 16)));
}

/// What Python writes as an escape: control and format characters, white space but the plain space,
/// characters for private use.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..)
}

/// How JSON is laid out: on one line, or with `indent` once per level.
#[derive(Clone, Copy)]
pub struct Layout<'l> {
    pub indent: Option<&'l str>,
    /// Between elements, and after a key.
    pub separators: &'l [std::rc::Rc<str>; 2],
    /// Whether other characters than ASCII are escaped.
    pub ascii: bool,
    /// Whether entries come in the order of their keys.
    pub sorted: bool,
}

/// Appends `value` as Python's `json.dumps(value, ensure_ascii=False, indent=...)` writes it.
pub fn json(
    value: &Value,
    layout: Layout,
    level: usize,
    out: &mut String,
    budget: &mut Budget,
) -> Outcome<()> {
    match value {
        Value::None => push("null", out, budget),
        Value::Bool(true) => push("true", out, budget),
        Value::Bool(false) => push("false", out, budget),
        Value::Int(number) => push(&number.to_string(), out, budget),
        Value::Float(number) if number.is_finite() => push(&float(*number), out, budget),
        Value::Float(number) => {
            let text = if number.is_nan() {
                "NaN"
            } else if *number > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            };
            push(text, out, budget)
        }
        Value::Str(text) | Value::Markup(text) => json_string(text, layout.ascii, out, budget),
        Value::List(list) if matches!(list.shape, Shape::View(_)) => {
            Err(wrong(format!("a {} cannot be written as JSON", value.kind())))
        }
        Value::List(list) if list.items.is_empty() => push("[]", out, budget),
        Value::Dict(dict) if dict.entries.is_empty() => push("{}", out, budget),
        Value::List(list) => {
            let [open, between, close] = breaks(layout, level, "[", "]", budget)?;
            separated(&list.items, &open, &close, &between, out, budget, |item, out, budget| {
                json(item, layout, level + 1, out, budget)
            })
        }
        Value::Dict(dict) => {
            let [open, between, close] = breaks(layout, level, "{", "}", budget)?;
            let mut entries: Vec<_> = dict.entries.iter().collect();
            if layout.sorted {
                let keys: Vec<Value> = entries.iter().map(|(key, _)| key.clone()).collect();
                let order = compare::sorted(&keys, false, budget)?;
                entries = order.into_iter().map(|at| entries[at]).collect();
            }
            separated(&entries, &open, &close, &between, out, budget, |entry, out, budget| {
                let (key, value) = *entry;
                let mut text = String::new();
                match key {
                    Value::Str(key) => text.push_str(key),
                    key => json(key, layout, 0, &mut text, budget)?,
                }
                json_string(&text, layout.ascii, out, budget)?;
                push(&layout.separators[1], out, budget)?;
                json(value, layout, level + 1, out, budget)
            })
        }
        other => Err(wrong(format!("a {} cannot be written as JSON", other.kind()))),
    }
}

fn breaks(
    layout: Layout,
    level: usize,
    open: &str,
    close: &str,
    budget: &mut Budget,
) -> Outcome<[String; 3]> {
    let between = &layout.separators[0];
    let Some(indent) = layout.indent else {
        return Ok([open.to_string(), between.to_string(), close.to_string()]);
    };
    budget.make(indent.len().saturating_mul(3 * level + 4).saturating_add(between.len()))?;
    let line = |level: usize| format!("\n{}", indent.repeat(level));
    Ok([
        format!("{open}{}", line(level + 1)),
        format!("{between}{}", line(level + 1)),
        format!("{}{close}", line(level)),
    ])
}

fn json_string(text: &str, ascii: bool, out: &mut String, budget: &mut Budget) -> Outcome<()> {
    // At worst every byte becomes six.
    budget.make(if ascii { 6 * text.len() } else { text.len() + text.len() / 4 })?;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 => escape('u', c as u32, 4, out),
            c if ascii && !c.is_ascii() => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    escape('u', u32::from(*unit), 4, out);
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn floats_as_python_prints_them() {
        let cases = [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e16, "1e+16"),
            (1.5e-7, "1.5e-07"),
            (123456789.25, "123456789.25"),
            (-0.0, "-0.0"),
            (1e300, "1e+300"),
        ];
        for (number, text) in cases {
            assert_eq!(super::float(number), text);
        }
    }
}
