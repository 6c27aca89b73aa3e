//! A request stream: one question, perhaps an artefact in chunks or the batches of a transaction, one answer.
//!
//! It owns the bounds on those in memory and the request's deadline. It must not know what requests mean.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use levada_broker::{Broker, Principal};
use levada_protocol::{
    access::Requires as _,
    batch::Batch,
    error::{ErrorCode, Refusal},
    frame::FrameType,
    limits::{ARTEFACT_BYTES_MAX, TRANSACTION_BATCHES_MAX, TRANSACTION_BYTES_MAX},
    publish::{PUBLISH_HEADER_BYTES, PublishHeader},
    request::{Opened, Request, RequestEnvelope, Response, ResponseEnvelope, Transact},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};

use super::{
    frames::FrameReader,
    publish,
    stream::{Failure, Stream},
};
use crate::{metrics::Process, wire_error};

/// Bytes of an artefact that must arrive within the stall timeout to keep its slot.
const PACE_BYTES: usize = 64 * 1024;

/// How long the batches of one transaction may take to arrive.
const BATCHES_TIMEOUT: Duration = Duration::from_secs(30);

/// Slots for artefacts in memory.
pub(super) struct Uploads {
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// How long one artefact may take to arrive.
    timeout: Duration,
    /// How long one may bring less than [`PACE_BYTES`] while another waits.
    stall_timeout: Duration,
}

/// An artefact and its slot, which it keeps while anything holds its bytes: a compilation continues after its request
/// was given up.
struct Held {
    artefact: BytesMut,
    _slot: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.artefact
    }
}

/// Counts a waiting upload until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Uploads {
    pub(super) fn new(max: usize, timeout: Duration, stall_timeout: Duration) -> Self {
        Self { slots: Arc::new(Semaphore::new(max)), waiting: AtomicUsize::new(0), timeout, stall_timeout }
    }

    async fn slot(&self) -> OwnedSemaphorePermit {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed")
    }

    fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// What a request needs beside the broker.
pub(super) struct Context<'a> {
    pub(super) broker: &'a Broker,
    pub(super) principal: &'a Principal,
    pub(super) uploads: &'a Uploads,
    /// The packet size in force on the client's connection.
    pub(super) mtu: u16,
}

/// Serves one request.
pub(super) async fn serve(
    context: Context<'_>,
    envelope: RequestEnvelope,
    stream: &mut Stream,
) -> Result<(), Failure> {
    let RequestEnvelope { id, deadline_ms, trace, request } = envelope;
    let of_request = trace.map(|trace| context.principal.clone().for_request(|| trace.to_string()));
    let context = Context { principal: of_request.as_ref().unwrap_or(context.principal), ..context };
    let response = within(deadline_ms, respond(context, request, &mut stream.frames)).await?;
    stream.answer(&Opened::Response(ResponseEnvelope { id, response })).await
}

/// Ends at the client's deadline; what the broker has begun may still take effect.
async fn within(
    deadline_ms: u32,
    answer: impl Future<Output = Result<Response, Failure>>,
) -> Result<Response, Failure> {
    if deadline_ms == 0 {
        return answer.await;
    }
    let deadline = Duration::from_millis(u64::from(deadline_ms));
    time::timeout(deadline, answer).await.unwrap_or_else(|_| {
        let message = format!("the request took longer than its deadline of {deadline_ms} ms");
        Ok(Response::Refused(Refusal::new(ErrorCode::DeadlineExceeded, message)))
    })
}

async fn respond(
    context: Context<'_>,
    request: Request,
    frames: &mut FrameReader,
) -> Result<Response, Failure> {
    // Before anything is taken of what follows.
    if let Err(error) = context.broker.check(context.principal, &request.required()) {
        return Ok(Response::Refused(wire_error::refusal(&error)));
    }
    let answer = match request {
        Request::DeployPlugin { size, .. } => {
            let len = usize::try_from(size).unwrap_or(usize::MAX);
            if len > ARTEFACT_BYTES_MAX {
                let message = format!("the artefact is {size} bytes, the limit is {ARTEFACT_BYTES_MAX}");
                return Ok(Response::Refused(Refusal::new(ErrorCode::PluginTooLarge, message)));
            }
            let uploads = context.uploads;
            let slot = uploads.slot().await;
            let upload = time::timeout(uploads.timeout, receive(frames, len, uploads)).await;
            let artefact = upload.map_err(|_| {
                let message = format!("the artefact took longer than {:?} to arrive", uploads.timeout);
                Failure::refused(ErrorCode::DeadlineExceeded, message)
            })??;
            let artefact = Bytes::from_owner(Held { artefact, _slot: slot });
            context.broker.request(context.principal, request, Some(artefact)).await
        }
        Request::Transact(transact) => {
            let limit = BATCHES_TIMEOUT;
            let received = time::timeout(limit, receive_batches(frames, &transact)).await;
            let received = received.map_err(|_| {
                let message = format!(
                    "the transaction's batches took longer than {limit:?} to arrive, nothing was stored; try again"
                );
                Failure::refused(ErrorCode::LimitExceeded, message)
            })?;
            let answer = match received? {
                Ok(batches) => context.broker.transact(context.principal, transact, batches).await,
                Err(refusal) => Err(refusal.into()),
            };
            frames.give_up();
            answer
        }
        other => context.broker.request(context.principal, other, None).await,
    };
    Ok(match answer {
        Ok(Response::Info(mut info)) => {
            info.mtu = context.mtu;
            Process::now().describe(&mut info);
            Response::Info(info)
        }
        Ok(response) => response,
        Err(error) => Response::Refused(wire_error::refusal(&error)),
    })
}

