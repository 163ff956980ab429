//! The statements of a template, between `{%` and `%}`.

use super::ast::{Expr, Macro, Node, Post, Statement, Target};
use super::lexer::Token;
use super::parser::Parser;
use super::{Outcome, wrong};
use std::rc::Rc;

impl Parser {
    /// Statements up to a block that starts with one of `ends`, which is left to be read (its name
    /// is passed).
    pub fn body(&mut self, ends: &[&str]) -> Outcome<Vec<Node>> {
        let mut nodes = Vec::new();
        loop {
            let line = self.line();
            let statement = match self.peek() {
                None if ends.is_empty() => return Ok(nodes),
                None => return self.unexpected(&format!("{{% {} %}}", ends.join(" or "))),
                Some(Token::Text(_)) => match self.next() {
                    Some(Token::Text(text)) => Statement::Text(text),
                    _ => return self.unexpected("text"),
                },
                Some(Token::PrintStart) => {
                    self.next();
                    let value = self.tuple()?;
                    self.end(Token::PrintEnd)?;
                    Statement::Print(value)
                }
                Some(Token::BlockStart) => {
                    self.next();
                    if let Some(Token::Name(word)) = self.peek()
                        && ends.contains(&word.as_str())
                    {
                        return Ok(nodes);
                    }
                    match self.nested(|p| p.statement()).map_err(|fault| fault.at(line))? {
                        Some(statement) => statement,
                        None => continue,
                    }
                }
                _ => return self.unexpected("a tag"),
            };
            nodes.push(Node { line, statement });
        }
    }

    fn end(&mut self, token: Token) -> Outcome<()> {
        if self.peek() == Some(&token) {
            self.next();
            return Ok(());
        }
        self.unexpected("the end of the tag")
    }

    fn block_end(&mut self) -> Outcome<()> {
        self.end(Token::BlockEnd)
    }

    /// The body of a block and the tag that ends it.
    fn closed_by(&mut self, end: &str) -> Outcome<Vec<Node>> {
        self.block_end()?;
        let body = self.body(&[end])?;
        self.next();
        self.block_end()?;
        Ok(body)
    }

    fn statement(&mut self) -> Outcome<Option<Statement>> {
        let word = self.word("a statement")?;
        let statement = match word.as_str() {
            "for" => self.for_loop()?,
            "if" => self.condition()?,
            "set" => self.set()?,
            "with" => self.with()?,
            "macro" => {
                let name = self.word("a name")?;
                let name = self.intern(name);
                Statement::Macro(self.macro_from(name, "endmacro")?)
            }
            "call" => self.call()?,
            "filter" => {
                let filters = self.filters()?;
                Statement::Filter { filters, body: self.closed_by("endfilter")? }
            }
            // Marks the assistant's part, for training masks: the text is the same.
            "generation" => {
                Statement::With { assignments: Vec::new(), body: self.closed_by("endgeneration")? }
            }
            "do" => {
                let value = self.tuple()?;
                self.block_end()?;
                Statement::Do(value)
            }
            "break" | "continue" => {
                self.block_end()?;
                if word == "break" { Statement::Break } else { Statement::Continue }
            }
            other => {
                return Err(wrong(format!(
                    "statement {:?} is not supported",
                    other.chars().take(40).collect::<String>()
                )));
            }
        };
        Ok(Some(statement))
    }

    fn for_loop(&mut self) -> Outcome<Statement> {
        let target = self.target()?;
        if !self.take_word("in") {
            return self.unexpected("in");
        }
        let mut iter = self.or()?;
        if self.take(",") {
            let mut items = vec![iter];
            while !matches!(self.peek(), Some(Token::BlockEnd)) {
                items.push(self.or()?);
                if !self.take(",") {
                    break;
                }
            }
            iter = Expr::Tuple(items);
        }
        let filter = if self.take_word("if") { Some(self.expression()?) } else { None };
        if self.is_word("recursive") {
            return Err(wrong("recursive loops are not supported"));
        }
        self.block_end()?;
        let body = self.body(&["else", "endfor"])?;
        let otherwise =
            if self.take_word("else") { self.closed_by("endfor")? } else { self.close("endfor")? };
        Ok(Statement::For { target, iter, filter, body, otherwise })
    }

