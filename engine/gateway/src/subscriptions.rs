//! Subscriptions: shown, made, changed, paused, resumed, moved and deleted.
#![expect(unused_qualifications, reason = "the macro of the description names types by their paths")]

use axum::{
    Json,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use levada_protocol::{
    error::ErrorCode,
    request::{Request, Response as Answer, Start, SubscriptionInfo, SubscriptionOptions},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    admin::{self, DeleteParams, ListParams},
    json_body,
    params::{Begin, Parameters, Subscription, Topic},
    principal::Caller,
    problem::{Problem, ProblemDetails},
    problems::{Problems, Refusals},
    state::Gateway,
};

/// Where a subscription that is made begins.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PutParams {
    /// `earliest`, `latest`, an offset, or a time in RFC 3339; only a subscription that is made looks at it. Default: `latest`.
    #[param(example = "earliest")]
    from: Option<String>,
}

/// Where a subscription is moved.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SeekRequest {
    /// `earliest`, `latest`, an offset, or a time in RFC 3339.
    #[schema(example = "earliest")]
    to: String,
    /// In which partitions. Default: all.
    #[serde(default)]
    #[schema(value_type = Vec<i32>, minimum = 0, maximum = 65_535)]
    partitions: Vec<u16>,
}

/// List the subscriptions of a topic
///
/// Those that the caller may browse, in order of name, as `levada subscription list` prints them.
#[utoipa::path(
    get,
    path = "/v1/topics/{topic}/subscriptions",
    tag = "administration",
    params(("topic" = String, Path, description = "The topic's name", example = "orders"), ListParams),
    responses(
        (status = 200, description = "The subscriptions", headers(("Levada-Next" = String, description = "The `after` of the request that goes on; absent if this was all")),
            body = [Object], example = json!([{"topic": "orders", "name": "payment", "lag": 3, "in_flight": 0}])),
        Refusals,
    ),
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Topic(topic): Topic,
    Parameters(asked): Parameters<ListParams>,
) -> Result<Response, Problem> {
    let (limit, after) = (asked.limit.unwrap_or(0), asked.after);
    let request = Request::ListSubscriptions { topic: Some(topic), limit, after };
    match admin::ask(&gateway, &principal, request).await? {
        Answer::Subscriptions { subscriptions, next } => admin::listed(&subscriptions, next),
        _ => Err(admin::unexpected()),
    }
}

/// Describe a subscription
///
/// Its options and state, as `levada subscription describe` prints them.
#[utoipa::path(
    get,
    path = "/v1/topics/{topic}/subscriptions/{subscription}",
    tag = "administration",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ("subscription" = String, Path, description = "The subscription's name", example = "payment"),
    ),
    responses(
        (status = 200, description = "The subscription", body = Object, example = json!({"topic": "orders", "name": "payment", "lag": 3, "in_flight": 0})),
        Refusals,
    ),
)]
pub(crate) async fn describe(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Subscription(topic, name): Subscription,
) -> Result<Response, Problem> {
    shown(admin::ask(&gateway, &principal, Request::DescribeSubscription { topic, name }).await?)
}

/// Make or change a subscription
///
/// The body holds options, as a description shows them. A subscription that is made has the default for those that are absent; of
/// one that exists, they stay as they are. Another order, a shorter acknowledgement timeout and a larger `max_in_flight` take
/// every delivery back. The same request again changes nothing.
#[utoipa::path(
    put,
    path = "/v1/topics/{topic}/subscriptions/{subscription}",
    tag = "administration",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ("subscription" = String, Path, description = "The subscription's name", example = "payment"),
        PutParams,
    ),
    request_body(content = Object, content_type = "application/json", example = json!({"order": "key", "ack_timeout_ms": 60_000})),
    responses(
        (status = 200, description = "It was there, and has these options", body = Object, example = json!({"topic": "orders", "name": "payment", "created": false})),
        (status = 201, description = "It was made", body = Object, example = json!({"topic": "orders", "name": "payment", "created": true})),
        Problems,
    ),
)]
pub(crate) async fn put(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Subscription(topic, name): Subscription,
    Parameters(asked): Parameters<PutParams>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let options: SubscriptionOptions = json_body::receive(&gateway, &headers, body).await?;
    let from = asked.from.as_deref().map(|text| start("from", text)).transpose()?.unwrap_or_default();
    let set = async || {
        let (topic, name, options) = (topic.clone(), name.clone(), options.clone());
        admin::ask(&gateway, &principal, Request::SetSubscription { topic, name, options }).await
    };
    match set().await {
        Err(error) if error.code() == ErrorCode::SubscriptionNotFound => {}
        changed => return Ok(admin::made(&found(changed?)?, false)),
    }
    let (of, named, options_made) = (topic.clone(), name.clone(), options.clone());
    let request = Request::CreateSubscription { topic: of, name: named, options: options_made, from };
    match admin::ask(&gateway, &principal, request).await {
        // Somebody else has made it in the meantime.
        Err(error) if error.code() == ErrorCode::SubscriptionExists => {
            Ok(admin::made(&found(set().await?)?, false))
        }
        made => Ok(admin::made(&found(made?)?, true)),
    }
}

