//! Settling what was pulled: acknowledged, given back, rejected, or worked on for longer.

use axum::{Json, body::Body, extract::State, http::HeaderMap};
use levada_broker::PulledEvent;
use levada_protocol::{
    error::{ErrorCode, Refusal},
    limits::{REASON_BYTES_MAX, VERBS_MAX},
    verbs::VerbKind,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::{
    json_body,
    params::{Subscription, duration},
    principal::Caller,
    problem::Problem,
    problems::Problems,
    pulled_token,
    state::Gateway,
};

/// Events that were pulled.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tokens {
    /// Their tokens, 1 to 4096.
    #[schema(min_items = 1, max_items = 4096)]
    tokens: Vec<String>,
}

/// Events to be delivered again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NackRequest {
    /// Their tokens, 1 to 4096.
    #[schema(min_items = 1, max_items = 4096)]
    tokens: Vec<String>,
    /// After how long, such as `5s`; at most 49 days. Default: by the subscription's backoff.
    #[schema(example = "5s")]
    delay: Option<String>,
}

/// Events to become dead letters.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RejectRequest {
    /// Their tokens, 1 to 4096.
    #[schema(min_items = 1, max_items = 4096)]
    tokens: Vec<String>,
    /// Why, for whoever reads the dead letter; at most 1024 bytes. Default: none.
    #[serde(default)]
    #[schema(example = "no such customer")]
    reason: String,
}

/// What became of one event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Settled {
    /// Whether the request took effect for it.
    outcome: SettleOutcome,
    /// The stable error code of the reason why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "DELIVERY_EXPIRED")]
    code: Option<&'static str>,
    /// What the code means.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
}

/// Whether a request took effect for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum SettleOutcome {
    /// It did, durably.
    Done,
    /// It did not, see the code.
    Refused,
}

impl From<Result<(), ErrorCode>> for Settled {
    fn from(became: Result<(), ErrorCode>) -> Self {
        match became {
            Ok(()) => Self { outcome: SettleOutcome::Done, code: None, detail: None },
            Err(code) => {
                let (name, meaning) = (code.as_str(), code.meaning());
                Self { outcome: SettleOutcome::Refused, code: Some(name), detail: Some(meaning) }
            }
        }
    }
}

