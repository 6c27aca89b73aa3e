//! Streaming: events as server-sent events, from any position on, for as long as the client listens.
#![expect(unused_qualifications, reason = "the macro of the description names types by their paths")]

use std::convert::Infallible;

use axum::{
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use levada_broker::{Broker, Content, Error, Principal, Reader};
use levada_cloudevents::write_structured;
use levada_protocol::{
    error::ErrorCode,
    request::{Position, Read, Start},
    verbs::Credit,
};
use serde::Deserialize;
use tokio::time;
use utoipa::IntoParams;

use crate::{
    events,
    params::{Parameters, Topic},
    positions::{self, Positions},
    principal::Caller,
    problem::{Problem, ProblemDetails},
    read::{Asked, begin},
    sse,
    state::Gateway,
};

/// Where a browser says what it has got.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Bytes that are read ahead of the socket.
const AHEAD_BYTES: u64 = 512 * 1024;
/// What the ids of the events that are read ahead may take.
const AHEAD_ID_BYTES: usize = 4 * 1024 * 1024;
/// Most of one partition in an id.
const POSITION_BYTES: usize = 27;
/// How often a reader is opened anew for events that retention drops meanwhile.
const LOST_TRIES: usize = 4;

/// Which events are streamed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamParams {
    /// The partitions, such as `0` or `0,3`. Default: all.
    #[param(pattern = "^ *[0-9]{1,4} *(, *[0-9]{1,4} *)*$", example = "0,3")]
    partition: Option<String>,
    /// `earliest`, `latest`, an offset, a time in RFC 3339, or positions such as `0:17,1:42`. Default: `latest`.
    #[param(example = "latest")]
    from: Option<String>,
    /// A condition over payload, headers and key, such as `amount > 100`.
    #[param(example = "amount > 100")]
    r#where: Option<String>,
    /// The id of the last event that was received, for clients that cannot set the header `Last-Event-ID`, which counts
    /// more. It counts more than `from`.
    #[serde(rename = "last-event-id")]
    #[param(rename = "last-event-id")]
    last_event_id: Option<String>,
}

