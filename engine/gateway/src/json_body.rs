//! Bodies that are one JSON object.

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
};
use levada_protocol::error::ErrorCode;
use serde::de::DeserializeOwned;

use crate::{body, problem::Problem, state::Gateway};

/// Reads a JSON object; no body is the empty object.
pub(crate) async fn receive<T: DeserializeOwned>(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Problem> {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b"application/json"[..], |value| value.as_bytes());
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let bytes = body::receive(gateway, headers, body).await?;
    if bytes.trim_ascii().is_empty() {
        return parse(b"{}");
    }
    if !essence.eq_ignore_ascii_case(b"application/json") {
        let got = String::from_utf8_lossy(essence);
        let detail = format!("expected application/json as Content-Type, got {got:?}");
        return Err(Problem::invalid(detail).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    parse(&bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Else an array would be taken for the members in their order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::invalid("expected a JSON object as body, got an array"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let code = if error.is_data() { ErrorCode::InvalidArgument } else { ErrorCode::Malformed };
        Problem::new(code, format!("the body is not as expected: {error}"))
    })
}
