//! One QUIC stream: opened with a frame that says what it is for, then read frame by frame.
//!
//! Owns the assembly of frames from what QUIC hands over. Must not know what the frames mean.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use levada_protocol::{
    error::Refusal,
    frame::{self, FRAME_HEADER_BYTES, FrameHeader, FrameType},
    request::{Open, Opened},
};
use quinn::{Connection, RecvStream, SendStream};
use tokio::time::timeout;

use crate::error::Error;

/// What an engine that has stopped reading still has to say comes without pauses longer than this.
const REASON_GRACE: Duration = Duration::from_secs(1);
/// How long to wait for a stream on a connection that has as many as it may.
const STREAM_WAIT: Duration = Duration::from_secs(1);
/// Pieces taken from QUIC at a time.
const PIECES: usize = 32;
/// A payload up to this size is copied even if it lies in one piece, because a piece keeps a whole packet
/// buffer.
const COPIED_BYTES_MAX: usize = 4096;

/// A stream that the engine has agreed to.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) send: SendStream,
    pub(crate) frames: FrameReader,
}

impl Stream {
    /// The next frame of a stream that the engine has stopped reading: what it sent before, then its reason or
    /// the end. Not for ever. Cancel safe.
    pub(crate) async fn last_words(&mut self) -> Result<Frame, Error> {
        match timeout(REASON_GRACE, self.frames.next()).await {
            Ok(frame) => frame?.ok_or_else(Error::cut_off),
            Err(_) => Err(Error::cut_off()),
        }
    }
}

/// Opens a stream and waits for the engine's answer. Not cancel safe: the stream is lost with the wait.
pub(crate) async fn open(connection: &Connection, open: &Open) -> Result<(Stream, Opened), Error> {
    let mut stream = begin(connection, open).await?;
    let opened = stream.frames.opened().await?;
    Ok((stream, opened))
}

/// Opens a stream without waiting for the answer.
pub(crate) async fn begin(connection: &Connection, open: &Open) -> Result<Stream, Error> {
    let message = open_frame(open)?;
    // There is nothing to wait for but other streams' ends, or the engine's leave to open more.
    let opened = timeout(STREAM_WAIT, connection.open_bi()).await;
    let (mut send, recv) = opened.map_err(|_| Error::NoStream { waited: STREAM_WAIT })??;
    send.write_chunk(message).await?;
    Ok(Stream { send, frames: FrameReader::new(recv) })
}

/// Texts of the program's own, such as plugin configurations, decide how large this gets.
fn open_frame(open: &Open) -> Result<Bytes, Error> {
    let unwritable = |error| Error::Config { what: format!("the request cannot be written: {error}") };
    let payload = rmp_serde::to_vec_named(open).map_err(unwritable)?;
    let max = FrameType::Open.payload_bytes_max();
    if payload.len() > max {
        return Err(Error::RequestTooLarge { bytes: payload.len(), max });
    }
    Ok(frame::frame(FrameType::Open, &payload))
}

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: FrameType,
    pub(crate) payload: Bytes,
}

impl Frame {
    /// The refusal in an `Error` frame; an error for a frame of any other kind, which nobody expected here.
    pub(crate) fn into_unexpected(self) -> Error {
        if self.kind != FrameType::Error {
            return Error::bad_answer(format!("a {:?} frame came where it has no place", self.kind));
        }
        match frame::read_message::<Refusal>(&self.payload) {
            Ok(refusal) => Error::Refused(refusal),
            Err(error) => error.into(),
        }
    }
}

/// Cuts frames out of a stream.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: RecvStream,
    pieces: Vec<Bytes>,
    /// The pieces from here on up to `filled` were not used up yet.
    next: usize,
    filled: usize,
    header: Option<FrameHeader>,
    /// What came of a header or payload that lies in several pieces.
    partial: BytesMut,
}

impl FrameReader {
    fn new(stream: RecvStream) -> Self {
        let pieces = vec![Bytes::new(); PIECES];
        Self { stream, pieces, next: 0, filled: 0, header: None, partial: BytesMut::new() }
    }

    /// The next frame; `None` when the engine has ended the stream after a whole frame.
    ///
    /// Cancel safe: what came is kept.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if let Some(frame) = self.assemble()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunks(&mut self.pieces).await? {
                Some(filled) => (self.next, self.filled) = (0, filled),
                None if self.header.is_none() && self.partial.is_empty() => return Ok(None),
                None => return Err(Error::cut_off()),
            }
        }
    }

    /// The answer to an `Open` frame. Cancel safe.
    pub(crate) async fn opened(&mut self) -> Result<Opened, Error> {
        let frame = self.next().await?.ok_or_else(Error::cut_off)?;
        if frame.kind != FrameType::Opened {
            return Err(frame.into_unexpected());
        }
        Ok(frame::read_message(&frame.payload)?)
    }

    /// A frame from the pieces at hand, if they hold the rest of one.
    fn assemble(&mut self) -> Result<Option<Frame>, Error> {
        let header = match self.header {
            Some(header) => header,
            None => {
                let Some(bytes) = self.collect(FRAME_HEADER_BYTES) else { return Ok(None) };
                let bytes = bytes.first_chunk().expect("collected exactly as many bytes");
                *self.header.insert(FrameHeader::read(bytes)?)
            }
        };
        let Some(payload) = self.collect(header.len) else { return Ok(None) };
        self.header = None;
        Ok(Some(Frame { kind: header.kind, payload }))
    }

    /// Exactly `len` bytes, once that many have come.
    fn collect(&mut self, len: usize) -> Option<Bytes> {
        if len == 0 {
            return Some(Bytes::new());
        }
        while self.next < self.filled {
            let piece = &mut self.pieces[self.next];
            if self.partial.is_empty() {
                if piece.len() >= len && len > COPIED_BYTES_MAX {
                    return Some(piece.split_to(len));
                }
                self.partial.reserve(len);
            }
            let taken = piece.len().min(len - self.partial.len());
            self.partial.extend_from_slice(&piece[..taken]);
            piece.advance(taken);
            if piece.is_empty() {
                *piece = Bytes::new();
                self.next += 1;
            }
            if self.partial.len() == len {
                return Some(self.partial.split().freeze());
            }
        }
        None
    }
}