/// Receives chunks until `len` bytes have arrived. Memory grows with the bytes received.
async fn receive(frames: &mut FrameReader, len: usize, uploads: &Uploads) -> Result<BytesMut, Failure> {
    let mut artefact = BytesMut::new();
    let (mut check_at, mut had) = (time::Instant::now() + uploads.stall_timeout, 0);
    while artefact.len() < len {
        let Ok(frame) = time::timeout_at(check_at, frames.next()).await else {
            if uploads.is_wanted() && artefact.len() - had < PACE_BYTES {
                let message = format!(
                    "the artefact brought less than {PACE_BYTES} bytes in {:?} while another waited for its slot",
                    uploads.stall_timeout
                );
                return Err(Failure::refused(ErrorCode::DeadlineExceeded, message));
            }
            (check_at, had) = (time::Instant::now() + uploads.stall_timeout, artefact.len());
            continue;
        };
        let Some(frame) = frame? else {
            let message = format!("expected an artefact of {len} bytes, got {}", artefact.len());
            return Err(Failure::refused(ErrorCode::Malformed, message));
        };
        if frame.kind != FrameType::Chunk {
            return Err(Failure::unexpected(frame.kind, "a chunk frame"));
        }
        if frame.payload.len() > len - artefact.len() {
            let got = artefact.len() + frame.payload.len();
            let message = format!("expected an artefact of {len} bytes, got {got} or more");
            return Err(Failure::refused(ErrorCode::Malformed, message));
        }
        artefact.extend_from_slice(&frame.payload);
    }
    Ok(artefact)
}

/// Receives the batches of a transaction, or why it cannot be stored. Their room is taken as a whole before they come.
async fn receive_batches(
    frames: &mut FrameReader,
    transact: &Transact,
) -> Result<Result<Vec<(PublishHeader, Batch)>, Refusal>, Failure> {
    let (announced, bytes) = (transact.batches as usize, transact.bytes);
    let over = |what: &str, got: u64, limit: usize| {
        let message =
            format!("the transaction has {got} {what}, the limit is {limit}: divide it into several");
        Ok(Err(Refusal::new(ErrorCode::TransactionTooLarge, message)))
    };
    if announced > TRANSACTION_BATCHES_MAX {
        return over("batches", announced as u64, TRANSACTION_BATCHES_MAX);
    }
    let Some(bytes) = usize::try_from(bytes).ok().filter(|bytes| *bytes <= TRANSACTION_BYTES_MAX) else {
        return over("bytes of batches", bytes, TRANSACTION_BYTES_MAX);
    };
    frames.keep(bytes + announced * PUBLISH_HEADER_BYTES).await?;
    let (mut batches, mut left) = (Vec::new(), bytes);
    while batches.len() < announced {
        let Some(frame) = frames.next().await? else {
            let message = format!("expected {announced} batches, got {}", batches.len());
            return Err(Failure::refused(ErrorCode::Malformed, message));
        };
        if frame.kind != FrameType::Publish {
            return Err(Failure::unexpected(frame.kind, "a publish frame"));
        }
        let mut payload = frame.payload;
        let header = PublishHeader::read(&mut payload)?;
        left = left.checked_sub(payload.len()).ok_or_else(|| {
            let message = format!("expected {bytes} bytes of batches, as announced, got more");
            Failure::refused(ErrorCode::Malformed, message)
        })?;
        match Batch::check(payload) {
            Ok(batch) => batches.push((header, batch)),
            Err(error) => return Ok(Err(publish::refusal(&error))),
        }
    }
    Ok(Ok(batches))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_artefact_keeps_its_slot_while_anything_holds_its_bytes() {
        let uploads = Uploads::new(1, Duration::ZERO, Duration::ZERO);
        let held = Held { artefact: BytesMut::from(&b"wasm"[..]), _slot: uploads.slot().await };
        let artefact = Bytes::from_owner(held);
        let compiled = artefact.clone();
        drop(artefact);
        assert_eq!((&compiled[..], uploads.slots.available_permits()), (&b"wasm"[..], 0));
        drop(compiled);
        assert_eq!(uploads.slots.available_permits(), 1);
    }
}
