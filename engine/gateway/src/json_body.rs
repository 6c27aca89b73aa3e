//! Bodies that are one JSON object.

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
};
use bytes::Bytes;
use levada_protocol::error::ErrorCode;
use serde::{Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{body, problem::Problem, state::Gateway};

/// Reads a JSON object; no body is the empty object. Unknown members are refused.
pub(crate) async fn receive<T: DeserializeOwned>(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Problem> {
    let bytes = bytes(gateway, headers, body).await?;
    // Else an array would be taken for the members in their order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::invalid("expected a JSON object as body, got an array"));
    }
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let read = known(&mut json)?;
    json.end().map_err(|error| wrong(&error))?;
    Ok(read)
}

/// The same of an object that lacks a member which the path says; if it is there, it says the same.
pub(crate) async fn receive_with<T: DeserializeOwned>(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Body,
    (name, value): (&'static str, &str),
) -> Result<T, Problem> {
    let mut members: Map<String, Value> = receive(gateway, headers, body).await?;
    match members.insert(name.to_owned(), value.into()) {
        Some(other) if other != value => {
            Err(Problem::invalid(format!("expected {value:?} as {name} of the body, or none, got {other}")))
        }
        _ => known(Value::Object(members)),
    }
}

async fn bytes(gateway: &Gateway, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b"application/json"[..], |value| value.as_bytes());
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let bytes = body::receive(gateway, headers, body).await?;
    if bytes.trim_ascii().is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    if !essence.eq_ignore_ascii_case(b"application/json") {
        let got = String::from_utf8_lossy(essence);
        let detail = format!("expected application/json as Content-Type, got {got:?}");
        return Err(Problem::invalid(detail).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    Ok(bytes)
}

/// Reads a value of which every member is known.
fn known<'de, T: DeserializeOwned>(
    json: impl Deserializer<'de, Error = serde_json::Error>,
) -> Result<T, Problem> {
    let mut unknown = None;
    let read = serde_ignored::deserialize(json, |path| {
        unknown.get_or_insert_with(|| path.to_string());
    });
    match (read, unknown) {
        (Err(error), _) => Err(wrong(&error)),
        (Ok(_), Some(path)) => Err(Problem::invalid(format!("the body has an unknown member {path}"))),
        (Ok(read), None) => Ok(read),
    }
}

fn wrong(error: &serde_json::Error) -> Problem {
    let code = if error.is_data() { ErrorCode::InvalidArgument } else { ErrorCode::Malformed };
    Problem::new(code, format!("the body is not as expected: {error}"))
}
