//! A line of JSON as an event.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use levada_protocol::{event::Event, ids::Timestamp};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};

use crate::time;

/// What an event may say.
const FIELDS: [&str; 10] = [
    "key",
    "key_base64",
    "headers",
    "id",
    "time",
    "ttl_ms",
    "payload",
    "payload_text",
    "payload_base64",
    "tombstone",
];
/// What printing adds, and reading skips.
const PLACE: [&str; 5] = ["topic", "partition", "offset", "attempt", "delivery"];
/// The fields that give an event its content; it has exactly one of them.
const CONTENT: &str = "`payload`, `payload_text`, `payload_base64` or `tombstone`";
/// How alike two names are that one meant the other, from 0 to 1.
const ALIKE: f64 = 0.8;
/// As many characters of a value as an error repeats.
const SHOWN_CHARS: usize = 40;

/// Why a line is no event: what was expected, and what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEvent {
    /// Text in another encoding.
    #[error("expected UTF-8, got {0}")]
    Encoding(String),
    /// JSON that is no object, or no JSON at all.
    #[error("expected a JSON object such as {{\"payload\": ..}}, got {0}")]
    NoObject(String),
    /// The object does not end on its line.
    #[error("expected a whole JSON object on one line, got one that does not end")]
    Unfinished,
    /// A fault inside the object.
    #[error("invalid JSON at column {column}: {shown}")]
    Syntax {
        /// The column, in bytes from 1.
        column: usize,
        /// What is there.
        shown: String,
    },
    /// A field that no event has.
    #[error("expected {expected}, got a field `{name}`", expected = match nearest {
        Some(nearest) => format!("`{nearest}`"),
        None => format!("only the fields {}", FIELDS.map(|field| format!("`{field}`")).join(", ")),
    })]
    UnknownField {
        /// Its name.
        name: String,
        /// The field that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A field that is there twice.
    #[error("expected each field once, got `{0}` twice")]
    RepeatedField(String),
    /// None of the fields that say what the event holds.
    #[error("expected a field {CONTENT}, got none")]
    NoContent {
        /// True if the fields look like the content itself: some of them belong to no event.
        is_bare: bool,
    },
    /// Two fields that say the same thing, or contradict each other.
    #[error("expected either `{0}` or `{1}`, got both")]
    Both(&'static str, &'static str),
    /// A field with a value that it cannot have.
    #[error("expected {expected} as {field}, got {got}")]
    Value {
        /// The field.
        field: String,
        /// What it takes.
        expected: &'static str,
        /// What it has.
        got: String,
    },
}

/// Reads an event; one without `time` has none. A byte order mark before it is skipped.
///
/// The line may end in white space, and in its line end.
///
/// # Errors
/// See [`InvalidEvent`].
pub fn read_event(line: &[u8]) -> Result<Event, InvalidEvent> {
    let line = object_of(line)?;
    let Fields(fields) = serde_json::from_str(line).map_err(|error| syntax(line, &error))?;
    let mut event = Event { payload: None, ..Event::default() };
    let mut content: Option<&'static str> = None;
    let mut key: Option<&'static str> = None;
    let mut unknown = None;
    if let Some(bare) = bare_content(&fields) {
        return Err(bare);
    }
    for (index, (Name(name), value)) in fields.iter().enumerate() {
        if PLACE.contains(&name.as_ref()) {
            continue;
        }
        let Some(&field) = FIELDS.iter().find(|field| **field == *name) else {
            unknown.get_or_insert(name);
            continue;
        };
        if fields[..index].iter().any(|(Name(earlier), _)| earlier == name) {
            return Err(InvalidEvent::RepeatedField(name.to_string()));
        }
        // `"payload": null` is four bytes of JSON; everywhere else nothing is nothing.
        if value.get() == "null" && field != "payload" {
            continue;
        }
        match field {
            "key" | "key_base64" => {
                only(&mut key, field)?;
                event.key =
                    Some(if field == "key" { text(field, value)?.into() } else { base64(field, value)? });
            }
            "headers" => event.headers = headers(value)?,
            "id" => event.id = Some(text(field, value)?.into_boxed_str()).filter(|id| !id.is_empty()),
            "time" => event.time = Some(event_time(value)?),
            "ttl_ms" => event.ttl_ms = Some(ttl_ms(value)?),
            "tombstone" => match value.get() {
                "true" => only(&mut content, field)?,
                "false" => {}
                _ => return Err(wrong(field, "true or false", value)),
            },
            _ => {
                only(&mut content, field)?;
                event.payload = Some(match field {
                    "payload" => Bytes::copy_from_slice(value.get().as_bytes()),
                    "payload_text" => text(field, value)?.into(),
                    _ => base64(field, value)?,
                });
            }
        }
    }
    match (content, unknown) {
        (_, Some(name)) => Err(InvalidEvent::UnknownField { name: shown(name), nearest: nearest(name) }),
        (None, None) => Err(InvalidEvent::NoContent { is_bare: false }),
        (Some(_), None) => Ok(event),
    }
}

