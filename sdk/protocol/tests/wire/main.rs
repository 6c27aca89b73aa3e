//! The wire as others see it: fixed bytes, messages of other versions, garbage, and the document about all of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod document;
mod garbage;
mod golden;
mod messages;
mod samples;
mod vectors;
