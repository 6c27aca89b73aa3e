//! What is said on the bare path: a request, then frames one way and counts of acknowledged events the other.
//!
//! ```text
//! request          | mode u8 | synced u8 | zero u16 | milliseconds u32 | bytes u64 |
//! frame            | length u32 | events u32 | payload: length bytes |
//! acknowledgement  | events u32 |
//! ```
//! All numbers are little endian. A frame is as long as a batch of the engine with as many events.

use anyhow::{Context as _, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use levada_protocol::limits::BATCH_BODY_BYTES_MAX;
use quinn::RecvStream;

/// Bytes before a frame's payload.
pub(super) const FRAME_HEADER_BYTES: usize = 8;
/// Longest payload.
const PAYLOAD_BYTES_MAX: usize = 2 * BATCH_BODY_BYTES_MAX;
const ACK_BYTES: usize = 4;
/// Pieces taken from QUIC at a time.
const PIECES: usize = 32;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mode {
    /// Frames are stored and acknowledged.
    Publish = 1,
    /// Every frame that is stored from now on comes down, until the publisher has ended.
    Subscribe = 2,
    /// Frames are read and dropped; the end is acknowledged with one byte.
    Sink = 3,
    /// So many bytes come down as frames, for so long at most.
    Source = 4,
    /// Every frame comes back.
    Echo = 5,
}

/// The first bytes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) mode: Mode,
    /// Frames are acknowledged once they are synced, not only written.
    pub(super) synced: bool,
    pub(super) milliseconds: u32,
    pub(super) bytes: u64,
}

impl Request {
    /// Bytes of a request.
    pub(super) const BYTES: usize = 16;

    /// A request without bounds.
    pub(super) fn new(mode: Mode) -> Self {
        Self { mode, synced: false, milliseconds: 0, bytes: 0 }
    }

    pub(super) fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let mut out = &mut bytes[..];
        out.put_u8(self.mode as u8);
        out.put_u8(self.synced.into());
        out.put_u16_le(0);
        out.put_u32_le(self.milliseconds);
        out.put_u64_le(self.bytes);
        bytes
    }

    pub(super) fn decode(bytes: [u8; Self::BYTES]) -> anyhow::Result<Self> {
        let mut rest = &bytes[..];
        let mode = match rest.get_u8() {
            1 => Mode::Publish,
            2 => Mode::Subscribe,
            3 => Mode::Sink,
            4 => Mode::Source,
            5 => Mode::Echo,
            other => anyhow::bail!("expected a mode from 1 to 5, got {other}"),
        };
        let synced = rest.get_u8() != 0;
        rest.advance(2);
        Ok(Self { mode, synced, milliseconds: rest.get_u32_le(), bytes: rest.get_u64_le() })
    }
}

/// A frame, its header included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) events: u32,
}

impl Frame {
    /// The time that the frame was stamped with, in nanoseconds of the sender's clock.
    pub(super) fn sent(&self) -> Option<u64> {
        self.bytes.get(FRAME_HEADER_BYTES..)?.first_chunk().copied().map(u64::from_le_bytes)
    }
}

/// Makes frames whose payload is as long as a batch with so many events.
#[derive(Debug)]
pub(super) struct Framer {
    template: Vec<u8>,
    event_bytes: usize,
}

impl Framer {
    /// For up to `events_max` events of `event_bytes` each, which is at least 8.
    pub(super) fn new(event_bytes: usize, events_max: u32) -> Self {
        let event_bytes = event_bytes.max(size_of::<u64>());
        let payload = event_bytes * events_max as usize;
        Self { template: vec![b'x'; payload.min(PAYLOAD_BYTES_MAX)], event_bytes }
    }

    /// A frame with so many events, stamped with a time.
    pub(super) fn frame(&self, events: u32, sent: u64) -> Bytes {
        let len = (events as usize * self.event_bytes).min(self.template.len());
        let mut bytes = BytesMut::with_capacity(FRAME_HEADER_BYTES + len);
        bytes.put_u32_le(u32::try_from(len).expect("a payload is of at most a few MiB"));
        bytes.put_u32_le(events);
        bytes.put_u64_le(sent);
        bytes.put_slice(&self.template[size_of::<u64>()..len]);
        bytes.freeze()
    }
}

/// Cuts frames out of what QUIC hands over.
#[derive(Debug, Default)]
struct Assembly {
    partial: BytesMut,
}

