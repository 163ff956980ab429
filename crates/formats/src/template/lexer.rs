//! Template source to tokens, with Jinja's rules for white space around tags (`trim_blocks` and
//! `lstrip_blocks` on).

use super::{Outcome, wrong};

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// Text outside of tags.
    Text(String),
    BlockStart,
    BlockEnd,
    PrintStart,
    PrintEnd,
    Name(String),
    Str(String),
    Int(i64),
    Float(f64),
    Operator(&'static str),
}

/// Longest first.
const OPERATORS: [&str; 28] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    "=", ">", "<", ".", ":", "|", ",", ";", "!", "&",
];

pub struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: u32,
    tokens: Vec<(u32, Token)>,
    /// What came last ended a line, so that white space before a tag is the start of one.
    line_starts: bool,
}

/// All tokens with their lines.
pub fn tokens(source: &str) -> Outcome<Vec<(u32, Token)>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    // Jinja drops one line break at the end of a template.
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, line: 1, tokens: Vec::new(), line_starts: true };
    while lexer.at < source.len() {
        let line = lexer.line;
        lexer.step().map_err(|fault| fault.at(line))?;
    }
    Ok(lexer.tokens)
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn advance(&mut self, bytes: usize) {
        let passed = &self.source.as_bytes()[self.at..self.at + bytes];
        self.line += passed.iter().filter(|&&b| b == b'\n').count() as u32;
        self.line_starts = passed.last() == Some(&b'\n');
        self.at += bytes;
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((self.line, token));
    }

    fn skip_space(&mut self) {
        self.advance(self.rest().len() - self.rest().trim_start().len());
    }

    /// Text up to a tag, and the tag.
    fn step(&mut self) -> Outcome<()> {
        let rest = self.rest();
        let Some(start) = (0..rest.len()).find(|&i| {
            rest.as_bytes()[i] == b'{'
                && matches!(rest.as_bytes().get(i + 1), Some(b'{' | b'%' | b'#'))
        }) else {
            self.text(rest);
            self.advance(rest.len());
            return Ok(());
        };
        let (kind, sign) = (
            rest.as_bytes()[start + 1],
            rest.as_bytes().get(start + 2).copied().filter(|b| matches!(b, b'-' | b'+')),
        );
        self.text_before(&rest[..start], kind, sign);
        self.advance(start);
        match kind {
            b'#' => self.comment(),
            b'%' => self.block(sign),
            _ => {
                // There is no `{{+`: the sign belongs to the expression.
                self.push(Token::PrintStart);
                self.advance(2 + usize::from(sign == Some(b'-')));
                self.tag("}}", Token::PrintEnd)
            }
        }
    }

    fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(Token::Text(text.to_string()));
        }
    }

    fn text_before(&mut self, text: &str, kind: u8, sign: Option<u8>) {
        let kept = match sign {
            Some(b'-') => text.trim_end(),
            Some(_) if kind != b'{' => text,
            _ if kind == b'{' => text,
            _ => {
                let line = text.rfind('\n').map_or(0, |i| i + 1);
                let at_start = line > 0 || self.line_starts;
                if at_start && text[line..].chars().all(char::is_whitespace) {
                    &text[..line]
                } else {
                    text
                }
            }
        };
        self.text(kept);
    }

    fn comment(&mut self) -> Outcome<()> {
        let end =
            2 + self.rest()[2..].find("#}").ok_or_else(|| wrong("a comment is not closed"))?;
        let sign = self.rest().as_bytes()[end - 1];
        self.advance(end + 2);
        self.after_block(Some(sign));
        Ok(())
    }

    /// White space after a block or comment that ended with `sign`.
    fn after_block(&mut self, sign: Option<u8>) {
        match sign {
            Some(b'-') => self.skip_space(),
            Some(b'+') => {}
            _ if self.rest().starts_with('\n') => self.advance(1),
            _ => {}
        }
    }

    fn block(&mut self, sign: Option<u8>) -> Outcome<()> {
        if let Some(open) = block_tag(self.rest(), "raw") {
            return self.raw(open);
        }
        self.push(Token::BlockStart);
        self.advance(2 + usize::from(sign.is_some()));
        self.tag("%}", Token::BlockEnd)
    }

    /// `{% raw %}`, of `open` bytes, to the end of `{% endraw %}`.
    fn raw(&mut self, open: usize) -> Outcome<()> {
        self.advance(open);
        let rest = self.rest();
        let ends = rest.match_indices("{%").map(|(at, _)| at);
        let found =
            ends.filter_map(|at| block_tag(&rest[at..], "endraw").map(|len| (at, at + len))).next();
        let (body, close) = found.ok_or_else(|| wrong("a raw block is not closed"))?;
        let trimmed = if self.source[..self.at].ends_with("-%}") {
            rest[..body].trim_start()
        } else {
            &rest[..body]
        };
        self.text_before(
            trimmed,
            b'%',
            Some(rest.as_bytes()[body + 2]).filter(|b| matches!(b, b'-' | b'+')),
        );
        self.advance(close);
        self.after_block(Some(rest.as_bytes()[close - 3]));
        Ok(())
    }

    /// The inside of a tag, to its end.
    fn tag(&mut self, end: &str, end_token: Token) -> Outcome<()> {
        let mut open = Vec::new();
        loop {
            self.skip_space();
            let rest = self.rest();
            if open.is_empty() {
                let sign = rest
                    .as_bytes()
                    .first()
                    .copied()
                    .filter(|b| *b == b'-' || (*b == b'+' && end == "%}"));
                if rest[usize::from(sign.is_some())..].starts_with(end) {
                    self.push(end_token);
                    self.advance(2 + usize::from(sign.is_some()));
                    if end == "%}" {
                        self.after_block(sign);
                    } else if sign.is_some() {
                        self.skip_space();
                    }
                    return Ok(());
                }
            }
            let Some(first) = rest.chars().next() else {
                return Err(wrong(format!("a tag is not closed by {end}")));
            };
            match first {
                '"' | '\'' => self.string(first)?,
                '0'..='9' => self.number()?,
                c if c == '_' || c.is_alphabetic() => {
                    let len =
                        rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
                    self.push(Token::Name(rest[..len].to_string()));
                    self.advance(len);
                }
                _ => self.operator(&mut open)?,
            }
        }
    }

    fn operator(&mut self, open: &mut Vec<&'static str>) -> Outcome<()> {
        let Some(operator) = OPERATORS.into_iter().find(|o| self.rest().starts_with(o)) else {
            return Err(wrong(format!(
                "unexpected character {:?}",
                self.rest().chars().next().unwrap_or(' ')
            )));
        };
        match operator {
            "(" => open.push(")"),
            "[" => open.push("]"),
            "{" => open.push("}"),
            ")" | "]" | "}" if open.pop() != Some(operator) => {
                return Err(wrong(format!("unexpected {operator:?}")));
            }
            _ => {}
        }
        self.push(Token::Operator(operator));
        self.advance(operator.len());
        Ok(())
    }

    fn number(&mut self) -> Outcome<()> {
        let rest = self.rest();
        let digits =
            |text: &str| text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        let mut len = digits(rest);
        let mut float = false;
        let after_dot = matches!(self.tokens.last(), Some((_, Token::Operator("."))));
        if !after_dot
            && rest[len..].starts_with('.')
            && rest.as_bytes().get(len + 1).is_some_and(u8::is_ascii_digit)
        {
            len += 1 + digits(&rest[len + 1..]);
            float = true;
        }
        if let Some(exponent) = rest[len..].strip_prefix(['e', 'E']) {
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let count = digits(&exponent[sign..]);
            if count > 0 {
                len += 1 + sign + count;
                float = true;
            }
        }
        let text = rest[..len].replace('_', "");
        let bad = || wrong(format!("number {text} is too large"));
        self.push(if float {
            Token::Float(text.parse().map_err(|_| bad())?)
        } else {
            Token::Int(text.parse().map_err(|_| bad())?)
        });
        self.advance(len);
        Ok(())
    }

    fn string(&mut self, quote: char) -> Outcome<()> {
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.push(Token::Str(text));
                    self.advance(at + 1);
                    return Ok(());
                }
                '\\' => {
                    let Some((_, escape)) = chars.next() else { break };
                    unescape(escape, &mut chars, &mut text)?;
                }
                c => text.push(c),
            }
        }
        Err(wrong("a string is not closed"))
    }
}

