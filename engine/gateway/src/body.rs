//! Bodies of requests: whole, in time, and not too long.

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, StatusCode, header::CONTENT_LENGTH},
};
use bytes::Bytes;
use levada_protocol::{
    error::ErrorCode,
    limits::{ARTEFACT_BYTES_MAX, BATCH_BODY_BYTES_MAX},
};
use tokio::time;

use crate::{problem::Problem, state::Gateway};

/// How long a body may be and take, and what is said of a longer one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Longest {
    bytes: usize,
    code: ErrorCode,
    advice: &'static str,
    is_upload: bool,
}

impl Longest {
    /// One batch.
    pub(crate) const BATCH: Self = Self {
        bytes: BATCH_BODY_BYTES_MAX,
        code: ErrorCode::EventTooLarge,
        advice: ": send several requests",
        is_upload: false,
    };
    /// A plugin's artefact.
    pub(crate) const ARTEFACT: Self =
        Self { bytes: ARTEFACT_BYTES_MAX, code: ErrorCode::PluginTooLarge, advice: "", is_upload: true };
}

/// Reads a body of at most one batch's length.
pub(crate) async fn receive(gateway: &Gateway, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    receive_up_to(gateway, headers, body, Longest::BATCH).await
}

/// Reads a body.
pub(crate) async fn receive_up_to(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Body,
    longest: Longest,
) -> Result<Bytes, Problem> {
    let Longest { bytes: most, code, advice, .. } = longest;
    let too_large =
        |got: &str| Problem::new(code, format!("expected a body of at most {most} bytes, got {got}{advice}"));
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if let Some(length) = announced.filter(|length| *length > most) {
        return Err(too_large(&length.to_string()));
    }
    let limit =
        if longest.is_upload { gateway.config().upload_timeout } else { gateway.config().body_timeout };
    match time::timeout(limit, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => Err(too_large("more")),
        Ok(Err(error)) => {
            Err(Problem::new(ErrorCode::Malformed, format!("the body does not end as it should: {error}")))
        }
        Err(_) => {
            let detail =
                format!("expected the whole body within {limit:?}, got a part of it: nothing was stored");
            Err(Problem::new(ErrorCode::LimitExceeded, detail).with_status(StatusCode::REQUEST_TIMEOUT))
        }
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.to_string().contains("length limit"))
}