/// Acknowledge events
///
/// They are not delivered again. The response comes after the durable commit, with an outcome for each token in order: one
/// that comes too late is `refused` with `DELIVERY_EXPIRED`, whatever becomes of the others.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/subscriptions/{subscription}/ack",
    tag = "consuming",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ("subscription" = String, Path, description = "The subscription's name", example = "payment"),
    ),
    request_body(content = Tokens, example = json!({"tokens": ["AQAAAAAAAAABAAIAAAAAAAAAAwAAAAAAAAAE"]})),
    responses(
        (status = 200, description = "What became of each event, in order", body = [Settled],
            example = json!([{"outcome": "done"}, {"outcome": "refused", "code": "DELIVERY_EXPIRED", "detail": "the delivery is no longer this consumer's: it expired or was given back"}])),
        Problems,
    ),
)]
pub(crate) async fn ack(
    gateway: State<Gateway>,
    caller: Caller,
    subscription: Subscription,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Vec<Settled>>, Problem> {
    let Tokens { tokens } = json_body::receive(&gateway, &headers, body).await?;
    settle(&gateway, caller, subscription, &tokens, VerbKind::Ack).await
}

/// Give events back
///
/// They are delivered again, after a delay or by the subscription's backoff. Outcomes are as for an acknowledgement.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/subscriptions/{subscription}/nack",
    tag = "consuming",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ("subscription" = String, Path, description = "The subscription's name", example = "payment"),
    ),
    request_body(content = NackRequest, example = json!({"tokens": ["AQAAAAAAAAABAAIAAAAAAAAAAwAAAAAAAAAE"], "delay": "5s"})),
    responses(
        (status = 200, description = "What became of each event, in order", body = [Settled],
            example = json!([{"outcome": "done"}])),
        Problems,
    ),
)]
pub(crate) async fn nack(
    gateway: State<Gateway>,
    caller: Caller,
    subscription: Subscription,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Vec<Settled>>, Problem> {
    let NackRequest { tokens, delay } = json_body::receive(&gateway, &headers, body).await?;
    let delay_ms = delay.as_deref().map(delay_ms).transpose()?;
    settle(&gateway, caller, subscription, &tokens, VerbKind::Nack { delay_ms }).await
}

/// Reject events
///
/// They become dead letters of the subscription. Outcomes are as for an acknowledgement.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/subscriptions/{subscription}/reject",
    tag = "consuming",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ("subscription" = String, Path, description = "The subscription's name", example = "payment"),
    ),
    request_body(content = RejectRequest, example = json!({"tokens": ["AQAAAAAAAAABAAIAAAAAAAAAAwAAAAAAAAAE"], "reason": "no such customer"})),
    responses(
        (status = 200, description = "What became of each event, in order", body = [Settled],
            example = json!([{"outcome": "done"}])),
        Problems,
    ),
)]
pub(crate) async fn reject(
    gateway: State<Gateway>,
    caller: Caller,
    subscription: Subscription,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Vec<Settled>>, Problem> {
    let RejectRequest { tokens, reason } = json_body::receive(&gateway, &headers, body).await?;
    if reason.len() > REASON_BYTES_MAX {
        let got = reason.len();
        let detail = format!("expected at most {REASON_BYTES_MAX} bytes as reason, got {got}");
        return Err(Problem::invalid(detail));
    }
    settle(&gateway, caller, subscription, &tokens, VerbKind::reject(reason)).await
}

/// Keep events for longer
///
/// Their acknowledgement timeout starts again. Outcomes are as for an acknowledgement, but nothing is stored.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/subscriptions/{subscription}/extend",
    tag = "consuming",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ("subscription" = String, Path, description = "The subscription's name", example = "payment"),
    ),
    request_body(content = Tokens, example = json!({"tokens": ["AQAAAAAAAAABAAIAAAAAAAAAAwAAAAAAAAAE"]})),
    responses(
        (status = 200, description = "What became of each event, in order", body = [Settled],
            example = json!([{"outcome": "done"}])),
        Problems,
    ),
)]
pub(crate) async fn extend(
    gateway: State<Gateway>,
    caller: Caller,
    subscription: Subscription,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Vec<Settled>>, Problem> {
    let Tokens { tokens } = json_body::receive(&gateway, &headers, body).await?;
    settle(&gateway, caller, subscription, &tokens, VerbKind::InProgress).await
}

fn delay_ms(text: &str) -> Result<u32, Problem> {
    let delay = duration("delay", text)?;
    // The largest number stands for the backoff.
    let delay_ms = u32::try_from(delay.as_millis()).ok().filter(|delay_ms| *delay_ms < u32::MAX);
    delay_ms.ok_or_else(|| Problem::invalid(format!("expected at most 49 days as delay, got {text:?}")))
}

async fn settle(
    gateway: &Gateway,
    Caller(principal): Caller,
    Subscription(topic, subscription): Subscription,
    tokens: &[String],
    kind: VerbKind,
) -> Result<Json<Vec<Settled>>, Problem> {
    let events: Vec<PulledEvent> = pulled_token::parse_all(tokens, VERBS_MAX)?;
    let settling = Box::pin(gateway.broker().settle(&principal, (&topic, &subscription), &events, &kind));
    // The connection would be cut off without a word.
    let Ok(settled) = timeout(gateway.config().work_max, settling).await else {
        let message = "the events were not settled in time; whether they will be is unknown";
        return Err(Problem::of(Refusal::new(ErrorCode::OutcomeUnknown, message)));
    };
    Ok(Json(settled?.into_iter().map(Settled::from).collect()))
}
