//! A condition as it is evaluated: fields are slots of a scanner, so that one pass over a payload serves them all.

use std::cmp::Ordering;

use crate::json::Number;

/// Something that holds or does not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expression {
    /// One of them holds.
    Any(Vec<Self>),
    /// All of them hold.
    All(Vec<Self>),
    /// It does not hold.
    Not(Box<Self>),
    /// The field or header is there.
    Exists(Operand),
    /// The field is `true`.
    True(Operand),
    /// The two compare like this.
    Compare(Operand, Comparison, Operand),
    /// It equals one of them.
    In(Operand, Vec<Literal>),
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// True if two values that are ordered like this compare so; `None` is for values that are not ordered.
    pub(crate) fn accepts(self, ordering: Option<Ordering>) -> bool {
        match self {
            Self::Equal => ordering == Some(Ordering::Equal),
            Self::Unequal => ordering != Some(Ordering::Equal),
            Self::Less => ordering == Some(Ordering::Less),
            Self::LessOrEqual => ordering.is_some_and(Ordering::is_le),
            Self::Greater => ordering == Some(Ordering::Greater),
            Self::GreaterOrEqual => ordering.is_some_and(Ordering::is_ge),
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    /// A field of the payload, by its slot.
    Field(usize),
    /// A header, by its name.
    Header(String),
    /// The event's key.
    Key,
    /// The condition itself.
    Literal(Literal),
}

/// A value that the condition names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
}
