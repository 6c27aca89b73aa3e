//! A stored event seen as a CloudEvent: its attributes in the order in which they are written.

use std::borrow::Cow;

use levada_json::time;
use levada_protocol::{
    batch::EventRef,
    ids::{Offset, PartitionId, Timestamp},
};

use crate::attributes::{CONTENT_TYPE, PREFIX, SPEC_VERSION, TOMBSTONE, is_name};

/// Names that a header of an event that was no CloudEvent cannot take in JSON.
const RESERVED: [&str; 12] = [
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "subject",
    "dataschema",
    "datacontenttype",
    "data",
    "partitionkey",
    "sequence",
    "recordedtime",
];
/// `type` of an event that was no CloudEvent.
const NATIVE_TYPE: &str = "levada.event";

/// Where an event is stored.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The topic's number, which no later topic of its name has.
    pub topic_id: u32,
    /// The partition.
    pub partition: PartitionId,
    /// The offset in it.
    pub offset: Offset,
    /// When it was appended, if that is known.
    pub appended: Option<Timestamp>,
}

/// What a media type says of its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataType {
    /// JSON; also without a media type.
    Json,
    /// Text in UTF-8.
    Text,
    /// Anything else.
    Bytes,
}

pub(crate) fn data_type(content_type: Option<&str>) -> DataType {
    let Some(content_type) = content_type else { return DataType::Json };
    let lower = content_type.to_ascii_lowercase();
    let (essence, parameters) = lower.split_once(';').unwrap_or((&lower, ""));
    let essence = essence.trim();
    let charset = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("charset="));
    if charset.is_some_and(|name| !matches!(name.trim_matches('"'), "utf-8" | "us-ascii")) {
        return DataType::Bytes;
    }
    let subtype = essence.rsplit_once('/').map_or("", |(_, subtype)| subtype);
    match subtype {
        _ if subtype == "json" || subtype.ends_with("+json") => DataType::Json,
        _ if essence.starts_with("text/") || subtype == "xml" || subtype.ends_with("+xml") => DataType::Text,
        _ => DataType::Bytes,
    }
}

/// A stored event's attributes, `datacontenttype` and data.
pub(crate) struct View<'a> {
    /// In the order in which they are written.
    pub(crate) attributes: Vec<(&'a str, Cow<'a, str>)>,
    pub(crate) content_type: Option<Cow<'a, str>>,
    /// Headers that are no attributes, with those of [`View::attributes`] left out.
    pub(crate) headers: Vec<(&'a str, &'a [u8])>,
    /// None of a tombstone.
    pub(crate) data: Option<&'a [u8]>,
}

impl<'a> View<'a> {
    pub(crate) fn of(stored: &Stored<'a>, event: &EventRef<'a>) -> Self {
        let header = |name: &str| event.header(name).and_then(|value| std::str::from_utf8(value).ok());
        let mut view = Self {
            attributes: Vec::with_capacity(usize::from(event.header_count()) + 8),
            content_type: header(CONTENT_TYPE).map(Cow::Borrowed),
            headers: Vec::new(),
            data: event.payload(),
        };
        if header("ce-specversion").is_none() {
            view.add_native(stored, event);
        }
        for (name, value) in event.headers() {
            let name = std::str::from_utf8(name).unwrap_or_default();
            let text = std::str::from_utf8(value);
            match (name.strip_prefix(PREFIX), text) {
                // Members of the JSON form's own, which a header must not pass for.
                (Some("data" | "datacontenttype"), _) => {}
                (Some(attribute), Ok(text)) if is_name(attribute) && !view.has(attribute) => {
                    view.attributes.push((attribute, Cow::Borrowed(text)));
                }
                _ if name == CONTENT_TYPE => {}
                _ => view.headers.push((name, value)),
            }
        }
        // One who said that it was a CloudEvent may have said no more.
        view.default("source", Cow::Owned(format!("/topics/{}", stored.topic)));
        view.default("type", Cow::Borrowed(NATIVE_TYPE));
        view.default("id", event_id(stored, event));
        if let Some(time) = time::format(event.time()) {
            view.default("time", Cow::Owned(time));
        }
        match event.key().map(std::str::from_utf8) {
            Some(Ok(key)) if !key.is_empty() => view.default("partitionkey", Cow::Borrowed(key)),
            _ => {}
        }
        if view.data.is_none() {
            view.default(TOMBSTONE, Cow::Borrowed("true"));
        }
        view.default("sequence", Cow::Owned(format!("{:020}", stored.offset.0)));
        if let Some(appended) = stored.appended.and_then(time::format) {
            view.default("recordedtime", Cow::Owned(appended));
        }
        view
    }

    /// The attributes that every CloudEvent has, of an event that came as none.
    fn add_native(&mut self, stored: &Stored<'a>, event: &EventRef<'a>) {
        self.attributes.push(("specversion", Cow::Borrowed(SPEC_VERSION)));
        self.attributes.push(("id", event_id(stored, event)));
        self.attributes.push(("source", Cow::Owned(format!("/topics/{}", stored.topic))));
        self.attributes.push(("type", Cow::Borrowed(NATIVE_TYPE)));
        let is_text = |data: &&[u8]| std::str::from_utf8(data).is_ok_and(|text| !text.is_empty());
        // Without a media type data is JSON.
        if self.content_type.is_none()
            && self.data.filter(is_text).is_some_and(|data| as_json(data).is_none())
        {
            self.content_type = Some(Cow::Borrowed("text/plain; charset=utf-8"));
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.attributes.iter().any(|(other, _)| *other == name)
    }

    fn default(&mut self, name: &'static str, value: Cow<'a, str>) {
        if !self.has(name) {
            self.attributes.push((name, value));
        }
    }

    /// Headers that are no attributes and can be shown as some.
    pub(crate) fn nameable(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let is_free = |name: &str| is_name(name) && !RESERVED.contains(&name) && !self.has(name);
        let named = move |(index, (name, value)): (usize, &(&'a str, &'a [u8]))| {
            let is_first = !self.headers[..index].iter().any(|(earlier, _)| earlier == name);
            let text = std::str::from_utf8(value).ok()?;
            (is_first && is_free(name)).then_some((*name, text))
        };
        self.headers.iter().enumerate().filter_map(named)
    }
}

/// The event's own id, or its position.
fn event_id<'a>(stored: &Stored<'a>, event: &EventRef<'a>) -> Cow<'a, str> {
    match event.id() {
        Some(id) => Cow::Borrowed(id),
        None => Cow::Owned(format!("{}-{}-{}", stored.topic_id, stored.partition.0, stored.offset.0)),
    }
}

/// Bytes as JSON, from the first to the last.
pub(crate) fn as_json(data: &[u8]) -> Option<&serde_json::value::RawValue> {
    let text = std::str::from_utf8(data).ok()?;
    serde_json::from_str::<&serde_json::value::RawValue>(text).ok().filter(|json| json.get() == text)
}
