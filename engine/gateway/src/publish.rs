//! Publishing.
#![expect(unused_qualifications, reason = "the macro of the description names types by their paths")]

use axum::{
    Json,
    extract::{Request, State},
};
use levada_broker::{Error, Principal, PublishOnce};
use levada_protocol::{
    access::publishing,
    error::{ErrorCode, Refusal},
    event::Event,
    ids::{Offset, TopicName},
    publish::PublishHeader,
    request::{Response, Transact},
};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;

use crate::{
    body,
    incoming::{self, Incoming},
    outcome::{self, Published},
    params::{Parameters, Topic},
    place::{self, Share},
    principal::Caller,
    problem::{Problem, ProblemDetails},
    schema::{AnyBytes, CloudEvent},
    state::Gateway,
};

/// The producer group of the transactions that store events of several batches.
const GROUP: &str = "levada-http";

/// How events are published.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PublishParams {
    /// The partition of all events. Without it events go by the hash of their key, else of their id, else in turn.
    #[param(maximum = 65_535)]
    partition: Option<u16>,
    /// Store the events only if the partition's next offset is this one; else 409 `OFFSET_MISMATCH`.
    expect_offset: Option<u64>,
}

/// Publish events
///
/// The response comes after the durable commit. All events of a request are stored, or none.
///
/// The `Content-Type` says what the body is: one CloudEvent in JSON, a batch of them, JSON lines, or, with `ce-` headers,
/// the data of a CloudEvent in binary mode. Any other body is the payload of one event, with `Levada-Key`, `Levada-Id`,
/// `Levada-Time`, `Levada-Tombstone` and `Levada-Header-<name>`. `Levada-Delay` and `Levada-Ttl` hold for all events of the
/// request. Values of these headers are percent-coded.
///
/// A request that is sent again is stored again, unless the topic has a dedup window and the events have ids.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/events",
    tag = "events",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        PublishParams,
        ("Levada-Key" = Option<String>, Header, description = "The key of an event of any body"),
        ("Levada-Id" = Option<String>, Header, description = "The id of an event of any body"),
        ("Levada-Time" = Option<String>, Header, description = "The time of an event of any body, in RFC 3339 or milliseconds since 1970"),
        ("Levada-Tombstone" = Option<String>, Header, description = "`true`: the event is a tombstone; the body is empty"),
        ("Levada-Delay" = Option<String>, Header, description = "Append the events so much later, such as `5s`"),
        ("Levada-Ttl" = Option<String>, Header, description = "Deliver the events no longer than so much after their append, such as `10m`"),
        ("X-Request-Id" = Option<String>, Header, description = "The request's id, at most 128 visible characters"),
    ),
    request_body(
        content(
            (CloudEvent = "application/cloudevents+json", example = json!({
                "specversion": "1.0", "id": "a7", "source": "/web", "type": "order.placed", "partitionkey": "order-1",
                "datacontenttype": "application/json", "data": {"amount": 90}
            })),
            (Vec<CloudEvent> = "application/cloudevents-batch+json", example = json!([
                {"specversion": "1.0", "id": "a8", "source": "/web", "type": "order.placed", "data": {"amount": 5}}
            ])),
            (String = "application/x-ndjson", example = "{\"key\":\"order-1\",\"payload\":{\"amount\":90}}\n"),
            (AnyBytes = "application/octet-stream"),
        ),
    ),
    responses(
        (status = 200, description = "All events are durable", body = [Published],
            example = json!([{"partition": 0, "offset": 17, "outcome": "stored"}])),
        (status = 400, description = "Something is wrong with the request; `index` names the event", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "`PERMISSION_DENIED`: the request comes from a page of another site, or names another host", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "No token of a principal, or one that is not taken", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "No such topic or partition", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 408, description = "The body took too long", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "`OFFSET_MISMATCH`: the partition's next offset is another one", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "The body, or an event, is too large", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 415, description = "A content type or coding that is not understood", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 429, description = "`BACKLOG_FULL`: try again after `Retry-After`", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "No writes are taken, or the outcome is unknown: see `happened`", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 507, description = "`STORAGE_FULL`", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn publish(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Topic(topic): Topic,
    Parameters(params): Parameters<PublishParams>,
    request: Request,
) -> Result<Json<Vec<Published>>, Problem> {
    let until = Instant::now() + gateway.config().answer_max;
    // Before the body: who may not publish, or to nothing, need not send it.
    let once = gateway.publishes().to(&principal, &topic)?;
    gateway.broker().begin_request(&principal).await?;
    let (partitions, fixed) = (once.partitions(), params.partition);
    // What came is dropped before the commit is waited for: the connection's buffer is one with it, and would be made anew for
    // each request.
    let (shares, due) = {
        let (parts, body) = request.into_parts();
        let body = body::receive(&gateway, &parts.headers, body).await?;
        let Incoming { events, due } = incoming::read(&parts.headers, body, gateway.now())?;
        if params.expect_offset.is_some() && fixed.is_none() && partitions > 1 {
            must_be_placed(&events, partitions)?;
        }
        (place::place(&events, partitions, fixed, || gateway.turn(&topic))?, due)
    };
    let header = |share: &Share, expect_offset: Option<u64>| PublishHeader {
        correlation: 0,
        partition: share.partition,
        durability: None,
        expect_offset: expect_offset.map(Offset),
        due,
    };
    let is_one_partition = shares.windows(2).all(|pair| pair[0].partition == pair[1].partition);
    let storing = async {
        match shares.as_slice() {
            [] => Ok(Json(Vec::new())),
            [share] => {
                // The body may have taken a while.
                gateway.broker().check(&principal, &[publishing(&topic)])?;
                one(once, header(share, params.expect_offset), share).await.map(Json)
            }
            _ if !is_one_partition && (due.is_some() || params.expect_offset.is_some()) => {
                let detail = "expected events of one partition with `expect_offset` or Levada-Delay, got events of several: send a request for each";
                Err(Problem::invalid(detail))
            }
            _ if due.is_some() => {
                let detail = "expected events whose times are less than 49 days apart with Levada-Delay, got others: send several requests";
                Err(Problem::invalid(detail))
            }
            _ => {
                // What is expected of the partition holds before its first batch.
                let expected = |number: usize| params.expect_offset.filter(|_| number == 0);
                let headers = shares
                    .iter()
                    .enumerate()
                    .map(|(number, share)| header(share, expected(number)))
                    .collect();
                Box::pin(several(&gateway, &principal, (topic.clone(), partitions), headers, shares.clone()))
                    .await
                    .map(Json)
            }
        }
    };
    // The connection would be cut off without a word.
    timeout_at(until, storing).await.unwrap_or_else(|_| {
        let message = "the events were not stored in time; whether they will be is unknown";
        Err(Problem::of(Refusal::new(ErrorCode::OutcomeUnknown, message)))
    })
}

/// Events whose partition's next offset is expected must name the partition by themselves.
fn must_be_placed(events: &[Event], partitions: u16) -> Result<(), Problem> {
    if events.iter().all(|event| event.key.is_some() || event.id.is_some()) {
        return Ok(());
    }
    let detail = format!(
        "expected `partition` with `expect_offset`, as events without a key go to any of {partitions} partitions"
    );
    Err(Problem::invalid(detail))
}

/// Stores the events of one batch.
async fn one(once: PublishOnce<'_>, header: PublishHeader, share: &Share) -> Result<Vec<Published>, Problem> {
    let outcome = once.publish(header, share.batch.clone()).await?;
    outcome::of_ack(header.partition, share.indexes.len(), outcome)
}

/// Stores the events of several batches in one commit: as a transaction.
async fn several(
    gateway: &Gateway,
    principal: &Principal,
    (topic, partitions): (TopicName, u16),
    headers: Vec<PublishHeader>,
    shares: Vec<Share>,
) -> Result<Vec<Published>, Problem> {
    let fault =
        || Problem::new(ErrorCode::Internal, "the engine described something else than the transaction");
    let (Ok(group), Ok(id)) = (GROUP.parse(), gateway.unique().parse()) else { return Err(fault()) };
    let bytes: usize = shares.iter().map(|share| share.batch.bytes().len()).sum();
    let asked = Transact {
        group,
        id,
        topics: vec![topic],
        partitions: vec![partitions],
        batches: u32::try_from(shares.len()).unwrap_or(u32::MAX),
        bytes: bytes as u64,
        prepare: None,
        acks: None,
    };
    let batches =
        headers.into_iter().zip(&shares).map(|(header, share)| (header, share.batch.clone())).collect();
    let answer: Result<Response, Error> = gateway.broker().publish_together(principal, asked, batches).await;
    let Response::Transaction(stored) = answer? else { return Err(fault()) };
    let mut published = Vec::new();
    for (batch, share) in stored.batches.iter().zip(&shares) {
        published.extend(share.indexes.iter().copied().zip(outcome::of_transaction(batch)));
    }
    published.sort_by_key(|(index, _)| *index);
    Ok(published.into_iter().map(|(_, published)| published).collect())
}