/// Stream events
///
/// Server-sent events: `data` is a CloudEvent in JSON, `event` its type, and `id` the next offset of every partition, so
/// that a client that sends the last id it has got misses nothing and gets nothing twice. An event `events_lost` names what
/// retention has dropped before it was read, and `events_withheld` counts those that are not shown because a plugin of the caller's
/// permission failed on them. A comment comes every 15 seconds.
#[utoipa::path(
    get,
    path = "/v1/topics/{topic}/stream",
    tag = "events",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        StreamParams,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was received"),
    ),
    responses(
        (status = 200, description = "The events, without end", content_type = "text/event-stream", body = String,
            example = "id: 0:18\nevent: order.placed\ndata: {\"specversion\":\"1.0\",\"id\":\"a7\",\"source\":\"/web\",\"type\":\"order.placed\"}\n\n"),
        (status = 400, description = "A parameter is wrong", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "`PERMISSION_DENIED`", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "No token of a principal, or one that is not taken", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "No such topic or partition", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 416, description = "`OFFSET_OUT_OF_RANGE`: the offset is not there", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn stream(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Topic(topic): Topic,
    Parameters(asked): Parameters<StreamParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let header = headers.get(LAST_EVENT_ID).map(|id| String::from_utf8_lossy(id.as_bytes()));
    let last = header.as_deref().or(asked.last_event_id.as_deref()).filter(|last| !last.is_empty());
    let (start, at) = match last {
        None => begin(asked.from.as_deref().unwrap_or("latest"))?,
        Some(last) => match positions::parse(last) {
            Some(at) => (Start::Earliest, at),
            None => {
                let detail = format!("expected positions such as 0:17,1:42 as Last-Event-ID, got {last:?}");
                return Err(Problem::invalid(detail));
            }
        },
    };
    let which = Asked { partition: asked.partition.as_deref(), condition: asked.r#where.as_deref() };
    let read = Read { follow: true, ..which.read(topic, start, at)? };
    let mut feed = Feed::new(gateway.broker().for_connection(), principal, read);
    let lost = feed.open().await?;
    let mut first = sse::retry();
    first.extend_from_slice(&lost);
    if lost.is_empty() {
        // A client that is cut off before its first event comes again with this.
        sse::id_alone(&mut first, &feed.next);
    }
    feed.told.clone_from(&feed.next);
    let states = (feed, gateway, Some(Bytes::from(first)));
    let chunks = stream::unfold(states, async |(mut feed, gateway, first)| {
        let chunk = match first {
            Some(first) => first,
            None => feed.next(&gateway).await?,
        };
        Some((Ok::<_, Infallible>(chunk), (feed, gateway, None)))
    });
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// What is read ahead of the socket, of so many partitions: the id of each event names them all.
fn credit_of(partitions: usize) -> Credit {
    let id_bytes = POSITION_BYTES * partitions.max(1);
    let events = u64::try_from(AHEAD_ID_BYTES / id_bytes).unwrap_or(u64::MAX).clamp(1, 10_000);
    Credit { events, bytes: AHEAD_BYTES }
}

/// A reader, and how far its client is.
struct Feed {
    broker: Broker,
    principal: Principal,
    read: Read,
    reader: Option<Reader>,
    next: Positions,
    /// The client was told of these positions.
    told: Positions,
}

impl Feed {
    fn new(broker: Broker, principal: Principal, read: Read) -> Self {
        let next: Positions = read.positions.iter().map(|it| (it.partition, it.offset)).collect();
        Self { broker, principal, read, reader: None, told: Positions::new(), next }
    }

    /// Begins to read. Returns what is to be said of events that are not there any more.
    async fn open(&mut self) -> Result<Vec<u8>, Problem> {
        let mut lost = Vec::new();
        for attempt in 0.. {
            let positions = self
                .next
                .iter()
                .map(|(partition, offset)| Position { partition: *partition, offset: *offset });
            self.read.positions = positions.collect();
            let opened = self.broker.read(&self.principal, self.read.clone()).await;
            let reader = match opened {
                Ok(reader) => reader,
                Err(error) if error.code() == ErrorCode::OffsetOutOfRange && attempt < LOST_TRIES => {
                    if !self.pass_lost(&mut lost).await? {
                        return Err(error.into());
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            self.next.extend(reader.positions.iter().map(|it| (it.partition, it.offset)));
            // A reader that has ended says why in what it sends.
            let _ = reader.credit.grant(credit_of(reader.positions.len())).await;
            self.reader = Some(reader);
            break;
        }
        Ok(lost)
    }

    /// Moves positions of which the events are gone to the earliest that are there, and says so; false if there are none.
    async fn pass_lost(&mut self, lost: &mut Vec<u8>) -> Result<bool, Problem> {
        let earliest = Read {
            from: Start::Earliest,
            follow: false,
            positions: Vec::new(),
            search: None,
            ..self.read.clone()
        };
        let earliest = self.broker.read(&self.principal, earliest).await?.positions;
        let mut passed = false;
        for position in earliest {
            let next = self.next.entry(position.partition).or_insert(position.offset);
            if *next < position.offset {
                let first = std::mem::replace(next, position.offset);
                passed = true;
                sse::events_lost(lost, position.partition, first, position.offset - 1);
            }
        }
        if passed {
            sse::id_alone(lost, &self.next);
        }
        Ok(passed)
    }

    /// The next bytes for the client; `None` at the end.
    async fn next(&mut self, gateway: &Gateway) -> Option<Bytes> {
        // One for all that a search passes without finding anything.
        let silent = time::Instant::now() + gateway.config().comment_interval;
        loop {
            let reader = self.reader.as_mut()?;
            let received = tokio::select! {
                biased;
                () = gateway.ending().cancelled() => return None,
                // It comes again and is told why.
                _ = self.broker.until_denied(&self.principal, &reader.conditions) => return None,
                received = time::timeout_at(silent, reader.outgoing.recv()) => received,
            };
            let outgoing = match received {
                Err(_) => return Some(self.comment()),
                Ok(None) => return None,
                Ok(Some(Err(error))) => return self.recover(error).await,
                Ok(Some(Ok(outgoing))) => outgoing,
            };
            let withheld = outgoing.withheld();
            match outgoing.content() {
                Content::Delivery(delivery) => {
                    let (topic, id) = (&self.read.topic, reader.topic);
                    let (mut out, next) = (Vec::new(), &mut self.next);
                    let mut data = Vec::new();
                    let written = events::for_each((topic, id), delivery, |stored, event| {
                        next.insert(stored.partition.0, stored.offset.0 + 1);
                        data.clear();
                        write_structured(&mut data, stored, event);
                        let kind = event.header("ce-type").unwrap_or(b"levada.event");
                        sse::event(&mut out, next, kind, &data);
                    });
                    if let Err(problem) = written {
                        tracing::warn!(?problem, "a stream ends");
                        return None;
                    }
                    let bytes = events::credit_bytes(delivery);
                    let credit = Credit { events: u64::from(delivery.header.count), bytes };
                    let _ = reader.credit.grant(credit).await;
                    if withheld > 0 {
                        sse::events_withheld(&mut out, withheld);
                    }
                    self.told.clone_from(&self.next);
                    return Some(out.into());
                }
                Content::Progress(progress) => {
                    self.next.extend(progress.positions.iter().map(|it| (it.partition.0, it.next.0)));
                    if withheld > 0 {
                        let mut out = Vec::new();
                        sse::events_withheld(&mut out, withheld);
                        sse::id_alone(&mut out, &self.next);
                        self.told.clone_from(&self.next);
                        return Some(out.into());
                    }
                    // A client that is connected again later need not have it searched again.
                    if time::Instant::now() >= silent {
                        return Some(self.comment());
                    }
                }
                Content::End(_) => return None,
                Content::Settled(_) => {}
            }
        }
    }

    fn comment(&mut self) -> Bytes {
        let mut out = sse::comment();
        if self.told != self.next {
            sse::id_alone(&mut out, &self.next);
            self.told.clone_from(&self.next);
        }
        out.into()
    }

    /// Goes on behind what retention has dropped; ends for anything else.
    async fn recover(&mut self, error: Error) -> Option<Bytes> {
        self.reader = None;
        if error.code() != ErrorCode::OffsetOutOfRange {
            tracing::debug!(%error, "a stream ends");
            return None;
        }
        match self.open().await {
            // Not empty, so that nobody takes it for the end.
            Ok(lost) if lost.is_empty() => Some(sse::comment().into()),
            Ok(lost) => Some(lost.into()),
            Err(problem) => {
                tracing::debug!(?problem, "a stream ends");
                None
            }
        }
    }
}
