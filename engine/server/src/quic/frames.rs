//! Cutting frames out of a QUIC stream.
//!
//! It owns the limits at this edge: a frame's length is checked against its type before anything is reserved for it,
//! and memory grows with the bytes that came, not with the length that was claimed. It must not know what frames
//! mean.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use levada_protocol::{
    error::{ErrorCode, Refusal},
    frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameType},
};
use quinn::{ReadError, RecvStream};
use tokio::time;

use super::inbound::{Inbound, PATIENCE, Room};

/// Chunks taken off the stream in one go: about 200 KiB at the largest packet size.
const CHUNKS_MAX: usize = 32;
/// Frames up to this are not counted.
const UNCOUNTED_MAX: usize = 16 * 1024;
/// What is reserved at the first byte of a payload, if it is to be that long: a batch of the usual size, so that
/// the usual frame is never moved. Longer ones grow as they come.
const RESERVED_AT_ONCE_MAX: usize = 72 * 1024;

/// A frame: its type, and its payload in one piece.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: FrameType,
    pub(super) payload: Bytes,
    /// What a large one takes of the budgets, as long as it waits to be taken on.
    pub(super) room: Option<Room>,
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The bytes are no frame, or not one that may be here.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended inside a frame.
    #[error("the stream ended after {got} bytes of a frame")]
    CutOff {
        /// How many came.
        got: usize,
    },
    /// There is no room for more of the frame.
    #[error(
        "no room for a frame of {bytes} bytes: unfinished frames of this connection or of all together take what they may, {hint}"
    )]
    NoRoom {
        /// Its bytes.
        bytes: usize,
        /// What to do.
        hint: &'static str,
    },
    /// The peer or the network ended the stream.
    #[error(transparent)]
    Stream(#[from] ReadError),
}

impl Error {
    /// What the peer is told; `None` if it has gone.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let code = match self {
            Self::Stream(_) => return None,
            Self::CutOff { .. } | Self::Frame(FrameError::Payload { .. }) => ErrorCode::Malformed,
            Self::Frame(FrameError::UnknownType { .. }) => ErrorCode::UnknownFrame,
            Self::Frame(FrameError::TooLarge { .. }) => ErrorCode::FrameTooLarge,
            Self::NoRoom { .. } => ErrorCode::LimitExceeded,
        };
        Some(Refusal::new(code, self.to_string()))
    }
}

/// Reads frames off one stream.
#[derive(Debug)]
pub(super) struct FrameReader {
    stream: RecvStream,
    arrived: VecDeque<Bytes>,
    assembly: Assembly,
    /// A frame that waits for room.
    whole: Option<Frame>,
    inbound: Inbound,
    room: Option<Room>,
}

impl FrameReader {
    pub(super) fn new(stream: RecvStream, inbound: Inbound) -> Self {
        let (arrived, assembly) = (VecDeque::new(), Assembly::default());
        Self { stream, arrived, assembly, whole: None, inbound, room: None }
    }

    /// The next frame; `None` where the stream ends between two. Cancel safe: what has arrived is kept.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if self.whole.is_none() {
                self.whole = self.assembly.advance(&mut self.arrived)?;
            }
            let bytes =
                self.whole.as_ref().map_or_else(|| self.assembly.payload.capacity(), |it| it.payload.len());
            if bytes <= UNCOUNTED_MAX {
                self.room = None;
            } else if !self.inbound.admit(&mut self.room, bytes).await {
                return Err(Error::NoRoom { bytes, hint: "try again, with smaller batches" });
            }
            if let Some(frame) = self.whole.take() {
                return Ok(Some(Frame { room: self.room.take(), ..frame }));
            }
            if !self.arrive().await? {
                return self.assembly.end().map(|()| None);
            }
        }
    }

    /// Takes what has come off the stream; false at its end. A stream that holds room for an unfinished frame must bring
    /// something in time while others need the room.
    async fn arrive(&mut self) -> Result<bool, Error> {
        let mut chunks = [const { Bytes::new() }; CHUNKS_MAX];
        let count = loop {
            if self.room.is_none() {
                break self.stream.read_chunks(&mut chunks).await?;
            }
            match time::timeout(PATIENCE, self.stream.read_chunks(&mut chunks)).await {
                Ok(count) => break count?,
                Err(_) if self.inbound.is_short() => {
                    let bytes = self.assembly.payload.len();
                    return Err(Error::NoRoom { bytes, hint: "and this one brought nothing for 2 s" });
                }
                Err(_) => {}
            }
        };
        self.arrived.extend(chunks.into_iter().take(count.unwrap_or(0)));
        Ok(count.is_some())
    }

    /// Tells the peer to send no more on this stream, and forgets what has arrived.
    pub(super) fn stop(&mut self, code: quinn::VarInt) {
        self.arrived.clear();
        // Fails only if the stream has ended already.
        let _ = self.stream.stop(code);
    }
}

