//! String functions, as Python has them. The caller has paid for reading `text`.

use super::budget::Budget;
use super::value::Value;
use super::{Outcome, wrong};

/// White space for Python, which counts four separators of ASCII too.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Without the characters of `set` (white space if there is none) at the chosen ends.
pub fn strip<'t>(text: &'t str, set: Option<&str>, left: bool, right: bool) -> &'t str {
    let gone = |c: char| set.map_or(is_space(c), |set| set.contains(c));
    let text = if left { text.trim_start_matches(gone) } else { text };
    if right { text.trim_end_matches(gone) } else { text }
}

/// Splits at `separator` (at runs of white space if there is none), at most `most` times,
/// optionally from the right.
pub fn split(
    text: &str,
    separator: Option<&str>,
    most: Option<usize>,
    from_right: bool,
    budget: &mut Budget,
) -> Outcome<Value> {
    budget.read(text.len())?;
    let parts = most.unwrap_or(usize::MAX).saturating_add(1);
    match (separator, from_right) {
        (Some(""), _) => Err(wrong("an empty separator")),
        (Some(separator), false) => strings(text.splitn(parts, separator), false, budget),
        (Some(separator), true) => strings(text.rsplitn(parts, separator), true, budget),
        (None, false) => strings(words(text, parts), false, budget),
        (None, true) => strings(words_from_right(text, parts), true, budget),
    }
}

fn words(text: &str, parts: usize) -> impl Iterator<Item = &str> {
    let (mut rest, mut count) = (text.trim_start_matches(is_space), 0);
    std::iter::from_fn(move || {
        count += 1;
        let end =
            if count == parts { rest.len() } else { rest.find(is_space).unwrap_or(rest.len()) };
        let (word, after) = rest.split_at(end);
        rest = after.trim_start_matches(is_space);
        (!word.is_empty()).then_some(word)
    })
}

fn words_from_right(text: &str, parts: usize) -> impl Iterator<Item = &str> {
    let (mut rest, mut count) = (text.trim_end_matches(is_space), 0);
    std::iter::from_fn(move || {
        count += 1;
        let space = rest.char_indices().rev().find(|(_, c)| is_space(*c)).filter(|_| count < parts);
        let (before, word) = rest.split_at(space.map_or(0, |(at, c)| at + c.len_utf8()));
        rest = before.trim_end_matches(is_space);
        (!word.is_empty()).then_some(word)
    })
}

/// Returns a list of strings, optionally reversed.
fn strings<'t>(
    parts: impl Iterator<Item = &'t str>,
    reversed: bool,
    budget: &mut Budget,
) -> Outcome<Value> {
    let mut items = Vec::new();
    for part in parts {
        budget.make_list(2)?;
        budget.make(part.len())?;
        items.push(Value::str(part));
    }
    if reversed {
        items.reverse();
    }
    Value::list(items)
}

/// The lines of a text, at all the characters that end a line for Python.
pub fn lines(text: &str, keep_ends: bool, budget: &mut Budget) -> Outcome<Value> {
    budget.read(text.len())?;
    let ends = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}')
            || matches!(c, '\u{2028}' | '\u{2029}')
    };
    let mut rest = text;
    let lines = std::iter::from_fn(|| {
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(ends).unwrap_or(rest.len());
        let len = if rest[end..].starts_with("\r\n") {
            2
        } else {
            rest[end..].chars().next().map_or(0, char::len_utf8)
        };
        let line = &rest[..if keep_ends { end + len } else { end }];
        rest = &rest[end + len..];
        Some(line)
    });
    strings(lines, false, budget)
}

/// `text` with `old` replaced by `new`, at most `most` times.
pub fn replace(
    text: &str,
    old: &str,
    new: &str,
    most: Option<usize>,
    budget: &mut Budget,
) -> Outcome<Value> {
    budget.read(text.len())?;
    let most = most.unwrap_or(usize::MAX);
    let count = text.matches(old).take(most).count();
    budget.make((text.len() + count.saturating_mul(new.len())).max(text.len()))?;
    Ok(Value::str(&text.replacen(old, new, most)))
}

