//! Tokens to a tree, by Jinja's grammar and precedence.

use super::ast::{Arguments, Comparison, Expr, Name, Operator, Post, Target, Template};
use super::budget::MAX_DEPTH;
use super::lexer::{self, Token};
use super::value::Value;
use super::{MAX_SOURCE_BYTES, Outcome, too_much, wrong};
use std::collections::HashMap;
use std::rc::Rc;

pub fn parse(source: &str) -> Outcome<Template> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(too_much(format!("{} bytes long, more than {MAX_SOURCE_BYTES}", source.len())));
    }
    let mut parser = Parser {
        tokens: lexer::tokens(source)?,
        at: 0,
        depth: 0,
        extra: [None; 2],
        names: Vec::new(),
        known: HashMap::new(),
    };
    let body = parser.body(&[]).map_err(|fault| fault.at(parser.line()))?;
    Ok(Template { body, names: parser.names })
}

pub struct Parser {
    tokens: Vec<(u32, Token)>,
    at: usize,
    depth: u32,
    /// Whether `varargs` and `kwargs` were read since the innermost macro began.
    pub extra: [Option<Name>; 2],
    names: Vec<Rc<str>>,
    known: HashMap<String, Name>,
}

/// Tokens, and what all rules need.
impl Parser {
    pub fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |(line, _)| *line)
    }

    pub fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    pub fn next(&mut self) -> Option<Token> {
        // A token is read once, so it can be moved out.
        let token = self
            .tokens
            .get_mut(self.at)
            .map(|(_, token)| std::mem::replace(token, Token::BlockEnd));
        self.at += 1;
        token
    }

    pub fn is(&self, operator: &str) -> bool {
        matches!(self.peek(), Some(Token::Operator(o)) if *o == operator)
    }

    pub fn take(&mut self, operator: &str) -> bool {
        let found = self.is(operator);
        self.at += usize::from(found);
        found
    }

    pub fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(name)) if name == word)
    }

    pub fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    pub fn unexpected<T>(&self, wanted: &str) -> Outcome<T> {
        Err(wrong(match self.peek() {
            None => format!("the template ends where {wanted} should be"),
            Some(Token::Text(_)) => format!("text where {wanted} should be"),
            Some(Token::BlockStart | Token::BlockEnd | Token::PrintStart | Token::PrintEnd) => {
                format!("a tag ends or starts where {wanted} should be")
            }
            Some(Token::Name(name)) => {
                format!("{:?} where {wanted} should be", name.chars().take(40).collect::<String>())
            }
            Some(Token::Operator(operator)) => format!("{operator:?} where {wanted} should be"),
            Some(Token::Str(_) | Token::Int(_) | Token::Float(_)) => {
                format!("a constant where {wanted} should be")
            }
        }))
    }

    pub fn expect(&mut self, operator: &str) -> Outcome<()> {
        if self.take(operator) { Ok(()) } else { self.unexpected(operator) }
    }

    pub fn word(&mut self, wanted: &str) -> Outcome<String> {
        match self.peek() {
            Some(Token::Name(_)) => match self.next() {
                Some(Token::Name(name)) => Ok(name),
                _ => self.unexpected(wanted),
            },
            _ => self.unexpected(wanted),
        }
    }

    pub fn intern(&mut self, name: String) -> Name {
        let next = self.names.len() as Name;
        let names = &mut self.names;
        *self.known.entry(name).or_insert_with_key(|name| {
            names.push(name.as_str().into());
            next
        })
    }

    /// Runs `rule` one level deeper in the source.
    pub fn nested<T>(&mut self, rule: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.depth == MAX_DEPTH {
            return Err(too_much(format!("nested deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        let result = rule(self);
        self.depth -= 1;
        result
    }
}

/// Expressions, from the loosest binding to the tightest.
impl Parser {
    /// `a, b` is a tuple, as is `a,`.
    pub fn tuple(&mut self) -> Outcome<Expr> {
        let first = self.expression()?;
        if !self.is(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.take(",") {
            if matches!(self.peek(), None | Some(Token::BlockEnd | Token::PrintEnd)) || self.is(")")
            {
                break;
            }
            items.push(self.expression()?);
        }
        Ok(Expr::Tuple(items))
    }

    pub fn expression(&mut self) -> Outcome<Expr> {
        self.nested(|p| {
            let value = p.or()?;
            if !p.take_word("if") {
                return Ok(value);
            }
            let test = p.or()?;
            let otherwise =
                if p.take_word("else") { Some(Box::new(p.expression()?)) } else { None };
            Ok(Expr::Condition(Box::new([test, value]), otherwise))
        })
    }

    /// An expression without a condition, as `for` has it.
    pub fn or(&mut self) -> Outcome<Expr> {
        let mut parts = vec![self.and()?];
        while self.take_word("or") {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Or(parts) })
    }

    fn and(&mut self) -> Outcome<Expr> {
        let mut parts = vec![self.not()?];
        while self.take_word("and") {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::And(parts) })
    }

    fn not(&mut self) -> Outcome<Expr> {
        if self.take_word("not") {
            return self.nested(|p| Ok(Expr::Not(Box::new(p.not()?))));
        }
        let first = self.sum()?;
        let mut rest = Vec::new();
        while let Some(comparison) = self.comparison() {
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let symbols = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<", Comparison::Less),
            ("<=", Comparison::LessEqual),
            (">", Comparison::Greater),
            (">=", Comparison::GreaterEqual),
        ];
        if let Some((_, found)) = symbols.into_iter().find(|(symbol, _)| self.take(symbol)) {
            return Some(found);
        }
        if self.take_word("in") {
            return Some(Comparison::In);
        }
        let not_in = self.is_word("not")
            && matches!(self.tokens.get(self.at + 1), Some((_, Token::Name(name))) if name == "in");
        self.at += 2 * usize::from(not_in);
        not_in.then_some(Comparison::NotIn)
    }

    fn chain(
        &mut self,
        operators: &[(&str, Operator)],
        tighter: fn(&mut Self) -> Outcome<Expr>,
    ) -> Outcome<Expr> {
        let first = tighter(self)?;
        let mut rest = Vec::new();
        while let Some(&(_, operator)) = operators.iter().find(|(symbol, _)| self.take(symbol)) {
            rest.push((operator, tighter(self)?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Chain(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Outcome<Expr> {
        self.chain(&[("+", Operator::Add), ("-", Operator::Subtract)], Self::concat)
    }

    fn concat(&mut self) -> Outcome<Expr> {
        self.chain(&[("~", Operator::Concat)], Self::product)
    }

    fn product(&mut self) -> Outcome<Expr> {
        let operators = [
            ("*", Operator::Multiply),
            ("//", Operator::FloorDivide),
            ("/", Operator::Divide),
            ("%", Operator::Remainder),
        ];
        self.chain(&operators, Self::power)
    }

    fn power(&mut self) -> Outcome<Expr> {
        self.chain(&[("**", Operator::Power)], |p| p.unary(true))
    }

    fn unary(&mut self, filters: bool) -> Outcome<Expr> {
        let base = if self.take("-") {
            Expr::Negate(Box::new(self.nested(|p| p.unary(false))?))
        } else if self.take("+") {
            self.nested(|p| p.unary(false))?
        } else {
            self.primary()?
        };
        let mut posts = Vec::new();
        while let Some(post) = self.post(filters)? {
            posts.push(post);
        }
        Ok(if posts.is_empty() { base } else { Expr::Postfix(Box::new(base), posts) })
    }

    fn primary(&mut self) -> Outcome<Expr> {
        match self.peek() {
            Some(Token::Name(_) | Token::Str(_) | Token::Int(_) | Token::Float(_)) => {}
            Some(Token::Operator("(")) => return self.parenthesis(),
            Some(Token::Operator("[")) => return self.list(),
            Some(Token::Operator("{")) => return self.dict(),
            _ => return self.unexpected("a value"),
        }
        Ok(match self.next() {
            Some(Token::Int(value)) => Expr::Const(Value::Int(value)),
            Some(Token::Float(value)) => Expr::Const(Value::Float(value)),
            Some(Token::Str(mut text)) => {
                // Strings side by side are one.
                while let Some(Token::Str(more)) = self.peek() {
                    text.push_str(more);
                    self.at += 1;
                }
                Expr::Const(Value::str(&text))
            }
            Some(Token::Name(name)) => match name.as_str() {
                "true" | "True" => Expr::Const(Value::Bool(true)),
                "false" | "False" => Expr::Const(Value::Bool(false)),
                "none" | "None" => Expr::Const(Value::None),
                _ => {
                    let extra = ["varargs", "kwargs"].iter().position(|extra| *extra == name);
                    let name = self.intern(name);
                    if let Some(extra) = extra {
                        self.extra[extra] = Some(name);
                    }
                    Expr::Name(name)
                }
            },
            _ => return self.unexpected("a value"),
        })
    }

    fn parenthesis(&mut self) -> Outcome<Expr> {
        self.at += 1;
        if self.take(")") {
            return Ok(Expr::Tuple(Vec::new()));
        }
        let inner = self.tuple()?;
        self.expect(")")?;
        Ok(inner)
    }

    fn list(&mut self) -> Outcome<Expr> {
        self.at += 1;
        let mut items = Vec::new();
        while !self.take("]") {
            items.push(self.expression()?);
            if !self.take(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(Expr::List(items))
    }

    fn dict(&mut self) -> Outcome<Expr> {
        self.at += 1;
        let mut entries = Vec::new();
        while !self.take("}") {
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr::Dict(entries))
    }
}

/// What follows a value.
impl Parser {
    fn post(&mut self, filters: bool) -> Outcome<Option<Post>> {
        if self.take(".") {
            return Ok(Some(match self.peek() {
                Some(&Token::Int(index)) => {
                    self.at += 1;
                    Post::Item(Expr::Const(Value::Int(index)))
                }
                _ => Post::Attribute(self.word("an attribute")?.into()),
            }));
        }
        if self.take("[") {
            return self.subscript().map(Some);
        }
        if self.is("(") {
            return Ok(Some(Post::Call(self.arguments()?)));
        }
        if filters && self.take("|") {
            return self.filter().map(Some);
        }
        if filters && self.take_word("is") {
            return self.test().map(Some);
        }
        Ok(None)
    }

    fn subscript(&mut self) -> Outcome<Post> {
        let mut parts = [None, None, None];
        let mut colons = 0;
        loop {
            if self.is(":") && colons < 2 {
                self.at += 1;
                colons += 1;
            } else if self.take("]") {
                break;
            } else if parts[colons].is_none() {
                parts[colons] = Some(Box::new(self.expression()?));
            } else {
                return self.unexpected("]");
            }
        }
        match parts {
            [Some(item), None, None] if colons == 0 => Ok(Post::Item(*item)),
            _ if colons == 0 => self.unexpected("an index"),
            parts => Ok(Post::Slice(parts)),
        }
    }

    pub fn filter(&mut self) -> Outcome<Post> {
        let name = self.word("a filter")?.into();
        let arguments = if self.is("(") { self.arguments()? } else { Arguments::default() };
        Ok(Post::Filter(name, arguments))
    }

    fn test(&mut self) -> Outcome<Post> {
        let negated = self.take_word("not");
        let name: Rc<str> = self.word("a test")?.into();
        let starts_value = match self.peek() {
            Some(Token::Name(word)) => !matches!(
                word.as_str(),
                "else" | "or" | "and" | "is" | "if" | "in" | "not" | "recursive"
            ),
            Some(Token::Str(_) | Token::Int(_) | Token::Float(_) | Token::Operator("[" | "{")) => {
                true
            }
            _ => false,
        };
        let arguments = if self.is("(") {
            self.arguments()?
        } else if starts_value {
            let positional = vec![self.nested(|p| p.unary(false))?];
            Arguments { positional, ..Arguments::default() }
        } else {
            Arguments::default()
        };
        Ok(Post::Test { name, negated, arguments })
    }

    pub fn arguments(&mut self) -> Outcome<Arguments> {
        self.expect("(")?;
        let mut arguments = Arguments::default();
        while !self.take(")") {
            if arguments.stars.is_none() && self.take("**") {
                arguments.stars = Some(Box::new(self.expression()?));
                if !self.take(",") {
                    self.expect(")")?;
                    break;
                }
                continue;
            }
            if arguments.star.is_none() && arguments.stars.is_none() && self.take("*") {
                arguments.star = Some(Box::new(self.expression()?));
                if !self.take(",") {
                    self.expect(")")?;
                    break;
                }
                continue;
            }
            let named = matches!(self.peek(), Some(Token::Name(_)))
                && matches!(self.tokens.get(self.at + 1), Some((_, Token::Operator("="))));
            if named {
                let name = self.word("a name")?;
                self.at += 1;
                arguments.named.push((name.into(), self.expression()?));
            } else if arguments.named.is_empty()
                && arguments.star.is_none()
                && arguments.stars.is_none()
            {
                arguments.positional.push(self.expression()?);
            } else {
                return self.unexpected("a named argument");
            }
            if !self.take(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(arguments)
    }

    pub fn target(&mut self) -> Outcome<Target> {
        let mut targets = vec![self.one_target()?];
        let mut tuple = false;
        while self.take(",") {
            tuple = true;
            if self.is("=") || self.is_word("in") {
                break;
            }
            targets.push(self.one_target()?);
        }
        Ok(if tuple { Target::Tuple(targets) } else { targets.remove(0) })
    }

    fn one_target(&mut self) -> Outcome<Target> {
        if self.take("(") {
            let inner = self.nested(|p| p.target())?;
            self.expect(")")?;
            return Ok(inner);
        }
        let name = self.word("a variable")?;
        if matches!(name.as_str(), "true" | "false" | "none" | "True" | "False" | "None") {
            return Err(wrong(format!("{name} cannot be set")));
        }
        let name = self.intern(name);
        Ok(if self.take(".") {
            Target::Attribute(name, self.word("an attribute")?.into())
        } else {
            Target::Name(name)
        })
    }
}
