//! Events as CloudEvents 1.0, both ways: in HTTP's binary mode, in structured JSON and in batches of JSON.
//!
//! | CloudEvents | event |
//! | --- | --- |
//! | `data` | the payload. In JSON: the text of the JSON value as it stands there; of a text type the text itself; `data_base64` decoded |
//! | `datacontenttype` | the header `content-type` |
//! | `id` | the event id; over 128 bytes its SHA-256 in hex, and the header `ce-id`. Ids are unique only within their `source`: a topic with a dedup window needs the `dedup_header` `ce-source` |
//! | `specversion`, `source`, `type`, `subject`, `dataschema`, extensions | headers of those names behind `ce-` |
//! | `time` | the event time; also the header `ce-time` where that would be written otherwise. One before 1970 is kept in the header, and the event's own is the beginning of that year |
//! | `partitionkey` | the key |
//! | `expirytime` | the time to live, and the header `ce-expirytime` |
//! | `levadatombstone` | `true`: an event without payload |
//!
//! An event with the header `ce-specversion` was a CloudEvent. Any other is written as one with `source`
//! `/topics/<topic>`, `type` `levada.event` and its event id or its position as `id`; its headers become attributes in JSON if their
//! names are names of attributes, and HTTP headers `levada-header-<name>` in binary mode. `sequence` (the offset in 20
//! digits) and `recordedtime` (the time of the append) are added unless the event has its own.
//!
//! What is lost: in JSON a boolean or a number of an extension comes back as text, and data of a type that is neither
//! JSON nor text as `data_base64`. A key that is not UTF-8, or empty, is not written.
//!
//! Pure: knows nothing of connections or clocks.

mod attributes;
mod binary;
mod error;
mod json;
mod percent;
mod stored;
mod write;

pub use binary::{is_binary, read_binary};
pub use error::{InvalidBatch, InvalidCloudEvent};
pub use json::{read_batch, read_structured};
pub use percent::{decode as percent_decode, encode as percent_encode};
pub use stored::Stored;
pub use write::{write_batch, write_binary, write_structured};

#[cfg(test)]
mod tests;
