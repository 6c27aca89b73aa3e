//! Stored events as CloudEvents: HTTP headers and a body, or JSON.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use levada_protocol::batch::EventRef;
use serde::{Serializer, ser::SerializeMap};

use crate::{
    attributes::{CONTENT_TYPE, PREFIX},
    binary::HEADER_PREFIX,
    percent,
    stored::{DataType, Stored, View, as_json, data_type},
};

/// A stored event in binary mode: HTTP headers, names in lower case, and the body.
///
/// A header of the event whose name is no HTTP header's or has upper case letters, or whose value is not UTF-8, is left out.
pub fn write_binary<'a>(stored: &Stored<'a>, event: &EventRef<'a>) -> (Vec<(String, String)>, &'a [u8]) {
    let view = View::of(stored, event);
    let mut headers = Vec::with_capacity(view.attributes.len() + view.headers.len() + 1);
    for (name, value) in &view.attributes {
        headers.push((format!("{PREFIX}{name}"), percent::encode(value).into_owned()));
    }
    headers.extend(view.content_type.map(|value| (CONTENT_TYPE.to_owned(), value.into_owned())));
    for (name, value) in view.headers {
        let Ok(value) = std::str::from_utf8(value) else { continue };
        if matches!(name, "traceparent" | "tracestate") {
            headers.push((name.to_owned(), value.to_owned()));
        } else if is_header_name(name) {
            headers.push((format!("{HEADER_PREFIX}{name}"), percent::encode(value).into_owned()));
        }
    }
    (headers, view.data.unwrap_or_default())
}

fn is_header_name(name: &str) -> bool {
    let is_token =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

/// Writes a stored event as a CloudEvent in structured JSON behind what `out` holds. Data that is JSON stands there as it was
/// published, its line ends included.
pub fn write_structured<'a>(out: &mut Vec<u8>, stored: &Stored<'a>, event: &EventRef<'a>) {
    let mut serializer = serde_json::Serializer::new(&mut *out);
    write_object(&mut serializer, &View::of(stored, event)).expect("texts are written to memory");
}

/// Writes stored events as a batch in JSON behind what `out` holds.
pub fn write_batch<'a>(out: &mut Vec<u8>, events: impl IntoIterator<Item = (Stored<'a>, EventRef<'a>)>) {
    out.push(b'[');
    for (index, (stored, event)) in events.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_structured(out, &stored, &event);
    }
    out.push(b']');
}

fn write_object<S: Serializer>(serializer: S, view: &View<'_>) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for (name, value) in &view.attributes {
        if *name == crate::attributes::TOMBSTONE && value == "true" {
            map.serialize_entry(name, &true)?;
        } else {
            map.serialize_entry(name, value)?;
        }
    }
    for (name, value) in view.nameable() {
        map.serialize_entry(name, value)?;
    }
    if let Some(content_type) = &view.content_type {
        map.serialize_entry("datacontenttype", content_type)?;
    }
    write_data(&mut map, view.content_type.as_ref(), view.data.unwrap_or_default())?;
    map.end()
}

fn write_data<M: SerializeMap>(
    map: &mut M,
    content_type: Option<&Cow<'_, str>>,
    data: &[u8],
) -> Result<(), M::Error> {
    if data.is_empty() {
        return Ok(());
    }
    match data_type(content_type.map(AsRef::as_ref)) {
        DataType::Json => {
            if let Some(json) = as_json(data) {
                return map.serialize_entry("data", json);
            }
        }
        DataType::Text => {
            if let Ok(text) = std::str::from_utf8(data) {
                return map.serialize_entry("data", text);
            }
        }
        DataType::Bytes => {}
    }
    map.serialize_entry("data_base64", &STANDARD.encode(data))
}
