//! Reading: stored events, without a trace.
#![expect(unused_qualifications, reason = "the macro of the description names types by their paths")]

use axum::{
    Extension,
    extract::State,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use levada_broker::{Content, Delivery, Outgoing, Principal, Reader};
use levada_cloudevents::write_structured;
use levada_json::{Location, write_event};
use levada_protocol::{
    deliver::EndEntry,
    ids::{TopicId, TopicName},
    progress::SearchState,
    request::{Position, Read, Search, Start},
    verbs::Credit,
};
use serde::Deserialize;
use tokio::time::{self, Instant};
use utoipa::IntoParams;

use crate::{
    events,
    params::{self, Begin, Parameters, Topic},
    peer::Peer,
    positions::{self, Positions},
    principal::Caller,
    problem::{Problem, ProblemDetails},
    responses::Room,
    schema::CloudEvent,
    state::Gateway,
};

/// Events of a response if the request names no number.
const EVENTS_DEFAULT: u64 = 1_000;
/// Most events of a response.
const EVENTS_MAX: u64 = 10_000;
/// Stored bytes after which a response takes no further events.
const BYTES_MAX: u64 = 1024 * 1024;

/// Which events are read.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadParams {
    /// The partitions, such as `0` or `0,3`. Default: all.
    #[param(pattern = "^ *[0-9]{1,4} *(, *[0-9]{1,4} *)*$", example = "0,3")]
    partition: Option<String>,
    /// `earliest`, `latest`, an offset, a time in RFC 3339, or the `Levada-Next` of another response. Default: `earliest`.
    #[param(example = "earliest")]
    from: Option<String>,
    /// Most events, 1 to 10000. Default: 1000. A response ends sooner after about 1 MiB.
    #[param(minimum = 1, maximum = 10_000)]
    max: Option<u64>,
    /// Wait for events if there are none, such as `5s`; at most 60s. Default: 0s.
    #[param(example = "5s")]
    wait: Option<String>,
    /// A condition over payload, headers and key, such as `amount > 100`.
    #[param(example = "amount > 100")]
    r#where: Option<String>,
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Lines,
    CloudEvents,
}