/// A frame on its way: the state machine without the stream.
#[derive(Debug, Default)]
struct Assembly {
    header: [u8; FRAME_HEADER_BYTES],
    header_len: usize,
    /// Set once the header is complete.
    current: Option<FrameHeader>,
    payload: BytesMut,
}

impl Assembly {
    /// Takes bytes until a frame is complete; `None` if there are too few.
    fn advance(&mut self, arrived: &mut VecDeque<Bytes>) -> Result<Option<Frame>, Error> {
        loop {
            let current = match self.current {
                Some(current) => current,
                None => match self.header(arrived)? {
                    Some(header) => *self.current.insert(header),
                    None => return Ok(None),
                },
            };
            if self.payload.len() == current.len {
                self.current = None;
                self.header_len = 0;
                let payload = std::mem::take(&mut self.payload).freeze();
                return Ok(Some(Frame { kind: current.kind, payload, room: None }));
            }
            let Some(front) = arrived.front_mut() else { return Ok(None) };
            let part = front.split_to(front.len().min(current.len - self.payload.len()));
            if front.is_empty() {
                arrived.pop_front();
            }
            self.append(&part, current.len);
        }
    }

    fn header(&mut self, arrived: &mut VecDeque<Bytes>) -> Result<Option<FrameHeader>, Error> {
        while self.header_len < FRAME_HEADER_BYTES {
            let Some(front) = arrived.front_mut() else { return Ok(None) };
            let part = front.split_to(front.len().min(FRAME_HEADER_BYTES - self.header_len));
            if front.is_empty() {
                arrived.pop_front();
            }
            self.header[self.header_len..self.header_len + part.len()].copy_from_slice(&part);
            self.header_len += part.len();
        }
        Ok(Some(FrameHeader::read(&self.header)?))
    }

    /// Adds to the payload, which will have `len` bytes in the end.
    ///
    /// It is copied, small frames too: a slice would keep the packets around it alive for as long as the event is
    /// in memory, and no limit would count them.
    fn append(&mut self, part: &[u8], len: usize) {
        let have = self.payload.len();
        if self.payload.capacity() - have < part.len() {
            let grown = (have * 2).max(RESERVED_AT_ONCE_MAX).max(have + part.len()).min(len);
            self.payload.reserve(grown - have);
        }
        self.payload.extend_from_slice(part);
    }

