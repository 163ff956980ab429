//! Runs the statements of a template: variables in frames, output in buffers.

use super::ast::{Expr, Macro, Name, Node, Post, Statement, Target, Template};
use super::budget::{BYTES_PER_MESSAGE, Budget, MAX_DEPTH, MAX_OUTPUT_BYTES};
use super::builtins::{self, CallArguments};
use super::value::{Closure, DictBuilder, List, Loop, Value};
use super::{Message, Outcome, show, too_much, wrong};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

pub struct Interpreter<'t> {
    template: &'t Template,
    pub budget: Budget,
    frames: Vec<Frame>,
    /// The text so far; a captured block writes into a buffer of its own.
    out: String,
    calls: u32,
    loop_name: Option<Name>,
    caller_name: Option<Name>,
}

#[derive(Default)]
struct Frame {
    variables: HashMap<Name, Value>,
    /// The frame that is searched next. A macro sees the frame it was defined in, not its caller's.
    parent: Option<usize>,
}

/// What a statement does to the loop around it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl<'t> Interpreter<'t> {
    pub fn new(template: &'t Template) -> Self {
        let id = |wanted: &str| {
            template.names.iter().position(|name| &**name == wanted).map(|id| id as Name)
        };
        let (loop_name, caller_name) = (id("loop"), id("caller"));
        Self {
            template,
            budget: Budget::new(),
            frames: vec![Frame::default()],
            out: String::new(),
            calls: 0,
            loop_name,
            caller_name,
        }
    }

    pub fn render(
        mut self,
        messages: &[Message],
        add_generation_prompt: bool,
        bos_token: &str,
        eos_token: &str,
    ) -> Outcome<String> {
        let bytes = |m: &Message| m.role.len() + m.content.len() + BYTES_PER_MESSAGE;
        self.budget.give(messages.iter().map(bytes).sum());
        let mut list = Vec::with_capacity(messages.len());
        for message in messages {
            let mut entries = DictBuilder::default();
            for (key, text) in [("role", &message.role), ("content", &message.content)] {
                self.budget.make(text.len())?;
                entries.insert(Value::str(key), Value::str(text), &mut self.budget)?;
            }
            list.push(entries.finish()?);
        }
        let given = [
            ("messages", Value::list(list)?),
            ("add_generation_prompt", Value::Bool(add_generation_prompt)),
            ("bos_token", Value::str(bos_token)),
            ("eos_token", Value::str(eos_token)),
            ("tools", Value::None),
            ("documents", Value::None),
        ];
        for (id, name) in self.template.names.iter().enumerate() {
            let value = given
                .iter()
                .find(|(given, _)| *given == &**name)
                .map(|(_, value)| value.clone())
                .or_else(|| builtins::function(name));
            self.frames[0].variables.extend(value.map(|value| (id as Name, value)));
        }
        match self.run(&self.template.body)? {
            Flow::On => Ok(self.out),
            _ => Err(wrong("break or continue outside of a loop")),
        }
    }

    /// Stores a variable in the innermost frame.
    fn set(&mut self, name: Name, value: Value) -> Outcome<()> {
        self.budget.make_list(2)?;
        self.frames.last_mut().expect("one frame at least").variables.insert(name, value);
        Ok(())
    }

    pub fn get(&mut self, name: Name) -> Outcome<Value> {
        let mut at = Some(self.frames.len() - 1);
        while let Some(frame) = at {
            self.budget.work(1)?;
            if let Some(value) = self.frames[frame].variables.get(&name) {
                return Ok(value.clone());
            }
            at = self.frames[frame].parent;
        }
        Ok(Value::Undefined)
    }

    pub fn name(&self, name: Name) -> &'t str {
        &self.template.names[name as usize]
    }

    /// Runs `inner` in a new frame above `parent`.
    fn framed<T>(
        &mut self,
        parent: usize,
        inner: impl FnOnce(&mut Self) -> Outcome<T>,
    ) -> Outcome<T> {
        self.frames.push(Frame { parent: Some(parent), ..Frame::default() });
        let result = inner(self);
        self.frames.pop();
        result
    }

    fn top(&self) -> usize {
        self.frames.len() - 1
    }

    fn run(&mut self, nodes: &[Node]) -> Outcome<Flow> {
        self.budget.enter()?;
        for node in nodes {
            self.budget.work(1)?;
            let flow = self.statement(&node.statement).map_err(|fault| fault.at(node.line))?;
            if flow != Flow::On {
                self.budget.leave();
                return Ok(flow);
            }
        }
        self.budget.leave();
        Ok(Flow::On)
    }

    fn statement(&mut self, statement: &Statement) -> Outcome<Flow> {
        match statement {
            Statement::Text(text) => self.write(text)?,
            Statement::Print(value) => {
                let value = self.evaluate(value)?;
                match &value {
                    Value::Str(text) => self.write(text)?,
                    other => {
                        let text = self.text_of(other)?;
                        self.write(&text)?;
                    }
                }
            }
            Statement::For { target, iter, filter, body, otherwise } => {
                let items = self.evaluate(iter)?;
                let mut items = self.items_of(&items)?;
                if let Some(filter) = filter {
                    items = self.filtered(target, &items, filter)?;
                }
                return if items.items.is_empty() {
                    self.run(otherwise)
                } else {
                    self.repeat(target, items, body)
                };
            }
            Statement::If { branches, otherwise } => {
                for (test, body) in branches {
                    if self.evaluate(test)?.is_true() {
                        return self.run(body);
                    }
                }
                return self.run(otherwise);
            }
            Statement::Set { target, value } => {
                let value = self.evaluate(value)?;
                self.assign(target, value)?;
            }
            Statement::SetBlock { target, filters, body } => {
                let text = self.captured(filters, body)?;
                self.assign(target, text)?;
            }
            Statement::With { assignments, body } => {
                let values = assignments
                    .iter()
                    .map(|(_, value)| self.evaluate(value))
                    .collect::<Outcome<Vec<_>>>()?;
                return self.framed(self.top(), |this| {
                    for ((target, _), value) in assignments.iter().zip(values) {
                        this.assign(target, value)?;
                    }
                    this.run(body)
                });
            }
            Statement::Macro(definition) => {
                let closure = self.closure(definition);
                self.set(definition.name, closure)?;
            }
            Statement::Filter { filters, body } => {
                let text = self.captured(filters, body)?;
                let text = self.text_of(&text)?;
                self.write(&text)?;
            }
            Statement::Do(value) => {
                self.evaluate(value)?;
            }
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    pub fn closure(&self, definition: &Rc<Macro>) -> Value {
        Value::Macro(Rc::new(Closure { definition: definition.clone(), frame: self.top() }))
    }

    fn write(&mut self, text: &str) -> Outcome<()> {
        self.budget.read(text.len())?;
        if self.out.len() + text.len() > MAX_OUTPUT_BYTES {
            return Err(too_much(format!("more than {MAX_OUTPUT_BYTES} bytes of text")));
        }
        self.out.push_str(text);
        Ok(())
    }

    /// What `inner` writes.
    fn capture<T>(&mut self, inner: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<(T, String)> {
        let before = std::mem::take(&mut self.out);
        let result = inner(self)?;
        let text = std::mem::replace(&mut self.out, before);
        self.budget.make(text.len())?;
        Ok((result, text))
    }

    fn captured(&mut self, filters: &[Post], body: &[Node]) -> Outcome<Value> {
        let (flow, text) = self.capture(|this| this.framed(this.top(), |this| this.run(body)))?;
        if flow != Flow::On {
            return Err(wrong("break or continue out of a captured block"));
        }
        self.apply(Value::str(&text), filters)
    }

    /// The elements of a list, keys of a dict or characters of a string.
    pub fn items_of(&mut self, value: &Value) -> Outcome<Rc<List>> {
        let items = match value {
            Value::List(list) => return Ok(list.clone()),
            Value::Dict(dict) => {
                self.budget.make_list(dict.entries.len())?;
                dict.entries.iter().map(|(key, _)| key.clone()).collect()
            }
            Value::Str(text) => {
                let count = text.chars().count();
                self.budget.make_list(2 * count)?;
                text.chars().map(|c| Value::str(c.encode_utf8(&mut [0; 4]))).collect()
            }
            Value::Undefined => Vec::new(),
            other => return Err(wrong(format!("a {} cannot be walked through", other.kind()))),
        };
        match Value::list(items)? {
            Value::List(list) => Ok(list),
            _ => Err(wrong("not a list")),
        }
    }

    fn filtered(&mut self, target: &Target, items: &List, filter: &Expr) -> Outcome<Rc<List>> {
        self.budget.make_list(items.items.len())?;
        let mut kept = Vec::new();
        for item in &items.items {
            let keep = self.framed(self.top(), |this| {
                this.assign(target, item.clone())?;
                Ok(this.evaluate(filter)?.is_true())
            })?;
            if keep {
                kept.push(item.clone());
            }
        }
        self.items_of(&Value::list(kept)?)
    }

    fn repeat(&mut self, target: &Target, items: Rc<List>, body: &[Node]) -> Outcome<Flow> {
        let state = Rc::new(Loop {
            items: items.clone(),
            index: Cell::new(0),
            last_changed: RefCell::new(None),
        });
        let parent = self.top();
        for (index, item) in items.items.iter().enumerate() {
            self.budget.work(1)?;
            state.index.set(index);
            let flow = self.framed(parent, |this| {
                if let Some(name) = this.loop_name {
                    this.set(name, Value::Loop(state.clone()))?;
                }
                this.assign(target, item.clone())?;
                this.run(body)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn assign(&mut self, target: &Target, value: Value) -> Outcome<()> {
        match target {
            Target::Name(name) => self.set(*name, value),
            Target::Attribute(name, attribute) => {
                value.check_storable()?;
                let Value::Namespace(namespace) = self.get(*name)? else {
                    return Err(wrong(format!(
                        "{} is no namespace, so its attributes cannot be set",
                        self.name(*name)
                    )));
                };
                self.budget.make_list(4)?;
                namespace.borrow_mut().insert(attribute.clone(), value);
                Ok(())
            }
            Target::Tuple(targets) => {
                let items = self.items_of(&value)?;
                if items.items.len() != targets.len() {
                    return Err(wrong(format!(
                        "{} values for {} variables",
                        items.items.len(),
                        targets.len()
                    )));
                }
                targets
                    .iter()
                    .zip(&items.items)
                    .try_for_each(|(target, item)| self.assign(target, item.clone()))
            }
        }
    }

    /// Calls a macro; the result is what it writes.
    pub fn call_macro(&mut self, closure: &Closure, mut given: CallArguments) -> Outcome<Value> {
        if self.calls == MAX_DEPTH {
            return Err(too_much(format!("macros nested deeper than {MAX_DEPTH}")));
        }
        self.calls += 1;
        let definition = &closure.definition;
        // The frame is there still, unless the macro was handed out of the loop that defined it.
        let (_, text) = self.capture(|this| {
            this.framed(closure.frame.min(this.top()), |this| {
                let caller = given.optional(usize::MAX, "caller");
                if let (Some(name), Some(caller)) = (this.caller_name, caller) {
                    this.set(name, caller)?;
                }
                for (position, (name, default)) in definition.parameters.iter().enumerate() {
                    let value = match (given.optional(position, this.name(*name)), default) {
                        (Some(value), _) => value,
                        (None, Some(default)) => this.evaluate(default)?,
                        (None, None) => Value::Undefined,
                    };
                    this.set(*name, value)?;
                }
                given.finish()?;
                this.run(&definition.body)
            })
        })?;
        self.calls -= 1;
        Ok(Value::str(&text))
    }

    /// Text of a value as it is printed.
    pub fn text_of(&mut self, value: &Value) -> Outcome<Rc<str>> {
        if let Value::Str(text) = value {
            return Ok(text.clone());
        }
        let mut text = String::new();
        show::display(value, &mut text, &mut self.budget)?;
        Ok(text.into())
    }
}
