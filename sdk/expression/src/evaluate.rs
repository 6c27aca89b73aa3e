//! Whether a condition holds for an event.
//!
//! Values of different types are unequal and neither is less. A missing field or header is unequal to everything,
//! `null` included. Numbers compare by their decimal value, whatever their size. A header and a key are text; beside a
//! number they are read as a number if they are one.

use std::{borrow::Cow, cell::LazyCell, cmp::Ordering};

use levada_protocol::batch::EventRef;

use crate::{
    expression::{Expression, Literal, Operand},
    json::{Fields, Kind, Number},
};

/// What a condition asks of an event.
pub trait Source {
    /// The payload; `None` for a tombstone.
    fn payload(&self) -> Option<&[u8]>;
    /// The key, if there is one; an empty key is a key.
    fn key(&self) -> Option<&[u8]>;
    /// The value of the first header of this name.
    fn header(&self, name: &str) -> Option<&[u8]>;
}

impl Source for EventRef<'_> {
    fn payload(&self) -> Option<&[u8]> {
        EventRef::payload(self)
    }

    fn key(&self) -> Option<&[u8]> {
        EventRef::key(self)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        EventRef::header(self, name)
    }
}

/// An event, and what its payload holds if the condition needs it.
pub(crate) struct Event<'a, 's, S> {
    pub(crate) fields: Option<Fields<'a, 's>>,
    pub(crate) source: &'a S,
}

/// A value on one side of a comparison.
enum Item<'a> {
    Missing,
    Null,
    Bool(bool),
    Number(Cow<'a, Number>),
    Text(Cow<'a, str>),
    /// A header's value, or a key.
    Bytes(&'a [u8]),
    /// An array or object: unequal to every literal.
    Composite,
}

impl<'a, S: Source> Event<'a, '_, S> {
    pub(crate) fn holds(&self, expression: &Expression) -> bool {
        match expression {
            Expression::Any(parts) => parts.iter().any(|part| self.holds(part)),
            Expression::All(parts) => parts.iter().all(|part| self.holds(part)),
            Expression::Not(part) => !self.holds(part),
            Expression::Exists(operand) => self.exists(operand),
            Expression::True(operand) => matches!(self.item(operand), Item::Bool(true)),
            Expression::Compare(left, comparison, right) => {
                comparison.accepts(self.item(left).compare(&self.item(right)))
            }
            Expression::In(operand, literals) => {
                let item = self.item(operand);
                // A header or key is read as a number once, not for each literal.
                let read = LazyCell::new(|| item.as_number());
                literals.iter().any(|literal| match (&item, literal) {
                    (Item::Bytes(_), Literal::Number(value)) => {
                        read.as_ref().is_some_and(|read| read == value)
                    }
                    _ => item.compare(&Item::of(literal)) == Some(Ordering::Equal),
                })
            }
        }
    }

    fn exists(&self, operand: &Operand) -> bool {
        match operand {
            Operand::Field(slot) => self.fields.is_some_and(|fields| fields.get(*slot).is_some()),
            Operand::Header(name) => self.source.header(name).is_some(),
            Operand::Key => self.source.key().is_some(),
            Operand::Literal(_) => true,
        }
    }

    fn item<'i>(&'i self, operand: &'i Operand) -> Item<'i>
    where
        'a: 'i,
    {
        match operand {
            Operand::Field(slot) => self.field(*slot),
            Operand::Header(name) => self.source.header(name).map_or(Item::Missing, Item::Bytes),
            Operand::Key => self.source.key().map_or(Item::Missing, Item::Bytes),
            Operand::Literal(literal) => Item::of(literal),
        }
    }

    fn field(&self, slot: usize) -> Item<'a> {
        let Some(value) = self.fields.and_then(|fields| fields.get(slot)) else { return Item::Missing };
        let scalar = match value.kind() {
            Kind::Null => Some(Item::Null),
            Kind::Bool => value.as_bool().map(Item::Bool),
            Kind::Number => value.as_number().map(|number| Item::Number(Cow::Owned(number))),
            Kind::Text => value.as_text().map(|text| Item::Text(text.decode())),
            Kind::Array | Kind::Object => None,
        };
        scalar.unwrap_or(Item::Composite)
    }
}

impl<'i> Item<'i> {
    fn of(literal: &'i Literal) -> Self {
        match literal {
            Literal::Null => Self::Null,
            Literal::Bool(value) => Self::Bool(*value),
            Literal::Number(value) => Self::Number(Cow::Borrowed(value)),
            Literal::Text(value) => Self::Text(Cow::Borrowed(value)),
        }
    }

    /// The number that a header's value or a key is, if it is one.
    fn as_number(&self) -> Option<Number> {
        if let Self::Bytes(bytes) = self { number(bytes) } else { None }
    }

    /// How the two are ordered; `None` if they are of different types, or one is missing.
    fn compare(&self, other: &Item<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Null, Item::Null) => Some(Ordering::Equal),
            (Self::Bool(left), Item::Bool(right)) => Some(left.cmp(right)),
            (Self::Number(left), Item::Number(right)) => Some(left.cmp(right)),
            (Self::Bytes(left), Item::Number(right)) => Some(number(left)?.cmp(right)),
            (Self::Number(left), Item::Bytes(right)) => Some((**left).cmp(&number(right)?)),
            (left, right) => Some(left.bytes()?.cmp(right.bytes()?)),
        }
    }

    /// The bytes of a text.
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text.as_bytes()),
            Self::Bytes(bytes) => Some(bytes),
            Self::Missing | Self::Null | Self::Bool(_) | Self::Number(_) | Self::Composite => None,
        }
    }
}

fn number(text: &[u8]) -> Option<Number> {
    Number::parse(std::str::from_utf8(text).ok()?)
}