/// Delete a subscription
///
/// With its progress.
#[utoipa::path(
    delete,
    path = "/v1/topics/{topic}/subscriptions/{subscription}",
    tag = "administration",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ("subscription" = String, Path, description = "The subscription's name", example = "payment"),
        DeleteParams,
    ),
    responses(
        (status = 200, description = "What is gone", body = Object, example = json!({"deleted": "orders/payment", "topics": [], "subscriptions": ["orders/payment"], "routes": [], "plugins": [], "dead_letters_kept": [], "count": 1})),
        (status = 409, description = "`SUBSCRIPTION_IN_USE`: it has consumers, pulls among them", body = ProblemDetails, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn delete(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Subscription(topic, name): Subscription,
    Parameters(DeleteParams { force, with_dead_letters }): Parameters<DeleteParams>,
) -> Result<Response, Problem> {
    let path = format!("{topic}/{name}");
    let request = Request::DeleteSubscription { topic, name, force, with_dead_letters };
    admin::deleted(&path, &admin::ask(&gateway, &principal, request).await?)
}

/// Pause a subscription
///
/// Nothing more is delivered until it is resumed, also across restarts. What is out can be settled.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/subscriptions/{subscription}/pause",
    tag = "administration",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ("subscription" = String, Path, description = "The subscription's name", example = "payment"),
    ),
    responses((status = 204, description = "Done, also if it was so before"), Refusals),
)]
pub(crate) async fn pause(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Subscription(topic, name): Subscription,
) -> Result<Response, Problem> {
    admin::done(&admin::ask(&gateway, &principal, Request::PauseSubscription { topic, name }).await?)
}

/// Resume a subscription
///
/// Whatever paused it.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/subscriptions/{subscription}/resume",
    tag = "administration",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ("subscription" = String, Path, description = "The subscription's name", example = "payment"),
    ),
    responses((status = 204, description = "Done, also if it was so before"), Refusals),
)]
pub(crate) async fn resume(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Subscription(topic, name): Subscription,
) -> Result<Response, Problem> {
    admin::done(&admin::ask(&gateway, &principal, Request::ResumeSubscription { topic, name }).await?)
}

/// Move a subscription
///
/// What lies before the new position counts as acknowledged, what lies behind it is delivered, also if it was before. Every
/// delivery is taken back.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/subscriptions/{subscription}/seek",
    tag = "administration",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ("subscription" = String, Path, description = "The subscription's name", example = "payment"),
    ),
    request_body(content = SeekRequest, example = json!({"to": "earliest"})),
    responses(
        (status = 200, description = "The subscription", body = Object),
        (status = 416, description = "`OFFSET_OUT_OF_RANGE`: the time has not come yet", body = ProblemDetails, content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(crate) async fn seek(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Subscription(topic, name): Subscription,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let SeekRequest { to, partitions } = json_body::receive(&gateway, &headers, body).await?;
    let to = start("to", &to)?;
    shown(admin::ask(&gateway, &principal, Request::SeekSubscription { topic, name, to, partitions }).await?)
}

fn start(name: &str, text: &str) -> Result<Start, Problem> {
    match Begin::parse(text) {
        Ok(Begin::Start(start)) => Ok(start),
        _ => Err(Problem::invalid(format!(
            "expected earliest, latest, an offset, or a time such as 2026-01-31T12:00:00Z as {name}, got {text:?}"
        ))),
    }
}

fn shown(answer: Answer) -> Result<Response, Problem> {
    found(answer).map(|found| Json(found).into_response())
}

fn found(answer: Answer) -> Result<Box<SubscriptionInfo>, Problem> {
    match answer {
        Answer::Subscription(found) => Ok(found),
        _ => Err(admin::unexpected()),
    }
}
