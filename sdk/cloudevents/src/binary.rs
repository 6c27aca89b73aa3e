//! Binary mode: attributes as HTTP headers, data as the body.

use bytes::Bytes;
use levada_protocol::{event::Event, ids::Timestamp};

use crate::{
    attributes::{Attributes, CONTENT_TYPE, PREFIX, is_name},
    error::{InvalidCloudEvent, quote},
    percent,
};

/// Before the names of headers that are no attributes.
pub(crate) const HEADER_PREFIX: &str = "levada-header-";
/// The hop's trace, which is no attribute.
const TRACE: [&str; 2] = ["traceparent", "tracestate"];

/// True if HTTP headers of these names, in lower case, claim to be a CloudEvent in binary mode.
pub fn is_binary<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(|name| name.starts_with(PREFIX))
}

/// The event of a message in binary mode. Names are in lower case; headers that are no CloudEvent's are skipped, except
/// `levada-header-…`, `traceparent` and `tracestate`, which become headers of the event. `now` is what `expirytime` is measured
/// from.
///
/// # Errors
/// See [`InvalidCloudEvent`].
pub fn read_binary<'a>(
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    body: Bytes,
    now: Timestamp,
) -> Result<Event, InvalidCloudEvent> {
    let mut attributes = Attributes::default();
    for (name, value) in headers {
        if let Some(attribute) = name.strip_prefix(PREFIX) {
            if !is_name(attribute) || matches!(attribute, "data" | "datacontenttype") {
                return Err(InvalidCloudEvent::Name(quote(attribute)));
            }
            attributes.add(attribute, decoded(attribute, value)?)?;
        } else if name == CONTENT_TYPE {
            attributes.content_type = Some(plain(name, value)?);
        } else if let Some(header) = name.strip_prefix(HEADER_PREFIX) {
            let value = decoded(name, value)?;
            attributes.headers.push((header.to_owned(), value.into()));
        } else if TRACE.contains(&name) {
            attributes.headers.push((name.to_owned(), Bytes::copy_from_slice(value)));
        }
    }
    attributes.into_event(body, now)
}

fn decoded(name: &str, value: &[u8]) -> Result<String, InvalidCloudEvent> {
    let expected = "a text in percent-coded UTF-8, in which % is written %25,";
    percent::decode(value)
        .ok_or_else(|| InvalidCloudEvent::attribute(name, expected, &String::from_utf8_lossy(value)))
}

fn plain(name: &str, value: &[u8]) -> Result<String, InvalidCloudEvent> {
    let text = std::str::from_utf8(value)
        .map_err(|_| InvalidCloudEvent::attribute(name, "a media type", &String::from_utf8_lossy(value)))?;
    Ok(text.to_owned())
}
