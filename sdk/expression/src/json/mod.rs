//! Reading JSON payloads in one pass, without building a document and without allocating.
//!
//! [`Scanner`] finds the values of a few dotted paths; [`Cursor`] walks a text value by value, for plugins that
//! rewrite it. Both check the whole text that they pass over: what they accept is JSON (RFC 8259) in UTF-8, at
//! most [`DEPTH_MAX`] deep. Of a name that an object has twice, the last value counts.

mod cursor;
mod number;
mod path;
mod scan;
mod value;

pub use cursor::{Cursor, DEPTH_MAX, Invalid};
pub use number::{Decimal, Number};
pub use path::path;
pub use scan::{Fields, Scanner};
pub use value::{Kind, Text, Value};

#[cfg(test)]
mod tests;
