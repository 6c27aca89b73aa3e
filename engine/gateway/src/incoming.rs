//! The body of a publish as events: CloudEvents in three modes, lines of JSON, or any bytes.

use axum::http::{
    HeaderMap, HeaderName, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use bytes::Bytes;
use levada_cloudevents::{
    InvalidBatch, InvalidCloudEvent, is_binary, percent_decode, read_batch, read_binary, read_structured,
};
use levada_json::{read_event, time};
use levada_protocol::{
    error::ErrorCode, event::Event, ids::Timestamp, limits::BATCH_EVENTS_MAX, schedule::Due,
};

use crate::{params::duration, problem::Problem};

/// Before the names of headers that become headers of the event.
const HEADER_PREFIX: &str = "levada-header-";
/// The headers that make an event of any body.
const KEY: HeaderName = HeaderName::from_static("levada-key");
const ID: HeaderName = HeaderName::from_static("levada-id");
const TIME: HeaderName = HeaderName::from_static("levada-time");
const TOMBSTONE: HeaderName = HeaderName::from_static("levada-tombstone");
/// The headers that hold for all events of a request.
const DELAY: HeaderName = HeaderName::from_static("levada-delay");
const TTL: HeaderName = HeaderName::from_static("levada-ttl");

/// What a request publishes.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// The events in order.
    pub(crate) events: Vec<Event>,
    /// When they are appended, if not at once.
    pub(crate) due: Option<Due>,
}

/// How a body holds events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Structured,
    Batch,
    Lines,
    Binary,
    Raw,
}

