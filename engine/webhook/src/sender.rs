//! Sends one request, and says what became of it. Memory and time are bounded, whatever the receiver does.

use std::{
    error::Error as _,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use levada_broker::{PushOutcome, PushRules};
use levada_protocol::ids::Timestamp;
use tokio::time::{Instant, timeout_at};

use crate::{
    connect::{ConnectError, Connector},
    sign,
    verdict::{BODY_KEPT, Verdict},
};

/// How long a connection waits for the next request.
const IDLE: Duration = Duration::from_secs(30);
/// Connections to one receiver that wait.
const IDLE_MAX: usize = 32;
/// Most that the head of a response may take.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most of a body that is read so that its connection can be used again.
const DRAINED_BYTES_MAX: usize = 16 * 1024;
/// How long that may take.
const DRAINED_FOR: Duration = Duration::from_secs(1);

const JSON: HeaderValue = HeaderValue::from_static("application/cloudevents+json; charset=utf-8");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("levada/", env!("CARGO_PKG_VERSION")));

/// Sends requests, over connections that are kept for the next.
#[derive(Clone)]
pub(crate) struct Sender {
    client: Client<Connector, Full<Bytes>>,
}

impl Sender {
    pub(crate) fn new(connector: Connector) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector);
        Self { client }
    }

    /// Makes an attempt at this time of day to hand a message over.
    pub(crate) async fn send(&self, rules: &PushRules, id: &str, body: Bytes, now: Timestamp) -> Verdict {
        let until = Instant::now() + rules.timeout;
        let request = match request(rules, id, body, now) {
            Ok(request) => request,
            Err(why) => return Verdict::Failed(PushOutcome::Refused, format!("PUSH_REFUSED: {why}")),
        };
        match timeout_at(until, self.client.request(request)).await {
            Err(_) => {
                let message = format!("no response within {} ms", rules.timeout.as_millis());
                Verdict::Failed(PushOutcome::TimedOut, message)
            }
            Ok(Err(error)) => failed(&error),
            Ok(Ok(response)) => {
                let (head, body) = response.into_parts();
                let kept = drain(body, until.min(Instant::now() + DRAINED_FOR)).await;
                let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now.0);
                Verdict::of(head.status, &head.headers, &kept, now)
            }
        }
    }
}

fn request(rules: &PushRules, id: &str, body: Bytes, now: Timestamp) -> Result<Request<Full<Bytes>>, String> {
    Request::post(crate::url::parse(&rules.url)?)
        .header(header::CONTENT_TYPE, JSON)
        .header(header::USER_AGENT, AGENT)
        .header("webhook-id", id)
        .header("webhook-timestamp", sign::seconds(now))
        .header("webhook-signature", sign::signatures(rules, id, now, &body))
        .body(Full::new(body))
        .map_err(|error| error.to_string())
}

/// The beginning of a body. What comes behind it is read and dropped, as far as that is little and quick; else the connection
/// is not used again.
async fn drain(mut body: Incoming, until: Instant) -> Vec<u8> {
    let (mut kept, mut read) = (Vec::new(), 0);
    while read < DRAINED_BYTES_MAX {
        let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await else { break };
        let Some(data) = frame.data_ref() else { continue };
        read += data.len();
        kept.extend_from_slice(&data[..data.len().min(BODY_KEPT - kept.len())]);
    }
    kept
}

/// Why there was no response.
fn failed(error: &hyper_util::client::legacy::Error) -> Verdict {
    let mut source = error.source();
    let mut deepest = error.to_string();
    while let Some(cause) = source {
        if let Some(why) = cause.downcast_ref::<ConnectError>() {
            let outcome = match why {
                ConnectError::Refused(_) => PushOutcome::Refused,
                ConnectError::Name { .. }
                | ConnectError::Connect { .. }
                | ConnectError::Slow { .. }
                | ConnectError::Tls { .. } => PushOutcome::Unreachable,
            };
            return Verdict::Failed(outcome, why.to_string());
        }
        deepest = cause.to_string();
        source = cause.source();
    }
    Verdict::Failed(PushOutcome::Unreachable, format!("the connection broke before a response: {deepest}"))
}
