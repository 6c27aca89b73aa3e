//! Errors as problem details (RFC 9457), made of the table of error codes.

use axum::{
    body::Body,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use levada_broker::Error;
use levada_protocol::error::{ErrorCode, Refusal};
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of problem details.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";
/// Longest detail in bytes; it may quote what came.
const DETAIL_BYTES_MAX: usize = 1024;

/// Why a request was refused. It becomes a body in [`render`], which knows the request's id.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    refusal: Refusal,
    index: Option<usize>,
}

/// What a client gets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemDetails {
    /// A URI for the code.
    #[schema(example = "urn:levada:error:TOPIC_NOT_FOUND")]
    r#type: String,
    /// What the code means.
    #[schema(example = "no such topic, or none that the caller may see")]
    title: &'static str,
    /// The status of the response.
    #[schema(example = 404)]
    status: u16,
    /// What was expected and what came.
    #[schema(example = "topic orders does not exist")]
    detail: String,
    /// The stable error code.
    #[schema(example = "TOPIC_NOT_FOUND")]
    code: String,
    /// Whether the same request may succeed later, unchanged.
    retry: bool,
    /// What the request has changed: `nothing`, or `unknown`.
    #[schema(example = "nothing")]
    happened: &'static str,
    /// How long to wait before a retry, in milliseconds, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u32>,
    /// Which event of the request is meant, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    /// The request's id, which the log knows, too.
    request_id: String,
}

impl Problem {
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::of(Refusal::new(code, detail))
    }

    pub(crate) fn of(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.code.http_status());
        Self { status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), refusal, index: None }
    }

    /// A value that is wrong.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, detail)
    }

    /// The same with another status than its code's.
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same about one event of several.
    pub(crate) fn at(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let refusal = error.refusal();
        if refusal.code == ErrorCode::Internal || matches!(error, Error::Store { .. }) {
            tracing::warn!(%error, "request refused by the engine");
        }
        Self::of(refusal)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives a response that is a problem its body.
pub(crate) fn render(response: &mut Response, request_id: &str) {
    let Some(Problem { status, refusal, index }) = response.extensions_mut().remove() else { return };
    let Refusal { code, message, retry_after_ms } = &refusal;
    let details = ProblemDetails {
        r#type: format!("urn:levada:error:{code}"),
        title: code.meaning(),
        status: status.as_u16(),
        detail: message[..message.floor_char_boundary(DETAIL_BYTES_MAX)].to_owned(),
        code: code.to_string(),
        retry: code.is_retryable(),
        happened: if code.has_no_side_effects() { "nothing" } else { "unknown" },
        retry_after_ms: *retry_after_ms,
        index,
        request_id: request_id.to_owned(),
    };
    let body = serde_json::to_vec(&details).expect("texts and numbers are written to memory");
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if let Some(retry_after_ms) = retry_after_ms {
        headers.insert(RETRY_AFTER, HeaderValue::from(retry_after_ms.div_ceil(1_000)));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert("www-authenticate", HeaderValue::from_static("Bearer"));
    }
    *response.body_mut() = Body::from(body);
}
