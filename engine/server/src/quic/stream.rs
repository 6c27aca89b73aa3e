//! One bidirectional stream: how it is opened, answered and ended, whatever it is for.
//!
//! It owns the rule of which fault ends a stream and which ends its connection. It must not know the broker's state.

use std::{collections::VecDeque, future::Future, pin::pin, time::Duration};

use bytes::Bytes;
use levada_broker::{Outgoing, Unwritten};
use levada_protocol::{
    error::{ErrorCode, Refusal},
    frame::{self, FrameError, FrameType},
    limits::FRAME_BYTES_MAX,
    request::{Open, Opened},
};
use quinn::{RecvStream, SendStream, VarInt, WriteError};
use tokio::{sync::mpsc, time};

use super::{
    deliver,
    frames::{self, Frame, FrameReader},
    inbound::Inbound,
};
use crate::wire_error;

/// Delivery frames written in one go.
const FRAMES_GATHERED_MAX: usize = 64;
/// How long a stream may take nothing while there is little room left for others.
const UNREAD_WHEN_SHORT: Duration = Duration::from_secs(2);
/// How long the last frames to a peer that broke the protocol may take.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Both directions of a stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) send: SendStream,
    pub(super) frames: FrameReader,
}

/// Why a stream ends before its time.
#[derive(Debug)]
pub(super) enum Failure {
    /// Refused: the stream ends with an `Error` frame, the connection goes on.
    Refused(Refusal),
    /// The peer does not speak our protocol: the connection is closed with the code.
    Broken(Refusal),
    /// The peer does not take what it asked for: nothing can be said behind half a frame, and the stream is reset with
    /// the code.
    Unread(Refusal),
    /// The peer has ended the stream or is gone; there is nobody to notify.
    Gone,
}

impl Failure {
    /// A refusal with this code and sentence.
    pub(super) fn refused(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(code, message))
    }

    /// A frame that has no meaning where it came.
    pub(super) fn unexpected(kind: FrameType, expected: &str) -> Self {
        Self::refused(ErrorCode::Malformed, format!("expected {expected}, got a frame of type {kind:?}"))
    }
}

impl From<frames::Error> for Failure {
    fn from(error: frames::Error) -> Self {
        match (error.refusal(), &error) {
            (None, _) => Self::Gone,
            // A peer that claims such a length frames differently; nothing on this connection can be trusted.
            (Some(refusal), frames::Error::Frame(FrameError::TooLarge { .. })) => Self::Broken(refusal),
            (Some(refusal), _) => Self::Refused(refusal),
        }
    }
}

impl From<FrameError> for Failure {
    fn from(error: FrameError) -> Self {
        frames::Error::from(error).into()
    }
}

impl From<WriteError> for Failure {
    fn from(_: WriteError) -> Self {
        Self::Gone
    }
}

impl From<levada_broker::Error> for Failure {
    fn from(error: levada_broker::Error) -> Self {
        Self::Refused(wire_error::refusal(&error))
    }
}

impl Stream {
    pub(super) fn new(send: SendStream, recv: RecvStream, inbound: Inbound) -> Self {
        Self { send, frames: FrameReader::new(recv, inbound) }
    }

    /// Reads the frame that says what the stream is.
    pub(super) async fn read_open(&mut self) -> Result<Open, Failure> {
        match self.frames.next().await? {
            Some(Frame { kind: FrameType::Open, payload, .. }) => Ok(frame::read_message(&payload)?),
            Some(Frame { kind, .. }) => Err(Failure::unexpected(kind, "an open frame first")),
            None => Err(Failure::refused(
                ErrorCode::Malformed,
                "expected an open frame, got the end of the stream",
            )),
        }
    }

    /// Writes the answer to the open frame.
    pub(super) async fn answer(&mut self, opened: &Opened) -> Result<(), Failure> {
        let payload = rmp_serde::to_vec_named(opened).map_err(|error| {
            Failure::refused(ErrorCode::Internal, format!("the answer does not serialise: {error}"))
        })?;
        if payload.len() > FRAME_BYTES_MAX {
            let message = format!("the answer is {} bytes, the limit is {FRAME_BYTES_MAX}", payload.len());
            return Err(Failure::refused(ErrorCode::LimitExceeded, message));
        }
        Ok(self.send.write_chunk(frame::frame(FrameType::Opened, &payload)).await?)
    }

