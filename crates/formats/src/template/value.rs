//! The values of a template: data, and a few things that can be called.

use super::ast::Macro;
use super::budget::{Budget, deeper};
use super::{Outcome, wrong};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

#[derive(Clone)]
pub enum Value {
    /// A value that does not exist; every use but its truth and its text is an error.
    Undefined,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    /// Text that is marked as safe: what is added to it is escaped for HTML.
    Markup(Rc<str>),
    List(Rc<List>),
    /// What filters make that go through a sequence once.
    Generator(Rc<Generator>),
    Dict(Rc<Dict>),
    /// The one thing that can be changed.
    Namespace(Rc<Namespace>),
    Macro(Rc<Closure>),
    Loop(Rc<Loop>),
    Function(&'static str),
    /// A method that is not called at once.
    Method(Rc<(Value, Rc<str>)>),
}

pub type Namespace = RefCell<HashMap<Rc<str>, Value>>;

pub struct List {
    pub items: Vec<Value>,
    pub shape: Shape,
    depth: u32,
}

/// What Python has of sequences. They differ in how they are printed and what they are equal to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    List,
    Tuple,
    /// A view of a dict, with its name.
    View(&'static str),
}

/// Elements that can be taken once. What went wrong in making them is told when they are taken, as
/// Jinja makes them only then.
pub struct Generator {
    items: RefCell<Option<Outcome<Rc<List>>>>,
    depth: u32,
}

impl Generator {
    /// The elements; none the second time.
    pub fn take(&self) -> Outcome<Vec<Value>> {
        let list = self.items.borrow_mut().take().transpose()?;
        Ok(list.map_or(Vec::new(), |list| list.items.clone()))
    }
}

/// In order of insertion.
pub struct Dict {
    pub entries: Vec<(Value, Value)>,
    depth: u32,
}

/// A macro with the frame in which it was defined.
pub struct Closure {
    pub definition: Rc<Macro>,
    pub frame: usize,
}

pub struct Loop {
    pub items: Rc<List>,
    pub index: Cell<usize>,
    pub last_changed: RefCell<Option<Value>>,
}

impl Value {
    pub fn str(text: &str) -> Self {
        Self::Str(text.into())
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Undefined => "undefined",
            Self::None => "none",
            Self::Bool(_) => "boolean",
            Self::Int(_) => "integer",
            Self::Float(_) => "float",
            Self::Str(_) | Self::Markup(_) => "string",
            Self::List(list) => match list.shape {
                Shape::List => "list",
                Shape::Tuple => "tuple",
                Shape::View(name) => name,
            },
            Self::Generator(_) => "generator",
            Self::Method(_) => "method",
            Self::Dict(_) => "dict",
            Self::Namespace(_) => "namespace",
            Self::Macro(_) => "macro",
            Self::Loop(_) => "loop",
            Self::Function(_) => "function",
        }
    }

    pub fn is_true(&self) -> bool {
        match self {
            Self::Undefined | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) | Self::Markup(text) => !text.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Dict(dict) => !dict.entries.is_empty(),
            _ => true,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) | Self::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// The value without the mark of safe text.
    pub fn plain(self) -> Self {
        match self {
            Self::Markup(text) => Self::Str(text),
            other => other,
        }
    }

    /// The value with its texts marked as safe.
    pub fn marked(self) -> Outcome<Self> {
        Ok(match self {
            Self::Str(text) => Self::Markup(text),
            Self::List(list) => {
                let items = list.items.iter().cloned().map(Self::marked).collect::<Outcome<_>>()?;
                Self::shaped(items, list.shape)?
            }
            other => other,
        })
    }

    pub fn is_callable(&self) -> bool {
        matches!(
            self,
            Self::Macro(_) | Self::Function(_) | Self::Method(_) | Self::Loop(_) | Self::Undefined
        )
    }

    /// How deep containers nest in it. Only data has a depth: what could lead back to itself may
    /// not be put into a container.
    fn depth(&self) -> Outcome<u32> {
        match self {
            Self::List(list) => Ok(list.depth),
            Self::Dict(dict) => Ok(dict.depth),
            Self::Generator(generator) => Ok(generator.depth),
            Self::Namespace(_)
            | Self::Macro(_)
            | Self::Loop(_)
            | Self::Function(_)
            | Self::Method(_) => Err(wrong(format!("a {} cannot be stored", self.kind()))),
            _ => Ok(0),
        }
    }

