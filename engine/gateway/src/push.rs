//! Pushes: where the engine sends the deliveries of a subscription by itself.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderValue,
        header::{CACHE_CONTROL, HeaderName},
    },
};
use levada_protocol::{
    error::ErrorCode,
    push_secret::PushSecret,
    request::{PushFailure, PushInfo, Request, Response, SetPush},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    admin, json_body,
    params::{self, Subscription},
    principal::Caller,
    problem::{Problem, ProblemDetails},
    problems::{Problems, Refusals},
    state::Gateway,
};

/// What a push is to be. What is not given stays as it is, and has its default where there was no push.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PushRequest {
    /// Where to: an `https` URL at a public address, or at one that the engine's setting `push.allow` names. Required at first.
    #[schema(example = "https://shop.example/hooks")]
    url: Option<String>,
    /// The secret that signs from now on: `whsec_` and 24 to 64 bytes in Base64. Default: the one that there is; at first a new one,
    /// which is in the response.
    #[schema(value_type = Option<String>)]
    secret: Option<PushSecret>,
    /// Draw a new secret, which is in the response and nowhere else.
    new_secret: bool,
    /// For how long the secret before signs as well, such as `24h`, the default; at most 30 days.
    previous_for: Option<String>,
    /// Most events that the receiver has at a time, 1 to 1000. Default: 32.
    #[schema(minimum = 1, maximum = 1000)]
    max_in_flight: Option<u32>,
    /// How long the receiver has to respond, such as `15s`, the default; 100 ms to 2 minutes.
    timeout: Option<String>,
}

/// A push.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Push {
    /// Where to.
    #[schema(example = "https://shop.example/hooks")]
    url: String,
    /// Most events that the receiver has at a time.
    max_in_flight: u32,
    /// Milliseconds that the receiver has to respond.
    timeout_ms: u32,
    /// Until when the secret before signs as well, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_until_ms: Option<u64>,
    /// How it gets on: `idle`, `active`, `failing` or `throttled`.
    #[schema(example = "active")]
    state: &'static str,
    /// Events that the receiver took, since the engine started.
    delivered: u64,
    /// Requests that did not succeed, since the engine started.
    failed: u64,
    /// The last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<Failure>,
    /// The secret, if it was drawn by this request. It is not shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    secret: Option<PushSecret>,
}

/// A request to a receiver that did not succeed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Failure {
    /// When, in milliseconds since 1970.
    at_ms: u64,
    /// What happened.
    message: String,
}

/// A push that was removed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Removed {
    /// True.
    removed: bool,
}

impl Push {
    fn new(info: PushInfo, secret: Option<PushSecret>) -> Self {
        let failure = |PushFailure { at_ms, message }| Failure { at_ms, message };
        Self {
            url: info.url,
            max_in_flight: info.max_in_flight,
            timeout_ms: info.timeout_ms,
            previous_until_ms: info.previous_until_ms,
            state: info.state.as_str(),
            delivered: info.delivered,
            failed: info.failed,
            last_failure: info.last_failure.map(failure),
            secret,
        }
    }
}

/// Set where a subscription is pushed
///
/// The engine sends each event of the subscription to the URL, as a CloudEvent in JSON signed by Standard Webhooks.
#[utoipa::path(
    put,
    path = "/v1/topics/{topic}/subscriptions/{subscription}/push",
    tag = "administration",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ("subscription" = String, Path, description = "The subscription's name", example = "payment"),
    ),
    request_body(content = PushRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "It is pushed", body = Push),
        (status = 429, description = "`LIMIT_EXCEEDED`: the secret before still signs, and would be lost", body = ProblemDetails, content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(crate) async fn set(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    subscription: Subscription,
    headers: HeaderMap,
    body: Body,
) -> Result<([(HeaderName, HeaderValue); 1], Json<Push>), Problem> {
    let asked: PushRequest = json_body::receive(&gateway, &headers, body).await?;
    match admin::ask(&gateway, &principal, Request::SetPush(asked.of(subscription)?)).await? {
        // It may hold a secret.
        Response::Push(issued) => {
            let uncached = (CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok(([uncached], Json(Push::new(issued.push, issued.secret))))
        }
        _ => Err(admin::unexpected()),
    }
}

impl PushRequest {
    fn of(self, Subscription(topic, name): Subscription) -> Result<SetPush, Problem> {
        let ms = |name, text: Option<String>| {
            let length = text.map(|text| params::duration(name, &text)).transpose()?;
            Ok::<_, Problem>(length.map(|length| u64::try_from(length.as_millis()).unwrap_or(u64::MAX)))
        };
        let timeout_ms = ms("timeout", self.timeout)?.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX));
        Ok(SetPush {
            secret: self.secret,
            new_secret: self.new_secret,
            previous_for_ms: ms("previous_for", self.previous_for)?,
            max_in_flight: self.max_in_flight,
            timeout_ms,
            ..SetPush::new(topic, name, self.url)
        })
    }
}

/// Describe where a subscription is pushed
///
/// Without its secrets.
#[utoipa::path(
    get,
    path = "/v1/topics/{topic}/subscriptions/{subscription}/push",
    tag = "administration",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ("subscription" = String, Path, description = "The subscription's name", example = "payment"),
    ),
    responses(
        (status = 200, description = "Where it is pushed, and how that gets on", body = Push),
        Refusals,
    ),
)]
pub(crate) async fn describe(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Subscription(topic, name): Subscription,
) -> Result<Json<Push>, Problem> {
    let none = format!("subscription {topic}/{name} has no push");
    let request = Request::DescribeSubscription { topic, name };
    match admin::ask(&gateway, &principal, request).await? {
        Response::Subscription(info) => match info.push {
            Some(push) => Ok(Json(Push::new(*push, None))),
            None => Err(Problem::new(ErrorCode::PushNotFound, none)),
        },
        _ => Err(admin::unexpected()),
    }
}

/// End the push of a subscription
///
/// The subscription stays, for any consumer.
#[utoipa::path(
    delete,
    path = "/v1/topics/{topic}/subscriptions/{subscription}/push",
    tag = "administration",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ("subscription" = String, Path, description = "The subscription's name", example = "payment"),
    ),
    responses(
        (status = 200, description = "It is not pushed any more", body = Removed),
        Refusals,
    ),
)]
pub(crate) async fn remove(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Subscription(topic, name): Subscription,
) -> Result<Json<Removed>, Problem> {
    match admin::ask(&gateway, &principal, Request::RemovePush { topic, name }).await? {
        Response::Done => Ok(Json(Removed { removed: true })),
        _ => Err(admin::unexpected()),
    }
}