    /// The stream ends here.
    fn end(&self) -> Result<(), Error> {
        let got =
            if self.current.is_some() { FRAME_HEADER_BYTES + self.payload.len() } else { self.header_len };
        if got == 0 { Ok(()) } else { Err(Error::CutOff { got }) }
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::frame::frame;

    use super::*;

    /// Feeds `bytes` in pieces of `step`; answers the frames' types and payloads.
    fn cut(bytes: &[u8], step: usize) -> Vec<(FrameType, Bytes)> {
        let (mut assembly, mut arrived, mut frames) = (Assembly::default(), VecDeque::new(), Vec::new());
        for part in bytes.chunks(step) {
            arrived.push_back(Bytes::copy_from_slice(part));
            while let Some(frame) = assembly.advance(&mut arrived).unwrap() {
                frames.push((frame.kind, frame.payload));
            }
        }
        assembly.end().unwrap();
        frames
    }

    #[test]
    fn frames_are_whole_however_the_bytes_are_cut() {
        let large: Vec<u8> = (0..300_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let mut bytes = Vec::new();
        let payloads = [&b"first"[..], &[], &large, &b"last"[..]];
        for payload in payloads {
            bytes.extend_from_slice(&frame(FrameType::Publish, payload));
        }
        for step in [1, 7, 8, 9, 1_452, 65_536, bytes.len()] {
            let frames = cut(&bytes, step);
            assert!(frames.iter().map(|(_, payload)| &payload[..]).eq(payloads), "in pieces of {step}");
            assert!(frames.iter().all(|(kind, _)| *kind == FrameType::Publish));
        }
    }

    #[test]
    fn a_length_of_two_gibibytes_is_refused_before_anything_is_reserved() {
        let mut assembly = Assembly::default();
        let mut header = FrameHeader::bytes(FrameType::Publish, 0);
        header[..4].copy_from_slice(&(1_u32 << 31).to_le_bytes());
        let mut arrived = VecDeque::from([Bytes::copy_from_slice(&header), Bytes::from_static(b"more")]);
        let error = assembly.advance(&mut arrived).unwrap_err();
        assert_eq!(error.refusal().unwrap().code, ErrorCode::FrameTooLarge);
        assert_eq!(assembly.payload.capacity(), 0);
    }

    #[test]
    fn a_length_within_the_limit_reserves_no_more_than_came() {
        let mut assembly = Assembly::default();
        let header = FrameHeader::bytes(FrameType::Publish, 2 * 1024 * 1024);
        let mut arrived = VecDeque::from([Bytes::copy_from_slice(&header)]);
        assert!(assembly.advance(&mut arrived).unwrap().is_none());
        assert_eq!(assembly.payload.capacity(), 0);
        for came in [1, 50_000, 100_000, 200_000] {
            arrived.push_back(Bytes::from(vec![0; came]));
            assert!(assembly.advance(&mut arrived).unwrap().is_none());
            let bound = (assembly.payload.len() * 2).max(RESERVED_AT_ONCE_MAX);
            assert!(assembly.payload.capacity() <= bound, "{} reserved", assembly.payload.capacity());
        }
    }

    #[test]
    fn a_frame_of_the_usual_size_is_never_moved() {
        let payload = vec![1; 65_000];
        let bytes = frame(FrameType::Publish, &payload);
        let (mut assembly, mut arrived) = (Assembly::default(), VecDeque::new());
        let mut place = None;
        for part in bytes.chunks(1_452) {
            arrived.push_back(Bytes::copy_from_slice(part));
            if let Some(frame) = assembly.advance(&mut arrived).unwrap() {
                assert_eq!(Some(frame.payload.as_ptr()), place);
                return;
            }
            let now = assembly.payload.as_ptr();
            assert_eq!(*place.get_or_insert(now), now);
        }
        panic!("the frame never became complete");
    }

    #[test]
    fn an_unknown_type_and_a_cut_frame_have_codes() {
        let (mut assembly, mut arrived) = (Assembly::default(), VecDeque::new());
        arrived.push_back(Bytes::from_static(&[0, 0, 0, 0, 200, 0, 0, 0]));
        let code = |error: Error| error.refusal().unwrap().code;
        assert_eq!(code(assembly.advance(&mut arrived).unwrap_err()), ErrorCode::UnknownFrame);

        let whole = frame(FrameType::Publish, b"payload");
        for end in 1..whole.len() {
            let (mut assembly, mut arrived) = (Assembly::default(), VecDeque::from([whole.slice(..end)]));
            assert!(assembly.advance(&mut arrived).unwrap().is_none());
            assert_eq!(code(assembly.end().unwrap_err()), ErrorCode::Malformed, "cut after {end}");
        }
    }
}
