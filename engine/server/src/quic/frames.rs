//! Reads frames off a QUIC stream within the budgets for unfinished ones.
//!
//! The bytes are cut by `levada_protocol::frame::FrameDecoder`. It must not know what frames mean.

use bytes::Bytes;
use levada_protocol::{
    error::{ErrorCode, Refusal},
    frame::{self, Buffering, FrameDecoder, FrameError, FrameType},
};
use quinn::{ReadError, RecvStream};
use tokio::time;

use super::inbound::{Inbound, Room, STALL_TIMEOUT};

/// Chunks taken off the stream in one go: about 200 KiB at the largest packet size.
const CHUNKS_MAX: usize = 32;
/// Frames up to this many bytes are not counted.
const UNCOUNTED_MAX: usize = 16 * 1024;

/// A frame: its type, and its payload in one piece.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: FrameType,
    pub(super) payload: Bytes,
    /// The part of the budgets that a large frame holds until it is handed on.
    pub(super) room: Option<Room>,
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The bytes are no frame, or not one that may be here.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The budgets for unfinished frames are used up.
    #[error(
        "no room for a frame of {bytes} bytes: unfinished frames of this connection or of all together take what they may, {hint}"
    )]
    NoRoom {
        /// The frame's bytes, as far as they are known.
        bytes: usize,
        /// What the client can do.
        hint: &'static str,
    },
    /// The peer or the network ended the stream.
    #[error(transparent)]
    Stream(#[from] ReadError),
}

impl Error {
    /// The refusal for the peer; `None` if it has gone.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let code = match self {
            Self::Stream(_) => return None,
            Self::Frame(error) => error.code(),
            Self::NoRoom { .. } => ErrorCode::LimitExceeded,
        };
        Some(Refusal::new(code, self.to_string()))
    }
}

/// Reads frames off one stream.
#[derive(Debug)]
pub(super) struct FrameReader {
    stream: RecvStream,
    decoder: FrameDecoder,
    /// A complete frame that waits for room.
    complete: Option<frame::Frame>,
    inbound: Inbound,
    room: Option<Room>,
    /// Room for what is kept of several frames.
    kept: Option<Room>,
}

impl FrameReader {
    pub(super) fn new(stream: RecvStream, inbound: Inbound) -> Self {
        let decoder = FrameDecoder::new(Buffering::BOUNDED);
        Self { stream, decoder, complete: None, inbound, room: None, kept: None }
    }

    /// Waits until the peer has reset the stream or is gone; for ever if it has ended it in order. Cancel safe.
    pub(super) async fn reset(&mut self) {
        if let Ok(None) = self.stream.received_reset().await {
            std::future::pending().await
        }
    }

    /// The next frame; `None` where the stream ends between two. Cancel safe: what has arrived is kept.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if self.complete.is_none() {
                self.complete = self.decoder.next_frame()?;
            }
            let reserved = || self.decoder.payload_capacity();
            let bytes = self.complete.as_ref().map_or_else(reserved, |frame| frame.payload.len());
            // What is kept has room already.
            let is_kept = self.kept.as_ref().is_some_and(|kept| bytes <= kept.bytes());
            if bytes <= UNCOUNTED_MAX || is_kept {
                self.room = None;
            } else if !self.inbound.admit(&mut self.room, bytes).await {
                return Err(Error::NoRoom { bytes, hint: "try again, with smaller batches" });
            }
            if let Some(frame::Frame { kind, payload }) = self.complete.take() {
                return Ok(Some(Frame { kind, payload, room: self.room.take() }));
            }
            if !self.receive().await? {
                self.decoder.finish()?;
                return Ok(None);
            }
        }
    }

    /// Takes what has arrived off the stream; false at its end. A stream that holds room for an unfinished frame must
    /// bring something in time while others need the room.
    async fn receive(&mut self) -> Result<bool, Error> {
        let mut chunks = [const { Bytes::new() }; CHUNKS_MAX];
        let count = loop {
            if self.room.is_none() && self.kept.is_none() {
                break self.stream.read_chunks(&mut chunks).await?;
            }
            match time::timeout(STALL_TIMEOUT, self.stream.read_chunks(&mut chunks)).await {
                Ok(count) => break count?,
                Err(_) if self.inbound.is_short() => {
                    let bytes = self.decoder.payload_len();
                    return Err(Error::NoRoom { bytes, hint: "and this one brought nothing for 2 s" });
                }
                Err(_) => {}
            }
        };
        chunks.into_iter().take(count.unwrap_or(0)).for_each(|chunk| self.decoder.push(chunk));
        Ok(count.is_some())
    }

    /// Takes room for `bytes` of several frames that are kept, until [`FrameReader::give_up`]. A stream that holds it must
    /// bring something in time while others need the room.
    ///
    /// # Errors
    /// If there was none in time.
    pub(super) async fn keep(&mut self, bytes: usize) -> Result<(), Error> {
        if self.inbound.admit(&mut self.kept, bytes).await {
            return Ok(());
        }
        Err(Error::NoRoom { bytes, hint: "try again" })
    }

    /// Gives the room for what was kept back.
    pub(super) fn give_up(&mut self) {
        self.kept = None;
    }

    /// Tells the peer to send no more on this stream, and forgets what has arrived.
    pub(super) fn stop(&mut self, code: quinn::VarInt) {
        self.decoder.discard();
        // Fails only if the stream has ended already.
        let _ = self.stream.stop(code);
    }
}
