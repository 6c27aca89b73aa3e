//! Conditions over events: JSON payloads, headers and keys. One language for the plugin `json-filter` and for searches.
//!
//! ```
//! use levada_expression::{Condition, Source};
//!
//! struct Order;
//!
//! impl Source for Order {
//!     fn payload(&self) -> Option<&[u8]> {
//!         Some(br#"{"amount": 250}"#)
//!     }
//!     fn key(&self) -> Option<&[u8]> {
//!         Some(b"order-1")
//!     }
//!     fn header(&self, name: &str) -> Option<&[u8]> {
//!         (name == "region").then_some(b"eu".as_slice())
//!     }
//! }
//!
//! let mut condition = Condition::parse(r#"amount > 100 and header.region = "eu""#)?;
//! assert_eq!(condition.holds(&Order), Ok(true));
//!
//! let error = Condition::parse("amount >").unwrap_err();
//! assert_eq!(error.to_string(), "column 9: expected a field, a header or a value, found the end");
//! # Ok::<(), levada_expression::ParseError>(())
//! ```
//!
//! An event of a batch ([`levada_protocol::batch::EventRef`]) is such a source. The language is described in the README of
//! `json-filter`. No I/O, no clock, nothing of the engine: the crate compiles
//! for WebAssembly guests and for the engine alike.

mod condition;
mod evaluate;
mod expression;
pub mod json;
mod parse;

pub use condition::Condition;
pub use evaluate::Source;
pub use parse::{CONDITION_BYTES_MAX, DEPTH_MAX, FIELDS_MAX, ParseError, SEGMENTS_MAX, TERMS_MAX};
