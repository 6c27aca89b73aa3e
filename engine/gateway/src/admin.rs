//! What the endpoints of administration have in common: requests to the engine, lists in pages, deletions.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use levada_broker::{Error, Principal};
use levada_json::{Deletion, Made};
use levada_protocol::{
    error::{ErrorCode, Refusal},
    request::{Request, Response as Answer},
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::IntoParams;

use crate::{problem::Problem, state::Gateway};

/// Where a list goes on.
const NEXT: HeaderName = HeaderName::from_static("levada-next");

/// Which part of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Most entries. Default: as many as fit into a response of the engine, about 100 KiB.
    pub(crate) limit: Option<u32>,
    /// The `Levada-Next` of another response: the list goes on behind it.
    pub(crate) after: Option<String>,
}

/// What is deleted beside what is named.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeleteParams {
    /// Also if something goes with it or uses it, which is 409 otherwise. Default: `false`.
    pub(crate) force: bool,
    /// Also the dead-letter topics of what goes. Default: `false`.
    pub(crate) with_dead_letters: bool,
}

/// Asks the engine.
pub(crate) async fn ask(gateway: &Gateway, principal: &Principal, request: Request) -> Result<Answer, Error> {
    let asking = Box::pin(gateway.broker().request(principal, request, None));
    // The connection would be cut off without a word.
    timeout(gateway.config().work_max, asking).await.unwrap_or_else(|_| Err(unknown()))
}

/// The engine has not responded in time.
pub(crate) fn unknown() -> Error {
    let message = "the engine did not respond in time; whether the request takes effect is unknown";
    Refusal::new(ErrorCode::OutcomeUnknown, message).into()
}

/// The engine responded with something else.
pub(crate) fn unexpected() -> Problem {
    Problem::new(ErrorCode::Internal, "the engine responded with something else than what was requested")
}

/// A page of a list.
pub(crate) fn listed<T: Serialize>(entries: &[T], next: Option<String>) -> Result<Response, Problem> {
    let mut response = Json(entries).into_response();
    if let Some(next) = next {
        let next = HeaderValue::try_from(next).map_err(|_| unexpected())?;
        response.headers_mut().insert(NEXT, next);
    }
    Ok(response)
}

/// There is nothing to say but that it is done.
pub(crate) fn done(answer: &Answer) -> Result<Response, Problem> {
    match answer {
        Answer::Done => Ok(StatusCode::NO_CONTENT.into_response()),
        _ => Err(unexpected()),
    }
}

/// What was made, or changed.
pub(crate) fn made<T: Serialize>(found: &T, created: bool) -> Response {
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    (status, Json(Made { found, created })).into_response()
}

/// What was deleted.
pub(crate) fn deleted(name: &str, answer: &Answer) -> Result<Response, Problem> {
    match answer {
        Answer::Deleted(gone) => Ok(Json(Deletion { deleted: name, gone }).into_response()),
        _ => Err(unexpected()),
    }
}
