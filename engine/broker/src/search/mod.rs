//! Searching the log: which events match, a bounded stretch of a partition at a time, and how much may be scanned.
//!
//! Nothing here knows readers: whoever searches calls [`Scanner::step`] and does with what is found what it likes.

mod matcher;
mod scanner;
mod tally;

pub(crate) use matcher::Matcher;
pub(crate) use scanner::{Found, Scanner, Scans, Step, kept};
pub(crate) use tally::Tally;
