//! Dead letters of a subscription, given another try.

use axum::{Json, body::Body, extract::State, http::HeaderMap};
use levada_protocol::{
    dead_letters::DeadLettersOf,
    error::ErrorCode,
    request::{Redrive, Redriven, Request, Response as Answer},
};

use crate::{
    admin, json_body,
    params::Subscription,
    principal::Caller,
    problem::{Problem, ProblemDetails},
    problems::Problems,
    state::Gateway,
};

/// Redrive dead letters
///
/// Gives them back to the subscription alone, or appends them to the topic `to`; at most 1,000 in a request. `select` names them:
/// `{"kind":"all"}`, `{"kind":"offsets","offsets":[…]}` or `{"kind":"where","condition":"…"}`. As long as `stretch.next` is a
/// number, a request with it as `from`, and `stretch.until` as `until`, goes on. What was redriven before is left alone unless
/// `force` is true.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/subscriptions/{subscription}/dead-letters/redrive",
    tag = "administration",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ("subscription" = String, Path, description = "The subscription's name", example = "payment"),
    ),
    request_body(content = Object, content_type = "application/json", example = json!({"select": {"kind": "all"}})),
    responses(
        (status = 200, description = "What became of each, and where to go on", body = Object,
            example = json!({"outcomes": [{"kind": "redriven", "offset": 0, "to": "orders", "alone": true}], "stretch": {"next": null, "until": 1}})),
        (status = 409, description = "`REDRIVE_LOOP`", body = ProblemDetails, content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(crate) async fn redrive(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Subscription(topic, subscription): Subscription,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Redriven>, Problem> {
    let of = DeadLettersOf::new(topic.as_str(), subscription.as_str());
    let of = of.map_err(|error| Problem::new(ErrorCode::InvalidName, error.to_string()))?;
    let of = ("topic", of.dead_letter_topic().as_str());
    let redrive: Redrive = json_body::receive_with(&gateway, &headers, body, of).await?;
    match admin::ask(&gateway, &principal, Request::Redrive(redrive)).await? {
        Answer::Redriven(redriven) => Ok(Json(redriven)),
        _ => Err(admin::unexpected()),
    }
}