pub fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(chars.as_str().to_lowercase().chars()).collect()
    })
}

/// Every run of letters with a capital one at its start.
pub fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_lowercase() || c.is_uppercase();
    }
    out
}

/// Jinja's filter `title`: only white space, brackets and hyphens begin a word.
pub fn words_with_capitals(text: &str) -> String {
    let begins = |c: char| is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = rest.find(|other| begins(other) != begins(c)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        if begins(c) {
            out.push_str(part);
        } else {
            out.extend(c.to_uppercase());
            out.push_str(&part[c.len_utf8()..].to_lowercase());
        }
        rest = after;
    }
    out
}

/// Capitals small and small letters capital.
pub fn swap_case(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_uppercase() {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
    }
    out
}

/// `center`, `ljust`, `rjust`: filled up to `width` characters.
pub fn justified(
    text: &str,
    how: &str,
    width: i64,
    fill: char,
    budget: &mut Budget,
) -> Outcome<String> {
    let len = text.chars().count();
    let width = usize::try_from(width).unwrap_or(0);
    let missing = width.saturating_sub(len);
    budget.make(missing.saturating_mul(fill.len_utf8()).saturating_add(text.len()))?;
    let left = match how {
        "ljust" => 0,
        "rjust" => missing,
        // Python puts the odd one to the left of a text of odd width.
        _ => missing / 2 + (missing & width & 1),
    };
    let fill = |count: usize| std::iter::repeat_n(fill, count);
    Ok(fill(left).chain(text.chars()).chain(fill(missing - left)).collect())
}

/// Zeros between the sign and the digits.
pub fn zero_filled(text: &str, width: i64, budget: &mut Budget) -> Outcome<String> {
    let sign = usize::from(text.starts_with(['+', '-']));
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(text.chars().count());
    budget.make(missing.saturating_add(text.len()))?;
    Ok(format!("{}{}{}", &text[..sign], "0".repeat(missing), &text[sign..]))
}

/// Spaces up to the next multiple of `size` for every tab.
pub fn tabs_expanded(text: &str, size: i64, budget: &mut Budget) -> Outcome<String> {
    let size = usize::try_from(size).unwrap_or(0);
    let tabs = text.matches('\t').count();
    budget.make(tabs.saturating_mul(size).saturating_add(text.len()))?;
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' => {
                let spaces = if size == 0 { 0 } else { size - column % size };
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            c => {
                out.push(c);
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(out)
}

/// Runs of letters, digits and underscores.
pub fn count_words(text: &str) -> usize {
    let mut inside = false;
    let starts = |c: char| {
        let before = std::mem::replace(&mut inside, c == '_' || c.is_alphanumeric());
        inside && !before
    };
    text.chars().map(starts).filter(|starts| *starts).count()
}

/// Every byte but letters, digits, `_.-~` and those of `safe` as `%20`.
pub fn url_encoded(text: &str, safe: &[u8], budget: &mut Budget) -> Outcome<String> {
    budget.make(3 * text.len())?;
    let mut out = String::new();
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) || safe.contains(&byte) {
            out.push(byte as char);
        } else {
            let digit = |half: u8| char::from(b"0123456789ABCDEF"[usize::from(half)]);
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    Ok(out)
}

/// At most `length` characters with `end`, cut between words if `whole`; a text that is longer by
/// `leeway` only stays.
pub fn truncated(
    text: &str,
    length: usize,
    whole: bool,
    end: &str,
    leeway: usize,
) -> Outcome<String> {
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.to_string());
    }
    let kept = length
        .checked_sub(end.chars().count())
        .ok_or_else(|| wrong("truncate to less than the end that it adds"))?;
    let at = text.char_indices().nth(kept).map_or(text.len(), |(at, _)| at);
    let mut part = &text[..at];
    if whole && let Some(space) = part.rfind(' ') {
        part = &part[..space];
    }
    Ok(format!("{part}{end}"))
}

