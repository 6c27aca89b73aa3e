//! Events as lines of JSON, both ways: what `publish` reads and what `read` and `subscribe` print.
//!
//! A payload that is JSON stands as it is; other bytes stand as `{"base64":".."}`. What is printed here is read
//! back here as the same event. Knows nothing of files or connections.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use levada_protocol::{
    batch::EventRef,
    event::Event,
    ids::{Offset, PartitionId, Timestamp},
};
use serde::{
    Deserialize, Serialize,
    de::{IgnoredAny, MapAccess, Visitor},
    ser::SerializeMap as _,
};
use serde_json::value::RawValue;

use crate::output;

/// What every published line gets, whether it names it or not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Defaults {
    /// The key of events that name none.
    pub(crate) key: Option<Bytes>,
    /// Headers before the event's own.
    pub(crate) headers: Vec<(String, Bytes)>,
}

impl Defaults {
    /// A line that is a payload as it stands.
    pub(crate) fn raw_event(&self, line: &[u8], now: Timestamp) -> Event {
        self.event(Bytes::copy_from_slice(line), now)
    }

    /// A line of JSON.
    ///
    /// # Errors
    /// What is wrong with the line, as a sentence.
    pub(crate) fn event_of(&self, line: &[u8], now: Timestamp) -> Result<Event, String> {
        if let Some(got) = no_object(line) {
            return Err(format!(
                "expected a JSON object such as {{\"payload\": ..}}, got {got}; --raw publishes each line as it is"
            ));
        }
        let line: Line<'_> = serde_json::from_slice(line).map_err(|error| without_place(&error))?;
        let payload = line.payload.ok_or("expected a field `payload` with any JSON value, got none")?;
        let mut event = self.event(payload_bytes(payload)?, now);
        if let Some(key) = line.key {
            event.key = Some(text_or_base64("key", key)?);
        }
        for (name, value) in line.headers.0 {
            for value in one_or_many(value)? {
                event.headers.push((name.clone(), text_or_base64("header", value)?));
            }
        }
        if let Some(time) = line.time {
            event.time = parse_time(time)?;
        }
        event.id = line.id;
        Ok(event)
    }

    fn event(&self, payload: Bytes, now: Timestamp) -> Event {
        Event {
            key: self.key.clone(),
            headers: self.headers.clone(),
            payload: Some(payload),
            time: now,
            ..Event::default()
        }
    }
}

/// The fields of a line. Those that only printing makes are read over, so that output can be input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    #[serde(borrow, default)]
    headers: HeaderMap<'a>,
    // Without a function of its own serde takes `null` for an absent field, and it is a payload.
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow, default)]
    time: Option<&'a RawValue>,
    #[serde(default, rename = "topic")]
    _topic: IgnoredAny,
    #[serde(default, rename = "partition")]
    _partition: IgnoredAny,
    #[serde(default, rename = "offset")]
    _offset: IgnoredAny,
    #[serde(default, rename = "attempt")]
    _attempt: IgnoredAny,
    #[serde(default, rename = "delivery")]
    _delivery: IgnoredAny,
    #[serde(default, rename = "appended")]
    _appended: IgnoredAny,
}

fn present<'de: 'a, 'a, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Headers in the order of the line.
#[derive(Default)]
struct HeaderMap<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for HeaderMap<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = HeaderMap<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of header names and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut headers = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    headers.push(entry);
                }
                Ok(HeaderMap(headers))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Base64<T> {
    base64: T,
}

/// What a line is that does not begin as an object does.
fn no_object(line: &[u8]) -> Option<String> {
    /// As much of a line as an error repeats.
    const SHOWN_CHARS: usize = 40;
    let line = line.trim_ascii();
    let kind = match line.first() {
        Some(b'{') => return None,
        None => return Some("an empty line".to_owned()),
        Some(_) if serde_json::from_slice::<IgnoredAny>(line).is_err() => "no JSON:",
        Some(b'"') => "the string",
        Some(b'[') => "the array",
        Some(b't' | b'f' | b'n') => "the word",
        Some(_) => "the number",
    };
    let text = String::from_utf8_lossy(line);
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    let cut = if shown.len() < text.len() { "…" } else { "" };
    Some(format!("{kind} {shown}{cut}"))
}

/// serde_json's sentence without its line number: a line of NDJSON has only one.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => format!("{} at column {}", &text[..at], error.column()),
        None => text,
    }
}

fn payload_bytes(raw: &RawValue) -> Result<Bytes, String> {
    match serde_json::from_str::<Base64<String>>(raw.get()) {
        Ok(wrapped) => decode("payload", &wrapped.base64),
        Err(_) => Ok(Bytes::copy_from_slice(raw.get().as_bytes())),
    }
}