/// Read events
///
/// Leaves no trace: nothing is acknowledged and no position is stored. The header `Levada-Next` is the `from` of the
/// request that goes on. `Levada-Complete` is `false` if more is known to be stored: the response was full, or its search
/// came to its limit. A caller whose permission names plugins (`read … via …`) gets what these leave of each event.
#[utoipa::path(
    get,
    path = "/v1/topics/{topic}/events",
    tag = "events",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "orders"),
        ReadParams,
        ("Accept" = Option<String>, Header, description = "`application/x-ndjson`, the default, or `application/cloudevents-batch+json`"),
    ),
    responses(
        (status = 200, description = "The events", headers(
            ("Levada-Next" = String, description = "Where to go on: the next offset of each partition"),
            ("Levada-Complete" = bool, description = "Whether everything was read that was stored"),
            ("Levada-Withheld" = u64, description = "Events that are not shown because a plugin of the caller's permission failed on them, if there are any"),
        ), content(
            (String = "application/x-ndjson", example = "{\"topic\":\"orders\",\"partition\":0,\"offset\":0,\"key\":\"order-1\",\"time\":\"2026-01-31T12:00:00Z\",\"payload\":{\"amount\":90}}\n"),
            (Vec<CloudEvent> = "application/cloudevents-batch+json"),
        )),
        (status = 400, description = "A parameter is wrong", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 429, description = "`LIMIT_EXCEEDED`: responses that their clients have not taken leave no room for another", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "`VIEW_CHANGED`: the caller's permissions have changed meanwhile: read again", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "`PERMISSION_DENIED`", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "No token of a principal, or one that is not taken", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "No such topic or partition", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 406, description = "A media type that events are not written in", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 416, description = "`OFFSET_OUT_OF_RANGE`: the offset is no longer, or not yet, there", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn read(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Topic(topic): Topic,
    Parameters(asked): Parameters<ReadParams>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = format_of(&headers)?;
    let max = asked.max.unwrap_or(EVENTS_DEFAULT);
    if !(1..=EVENTS_MAX).contains(&max) {
        return Err(Problem::invalid(format!("expected 1 to {EVENTS_MAX} as max, got {max}")));
    }
    let wait = asked.wait.as_deref().map(|text| params::duration("wait", text)).transpose()?;
    let wait_max = gateway.config().wait_max;
    if let Some(wait) = wait.filter(|wait| *wait > wait_max) {
        let [wait, wait_max] = [wait, wait_max].map(humantime::format_duration);
        return Err(Problem::invalid(format!("expected at most {wait_max} as wait, got {wait}")));
    }
    let (start, at) = begin(asked.from.as_deref().unwrap_or("earliest"))?;
    let asked = Asked { partition: asked.partition.as_deref(), condition: asked.r#where.as_deref() };
    let read = asked.read(topic, start, at)?;
    let mut reading = Reading::new(format, read.topic.clone(), max);
    let deadline = Instant::now() + gateway.config().work_max;
    reading.collect(&gateway, &principal, read.clone(), deadline).await?;
    let wait = wait.unwrap_or_default();
    if reading.events == 0 && reading.complete && !wait.is_zero() {
        let positions = reading.positions();
        let follow = Read { follow: true, positions, ..read };
        let until = Instant::now() + wait;
        if let Some(Extension(peer)) = &peer {
            peer.answer_by(until + gateway.config().work_max);
        }
        reading.collect(&gateway, &principal, follow, until).await?;
    }
    Ok(reading.response())
}

fn format_of(headers: &HeaderMap) -> Result<Format, Problem> {
    let mut accepted = headers.get_all(ACCEPT).iter().peekable();
    if accepted.peek().is_none() {
        return Ok(Format::Lines);
    }
    let text = accepted.map(|value| String::from_utf8_lossy(value.as_bytes())).collect::<Vec<_>>().join(",");
    let format = |range: &str| match range.split(';').next().unwrap_or_default().trim() {
        "application/cloudevents-batch+json" => Some(Format::CloudEvents),
        "application/x-ndjson" | "application/*" | "*/*" | "" => Some(Format::Lines),
        _ => None,
    };
    text.split(',').find_map(format).ok_or_else(|| {
        let detail = format!(
            "expected application/x-ndjson or application/cloudevents-batch+json as Accept, got {text:?}"
        );
        Problem::invalid(detail).with_status(StatusCode::NOT_ACCEPTABLE)
    })
}

/// Where to begin, and where in partitions that are named.
pub(crate) fn begin(from: &str) -> Result<(Start, Vec<Position>), Problem> {
    Ok(match Begin::parse(from)? {
        Begin::Start(start) => (start, Vec::new()),
        Begin::Positions(positions) => (Start::Earliest, positions),
    })
}

/// Which events of a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) partition: Option<&'a str>,
    pub(crate) condition: Option<&'a str>,
}

impl Asked<'_> {
    /// What the broker is asked for.
    pub(crate) fn read(
        self,
        topic: TopicName,
        from: Start,
        positions: Vec<Position>,
    ) -> Result<Read, Problem> {
        let partitions = self.partition.map(params::partitions).transpose()?.unwrap_or_default();
        let search = self
            .condition
            .map(|condition| Search { condition: Some(condition.to_owned()), ..Search::default() });
        Ok(Read { partitions, from, positions, search, ..Read::new(topic) })
    }
}

/// What was read so far.
struct Reading {
    format: Format,
    topic: TopicName,
    out: Vec<u8>,
    next: Positions,
    events: u64,
    bytes: u64,
    max: u64,
    complete: bool,
    /// A search came to its limit.
    limited: bool,
    /// Events on which a plugin of the caller's permission failed.
    withheld: u64,
    room: Room,
}

impl Reading {
    fn new(format: Format, topic: TopicName, max: u64) -> Self {
        let (out, next) = (Vec::new(), Positions::new());
        let (complete, limited, withheld, room) = (false, false, 0, Room::default());
        Self { format, topic, out, next, events: 0, bytes: 0, max, complete, limited, withheld, room }
    }

    fn positions(&self) -> Vec<Position> {
        self.next
            .iter()
            .map(|(partition, offset)| Position { partition: *partition, offset: *offset })
            .collect()
    }

    /// Reads until everything is read or the response is full; one that follows until there is something. What is read by
    /// `until` counts.
    async fn collect(
        &mut self,
        gateway: &Gateway,
        principal: &Principal,
        read: Read,
        until: Instant,
    ) -> Result<(), Problem> {
        let follow = read.follow;
        let broker = gateway.broker().for_connection();
        let mut reader = broker.read(principal, read).await?;
        let conditions = reader.conditions.clone();
        self.next.extend(reader.positions.iter().map(|position| (position.partition, position.offset)));
        self.complete = follow;
        // It has ended already if there is nothing to read.
        let _ = reader.credit.grant(Credit { events: self.max, bytes: BYTES_MAX }).await;
        loop {
            let received = tokio::select! {
                biased;
                refused = broker.until_denied(principal, &conditions) => return Err(refused.into()),
                received = time::timeout_at(until, reader.outgoing.recv()) => received,
            };
            let Ok(Some(outgoing)) = received else { break };
            let outgoing = outgoing?;
            if let Content::Delivery(delivery) = outgoing.content() {
                match gateway.responses().room(events::credit_bytes(delivery), until).await {
                    Ok(room) => self.room.add(room),
                    Err(problem) if self.events == 0 => return Err(problem),
                    // What is here already is a response.
                    Err(_) => break,
                }
            }
            if self.take(&reader, outgoing)? {
                break;
            }
            if follow && self.events > 0 {
                // There may be more than what came first.
                self.complete = false;
                break;
            }
        }
        // What was read by permissions that have changed meanwhile is not returned.
        Ok(broker.check_conditions(principal, &conditions)?)
    }

    /// Takes what a reader found; true if that is all, or enough.
    fn take(&mut self, reader: &Reader, outgoing: Outgoing) -> Result<bool, Problem> {
        self.withheld += outgoing.withheld();
        let entries = match outgoing.content() {
            Content::Delivery(delivery) => {
                self.write(reader.topic, delivery)?;
                return Ok(self.events >= self.max || self.bytes >= BYTES_MAX);
            }
            Content::End(entries) => {
                self.complete = !self.limited;
                entries
            }
            Content::Progress(progress) => {
                self.limited = progress.state == SearchState::Limited;
                let is_here = |entry: &EndEntry| self.next.get(&entry.partition.0) == Some(&entry.next.0);
                if progress.state == SearchState::Running && progress.positions.iter().all(is_here) {
                    // It is read on when plugins through which the caller reads are not left alone any more.
                    self.complete = false;
                    return Ok(true);
                }
                &progress.positions
            }
            Content::Settled(_) => return Ok(false),
        };
        self.next.extend(entries.iter().map(|entry| (entry.partition.0, entry.next.0)));
        Ok(matches!(outgoing.content(), Content::End(_)))
    }

    fn write(&mut self, id: TopicId, delivery: &Delivery) -> Result<(), Problem> {
        let Self { format, topic, out, next, events, .. } = self;
        events::for_each((topic, id), delivery, |stored, event| {
            match format {
                Format::Lines => {
                    let (topic, partition, offset) = (stored.topic, stored.partition, stored.offset);
                    write_event(out, Location { topic, partition, offset, delivery: None }, event);
                }
                Format::CloudEvents => {
                    out.push(if *events == 0 { b'[' } else { b',' });
                    write_structured(out, stored, event);
                }
            }
            *events += 1;
            next.insert(stored.partition.0, stored.offset.0 + 1);
        })?;
        self.bytes += events::credit_bytes(delivery);
        Ok(())
    }

    fn response(mut self) -> Response {
        let content_type = match self.format {
            Format::Lines => "application/x-ndjson",
            Format::CloudEvents => {
                self.out.extend_from_slice(if self.events == 0 { b"[]" } else { b"]" });
                "application/cloudevents-batch+json"
            }
        };
        let mut response = self.room.body(self.out).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(next) = HeaderValue::try_from(positions::format(&self.next)) {
            headers.insert("levada-next", next);
        }
        if self.withheld > 0 {
            headers.insert("levada-withheld", self.withheld.into());
        }
        let complete = if self.complete { "true" } else { "false" };
        headers.insert("levada-complete", HeaderValue::from_static(complete));
        response
    }
}
