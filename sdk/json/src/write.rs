//! An event as a line of JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use levada_protocol::{
    batch::EventRef,
    ids::{Offset, PartitionId, Timestamp},
};
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq as _},
};
use serde_json::value::RawValue;

use crate::time;

/// Where a written event was found.
#[derive(Debug, Clone, Copy)]
pub struct Location<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: PartitionId,
    /// The offset in it.
    pub offset: Offset,
    /// Of a subscription's delivery: the subscription's name, and which delivery of this event it is, from 1.
    pub delivery: Option<(&'a str, u8)>,
}

/// Writes an event as one line, its end included, behind what `out` holds.
pub fn write_event(out: &mut Vec<u8>, location: Location<'_>, event: &EventRef<'_>) {
    let mut serializer = serde_json::Serializer::new(&mut *out);
    write_fields(&mut serializer, location, event).expect("texts and numbers are written to memory");
    out.push(b'\n');
}

fn write_fields<S: Serializer>(
    serializer: S,
    location: Location<'_>,
    event: &EventRef<'_>,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("topic", location.topic)?;
    map.serialize_entry("partition", &location.partition.0)?;
    map.serialize_entry("offset", &location.offset.0)?;
    if let Some((subscription, attempt)) = location.delivery {
        map.serialize_entry("attempt", &attempt)?;
        let id = format!("{}/{subscription}/{}/{}", location.topic, location.partition, location.offset);
        map.serialize_entry("delivery", &id)?;
    }
    match event.key().map(text_of) {
        None => {}
        Some(Ok(text)) => map.serialize_entry("key", text)?,
        Some(Err(bytes)) => map.serialize_entry("key_base64", &STANDARD.encode(bytes))?,
    }
    if event.header_count() > 0 {
        map.serialize_entry("headers", &Headers::of(event))?;
    }
    if let Some(id) = event.id() {
        map.serialize_entry("id", id)?;
    }
    map.serialize_entry("time", &Time(event.time()))?;
    if let Some(ttl_ms) = event.ttl_ms() {
        map.serialize_entry("ttl_ms", &ttl_ms)?;
    }
    write_payload(&mut map, event.payload())?;
    map.end()
}

fn write_payload<M: SerializeMap>(map: &mut M, payload: Option<&[u8]>) -> Result<(), M::Error> {
    let Some(payload) = payload else { return map.serialize_entry("tombstone", &true) };
    match text_of(payload) {
        Ok(text) => match json_of(text) {
            Some(json) => map.serialize_entry("payload", json),
            None => map.serialize_entry("payload_text", text),
        },
        Err(bytes) => map.serialize_entry("payload_base64", &STANDARD.encode(bytes)),
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, &[u8]> {
    std::str::from_utf8(bytes).map_err(|_| bytes)
}

/// The text as JSON, if it is that from its first byte to its last, on one line.
fn json_of(text: &str) -> Option<&RawValue> {
    // Inside JSON's strings line ends are escaped, so these lie between its tokens.
    if text.contains(['\n', '\r']) {
        return None;
    }
    serde_json::from_str::<&RawValue>(text).ok().filter(|json| json.get() == text)
}

/// RFC 3339, or the number where that form ends.
struct Time(Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match time::format(self.0) {
            Some(text) => serializer.serialize_str(&text),
            None => serializer.serialize_u64(self.0.0),
        }
    }
}

/// Bytes as text, or in base64 where they are none.
struct Value<'a>(&'a [u8]);

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match text_of(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(bytes) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &STANDARD.encode(bytes))?;
                map.end()
            }
        }
    }
}

/// An object in which a repeated name has an array, or pairs if other names lie between the repeated ones.
struct Headers<'a>(Vec<(&'a str, Vec<Value<'a>>)>);

impl<'a> Headers<'a> {
    fn of(event: &EventRef<'a>) -> Self {
        let mut runs: Vec<(&str, Vec<Value<'_>>)> = Vec::with_capacity(usize::from(event.header_count()));
        for (name, value) in event.headers() {
            let name = std::str::from_utf8(name).expect("header names of a checked batch are UTF-8");
            match runs.last_mut() {
                Some((last, values)) if *last == name => values.push(Value(value)),
                _ => runs.push((name, vec![Value(value)])),
            }
        }
        Self(runs)
    }

    fn is_interleaved(&self) -> bool {
        let is_repeated = |(index, (name, _)): (usize, &(&str, _))| {
            self.0[..index].iter().any(|(earlier, _)| earlier == name)
        };
        self.0.iter().enumerate().any(is_repeated)
    }
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_interleaved() {
            let mut pairs = serializer.serialize_seq(None)?;
            for (name, values) in &self.0 {
                for value in values {
                    pairs.serialize_element(&(name, value))?;
                }
            }
            return pairs.end();
        }
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, values) in &self.0 {
            match values.as_slice() {
                [only] => map.serialize_entry(name, only)?,
                many => map.serialize_entry(name, many)?,
            }
        }
        map.end()
    }
}