fn decode(what: &str, text: &str) -> Result<Bytes, String> {
    STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("the {what}'s base64 is wrong: {error}"))
}

fn text_or_base64(what: &str, raw: &RawValue) -> Result<Bytes, String> {
    if let Ok(text) = serde_json::from_str::<String>(raw.get()) {
        return Ok(text.into());
    }
    match serde_json::from_str::<Base64<String>>(raw.get()) {
        Ok(wrapped) => decode(what, &wrapped.base64),
        Err(_) => Err(format!("expected a text or {{\"base64\":\"..\"}} as {what}, got {}", raw.get())),
    }
}

fn one_or_many(raw: &RawValue) -> Result<Vec<&RawValue>, String> {
    if raw.get().starts_with('[') {
        return serde_json::from_str(raw.get()).map_err(|error| error.to_string());
    }
    Ok(vec![raw])
}

fn parse_time(raw: &RawValue) -> Result<Timestamp, String> {
    let wrong = || {
        format!("expected a time as \"2026-01-31T12:00:00Z\" or milliseconds since 1970, got {}", raw.get())
    };
    if let Ok(milliseconds) = serde_json::from_str::<u64>(raw.get()) {
        return Ok(Timestamp(milliseconds));
    }
    let text: String = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
    let time: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    u64::try_from(time.as_millisecond()).map(Timestamp).map_err(|_| wrong())
}

/// Where a printed event was found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    /// Of a subscription's delivery: its name and which delivery of this event it is.
    pub(crate) delivery: Option<(&'a str, u8)>,
}

/// Writes an event as one line, its end included, behind `out`.
pub(crate) fn write_line(
    out: &mut Vec<u8>,
    place: Place<'_>,
    event: &EventRef<'_>,
) -> serde_json::Result<()> {
    let mut serializer = serde_json::Serializer::new(&mut *out);
    let mut map = serde::Serializer::serialize_map(&mut serializer, None)?;
    map.serialize_entry("topic", place.topic)?;
    map.serialize_entry("partition", &place.partition.0)?;
    map.serialize_entry("offset", &place.offset.0)?;
    if let Some((subscription, attempt)) = place.delivery {
        map.serialize_entry("attempt", &attempt)?;
        let id = format!("{}/{subscription}/{}/{}", place.topic, place.partition, place.offset);
        map.serialize_entry("delivery", &id)?;
    }
    if let Some(key) = event.key() {
        map.serialize_entry("key", &Printed(key))?;
    }
    if event.header_count() > 0 {
        map.serialize_entry("headers", &PrintedHeaders(event))?;
    }
    if let Some(id) = event.id() {
        map.serialize_entry("id", id)?;
    }
    map.serialize_entry("time", &output::time_ms(event.time().0))?;
    if let Some(payload) = event.payload() {
        match as_json(payload) {
            Some(json) => map.serialize_entry("payload", &json)?,
            None => map.serialize_entry("payload", &Base64 { base64: STANDARD.encode(payload) })?,
        }
    }
    map.end()?;
    out.push(b'\n');
    Ok(())
}

/// The payload as JSON text on one line, if it is JSON that reading would not take for something else.
fn as_json(payload: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(payload).ok()?;
    if text.trim() != text || serde_json::from_str::<Base64<IgnoredAny>>(text).is_ok() {
        return None;
    }
    // Inside JSON's strings line ends are escaped; between its tokens a space means the same.
    RawValue::from_string(text.replace(['\n', '\r'], " ")).ok()
}

/// Bytes as text, or in base64 where they are none.
struct Printed<'a>(&'a [u8]);

impl Serialize for Printed<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Base64 { base64: STANDARD.encode(self.0) }.serialize(serializer),
        }
    }
}

/// Headers as an object; a name that repeats gets an array, where it first stands.
struct PrintedHeaders<'a>(&'a EventRef<'a>);