    /// The end of a block without a further body.
    fn close(&mut self, end: &str) -> Outcome<Vec<Node>> {
        if !self.take_word(end) {
            return self.unexpected(end);
        }
        self.block_end()?;
        Ok(Vec::new())
    }

    fn condition(&mut self) -> Outcome<Statement> {
        let mut branches = Vec::new();
        loop {
            let test = self.tuple()?;
            self.block_end()?;
            branches.push((test, self.body(&["elif", "else", "endif"])?));
            if !self.take_word("elif") {
                break;
            }
        }
        let otherwise =
            if self.take_word("else") { self.closed_by("endif")? } else { self.close("endif")? };
        Ok(Statement::If { branches, otherwise })
    }

    fn set(&mut self) -> Outcome<Statement> {
        let target = self.target()?;
        if self.take("=") {
            let value = self.tuple()?;
            self.block_end()?;
            return Ok(Statement::Set { target, value });
        }
        let filters = if self.take("|") { self.filters()? } else { Vec::new() };
        Ok(Statement::SetBlock { target, filters, body: self.closed_by("endset")? })
    }

    fn filters(&mut self) -> Outcome<Vec<Post>> {
        let mut filters = vec![self.filter()?];
        while self.take("|") {
            filters.push(self.filter()?);
        }
        Ok(filters)
    }

    fn with(&mut self) -> Outcome<Statement> {
        let mut assignments: Vec<(Target, Expr)> = Vec::new();
        while !matches!(self.peek(), Some(Token::BlockEnd)) {
            if !assignments.is_empty() && !self.take(",") {
                return self.unexpected("a comma");
            }
            let name = self.word("a variable")?;
            let target = Target::Name(self.intern(name));
            if !self.take("=") {
                return self.unexpected("=");
            }
            assignments.push((target, self.expression()?));
        }
        Ok(Statement::With { assignments, body: self.closed_by("endwith")? })
    }

    /// Parameters, if there are any, and body.
    fn macro_from(&mut self, name: u32, end: &str) -> Outcome<Rc<Macro>> {
        let parameters = self.parameters()?;
        let outer = std::mem::take(&mut self.extra);
        let body = self.closed_by(end)?;
        let [varargs, kwargs] = std::mem::replace(&mut self.extra, outer);
        Ok(Rc::new(Macro { name, parameters, varargs, kwargs, body }))
    }

    fn parameters(&mut self) -> Outcome<Vec<(u32, Option<Expr>)>> {
        let mut parameters = Vec::new();
        self.expect("(")?;
        while !self.take(")") {
            let parameter = self.word("a parameter")?;
            let parameter = self.intern(parameter);
            let default = if self.take("=") { Some(self.expression()?) } else { None };
            parameters.push((parameter, default));
            if !self.take(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(parameters)
    }

    fn call(&mut self) -> Outcome<Statement> {
        let parameters = if self.is("(") { self.parameters()? } else { Vec::new() };
        let mut call = self.expression()?;
        let name = self.intern("caller".into());
        let body = self.closed_by("endcall")?;
        let (varargs, kwargs) = (None, None);
        let caller = Rc::new(Macro { name, parameters, varargs, kwargs, body });
        match &mut call {
            Expr::Postfix(_, posts) => match posts.last_mut() {
                Some(Post::Call(arguments)) => {
                    arguments.named.push(("caller".into(), Expr::Caller(caller)))
                }
                _ => return Err(wrong("a call block without a call")),
            },
            _ => return Err(wrong("a call block without a call")),
        }
        Ok(Statement::Print(call))
    }
}
