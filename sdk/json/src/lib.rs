//! Events as JSON, both ways: one object an event, on one line (NDJSON).
//!
//! ```json
//! {"key":"order-1","headers":{"source":"web"},"id":"a7","time":"2026-01-31T12:00:00Z","payload":{"amount":90}}
//! ```
//!
//! | field | value |
//! | --- | --- |
//! | `key`, or `key_base64` | the key as text, or other bytes in base64; absent: no key |
//! | `headers` | an object of names and values, or an array of `[name, value]` pairs where the order of repeated names matters; a value is a text or `{"base64": ".."}`, and in an object also an array of these |
//! | `id` | the event id |
//! | `time` | the event time in RFC 3339, or milliseconds since 1970 |
//! | `ttl_ms` | the time to live in milliseconds; absent: for ever |
//! | `payload` | any JSON; it is stored as the bytes that stand there |
//! | `payload_text` | a text that is not JSON |
//! | `payload_base64` | other bytes; the `_base64` suffix is that of CloudEvents' JSON format |
//! | `tombstone` | `true` for an event without payload |
//!
//! [`Made`], [`Deletion`] and [`Deployment`] are what changes of topics, subscriptions, routes and plugins are shown as.
//!
//! [`write_event`] and [`read_event`] are inverse to each other: whatever an engine can store is read back as the
//! same event, byte by byte. What a printed line says of its location (topic, offset and so on) is ignored.
//!
//! Pure: knows nothing of files, connections or clocks.

mod read;
mod shapes;
pub mod time;
mod write;

pub use read::{InvalidEvent, read_event};
pub use shapes::{Deletion, Deployment, Made};
pub use write::{Location, write_event};

#[cfg(test)]
mod tests;