/// Whether the fields are no event's but its content: none of those that hold a content is there, or looks meant.
fn bare_content(fields: &[(Name<'_>, &RawValue)]) -> Option<InvalidEvent> {
    let holds_content = |name: &str| name.starts_with("payload") || name == "tombstone";
    let is_meant = |name: &str| holds_content(name) || nearest(name).is_some_and(holds_content);
    let is_unknown = |name: &str| !FIELDS.contains(&name) && !PLACE.contains(&name);
    let is_bare = !fields.iter().any(|(Name(name), _)| is_meant(name))
        && fields.iter().any(|(Name(name), _)| is_unknown(name));
    is_bare.then_some(InvalidEvent::NoContent { is_bare })
}

/// The line as text that begins as an object does.
fn object_of(line: &[u8]) -> Result<&str, InvalidEvent> {
    if line.starts_with(&[0xff, 0xfe]) || line.starts_with(&[0xfe, 0xff]) {
        return Err(InvalidEvent::Encoding("UTF-16, as its byte order mark says".to_owned()));
    }
    // JSON has no zero bytes, and UTF-16 has one beside each letter of ASCII.
    if line.contains(&0) {
        return Err(InvalidEvent::Encoding("zero bytes, as UTF-16 has them".to_owned()));
    }
    let text = std::str::from_utf8(line).map_err(|error| {
        InvalidEvent::Encoding(format!("other bytes at column {}", error.valid_up_to() + 1))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_ascii();
    if text.starts_with('{') {
        return Ok(text);
    }
    Err(match serde_json::from_str::<IgnoredAny>(text) {
        _ if text.is_empty() => InvalidEvent::NoObject("an empty line".to_owned()),
        Ok(_) => InvalidEvent::NoObject(kind_of(text)),
        Err(error) if error.is_eof() && text.starts_with('[') => InvalidEvent::Unfinished,
        Err(_) => InvalidEvent::NoObject(format!("text that is not JSON: {}", shown(text))),
    })
}

fn syntax(line: &str, error: &serde_json::Error) -> InvalidEvent {
    match error.classify() {
        Category::Eof => InvalidEvent::Unfinished,
        _ => {
            let column = error.column();
            let before = line.len().min(column.saturating_sub(1));
            let rest = line.get(before..).unwrap_or_default();
            InvalidEvent::Syntax { column, shown: shown(if rest.is_empty() { line } else { rest }) }
        }
    }
}

/// The fields of an object in their order.
struct Fields<'a>(Vec<(Name<'a>, &'a RawValue)>);

#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// Notes the one field of several that say the same thing.
fn only(found: &mut Option<&'static str>, field: &'static str) -> Result<(), InvalidEvent> {
    match found.replace(field) {
        None => Ok(()),
        Some(earlier) => Err(InvalidEvent::Both(earlier, field)),
    }
}

fn text(field: &str, value: &RawValue) -> Result<String, InvalidEvent> {
    serde_json::from_str(value.get()).map_err(|_| wrong(field, "a text", value))
}

fn base64(field: &str, value: &RawValue) -> Result<Bytes, InvalidEvent> {
    let expected = "bytes in base64";
    let text: Cow<'_, str> = serde_json::from_str(value.get()).map_err(|_| wrong(field, expected, value))?;
    STANDARD.decode(text.as_ref()).map(Bytes::from).map_err(|_| wrong(field, expected, value))
}

fn event_time(value: &RawValue) -> Result<Timestamp, InvalidEvent> {
    let expected = "a time with its zone such as \"2026-01-31T12:00:00Z\", or milliseconds since 1970,";
    let wrong = || wrong("time", expected, value);
    if let Ok(milliseconds) = serde_json::from_str(value.get()) {
        return Ok(Timestamp(milliseconds));
    }
    let text: Cow<'_, str> = serde_json::from_str(value.get()).map_err(|_| wrong())?;
    time::parse(&text).map_err(|_| wrong())
}

fn ttl_ms(value: &RawValue) -> Result<u32, InvalidEvent> {
    let ttl_ms = serde_json::from_str(value.get()).ok().filter(|ttl_ms| *ttl_ms > 0);
    ttl_ms.ok_or_else(|| wrong("ttl_ms", "milliseconds from 1 to 4294967295", value))
}

fn headers(value: &RawValue) -> Result<Vec<(String, Bytes)>, InvalidEvent> {
    let mut headers = Vec::new();
    if value.get().starts_with('[') {
        let expected = "pairs of a name and a value";
        let pairs: Vec<&RawValue> = elements(value).ok_or_else(|| wrong("headers", expected, value))?;
        for pair in pairs {
            match elements(pair).as_deref() {
                Some([name, value]) => {
                    let name: String =
                        serde_json::from_str(name.get()).map_err(|_| wrong("headers", expected, pair))?;
                    let value = header_value(&name, value)?;
                    headers.push((name, value));
                }
                _ => return Err(wrong("headers", expected, pair)),
            }
        }
        return Ok(headers);
    }
    let expected = "an object of names and values, or pairs of them,";
    let Fields(fields) = serde_json::from_str(value.get()).map_err(|_| wrong("headers", expected, value))?;
    for (Name(name), value) in fields {
        match elements(value) {
            Some(values) => {
                for value in values {
                    headers.push((name.to_string(), header_value(&name, value)?));
                }
            }
            None => headers.push((name.to_string(), header_value(&name, value)?)),
        }
    }
    Ok(headers)
}

fn header_value(name: &str, value: &RawValue) -> Result<Bytes, InvalidEvent> {
    let field = || format!("the header {}", shown(name));
    if value.get().starts_with('{') {
        let fields = serde_json::from_str::<Fields<'_>>(value.get());
        if let Ok(Fields(fields)) = fields
            && let [(Name(name), value)] = fields.as_slice()
            && name == "base64"
        {
            return base64(&field(), value);
        }
    } else if let Ok(text) = serde_json::from_str::<String>(value.get()) {
        return Ok(text.into());
    }
    Err(wrong(&field(), "a text or {\"base64\": \"..\"}", value))
}

/// The elements of an array; `None` for anything else.
fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    value.get().starts_with('[').then(|| serde_json::from_str(value.get()).ok()).flatten()
}

fn wrong(field: &str, expected: &'static str, value: &RawValue) -> InvalidEvent {
    let field = if field.contains(' ') { field.to_owned() } else { format!("`{field}`") };
    InvalidEvent::Value { field, expected, got: kind_of(value.get()) }
}

/// What JSON text is, and its beginning.
fn kind_of(json: &str) -> String {
    let kind = match json.as_bytes().first() {
        Some(b'"') => "the text",
        Some(b'[') => "the array",
        Some(b'{') => "the object",
        Some(b't' | b'f' | b'n') => "the word",
        _ => "the number",
    };
    format!("{kind} {}", shown(json))
}

fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn nearest(name: &str) -> Option<&'static str> {
    let alike = FIELDS.into_iter().map(|field| (strsim::jaro_winkler(name, field), field));
    alike
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, field)| field)
}
