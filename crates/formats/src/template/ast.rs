//! A parsed template. Chains (`a + b + c`, `x.y[0]|f`) are flat lists, so that the depth of the
//! tree is the depth of nesting in the source.

use super::value::Value;
use std::rc::Rc;

/// Index into [`Template::names`].
pub type Name = u32;

pub struct Template {
    pub body: Vec<Node>,
    /// The variable names of the template.
    pub names: Vec<Rc<str>>,
}

pub struct Node {
    pub line: u32,
    pub statement: Statement,
}

pub enum Statement {
    Text(String),
    Print(Expr),
    For {
        target: Target,
        iter: Expr,
        filter: Option<Expr>,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    If {
        branches: Vec<(Expr, Vec<Node>)>,
        otherwise: Vec<Node>,
    },
    Set {
        target: Target,
        value: Expr,
    },
    /// `{% set x %}...{% endset %}`
    SetBlock {
        target: Target,
        filters: Vec<Post>,
        body: Vec<Node>,
    },
    With {
        assignments: Vec<(Target, Expr)>,
        body: Vec<Node>,
    },
    Macro(Rc<Macro>),
    Filter {
        filters: Vec<Post>,
        body: Vec<Node>,
    },
    Do(Expr),
    Break,
    Continue,
}

pub struct Macro {
    pub name: Name,
    pub parameters: Vec<(Name, Option<Expr>)>,
    /// Whether the body reads `varargs` and `kwargs`; only then may there be more arguments.
    pub varargs: Option<Name>,
    pub kwargs: Option<Name>,
    pub body: Vec<Node>,
}

pub enum Target {
    Name(Name),
    /// `namespace.attribute`
    Attribute(Name, Rc<str>),
    Tuple(Vec<Target>),
}

pub enum Expr {
    Const(Value),
    Name(Name),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    /// Operators of one precedence, from left to right.
    Chain(Box<Expr>, Vec<(Operator, Expr)>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    /// `yes if test else no`
    Condition(Box<[Expr; 2]>, Option<Box<Expr>>),
    Postfix(Box<Expr>, Vec<Post>),
    /// The body of `{% call m() %}...{% endcall %}`, which m is given as `caller`.
    Caller(Rc<Macro>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    Add,
    Subtract,
    Concat,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

/// What may follow a value.
pub enum Post {
    Attribute(Rc<str>),
    Item(Expr),
    Slice([Option<Box<Expr>>; 3]),
    Call(Arguments),
    Filter(Rc<str>, Arguments),
    Test { name: Rc<str>, negated: bool, arguments: Arguments },
}

#[derive(Default)]
pub struct Arguments {
    pub positional: Vec<Expr>,
    pub named: Vec<(Rc<str>, Expr)>,
    /// `*values` and `**entries`.
    pub star: Option<Box<Expr>>,
    pub stars: Option<Box<Expr>>,
}
