//! CloudEvents in JSON, one or an array of them, read.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use levada_protocol::{event::Event, ids::Timestamp};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    attributes::Attributes,
    error::{InvalidBatch, InvalidCloudEvent, shorten},
    stored::{DataType, data_type},
};

/// The event of a CloudEvent in structured JSON. `now` is what `expirytime` is measured from.
///
/// # Errors
/// See [`InvalidCloudEvent`].
pub fn read_structured(json: &[u8], now: Timestamp) -> Result<Event, InvalidCloudEvent> {
    let text = text_of(json).map_err(InvalidCloudEvent::Json)?;
    read_object(text, now)
}

/// The events of a batch in JSON, in order.
///
/// # Errors
/// [`InvalidBatch`] names the first element that is no CloudEvent.
pub fn read_batch(json: &[u8], now: Timestamp) -> Result<Vec<Event>, InvalidBatch> {
    let text = text_of(json).map_err(InvalidBatch::Json)?;
    if !text.starts_with('[') {
        return Err(InvalidBatch::Json(kind_of(text)));
    }
    let elements: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|error| InvalidBatch::Json(format!("no valid JSON: {error}")))?;
    let event = |(index, element): (usize, &&RawValue)| {
        read_object(element.get(), now).map_err(|error| InvalidBatch::Event { index, error })
    };
    elements.iter().enumerate().map(event).collect()
}

fn text_of(json: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(json)
        .map_err(|error| format!("bytes that are not UTF-8 from byte {} on", error.valid_up_to()))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).trim_ascii())
}

fn read_object(text: &str, now: Timestamp) -> Result<Event, InvalidCloudEvent> {
    if !text.starts_with('{') {
        return Err(InvalidCloudEvent::Json(kind_of(text)));
    }
    let Members(members) = serde_json::from_str(text)
        .map_err(|error| InvalidCloudEvent::Json(format!("no valid JSON: {error}")))?;
    let (mut attributes, mut data, mut base64) = (Attributes::default(), None, None);
    for (Name(name), value) in members {
        let slot = match name.as_ref() {
            "data" => &mut data,
            "data_base64" => &mut base64,
            name => {
                add(&mut attributes, name, value)?;
                continue;
            }
        };
        if slot.replace(value).is_some() {
            return Err(InvalidCloudEvent::Repeated(name.into_owned()));
        }
    }
    let base64 = base64.filter(|value| value.get() != "null");
    let data = match (data, base64) {
        (Some(data), Some(_)) if data.get() != "null" => return Err(InvalidCloudEvent::TwoData),
        (_, Some(coded)) => decoded(coded)?,
        (Some(data), None) => data_of(data, attributes.content_type.as_deref())?,
        (None, None) => Bytes::new(),
    };
    attributes.into_event(data, now)
}

fn add(attributes: &mut Attributes, name: &str, value: &RawValue) -> Result<(), InvalidCloudEvent> {
    let text = match value.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(value.get()).ok(),
        Some(b't' | b'f') => Some(value.get().to_owned()),
        // A null is as if the attribute was not there.
        Some(b'n') => return Ok(()),
        _ => value.get().parse::<i32>().ok().map(|number| number.to_string()),
    };
    let expected = "a text, a whole number of 32 bits, true or false";
    let text = text.ok_or_else(|| InvalidCloudEvent::attribute(name, expected, value.get()))?;
    if name != "datacontenttype" {
        return attributes.add(name, text);
    }
    match attributes.content_type.replace(text) {
        Some(_) => Err(InvalidCloudEvent::Repeated(name.to_owned())),
        None => Ok(()),
    }
}

fn decoded(value: &RawValue) -> Result<Bytes, InvalidCloudEvent> {
    let text = serde_json::from_str::<Cow<'_, str>>(value.get()).ok();
    let bytes = text.and_then(|text| STANDARD.decode(text.as_ref()).ok());
    bytes.map(Bytes::from).ok_or_else(|| InvalidCloudEvent::Data {
        member: "data_base64",
        expected: "bytes in base64",
        got: kind_of(value.get()),
    })
}

/// The payload that `data` stands for: JSON as it stands there, or the text of any other type.
fn data_of(value: &RawValue, content_type: Option<&str>) -> Result<Bytes, InvalidCloudEvent> {
    if data_type(content_type) == DataType::Json {
        return Ok(Bytes::copy_from_slice(value.get().as_bytes()));
    }
    if value.get() == "null" {
        return Ok(Bytes::new());
    }
    let text = serde_json::from_str::<String>(value.get()).map_err(|_| InvalidCloudEvent::Data {
        member: "data",
        expected: "a text, as `datacontenttype` is no JSON,",
        got: kind_of(value.get()),
    })?;
    Ok(text.into())
}

/// What JSON text is, and its beginning.
fn kind_of(json: &str) -> String {
    let kind = match json.as_bytes().first() {
        None => return "nothing".to_owned(),
        Some(b'"') => "the text",
        Some(b'[') => "the array",
        Some(b'{') => "the object",
        Some(b't' | b'f' | b'n') => "the word",
        Some(b'0'..=b'9' | b'-') => "the number",
        Some(_) => "no JSON:",
    };
    format!("{kind} {}", shorten(json))
}

/// The members of an object in their order.
struct Members<'a>(Vec<(Name<'a>, &'a RawValue)>);

#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}