/// Puts `prefix` before all lines but the first (and optionally before the first and before empty
/// ones).
pub fn indent(
    text: &str,
    prefix: &str,
    first: bool,
    blank: bool,
    budget: &mut Budget,
) -> Outcome<Value> {
    budget.read(text.len())?;
    let lines = text.matches('\n').count() + 1;
    budget.make(text.len().saturating_add(lines.saturating_mul(prefix.len())))?;
    let mut out = String::new();
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if (index > 0 || first) && (blank || !line.is_empty()) {
            out.push_str(prefix);
        }
        out.push_str(line);
    }
    Ok(Value::str(&out))
}

/// Returns the position of `part` in `text`, in characters.
pub fn find(text: &str, part: &str, last: bool) -> i64 {
    let at = if last { text.rfind(part) } else { text.find(part) };
    at.map_or(-1, |at| text[..at].chars().count() as i64)
}

/// The text before the first (or last) `separator`, it, and the text after.
pub fn parted<'t>(text: &'t str, separator: &'t str, last: bool) -> [&'t str; 3] {
    let cut = if last { text.rsplit_once(separator) } else { text.split_once(separator) };
    match cut {
        Some((before, after)) => [before, separator, after],
        None if last => ["", "", text],
        None => [text, "", ""],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(value: Value) -> Vec<String> {
        match value {
            Value::List(list) => {
                list.items.iter().map(|v| v.as_str().expect("a string").to_string()).collect()
            }
            _ => panic!("no list"),
        }
    }

    #[test]
    fn split_as_python_does() {
        let mut budget = Budget::new();
        let mut run = |text: &str, separator: Option<&str>, most: Option<usize>, right: bool| {
            parts(split(text, separator, most, right, &mut budget).expect("splits"))
        };
        assert_eq!(run(" a  b c ", None, None, false), ["a", "b", "c"]);
        assert_eq!(run(" a  b c ", None, Some(1), false), ["a", "b c "]);
        assert_eq!(run(" a  b c ", None, Some(1), true), [" a  b", "c"]);
        assert_eq!(run("a,b,,c", Some(","), None, false), ["a", "b", "", "c"]);
        assert_eq!(run("a,b,c", Some(","), Some(1), true), ["a,b", "c"]);
        assert_eq!(run("", Some(","), None, false), [""]);
        assert_eq!(run("", None, None, false), Vec::<String>::new());
        assert!(split("a", Some(""), None, false, &mut Budget::new()).is_err());
    }

    #[test]
    fn texts_are_cut_and_changed_as_by_python() {
        let mut budget = Budget::new();
        assert_eq!(title("half a step, it's 3rd"), "Half A Step, It'S 3Rd");
        assert_eq!(words_with_capitals(" half-a STEP, it's"), " Half-A Step, It's");
        assert_eq!(capitalize("éCOLE"), "École");
        assert_eq!(
            parts(lines("a\r\nb\n\nc", false, &mut budget).expect("lines")),
            ["a", "b", "", "c"]
        );
        assert_eq!(find("héllo", "l", false), 2);
        assert_eq!(find("héllo", "l", true), 3);
        assert_eq!(
            indent("a\n\nb", "  ", false, false, &mut budget).expect("indents").as_str(),
            Some("a\n\n  b")
        );
        assert_eq!(
            replace("aaa", "a", "b", Some(2), &mut budget).expect("replaces").as_str(),
            Some("bba")
        );
        assert!(
            replace(&"a".repeat(1 << 20), "", &"b".repeat(1 << 20), None, &mut budget)
                .is_err_and(|f| f.fuel)
        );
    }
}
