//! Pulling: events of a subscription, to be settled in other requests.

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use levada_broker::{Error, Pull, Pulled, PulledEvent};
use levada_cloudevents::write_structured;
use levada_json::{Location, write_event};
use levada_protocol::{error::ErrorCode, ids::TopicName, verbs::Credit};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    events, json_body,
    params::{Subscription, duration},
    peer::Peer,
    principal::Caller,
    problem::{Problem, ProblemDetails},
    problems::Problems,
    pulled_token,
    state::Gateway,
};

/// Events of a response if the request names no number.
const EVENTS_DEFAULT: u64 = 100;
/// Most events of a response.
const EVENTS_MAX: u64 = 1_000;
/// Stored bytes after which a response takes no further events.
const BYTES_MAX: u64 = 1024 * 1024;
/// How long a pull waits if the request does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(1);
/// How long what was pulled waits for room. What finds none comes again, as what is lost on its way does.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(1);

/// What is pulled.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PullRequest {
    /// Most events, 1 to 1000. Default: 100.
    #[schema(minimum = 1, maximum = 1000)]
    max: Option<u64>,
    /// Stored bytes after which a response takes no further events, 1 to 1048576. Default: 1048576. Small events that were stored
    /// together come together, and one event comes however large it is.
    #[schema(minimum = 1, maximum = 1_048_576)]
    max_bytes: Option<u64>,
    /// How long to wait for events if there are none, such as `5s`; at most 60s. Default: 1s.
    #[schema(example = "5s")]
    wait: Option<String>,
    /// How the events are written. Default: `json`.
    format: EventFormat,
}

/// How events are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum EventFormat {
    /// As `levada read --format json` does.
    #[default]
    Json,
    /// As CloudEvents in structured mode.
    CloudEvents,
}

/// An event that was pulled.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PulledDelivery {
    /// Names the event in the requests that settle it.
    #[schema(example = "AQAAAAAAAAABAAIAAAAAAAAAAwAAAAAAAAAE")]
    token: String,
    /// Which delivery of the event this is, from 1; 255 means 255 or more.
    #[schema(example = 1)]
    attempt: u8,
    /// The event's partition.
    #[schema(example = 0)]
    partition: u16,
    /// The event's offset.
    #[schema(example = 17)]
    offset: u64,
    /// The event.
    #[schema(value_type = Object)]
    event: Box<RawValue>,
}

/// Pull events
///
/// Returns events of a subscription as soon as there are any, or an empty list. What is returned stays out until it is
/// settled with its token, or until the subscription's acknowledgement timeout; the connection does not matter. Events of one
/// key are not returned while an earlier one of that key is out.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/subscriptions/{subscription}/pull",
    tag = "consuming",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ("subscription" = String, Path, description = "The subscription's name", example = "payment"),
    ),
    request_body(content = PullRequest, example = json!({"max": 10, "wait": "5s"})),
    responses(
        (status = 200, description = "The events; none if there were none in time", body = [PulledDelivery],
            example = json!([{"token": "AQAAAAAAAAABAAIAAAAAAAAAAwAAAAAAAAAE", "attempt": 1, "partition": 0, "offset": 17,
                "event": {"topic": "orders", "partition": 0, "offset": 17, "key": "order-1", "time": "2026-01-31T12:00:00Z", "payload": {"amount": 90}}}])),
        (status = 409, description = "`SUBSCRIPTION_MOVED` meanwhile: pull again", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 429, description = "`LIMIT_EXCEEDED`: as many pulls as there may be wait, or have events that are not settled; or responses that their clients have not taken leave no room for another", body = ProblemDetails, content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(crate) async fn pull(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Subscription(topic, subscription): Subscription,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let asked: PullRequest = json_body::receive(&gateway, &headers, body).await?;
    let within = |name, asked: Option<u64>, default, max| match asked.unwrap_or(default) {
        asked if (1..=max).contains(&asked) => Ok(asked),
        asked => Err(Problem::invalid(format!("expected 1 to {max} as {name}, got {asked}"))),
    };
    let events = within("max", asked.max, EVENTS_DEFAULT, EVENTS_MAX)?;
    let bytes = within("max_bytes", asked.max_bytes, BYTES_MAX, BYTES_MAX)?;
    let wait = asked.wait.as_deref().map(|text| duration("wait", text)).transpose()?;
    let wait_max = gateway.config().wait_max;
    if let Some(wait) = wait.filter(|wait| *wait > wait_max) {
        let [wait, wait_max] = [wait, wait_max].map(humantime::format_duration);
        return Err(Problem::invalid(format!("expected at most {wait_max} as wait, got {wait}")));
    }
    let wait = wait.unwrap_or(WAIT_DEFAULT);
    if let Some(Extension(peer)) = &peer {
        peer.answer_by(Instant::now() + wait + gateway.config().work_max);
    }
    let pull = Pull { topic: topic.clone(), subscription, credit: Credit { events, bytes }, wait };
    let pulling = Box::pin(gateway.broker().pull(&principal, pull));
    let pulled = tokio::select! {
        biased;
        () = gateway.ending().cancelled() => return Err(Error::ShuttingDown.into()),
        pulled = pulling => pulled?,
    };
    let stored = pulled.deliveries.iter().map(events::credit_bytes).sum();
    let room = gateway.responses().room(stored, Instant::now() + ROOM_WAIT_MAX).await?;
    let all = written(&topic, &pulled, asked.format)?;
    let written = serde_json::to_vec(&all).map_err(|error| {
        Problem::new(ErrorCode::Internal, format!("the events cannot be written as JSON: {error}"))
    })?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(CONTENT_TYPE, json)], room.body(written)).into_response())
}

/// The events as they are returned. One that cannot be written stays out until its timeout, and keeps back none beside it.
fn written(topic: &TopicName, pulled: &Pulled, format: EventFormat) -> Result<Vec<PulledDelivery>, Problem> {
    let mut all = Vec::new();
    for delivery in &pulled.deliveries {
        let header = delivery.header;
        events::for_each((topic, pulled.topic), delivery, |stored, event| {
            let mut out = Vec::new();
            let (partition, offset) = (stored.partition, stored.offset);
            match format {
                EventFormat::Json => {
                    let location = Location { topic: stored.topic, partition, offset, delivery: None };
                    write_event(&mut out, location, event);
                }
                EventFormat::CloudEvents => write_structured(&mut out, stored, event),
            }
            match serde_json::from_slice(&out) {
                Ok(event) => {
                    let pulled = PulledEvent { pull: pulled.pull, partition, offset, delivery: header.token };
                    let (token, attempt) = (pulled_token::format(&pulled), header.attempt);
                    all.push(PulledDelivery {
                        token,
                        attempt,
                        partition: partition.0,
                        offset: offset.0,
                        event,
                    });
                }
                Err(error) => {
                    tracing::error!(%topic, %partition, %offset, %error, "an event was not written as JSON")
                }
            }
        })?;
    }
    Ok(all)
}
