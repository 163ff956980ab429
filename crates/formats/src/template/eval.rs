//! Expressions.

use super::ast::{Arguments, Comparison, Expr, Operator, Post};
use super::builtins::CallArguments;
use super::compare::compare;
use super::interpreter::Interpreter;
use super::number::{Number, arithmetic, index, slice, span};
use super::value::{DictBuilder, Loop, Shape, Value};
use super::{Outcome, methods, wrong};
use std::rc::Rc;

impl Interpreter<'_> {
    pub fn evaluate(&mut self, expr: &Expr) -> Outcome<Value> {
        self.budget.work(1)?;
        match expr {
            Expr::Const(value) => return Ok(value.clone()),
            Expr::Name(name) => return self.get(*name),
            _ => {}
        }
        self.budget.enter()?;
        let value = self.compound(expr)?;
        self.budget.leave();
        Ok(value)
    }

    fn compound(&mut self, expr: &Expr) -> Outcome<Value> {
        match expr {
            Expr::List(items) => {
                self.budget.make_list(items.len())?;
                Value::list(items.iter().map(|item| self.evaluate(item)).collect::<Outcome<_>>()?)
            }
            Expr::Tuple(items) => {
                self.budget.make_list(items.len())?;
                Value::tuple(items.iter().map(|item| self.evaluate(item)).collect::<Outcome<_>>()?)
            }
            Expr::Dict(entries) => {
                let mut dict = DictBuilder::default();
                for (key, value) in entries {
                    let (key, value) = (self.evaluate(key)?, self.evaluate(value)?);
                    dict.insert(key, value, &mut self.budget)?;
                }
                dict.finish()
            }
            Expr::Chain(first, rest) => self.chain(first, rest),
            Expr::Compare(first, rest) => self.comparisons(first, rest).map(Value::Bool),
            Expr::And(parts) => self.until(parts, false),
            Expr::Or(parts) => self.until(parts, true),
            Expr::Not(inner) => Ok(Value::Bool(!self.evaluate(inner)?.is_true())),
            Expr::Negate(inner) => match Number::of(&self.evaluate(inner)?) {
                Some(Number::Int(number)) => number
                    .checked_neg()
                    .map(Value::Int)
                    .ok_or_else(|| wrong("the result is too large")),
                Some(Number::Float(number)) => Ok(Value::Float(-number)),
                None => Err(wrong("minus before something that is no number")),
            },
            Expr::Condition(branches, otherwise) => {
                let [test, value] = &**branches;
                if self.evaluate(test)?.is_true() {
                    return self.evaluate(value);
                }
                otherwise
                    .as_ref()
                    .map_or(Ok(Value::Undefined), |otherwise| self.evaluate(otherwise))
            }
            Expr::Postfix(base, posts) => {
                let base_name =
                    if let Expr::Name(name) = &**base { self.name(*name) } else { "a value" };
                let value = self.evaluate(base)?;
                if matches!((&value, posts.first()), (Value::Undefined, Some(Post::Call(_)))) {
                    return Err(wrong(format!("{base_name} is undefined, so it cannot be called")));
                }
                self.apply(value, posts)
            }
            Expr::Caller(body) => Ok(self.closure(body)),
            Expr::Const(value) => Ok(value.clone()),
            Expr::Name(name) => self.get(*name),
        }
    }

    /// The first value whose truth is `wanted`, else the last.
    fn until(&mut self, parts: &[Expr], wanted: bool) -> Outcome<Value> {
        let mut value = Value::Undefined;
        for part in parts {
            value = self.evaluate(part)?;
            if value.is_true() == wanted {
                break;
            }
        }
        Ok(value)
    }

    fn comparisons(&mut self, first: &Expr, rest: &[(Comparison, Expr)]) -> Outcome<bool> {
        let mut left = self.evaluate(first)?;
        for (comparison, right) in rest {
            let right = self.evaluate(right)?;
            if !compare(*comparison, &left, &right, &mut self.budget)? {
                return Ok(false);
            }
            left = right;
        }
        Ok(true)
    }

    /// A text that grows along a chain is kept in one buffer, so that it is not copied at every
    /// plus.
    fn chain(&mut self, first: &Expr, rest: &[(Operator, Expr)]) -> Outcome<Value> {
        let mut left = self.evaluate(first)?;
        let mut buffer: Option<String> = None;
        for (operator, right) in rest {
            let right = self.evaluate(right)?;
            let joins = *operator == Operator::Concat
                || (*operator == Operator::Add
                    && matches!((&left, &right), (Value::Str(_), Value::Str(_))));
            if joins {
                let right = self.text_of(&right)?;
                self.budget.make(right.len())?;
                match &mut buffer {
                    Some(buffer) => buffer.push_str(&right),
                    None => {
                        let text = self.text_of(&left)?;
                        self.budget.make(text.len())?;
                        buffer = Some(format!("{text}{right}"));
                        // Only its kind is looked at from here on.
                        left = Value::str("");
                    }
                }
                continue;
            }
            if let Some(buffer) = buffer.take() {
                left = Value::str(&buffer);
            }
            left = self.operate(*operator, &left, &right)?;
        }
        match buffer {
            Some(buffer) => {
                self.budget.make(buffer.len())?;
                Ok(Value::str(&buffer))
            }
            None => Ok(left),
        }
    }

    pub fn operate(&mut self, operator: Operator, left: &Value, right: &Value) -> Outcome<Value> {
        match (operator, left, right) {
            (Operator::Add, Value::List(a), Value::List(b))
                if a.shape == b.shape && !matches!(a.shape, Shape::View(_)) =>
            {
                self.budget.make_list(a.items.len() + b.items.len())?;
                self.budget.work(a.items.len() + b.items.len())?;
                Value::shaped(a.items.iter().chain(&b.items).cloned().collect(), a.shape)
            }
            (Operator::Add, Value::Markup(_) | Value::Str(_), Value::Markup(_) | Value::Str(_)) => {
                // At least one is safe, so the other is made so.
                let [left, right] = [left, right]
                    .map(|value| super::filters::escaped(value.clone(), &mut self.budget));
                let (left, right) = (left?, right?);
                let (left, right) =
                    (left.as_str().unwrap_or_default(), right.as_str().unwrap_or_default());
                self.budget.make(left.len() + right.len())?;
                Ok(Value::Markup([left, right].concat().into()))
            }
            (Operator::Remainder, Value::Str(text) | Value::Markup(text), right) => {
                let escape = matches!(left, Value::Markup(_));
                let made = self.printf(text, right, escape)?;
                if escape { made.marked() } else { Ok(made) }
            }
            (Operator::Multiply, Value::Str(text) | Value::Markup(text), Value::Int(count))
            | (Operator::Multiply, Value::Int(count), Value::Str(text) | Value::Markup(text)) => {
                let count = usize::try_from(*count).unwrap_or(0);
                self.budget.make(text.len().saturating_mul(count))?;
                let made = Value::str(&text.repeat(count));
                let safe = matches!(left, Value::Markup(_)) || matches!(right, Value::Markup(_));
                if safe { made.marked() } else { Ok(made) }
            }
            (Operator::Multiply, Value::List(list), Value::Int(count))
            | (Operator::Multiply, Value::Int(count), Value::List(list)) => {
                let count =
                    if list.items.is_empty() { 0 } else { usize::try_from(*count).unwrap_or(0) };
                let len = list.items.len().saturating_mul(count);
                self.budget.make_list(len)?;
                self.budget.work(len)?;
                Value::shaped(
                    (0..count).flat_map(|_| list.items.iter().cloned()).collect(),
                    list.shape,
                )
            }
            _ => arithmetic(operator, left, right),
        }
    }

    /// Applies the operations after a value from left to right. An attribute that is called at once
    /// is a method.
    pub fn apply(&mut self, mut value: Value, posts: &[Post]) -> Outcome<Value> {
        let mut posts = posts.iter().peekable();
        while let Some(post) = posts.next() {
            self.budget.work(1)?;
            value = match post {
                Post::Attribute(name) => match posts.peek() {
                    Some(Post::Call(arguments)) => {
                        posts.next();
                        let given = self.given(name, arguments)?;
                        self.method(&value, name, given)?
                    }
                    _ => self.attribute(&value, name)?,
                },
                Post::Item(key) => {
                    let key = self.evaluate(key)?;
                    self.item(&value, &key)?
                }
                Post::Slice(bounds) => self.slice(&value, bounds)?,
                Post::Call(arguments) => {
                    let given = self.given("the function", arguments)?;
                    self.call(&value, given)?
                }
                Post::Filter(name, arguments) => {
                    let given = self.given(name, arguments)?;
                    self.filter(name, value, given)?
                }
                Post::Test { name, negated, arguments } => {
                    let given = self.given(name, arguments)?;
                    Value::Bool(self.test(name, &value, given)? != *negated)
                }
            };
        }
        Ok(value)
    }

    fn given(&mut self, callee: &str, arguments: &Arguments) -> Outcome<CallArguments> {
        let mut positional = arguments
            .positional
            .iter()
            .map(|value| self.evaluate(value).map(Some))
            .collect::<Outcome<Vec<_>>>()?;
        let mut named = arguments
            .named
            .iter()
            .map(|(name, value)| Ok((name.clone(), Some(self.evaluate(value)?))))
            .collect::<Outcome<Vec<_>>>()?;
        if let Some(star) = &arguments.star {
            let values = self.evaluate(star)?;
            let values = self.items_of(&values)?;
            self.budget.make_list(values.items.len())?;
            positional.extend(values.items.iter().cloned().map(Some));
        }
        if let Some(stars) = &arguments.stars {
            let Value::Dict(entries) = self.evaluate(stars)? else {
                return Err(wrong(format!("{callee}: what follows ** must be a dict")));
            };
            self.budget.make_list(entries.entries.len().saturating_mul(2))?;
            for (name, value) in &entries.entries {
                let Value::Str(name) = name else {
                    return Err(wrong(format!("{callee}: names of arguments must be strings")));
                };
                named.push((name.clone(), Some(value.clone())));
            }
        }
        Ok(CallArguments { callee: callee.to_string(), positional, named })
    }

    fn call(&mut self, callee: &Value, given: CallArguments) -> Outcome<Value> {
        match callee {
            Value::Function(name) => self.call_function(name, given),
            Value::Macro(closure) => self.call_macro(closure, given),
            Value::Method(bound) => {
                let (value, name) = &**bound;
                self.method(value, name, given)
            }
            other => Err(wrong(format!("a {} cannot be called", other.kind()))),
        }
    }

    fn method(&mut self, value: &Value, name: &str, mut given: CallArguments) -> Outcome<Value> {
        if let Value::Loop(state) = value {
            let result = self.loop_method(state, name, &mut given)?;
            given.finish()?;
            return Ok(result);
        }
        if let Some(result) = self.call_method(value, name, &mut given)? {
            given.finish()?;
            return Ok(result);
        }
        let callee = self.attribute(value, name)?;
        if matches!(callee, Value::Undefined | Value::Method(_)) {
            return Err(wrong(format!("a {} has no method {name}", value.kind())));
        }
        self.call(&callee, given)
    }

    fn loop_method(
        &mut self,
        state: &Loop,
        name: &str,
        given: &mut CallArguments,
    ) -> Outcome<Value> {
        match name {
            "cycle" => {
                let count = given.positional.len();
                let chosen =
                    state.index.get().checked_rem(count).and_then(|i| given.positional[i].take());
                given.clear();
                chosen.ok_or_else(|| wrong("cycle needs values"))
            }
            "changed" => {
                let now = Value::tuple(given.positional.drain(..).flatten().collect())?;
                let same = match &*state.last_changed.borrow() {
                    Some(last) => super::compare::equal(last, &now, &mut self.budget)?,
                    None => false,
                };
                now.check_storable()?;
                state.last_changed.replace(Some(now));
                Ok(Value::Bool(!same))
            }
            _ => Err(wrong(format!("a loop has no method {name}"))),
        }
    }

    /// `value.name`: nothing but entries of dicts and namespaces and the state of a loop. Python's
    /// own attributes cannot be read.
    pub fn attribute(&mut self, value: &Value, name: &str) -> Outcome<Value> {
        self.budget.read(2 * name.len())?;
        // As in Python, a method hides the entry of its name.
        if methods::has(value, name) {
            return Ok(Value::Method(Rc::new((value.clone(), name.into()))));
        }
        let found = match value {
            Value::Dict(dict) => dict.get(&Value::str(name), &mut self.budget)?.cloned(),
            Value::Namespace(namespace) => namespace.borrow().get(name).cloned(),
            Value::Loop(state) => loop_attribute(state, name),
            Value::Undefined => return Err(wrong(format!("{name} of something undefined"))),
            _ => None,
        };
        match found {
            Some(value) => Ok(value),
            None if name.starts_with('_') => Err(wrong(format!("access to {name} is not allowed"))),
            None => Ok(Value::Undefined),
        }
    }

    /// `value[key]`
    pub fn item(&mut self, value: &Value, key: &Value) -> Outcome<Value> {
        let number =
            if let Value::Bool(one) = key { Some(Value::Int(i64::from(*one))) } else { None };
        let key = match (&number, value) {
            (Some(number), Value::List(_) | Value::Str(_) | Value::Markup(_)) => number,
            _ => key,
        };
        let found = match (value, key) {
            (Value::List(list), Value::Int(at)) if !matches!(list.shape, Shape::View(_)) => {
                index(*at, list.items.len()).map(|at| list.items[at].clone())
            }
            (Value::Str(text) | Value::Markup(text), Value::Int(at)) => {
                self.budget.read(text.len())?;
                let at = index(*at, text.chars().count());
                let found = at
                    .and_then(|at| text.chars().nth(at))
                    .map(|c| Value::str(c.encode_utf8(&mut [0; 4])));
                if matches!(value, Value::Markup(_)) {
                    found.map(Value::marked).transpose()?
                } else {
                    found
                }
            }
            (Value::Dict(dict), key) => dict.get(key, &mut self.budget)?.cloned(),
            (value, Value::Str(name) | Value::Markup(name)) => return self.attribute(value, name),
            (Value::Undefined, _) => return Err(wrong("an item of something undefined")),
            _ => None,
        };
        match (found, key) {
            (None, Value::Str(name) | Value::Markup(name)) => self.attribute(value, name),
            (found, _) => Ok(found.unwrap_or(Value::Undefined)),
        }
    }

    fn slice(&mut self, value: &Value, bounds: &[Option<Box<Expr>>; 3]) -> Outcome<Value> {
        let mut numbers = [None; 3];
        for (number, bound) in numbers.iter_mut().zip(bounds) {
            *number = match bound.as_ref().map(|bound| self.evaluate(bound)).transpose()? {
                None | Some(Value::None) => None,
                Some(Value::Int(number)) => Some(number),
                Some(other) => return Err(wrong(format!("a slice with a {}", other.kind()))),
            };
        }
        match value {
            Value::Markup(text) => self.cut(&Value::Str(text.clone()), numbers)?.marked(),
            other => self.cut(other, numbers),
        }
    }

    fn cut(&mut self, value: &Value, [start, stop, step]: [Option<i64>; 3]) -> Outcome<Value> {
        match value {
            Value::List(list) if !matches!(list.shape, Shape::View(_)) => {
                self.budget.make_list(list.items.len())?;
                Value::shaped(
                    slice(start, stop, step, list.items.len())?
                        .into_iter()
                        .map(|at| list.items[at].clone())
                        .collect(),
                    list.shape,
                )
            }
            Value::Str(text) if step.is_none_or(|step| step == 1) => {
                self.budget.make(text.len())?;
                let (from, to) = span(start, stop, text.chars().count());
                let place =
                    |at: usize| text.char_indices().nth(at).map_or(text.len(), |(at, _)| at);
                Ok(Value::str(&text[place(from)..place(to)]))
            }
            Value::Str(text) => {
                // Characters and their places, then the new text.
                self.budget.make(text.len().saturating_mul(13))?;
                let chars: Vec<char> = text.chars().collect();
                Ok(Value::str(
                    &slice(start, stop, step, chars.len())?
                        .into_iter()
                        .map(|at| chars[at])
                        .collect::<String>(),
                ))
            }
            other => Err(wrong(format!("a {} cannot be sliced", other.kind()))),
        }
    }

    /// The number of elements.
    pub fn length(&mut self, value: &Value) -> Outcome<usize> {
        match value {
            Value::List(list) => Ok(list.items.len()),
            Value::Dict(dict) => Ok(dict.entries.len()),
            Value::Str(text) | Value::Markup(text) => {
                self.budget.read(text.len())?;
                Ok(text.chars().count())
            }
            Value::Undefined => Ok(0),
            other => Err(wrong(format!("a {} has no length", other.kind()))),
        }
    }
}

fn loop_attribute(state: &Loop, name: &str) -> Option<Value> {
    let (index, count) = (state.index.get(), state.items.items.len());
    let number = |n: usize| Some(Value::Int(n as i64));
    let item = |at: Option<usize>| Some(at.and_then(|at| state.items.items.get(at))?.clone());
    match name {
        "index" => number(index + 1),
        "index0" => number(index),
        "revindex" => number(count - index),
        "revindex0" => number(count - index - 1),
        "first" => Some(Value::Bool(index == 0)),
        "last" => Some(Value::Bool(index + 1 == count)),
        "length" => number(count),
        // Counts recursive loops, which there are none of.
        "depth" => number(1),
        "depth0" => number(0),
        "previtem" => item(index.checked_sub(1)),
        "nextitem" => item(index.checked_add(1)),
        _ => None,
    }
}
