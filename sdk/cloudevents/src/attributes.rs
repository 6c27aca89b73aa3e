//! The attributes of one CloudEvent as they come in, and the event that they make.

use std::fmt::Write as _;

use bytes::Bytes;
use levada_json::time::{self, InvalidTime};
use levada_protocol::{
    event::Event,
    ids::Timestamp,
    limits::{EVENT_ID_BYTES_MAX, HEADERS_MAX},
};
use sha2::{Digest as _, Sha256};

use crate::error::InvalidCloudEvent;

/// The version that this crate reads and writes.
pub(crate) const SPEC_VERSION: &str = "1.0";
/// Before the name of an attribute as a header.
pub(crate) const PREFIX: &str = "ce-";
/// The header that holds `datacontenttype`.
pub(crate) const CONTENT_TYPE: &str = "content-type";
/// The extension that marks a tombstone.
pub(crate) const TOMBSTONE: &str = "levadatombstone";
/// Longest name of an attribute.
const NAME_BYTES_MAX: usize = 20;

/// Attributes by name, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    list: Vec<(String, String)>,
    /// `datacontenttype`.
    pub(crate) content_type: Option<String>,
    /// Headers that are no attributes.
    pub(crate) headers: Vec<(String, Bytes)>,
}

/// Most attributes of an event: as many as its headers, and those that are none.
const ATTRIBUTES_MAX: usize = HEADERS_MAX + 8;

/// True for what may be the name of an attribute.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

impl Attributes {
    /// Adds an attribute.
    pub(crate) fn add(&mut self, name: &str, value: String) -> Result<(), InvalidCloudEvent> {
        if !is_name(name) {
            return Err(InvalidCloudEvent::Name(crate::error::quote(name)));
        }
        // Names are looked for one after the other, and no event could keep as many.
        if self.list.len() >= ATTRIBUTES_MAX {
            return Err(InvalidCloudEvent::TooMany);
        }
        if self.get(name).is_some() {
            return Err(InvalidCloudEvent::Repeated(name.to_owned()));
        }
        self.list.push((name.to_owned(), value));
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn required(&self, name: &'static str) -> Result<&str, InvalidCloudEvent> {
        let value = self.get(name).ok_or(InvalidCloudEvent::Missing(name))?;
        non_empty(name, value)
    }

    /// The event of these attributes and this data; `now` is what `expirytime` is measured from.
    pub(crate) fn into_event(self, data: Bytes, now: Timestamp) -> Result<Event, InvalidCloudEvent> {
        let version = self.get("specversion").ok_or(InvalidCloudEvent::Missing("specversion"))?;
        if version != SPEC_VERSION {
            return Err(InvalidCloudEvent::attribute("specversion", "1.0", version));
        }
        let (source, id) = (self.required("source")?, self.required("id")?);
        self.required("type")?;
        if source.contains(|char: char| char.is_whitespace() || char.is_control()) {
            let expected = "a URI reference, which has no white space,";
            return Err(InvalidCloudEvent::attribute("source", expected, source));
        }
        let mut event = Event { id: Some(event_id(id)), ..Event::default() };
        event.payload = Some(data);
        if let Some(content_type) = self.content_type {
            event.headers.push((CONTENT_TYPE.to_owned(), content_type.into()));
        }
        for (name, value) in self.list {
            let is_header = match name.as_str() {
                "partitionkey" => {
                    non_empty("partitionkey", &value)?;
                    event.key = Some(value.into());
                    continue;
                }
                TOMBSTONE => {
                    if tombstone(&value)? {
                        event.payload = None;
                    }
                    false
                }
                "time" => {
                    let at = rfc_3339(&name, &value)?;
                    event.time = Some(at);
                    time::format(at).as_ref() != Some(&value)
                }
                "expirytime" => {
                    event.ttl_ms = time_to_live(rfc_3339(&name, &value)?, now);
                    true
                }
                "id" => value.len() > EVENT_ID_BYTES_MAX,
                "subject" | "dataschema" => !non_empty(&name, &value)?.is_empty(),
                _ => true,
            };
            if is_header {
                event.headers.push((format!("{PREFIX}{name}"), value.into()));
            }
        }
        event.headers.extend(self.headers);
        Ok(event)
    }
}

fn non_empty<'a>(name: &str, value: &'a str) -> Result<&'a str, InvalidCloudEvent> {
    if value.is_empty() {
        return Err(InvalidCloudEvent::attribute(name, "a text that is not empty", value));
    }
    Ok(value)
}

/// A time; one before 1970, which an event's own time cannot be, is the beginning of that year.
fn rfc_3339(name: &str, value: &str) -> Result<Timestamp, InvalidCloudEvent> {
    match time::parse(value) {
        Err(InvalidTime::Before1970) => Ok(Timestamp(0)),
        parsed => parsed.map_err(|_| {
            let expected = "a time in RFC 3339, such as 2026-01-31T12:00:00Z,";
            InvalidCloudEvent::attribute(name, expected, value)
        }),
    }
}

fn tombstone(value: &str) -> Result<bool, InvalidCloudEvent> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(InvalidCloudEvent::attribute(TOMBSTONE, "true or false", value)),
    }
}

/// Milliseconds until a time, at least 1. One that is further off than a time to live can be has none.
fn time_to_live(until: Timestamp, now: Timestamp) -> Option<u32> {
    u32::try_from(until.0.saturating_sub(now.0).max(1)).ok()
}

/// The id, or if it is too long for an event its SHA-256 in hex.
fn event_id(id: &str) -> Box<str> {
    if id.len() <= EVENT_ID_BYTES_MAX {
        return id.into();
    }
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(id.as_bytes()) {
        write!(hex, "{byte:02x}").expect("a text grows");
    }
    hex.into_boxed_str()
}