/// Python's escapes; an unknown one stays as it is.
fn unescape(
    escape: char,
    chars: &mut impl Iterator<Item = (usize, char)>,
    text: &mut String,
) -> Outcome<()> {
    let mut hex = |digits: usize| -> Outcome<char> {
        let code =
            (0..digits).try_fold(0u32, |code, _| Some(code << 4 | chars.next()?.1.to_digit(16)?));
        code.and_then(char::from_u32).ok_or_else(|| wrong("a string has a broken escape"))
    };
    match escape {
        'n' => text.push('\n'),
        't' => text.push('\t'),
        'r' => text.push('\r'),
        'b' => text.push('\u{8}'),
        'f' => text.push('\u{c}'),
        'v' => text.push('\u{b}'),
        'a' => text.push('\u{7}'),
        '0' => text.push('\0'),
        '\\' | '\'' | '"' => text.push(escape),
        '\n' => {}
        'x' => text.push(hex(2)?),
        'u' => text.push(hex(4)?),
        'U' => text.push(hex(8)?),
        other => text.extend(['\\', other]),
    }
    Ok(())
}

/// Length of the tag `{% name %}` that `rest` starts with.
fn block_tag(rest: &str, name: &str) -> Option<usize> {
    let sign = ['-', '+'];
    let inner = rest.strip_prefix("{%")?;
    let inner =
        inner.strip_prefix(sign).unwrap_or(inner).trim_start().strip_prefix(name)?.trim_start();
    let after = inner.strip_prefix(sign).unwrap_or(inner).strip_prefix("%}")?;
    Some(rest.len() - after.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str) -> String {
        tokens(source)
            .expect("tokens")
            .into_iter()
            .filter_map(|(_, t)| if let Token::Text(t) = t { Some(t) } else { None })
            .collect::<Vec<_>>()
            .join("|")
    }

    #[test]
    fn white_space_around_tags() {
        assert_eq!(text("a\n  {% x %}\n b"), "a\n| b");
        assert_eq!(text("a  {% x %}\n b"), "a  | b");
        assert_eq!(text("a\n  {%+ x +%}\n b"), "a\n  |\n b");
        assert_eq!(text("a\n  {%- x -%}\n\n b"), "a|b");
        assert_eq!(text("a {{- x -}} b {{ y }} c"), "a|b | c");
        assert_eq!(text("  {# c #}\n  {% x %}\nb\n"), "b");
        assert_eq!(text("{% raw %} {{ x }} {% endraw %}\nb"), " {{ x }} |b");
    }

    #[test]
    fn inside_of_a_tag() {
        let inner = |source: &str| {
            tokens(source).expect("tokens").into_iter().map(|(_, t)| t).collect::<Vec<_>>()
        };
        let float = [
            Token::PrintStart,
            Token::Float(1.5),
            Token::Operator("-"),
            Token::Str("a\n}}\u{e9}".into()),
            Token::PrintEnd,
        ];
        assert_eq!(inner(r#"{{ 1.5 -'a\n}}\xe9' -}}"#), float);
        let brackets = [
            Token::PrintStart,
            Token::Operator("{"),
            Token::Operator("{"),
            Token::Operator("}"),
            Token::Operator("}"),
            Token::PrintEnd,
        ];
        assert_eq!(inner("{{{{}}}}"), brackets);
        for bad in [
            "{{ x",
            "{% if",
            "{# x",
            "{{ 'x }}",
            "{{ ) }}",
            "{{ ? }}",
            "{{ 99999999999999999999 }}",
            r"{{ '\xg0' }}",
            r"{{ '\U00110000' }}",
        ] {
            assert!(tokens(bad).is_err(), "{bad}");
        }
    }
}
