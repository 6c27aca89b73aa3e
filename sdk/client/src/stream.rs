//! One QUIC stream: opened with a frame that says what it is for, then read frame by frame.
//!
//! The bytes are cut by `levada_protocol::frame::FrameDecoder`. Must not know what the frames mean.

use std::time::Duration;

use bytes::Bytes;
use levada_protocol::{
    error::Refusal,
    frame::{self, Buffering, Frame, FrameDecoder, FrameType},
    request::{Open, Opened},
};
use quinn::{Connection, RecvStream, SendStream};
use tokio::time::timeout;

use crate::error::Error;

/// What an engine that has stopped reading still has to say comes without pauses longer than this.
const REASON_GRACE: Duration = Duration::from_secs(1);
/// How long to wait for a stream on a connection that has as many as it may.
const STREAM_WAIT: Duration = Duration::from_secs(1);
/// Chunks taken from QUIC at a time.
const CHUNKS: usize = 32;

/// A stream that the engine has agreed to.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) send: SendStream,
    pub(crate) frames: FrameReader,
}

impl Stream {
    /// The next frame of a stream that the engine has stopped reading: what it sent before, then its reason or
    /// the end; waits at most a second. Cancel safe.
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

/// The refusal in an `Error` frame; an error for a frame of any other type, which is not expected here.
pub(crate) fn unexpected(frame: &Frame) -> Error {
    if frame.kind != FrameType::Error {
        return Error::bad_answer(format!("a {:?} frame is not expected here", frame.kind));
    }
    match frame::read_message::<Refusal>(&frame.payload) {
        Ok(refusal) => Error::Refused(refusal),
        Err(error) => error.into(),
    }
}

/// Reads frames off one stream.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: RecvStream,
    chunks: Vec<Bytes>,
    decoder: FrameDecoder,
}

impl FrameReader {
    fn new(stream: RecvStream) -> Self {
        Self { stream, chunks: vec![Bytes::new(); CHUNKS], decoder: FrameDecoder::new(Buffering::TRUSTING) }
    }

    /// The next frame; `None` when the engine has ended the stream after a whole frame.
    ///
    /// Cancel safe: what came is kept.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            let Some(filled) = self.stream.read_chunks(&mut self.chunks).await? else {
                self.decoder.finish()?;
                return Ok(None);
            };
            for chunk in &mut self.chunks[..filled] {
                self.decoder.push(std::mem::take(chunk));
            }
        }
    }

    /// The answer to an `Open` frame. Cancel safe.
    pub(crate) async fn opened(&mut self) -> Result<Opened, Error> {
        let frame = self.next().await?.ok_or_else(Error::cut_off)?;
        if frame.kind != FrameType::Opened {
            return Err(unexpected(&frame));
        }
        Ok(frame::read_message(&frame.payload)?)
    }
}