/// Reads the events of a request.
pub(crate) fn read(headers: &HeaderMap, body: Bytes, now: Timestamp) -> Result<Incoming, Problem> {
    if let Some(coding) = headers.get(CONTENT_ENCODING).filter(|coding| coding.as_bytes() != b"identity") {
        let detail = format!("expected a body without Content-Encoding, got {coding:?}");
        return Err(Problem::invalid(detail).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let mode = mode_of(headers)?;
    if mode != Mode::Raw
        && let Some(name) = headers.keys().find(|name| is_raw_only(name, mode))
    {
        let detail = format!(
            "expected {name} only with a body that is no CloudEvent and no JSON lines: they say it themselves"
        );
        return Err(Problem::invalid(detail));
    }
    let mut events = match mode {
        Mode::Structured => vec![read_structured(&body, now).map_err(|error| not_one(&error))?],
        Mode::Batch => read_batch(&body, now).map_err(|error| not_some(&error))?,
        Mode::Lines => lines(&body)?,
        Mode::Binary => {
            let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
            vec![read_binary(headers, body, now).map_err(|error| not_one(&error))?]
        }
        Mode::Raw => vec![raw(headers, body)?],
    };
    if events.len() > BATCH_EVENTS_MAX {
        let got = events.len();
        let detail =
            format!("expected at most {BATCH_EVENTS_MAX} events in a request, got {got}: send several");
        return Err(Problem::new(ErrorCode::EventTooLarge, detail));
    }
    let ttl = text(headers, TTL)?.map(|text| ttl_ms(&text)).transpose()?;
    for event in &mut events {
        event.time = event.time.or(Some(now));
        event.ttl_ms = event.ttl_ms.or(ttl);
    }
    let delay = text(headers, DELAY)?.map(|text| duration("Levada-Delay", &text)).transpose()?;
    Ok(Incoming { events, due: delay.filter(|delay| !delay.is_zero()).map(Due::from) })
}

fn mode_of(headers: &HeaderMap) -> Result<Mode, Problem> {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let (essence, parameters) = match content_type.iter().position(|byte| *byte == b';') {
        Some(at) => content_type.split_at(at),
        None => (content_type, &b""[..]),
    };
    let essence = essence.trim_ascii().to_ascii_lowercase();
    let mode = match essence.as_slice() {
        b"application/cloudevents+json" => Mode::Structured,
        b"application/cloudevents-batch+json" => Mode::Batch,
        b"application/x-ndjson" => Mode::Lines,
        other if other.starts_with(b"application/cloudevents") => {
            let detail = format!(
                "expected application/cloudevents+json or application/cloudevents-batch+json as Content-Type of a CloudEvent, got {:?}",
                String::from_utf8_lossy(other)
            );
            return Err(Problem::invalid(detail).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        _ if is_binary(headers.keys().map(|name| name.as_str())) => return Ok(Mode::Binary),
        _ => return Ok(Mode::Raw),
    };
    let parameters = parameters.to_ascii_lowercase();
    let charset =
        parameters.split(|byte| *byte == b';').find_map(|it| it.trim_ascii().strip_prefix(b"charset="));
    if let Some(charset) = charset.filter(|it| !matches!(*it, b"utf-8" | b"\"utf-8\"" | b"us-ascii")) {
        let detail =
            format!("expected JSON in UTF-8, got the charset {:?}", String::from_utf8_lossy(charset));
        return Err(Problem::invalid(detail).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    Ok(mode)
}

/// True for a header that would say again, or otherwise, what the event says itself.
fn is_raw_only(name: &HeaderName, mode: Mode) -> bool {
    [KEY, ID, TIME, TOMBSTONE].contains(name)
        || (mode != Mode::Binary && name.as_str().starts_with(HEADER_PREFIX))
}

fn not_one(error: &InvalidCloudEvent) -> Problem {
    Problem::invalid(format!("the event is no CloudEvent: {error}")).at(0)
}

fn not_some(error: &InvalidBatch) -> Problem {
    let problem = Problem::invalid(format!("{error}; nothing was stored"));
    match error {
        InvalidBatch::Json(_) => problem,
        InvalidBatch::Event { index, .. } => problem.at(*index),
    }
}

fn lines(body: &[u8]) -> Result<Vec<Event>, Problem> {
    let mut events = Vec::new();
    for (number, line) in (1_usize..).zip(body.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let index = events.len();
        let event = read_event(line).map_err(|error| {
            Problem::invalid(format!(
                "line {number}, event {index} counted from 0: {error}; nothing was stored"
            ))
            .at(index)
        })?;
        events.push(event);
    }
    Ok(events)
}

/// Any body, with what the headers say of it.
fn raw(headers: &HeaderMap, body: Bytes) -> Result<Event, Problem> {
    let mut event = Event {
        key: text(headers, KEY)?.map(Bytes::from),
        id: text(headers, ID)?.filter(|id| !id.is_empty()).map(String::into_boxed_str),
        time: text(headers, TIME)?.map(|text| event_time(&text)).transpose()?,
        payload: Some(body),
        ..Event::default()
    };
    if let Some(tombstone) = text(headers, TOMBSTONE)? {
        if tombstone != "true" || event.payload.as_ref().is_some_and(|body| !body.is_empty()) {
            return Err(Problem::invalid("expected true as Levada-Tombstone, with an empty body"));
        }
        event.payload = None;
    }
    for (name, value) in headers {
        let name = name.as_str();
        if name == CONTENT_TYPE.as_str() || matches!(name, "traceparent" | "tracestate") {
            event.headers.push((name.to_owned(), Bytes::copy_from_slice(value.as_bytes())));
        } else if let Some(header) = name.strip_prefix(HEADER_PREFIX) {
            event.headers.push((header.to_owned(), decoded(name, value.as_bytes())?.into()));
        }
    }
    Ok(event)
}

fn text(headers: &HeaderMap, name: HeaderName) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(&name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => decoded(name.as_str(), value.as_bytes()).map(Some),
        (Some(_), Some(_)) => Err(Problem::invalid(format!("expected the header {name} once, got it twice"))),
    }
}

fn decoded(name: &str, value: &[u8]) -> Result<String, Problem> {
    percent_decode(value).ok_or_else(|| {
        let got = String::from_utf8_lossy(value);
        Problem::invalid(format!(
            "expected percent-coded UTF-8 as {name}, in which % is written %25, got {got:?}"
        ))
    })
}

fn event_time(text: &str) -> Result<Timestamp, Problem> {
    if let Ok(milliseconds) = text.parse() {
        return Ok(Timestamp(milliseconds));
    }
    time::parse(text).map_err(|error| Problem::invalid(format!("{error} as Levada-Time, got {text:?}")))
}

fn ttl_ms(text: &str) -> Result<u32, Problem> {
    let ttl = duration("Levada-Ttl", text)?;
    u32::try_from(ttl.as_millis()).ok().filter(|ttl| *ttl > 0).ok_or_else(|| {
        Problem::invalid(format!("expected a duration from 1ms to 49 days as Levada-Ttl, got {text:?}"))
    })
}