    /// An error if the value may not be stored in a namespace.
    pub fn check_storable(&self) -> Outcome<()> {
        self.depth().map(|_| ())
    }

    /// A list whose elements are paid for already.
    pub fn list(items: Vec<Value>) -> Outcome<Value> {
        Self::shaped(items, Shape::List)
    }

    /// The same as a tuple.
    pub fn tuple(items: Vec<Value>) -> Outcome<Value> {
        Self::shaped(items, Shape::Tuple)
    }

    /// The same in any shape.
    pub fn shaped(items: Vec<Value>, shape: Shape) -> Outcome<Value> {
        let mut depth = 0;
        for item in &items {
            depth = depth.max(item.depth()?);
        }
        Ok(Self::List(Rc::new(List { items, shape, depth: deeper(depth)? })))
    }

    /// What a filter makes that Jinja makes when it is used. A limit that is reached ends the
    /// template at once.
    pub fn generator(made: Outcome<Vec<Value>>) -> Outcome<Value> {
        let (items, depth) = match made.and_then(Self::list) {
            Ok(Self::List(list)) => (Ok(list.clone()), list.depth),
            Ok(_) => (Err(wrong("not a list")), 0),
            Err(fault) if fault.fuel => return Err(fault),
            Err(fault) => (Err(fault), 0),
        };
        Ok(Self::Generator(Rc::new(Generator { items: RefCell::new(Some(items)), depth })))
    }

    pub fn dict(entries: Vec<(Value, Value)>) -> Outcome<Value> {
        let mut depth = 0;
        for (_, value) in &entries {
            depth = depth.max(value.depth()?);
        }
        Ok(Self::Dict(Rc::new(Dict { entries, depth: deeper(depth)? })))
    }
}

impl Dict {
    /// The value of a key, by search: dicts of templates are small, and a large one is paid for.
    pub fn get(&self, key: &Value, budget: &mut Budget) -> Outcome<Option<&Value>> {
        search(&self.entries, key, budget)?;
        let found = match key {
            Value::Str(wanted) | Value::Markup(wanted) => {
                self.entries.iter().find(|(key, _)| key.as_str() == Some(wanted))
            }
            Value::Int(wanted) => {
                self.entries.iter().find(|(key, _)| matches!(key, Value::Int(k) if k == wanted))
            }
            Value::Bool(wanted) => {
                self.entries.iter().find(|(key, _)| matches!(key, Value::Bool(k) if k == wanted))
            }
            Value::None => self.entries.iter().find(|(key, _)| matches!(key, Value::None)),
            _ => None,
        };
        Ok(found.map(|(_, value)| value))
    }
}

/// Pays for a search.
fn search(entries: &[(Value, Value)], key: &Value, budget: &mut Budget) -> Outcome<()> {
    let bytes = key.as_str().map_or(0, str::len);
    budget.work((entries.len() / 4).saturating_mul(1 + bytes / 64).saturating_add(bytes / 64))
}

/// A dict under construction: a later key takes the place of an equal earlier one.
#[derive(Default)]
pub struct DictBuilder {
    entries: Vec<(Value, Value)>,
}

impl DictBuilder {
    pub fn insert(&mut self, key: Value, value: Value, budget: &mut Budget) -> Outcome<()> {
        let key = key.plain();
        if !matches!(key, Value::Str(_) | Value::Int(_) | Value::Bool(_) | Value::None) {
            return Err(wrong(format!("a {} cannot be a key", key.kind())));
        }
        budget.make_list(2)?;
        search(&self.entries, &key, budget)?;
        let same = |other: &Value| match (other, &key) {
            (Value::Str(a), Value::Str(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::None, Value::None) => true,
            _ => false,
        };
        match self.entries.iter_mut().find(|(other, _)| same(other)) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((key, value)),
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn finish(self) -> Outcome<Value> {
        Value::dict(self.entries)
    }
}