    /// Ends the stream with a reason, in both directions.
    pub(super) async fn refuse(&mut self, refusal: &Refusal) {
        let refusal = &wire_error::bounded(refusal.clone());
        self.frames.stop(wire_error::close_code(refusal.code));
        // Neither fails unless the peer is gone, and then there is nobody to notify.
        if self.send.write_chunk(frame::message(FrameType::Error, refusal)).await.is_ok() {
            let _ = self.send.finish();
        }
    }

    /// Ends the stream at once, in both directions, and forgets what was not sent.
    pub(super) fn reset(&mut self, refusal: &Refusal) {
        let code = wire_error::close_code(refusal.code);
        self.frames.stop(code);
        // Fails only if the stream has ended already.
        let _ = self.send.reset(code);
    }

    /// Ends the stream as agreed.
    pub(super) fn finish(&mut self) {
        // Fails only if the peer has stopped it before.
        let _ = self.send.finish();
        self.frames.stop(VarInt::from_u32(0));
    }

    /// Completes when the peer has everything that was written, or is gone.
    pub(super) async fn delivered(&self) {
        let _ = self.send.stopped().await;
    }
}

/// Runs both directions of a stream as one task. What goes down outlives what comes up: what was accepted is still
/// answered when the peer has said its last or its nonsense; to a peer that does not speak our protocol, for a moment
/// only. A peer that is gone ends both at once.
pub(super) async fn both(
    up: impl Future<Output = Result<(), Failure>>,
    down: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let (up, mut down) = (pin!(up), pin!(down));
    // Not biased: a peer that never pauses must not keep its own answers waiting.
    let ended = tokio::select! {
        ended = up => ended,
        ended = &mut down => return ended,
    };
    match ended {
        Ok(()) => down.await,
        Err(Failure::Refused(refusal)) => down.await.and(Err(Failure::Refused(refusal))),
        Err(failure @ Failure::Broken(_)) => {
            // However that ended, the connection is closed for what the peer did.
            let _ = time::timeout(LAST_ANSWERS, down).await;
            Err(failure)
        }
        Err(failure) => Err(failure),
    }
}

/// Writes what comes as frames, as many at once as are ready, until there is no more.
///
/// A stream that takes none of their bytes for `unread` is given up, and sooner if `is_short` says that there is little
/// room left for others.
pub(super) async fn write_frames(
    send: &mut SendStream,
    mut outgoing: mpsc::Receiver<Result<Outgoing, levada_broker::Error>>,
    unread: Duration,
    is_short: impl Fn() -> bool,
) -> Result<(), Failure> {
    let mut ready = Vec::with_capacity(FRAMES_GATHERED_MAX);
    let mut chunks: Vec<Bytes> = Vec::new();
    // What is left to do for each frame, until the chunk behind its last one is written.
    let mut unwritten = VecDeque::new();
    while outgoing.recv_many(&mut ready, FRAMES_GATHERED_MAX).await > 0 {
        let mut ended = Ok(());
        for outgoing in ready.drain(..) {
            match outgoing {
                Ok(outgoing) => {
                    let (content, rest) = outgoing.into_parts();
                    deliver::encode(content, &mut chunks);
                    unwritten.push_back((chunks.len(), rest));
                }
                Err(error) => ended = Err(error),
            }
        }
        let mut written = 0;
        while written < chunks.len() {
            written += some_written(send, &mut chunks[written..], unread, &is_short).await?;
            while let Some((_, frame)) =
                unwritten.pop_front_if(|(end, _): &mut (usize, Unwritten)| *end <= written)
            {
                frame.written();
            }
        }
        chunks.clear();
        ended?;
    }
    Ok(())
}

/// Writes as much as the stream takes; returns how many chunks that were whole.
async fn some_written(
    send: &mut SendStream,
    chunks: &mut [Bytes],
    unread: Duration,
    is_short: &impl Fn() -> bool,
) -> Result<usize, Failure> {
    let mut waited = Duration::ZERO;
    loop {
        let pause = UNREAD_WHEN_SHORT.min(unread - waited.min(unread));
        match time::timeout(pause, send.write_chunks(chunks)).await {
            Ok(written) => return Ok(written?.chunks),
            Err(_) => waited += pause,
        }
        let (code, why) = if waited >= unread {
            (ErrorCode::DeadlineExceeded, "")
        } else if is_short() {
            (ErrorCode::LimitExceeded, ", and there is no room left for others")
        } else {
            continue;
        };
        let message = format!("the stream took none of what its credit asked for in {waited:?}{why}");
        return Err(Failure::Unread(Refusal::new(code, message)));
    }
}