impl Serialize for PrintedHeaders<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let headers: Vec<(&[u8], &[u8])> = self.0.headers().collect();
        let mut map = serializer.serialize_map(None)?;
        for (index, (name, value)) in headers.iter().enumerate() {
            if headers[..index].iter().any(|(earlier, _)| earlier == name) {
                continue;
            }
            let values: Vec<Printed<'_>> = headers[index..]
                .iter()
                .filter(|(later, _)| later == name)
                .map(|(_, value)| Printed(value))
                .collect();
            let name = String::from_utf8_lossy(name);
            match values.len() {
                1 => map.serialize_entry(&name, &Printed(value))?,
                _ => map.serialize_entry(&name, &values)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        ids::{Epoch, ProducerId, Sequence},
    };

    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn parse(line: &str) -> Result<Event, String> {
        Defaults::default().event_of(line.as_bytes(), NOW)
    }

    fn print(event: &Event) -> String {
        let mut builder = BatchBuilder::new();
        builder.push(event).unwrap();
        let batch = builder.finish(Stamp {
            producer_id: ProducerId(1),
            epoch: Epoch(0),
            first_sequence: Sequence(0),
        });
        let place =
            Place { topic: "t", partition: PartitionId(1), offset: Offset(7), delivery: Some(("s", 2)) };
        let mut out = Vec::new();
        write_line(&mut out, place, &batch.events().next().unwrap()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn payloads_are_stored_as_their_own_json_bytes() {
        for payload in [r#"{"b":1,"a":[1.50,2]}"#, "17", "null", "\"text\"", "[]", "1.000000000000000000001"]
        {
            let event = parse(&format!(r#"{{"payload":{payload}}}"#)).unwrap();
            assert_eq!(event.payload.unwrap(), payload.as_bytes());
        }
        assert_eq!(parse(r#"{"payload":{"base64":"AP8="}}"#).unwrap().payload.unwrap(), &[0, 255][..]);
    }

    #[test]
    fn every_field_is_read() {
        let line = r#"{"key":"k","headers":{"z":"1","a":["2",{"base64":"AP8="}]},"payload":1,"id":"i",
            "time":"1970-01-01T00:00:02Z","topic":"t","partition":0,"offset":3,"attempt":1,"delivery":"d"}"#;
        let event = parse(line).unwrap();
        assert_eq!(event.key.unwrap(), "k");
        let headers: Vec<(&str, &[u8])> =
            event.headers.iter().map(|(name, value)| (&**name, &value[..])).collect();
        assert_eq!(headers, [("z", &b"1"[..]), ("a", b"2"), ("a", &[0, 255])]);
        assert_eq!((event.id.as_deref(), event.time), (Some("i"), Timestamp(2_000)));
        assert_eq!(parse(r#"{"payload":1,"time":5}"#).unwrap().time, Timestamp(5));
        assert_eq!(parse(r#"{"payload":1}"#).unwrap().time, NOW);
    }

    #[test]
    fn wrong_lines_say_what_was_expected() {
        for (line, part) in [
            ("", "got an empty line"),
            ("17", "got the number 17; --raw"),
            ("\"a b\"", "got the string \"a b\";"),
            ("[1]", "got the array [1];"),
            ("null", "got the word null;"),
            ("no JSON at all", "got no JSON: no JSON at all;"),
            ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "xxxx…;"),
            ("{\"payload\":}", "column"),
            ("{}", "`payload`"),
            (r#"{"payload":1,"paylod":2}"#, "paylod"),
            (r#"{"payload":1,"key":5}"#, "as key"),
            (r#"{"payload":1,"headers":[]}"#, "header names"),
            (r#"{"payload":1,"headers":{"a":1}}"#, "as header"),
            (r#"{"payload":1,"time":"noon"}"#, "expected a time"),
            (r#"{"payload":{"base64":"%"}}"#, "base64"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn defaults_come_first_and_yield() {
        let defaults = Defaults { key: Some("d".into()), headers: vec![("a".to_owned(), "1".into())] };
        let event = defaults.event_of(br#"{"payload":1,"headers":{"a":"2"}}"#, NOW).unwrap();
        assert_eq!(event.key.unwrap(), "d");
        assert_eq!(event.headers, [("a".to_owned(), "1".into()), ("a".to_owned(), Bytes::from("2"))]);
        assert_eq!(defaults.event_of(br#"{"payload":1,"key":"k"}"#, NOW).unwrap().key.unwrap(), "k");
        assert_eq!(defaults.raw_event(b"not json", NOW).payload.unwrap(), "not json");
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_event() {
        let payloads: [&[u8]; 7] =
            [b"{\"a\":1}", b"", b"plain text", &[0, 255], br#"{"base64":"AA=="}"#, b" 1", b"\"x\""];
        for payload in payloads {
            let event = Event::new(payload.to_vec())
                .with_key(vec![1, 255])
                .with_header("a", "1")
                .with_header("b", vec![255])
                .with_header("a", "2")
                .at(Timestamp(1_234));
            let line = print(&event);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            let back = parse(&line).unwrap();
            assert_eq!(
                (&back.key, &back.payload, back.time),
                (&event.key, &event.payload, event.time),
                "{line}"
            );
            assert_eq!(back.headers.len(), 3);
        }
    }

    #[test]
    fn a_printed_line_names_its_place() {
        let line = print(&Event::new("{\n\"a\": 1}").at(Timestamp(0)));
        let start = r#"{"topic":"t","partition":1,"offset":7,"attempt":2,"delivery":"t/s/1/7","#;
        assert!(line.starts_with(start), "{line}");
        assert!(line.contains(r#""payload":{ "a": 1}"#), "{line}");
    }
}