impl Assembly {
    /// Takes from `piece` what belongs to the frame at hand; returns it once it is whole.
    fn take(&mut self, piece: &mut Bytes) -> anyhow::Result<Option<Frame>> {
        if self.partial.len() < FRAME_HEADER_BYTES {
            let taken = piece.len().min(FRAME_HEADER_BYTES - self.partial.len());
            self.partial.put(piece.split_to(taken));
        }
        let Some(&header) = self.partial.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let mut header = &header[..];
        let (len, events) = (header.get_u32_le() as usize, header.get_u32_le());
        ensure!(len <= PAYLOAD_BYTES_MAX, "a frame of {len} bytes, the limit is {PAYLOAD_BYTES_MAX}");
        let missing = FRAME_HEADER_BYTES + len - self.partial.len();
        self.partial.reserve(missing);
        let taken = piece.len().min(missing);
        self.partial.put_slice(&piece[..taken]);
        piece.advance(taken);
        let whole = taken == missing;
        Ok(whole.then(|| Frame { bytes: self.partial.split().freeze(), events }))
    }
}

/// The frames of a stream.
#[derive(Debug)]
pub(super) struct FrameReader {
    stream: RecvStream,
    pieces: Vec<Bytes>,
    /// The pieces from here on up to `filled` are not used up.
    next: usize,
    filled: usize,
    assembly: Assembly,
}

impl FrameReader {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, pieces: vec![Bytes::new(); PIECES], next: 0, filled: 0, assembly: Assembly::default() }
    }

    /// The next frame; `None` at the end of the stream. Cancel safe.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Frame>> {
        loop {
            while self.next < self.filled {
                let piece = &mut self.pieces[self.next];
                let frame = self.assembly.take(piece)?;
                if piece.is_empty() {
                    *piece = Bytes::new();
                    self.next += 1;
                }
                if frame.is_some() {
                    return Ok(frame);
                }
            }
            match self.stream.read_chunks(&mut self.pieces).await? {
                Some(filled) => (self.next, self.filled) = (0, filled),
                None => {
                    ensure!(self.assembly.partial.is_empty(), "the stream ended within a frame");
                    return Ok(None);
                }
            }
        }
    }
}

/// An acknowledgement of so many events.
pub(super) fn ack(events: u64) -> [u8; ACK_BYTES] {
    u32::try_from(events).expect("events in flight are counted in 32 bits").to_le_bytes()
}

/// The acknowledgements of a stream.
#[derive(Debug)]
pub(super) struct AckReader {
    stream: RecvStream,
    partial: BytesMut,
}

impl AckReader {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, partial: BytesMut::new() }
    }

    /// How many events were acknowledged since the last call, at least one. Cancel safe.
    pub(super) async fn next(&mut self) -> anyhow::Result<u64> {
        loop {
            let mut events = 0;
            while self.partial.len() >= ACK_BYTES {
                events += u64::from(self.partial.get_u32_le());
            }
            if events > 0 {
                return Ok(events);
            }
            let chunk = self.stream.read_chunk(usize::MAX, true).await?;
            self.partial.put(chunk.context("the other process ended the stream early")?.bytes);
        }
    }

    /// Waits for the end of the stream, when all is acknowledged.
    pub(super) async fn ended(&mut self) -> anyhow::Result<()> {
        let rest = self.stream.read_chunk(usize::MAX, true).await?;
        ensure!(rest.is_none() && self.partial.is_empty(), "more was acknowledged than was sent");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_out_of_any_pieces() {
        let framer = Framer::new(20, 10);
        let (first, second) = (framer.frame(3, 77), framer.frame(10, 78));
        let all = [&first[..], &second[..]].concat();
        for piece_bytes in [1, 7, 8, 100, all.len()] {
            let (mut assembly, mut frames) = (Assembly::default(), Vec::new());
            for piece in all.chunks(piece_bytes) {
                let mut piece = Bytes::copy_from_slice(piece);
                while !piece.is_empty() {
                    frames.extend(assembly.take(&mut piece).unwrap());
                }
            }
            let found: Vec<_> = frames.iter().map(|frame| (frame.events, frame.sent())).collect();
            assert_eq!(found, [(3, Some(77)), (10, Some(78))], "pieces of {piece_bytes}");
            assert_eq!(frames[0].bytes, first);
        }
    }

    #[test]
    fn a_frame_is_as_long_as_its_events() {
        assert_eq!(Framer::new(100, 9).frame(9, 0).len(), FRAME_HEADER_BYTES + 900);
    }

    #[test]
    fn a_frame_beyond_the_limit_is_refused() {
        let mut header = BytesMut::new();
        header.put_u32_le(u32::MAX);
        header.put_u32_le(1);
        assert!(Assembly::default().take(&mut header.freeze()).is_err());
    }

    #[test]
    fn a_request_comes_back_and_an_unknown_mode_is_refused() {
        let request = Request { mode: Mode::Source, synced: true, milliseconds: 7, bytes: 1 << 40 };
        assert_eq!(Request::decode(request.encode()).unwrap(), request);
        assert!(Request::decode([9; Request::BYTES]).is_err());
    }
}
