//! Decodes frames from the chunks of a stream, without doing any I/O.
//!
//! ```text
//!  push(chunk) ──► chunks ──► header (8 bytes) ──► payload ──► next_frame()
//!                             checked before anything          in one piece
//!                             is reserved
//! ```

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameType};
use crate::limits::FRAME_BYTES_MAX;

/// A frame: its type, and its payload in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The type of the payload.
    pub kind: FrameType,
    /// At most [`FrameType::payload_bytes_max`] bytes.
    pub payload: Bytes,
}

/// How a decoder keeps the payload of a frame that is not complete yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffering {
    /// Bytes that may be reserved when the first byte of a payload arrives. Above this, the buffer grows to twice what
    /// has arrived, and the payload is moved.
    pub reserve_max: usize,
    /// A payload longer than this that arrives within one chunk is a slice of that chunk instead of a copy.
    pub slice_above: usize,
}

impl Buffering {
    /// For peers that are not trusted: memory grows with the bytes that arrive, not with the length that is claimed.
    ///
    /// A batch of the usual size (64 KiB) fits the first reservation and is never moved. Payloads are copied, small
    /// ones too: a slice keeps the whole packet around it alive, which no limit would count.
    pub const BOUNDED: Self = Self { reserve_max: 72 * 1024, slice_above: usize::MAX };

    /// For a peer that was chosen: a payload is reserved as a whole and never moved, and a large one that arrives in one
    /// chunk is not copied.
    pub const TRUSTING: Self = Self { reserve_max: FRAME_BYTES_MAX, slice_above: 4096 };
}

/// Decodes frames from chunks that may be split anywhere.
///
/// An error is final: every later call returns it again.
#[derive(Debug)]
pub struct FrameDecoder {
    buffering: Buffering,
    chunks: VecDeque<Bytes>,
    header: [u8; FRAME_HEADER_BYTES],
    /// Bytes of the header that have arrived.
    header_len: usize,
    /// The decoded header, while its payload is incomplete.
    current: Option<FrameHeader>,
    payload: BytesMut,
}

impl FrameDecoder {
    /// A decoder at the beginning of a stream.
    pub fn new(buffering: Buffering) -> Self {
        Self {
            buffering,
            chunks: VecDeque::new(),
            header: [0; FRAME_HEADER_BYTES],
            header_len: 0,
            current: None,
            payload: BytesMut::new(),
        }
    }

    /// Adds the next bytes of the stream. Chunks are kept until [`Self::next_frame`] has used them up: call that until it
    /// returns `None` before adding more.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    /// The next frame; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError::UnknownType`] or [`FrameError::TooLarge`], before anything is reserved for the frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let header = match self.current {
            Some(header) => header,
            None => match self.next_header()? {
                Some(header) => *self.current.insert(header),
                None => return Ok(None),
            },
        };
        let Some(payload) = self.next_payload(header.len) else { return Ok(None) };
        self.current = None;
        self.header_len = 0;
        Ok(Some(Frame { kind: header.kind, payload }))
    }

    /// Checks that the stream may end here.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        let header = if self.current.is_some() { FRAME_HEADER_BYTES } else { self.header_len };
        let got = header + self.payload.len() + self.chunks.iter().map(Bytes::len).sum::<usize>();
        if got == 0 { Ok(()) } else { Err(FrameError::Truncated { got }) }
    }

    /// Forgets the chunks that were not used.
    pub fn discard(&mut self) {
        self.chunks.clear();
    }

    /// Payload bytes of the incomplete frame that have arrived.
    pub fn payload_len(&self) -> usize {
        self.payload.len()
    }

    /// Bytes that are reserved for the payload of the incomplete frame.
    pub fn payload_capacity(&self) -> usize {
        self.payload.capacity()
    }

    fn next_header(&mut self) -> Result<Option<FrameHeader>, FrameError> {
        while self.header_len < FRAME_HEADER_BYTES {
            let Some(part) = self.take(FRAME_HEADER_BYTES - self.header_len) else { return Ok(None) };
            self.header[self.header_len..self.header_len + part.len()].copy_from_slice(&part);
            self.header_len += part.len();
        }
        FrameHeader::read(&self.header).map(Some)
    }

    /// The payload of `len` bytes, once it is complete.
    fn next_payload(&mut self, len: usize) -> Option<Bytes> {
        while self.payload.len() < len {
            let part = self.take(len - self.payload.len())?;
            if part.len() == len && len > self.buffering.slice_above {
                return Some(part);
            }
            self.append(&part, len);
        }
        Some(std::mem::take(&mut self.payload).freeze())
    }

    /// At most `len` bytes from the first chunk.
    fn take(&mut self, len: usize) -> Option<Bytes> {
        let front = self.chunks.front_mut()?;
        if front.len() <= len {
            return self.chunks.pop_front();
        }
        Some(front.split_to(len))
    }

    /// Copies a part to the payload, which will be `len` bytes long.
    fn append(&mut self, part: &[u8], len: usize) {
        let have = self.payload.len();
        if self.payload.capacity() - have < part.len() {
            let grown = (have * 2).max(self.buffering.reserve_max).max(have + part.len()).min(len);
            self.payload.reserve(grown - have);
        }
        self.payload.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample};

    use super::*;
    use crate::frame::frame;

    const BOTH: [Buffering; 2] = [Buffering::BOUNDED, Buffering::TRUSTING];

    /// All frames that `bytes` hold, pushed in chunks of the given lengths, again and again, and how the stream ends.
    fn decode(
        bytes: &Bytes,
        lengths: &[usize],
        buffering: Buffering,
    ) -> Result<(Vec<Frame>, Result<(), FrameError>), FrameError> {
        let (mut decoder, mut frames, mut rest) = (FrameDecoder::new(buffering), Vec::new(), bytes.clone());
        let mut lengths = lengths.iter().cycle();
        while !rest.is_empty() {
            let len = lengths.next().map_or(rest.len(), |len| (*len).clamp(1, rest.len()));
            decoder.push(rest.split_to(len));
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
        }
        let end = decoder.finish();
        Ok((frames, end))
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let kinds: Vec<FrameType> = (0..=u8::MAX).filter_map(FrameType::from_u8).collect();
        let len = prop_oneof![4 => 0..40_usize, 2 => 4_000..5_000_usize, 1 => 70_000..200_000_usize];
        (sample::select(kinds), len, any::<u8>()).prop_map(|(kind, len, first)| {
            let payload = (0..len).map(|at| first.wrapping_add((at % 251) as u8)).collect();
            Frame { kind, payload }
        })
    }

    fn encode(frames: &[Frame]) -> Bytes {
        frames.iter().flat_map(|it| frame(it.kind, &it.payload)).collect()
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_frames(
            frames in vec(any_frame(), 0..6),
            lengths in vec(prop_oneof![1..20_usize, 1_000..9_000_usize], 1..8),
        ) {
            let bytes = encode(&frames);
            for buffering in BOTH {
                prop_assert_eq!(decode(&bytes, &lengths, buffering), Ok((frames.clone(), Ok(()))));
            }
        }

        #[test]
        fn a_stream_that_ends_inside_a_frame_is_truncated_after_the_bytes_that_came(
            frames in vec(any_frame(), 0..3),
            last in any_frame(),
            cut in any::<sample::Index>(),
            lengths in vec(1..9_000_usize, 1..8),
        ) {
            let cut_frame = frame(last.kind, &last.payload);
            let got = 1 + cut.index(cut_frame.len() - 1);
            let bytes = Bytes::from([&encode(&frames)[..], &cut_frame[..got]].concat());
            for buffering in BOTH {
                let truncated = Err(FrameError::Truncated { got });
                prop_assert_eq!(decode(&bytes, &lengths, buffering), Ok((frames.clone(), truncated)));
            }
        }

        #[test]
        fn a_frame_that_cannot_be_is_refused_after_the_frames_before_it(
            frames in vec(any_frame(), 0..3),
            header in any::<[u8; FRAME_HEADER_BYTES]>(),
            lengths in vec(1..9_000_usize, 1..8),
        ) {
            let Err(expected) = FrameHeader::read(&header) else { return Ok(()) };
            let bytes = Bytes::from([&encode(&frames)[..], &header, b"more"].concat());
            for buffering in BOTH {
                prop_assert_eq!(decode(&bytes, &lengths, buffering), Err(expected.clone()));
                let mut decoder = FrameDecoder::new(buffering);
                decoder.push(bytes.clone());
                for frame in &frames {
                    prop_assert_eq!(decoder.next_frame(), Ok(Some(frame.clone())));
                }
                prop_assert_eq!(decoder.next_frame(), Err(expected.clone()));
                prop_assert_eq!(decoder.next_frame(), Err(expected.clone()), "an error is final");
                prop_assert_eq!(decoder.payload_capacity(), 0);
            }
        }
    }

    #[test]
    fn a_length_within_the_limit_reserves_no_more_than_came() {
        let mut decoder = FrameDecoder::new(Buffering::BOUNDED);
        decoder.push(Bytes::copy_from_slice(&FrameHeader::bytes(FrameType::Publish, 2 * 1024 * 1024)));
        assert_eq!(decoder.next_frame(), Ok(None));
        assert_eq!(decoder.payload_capacity(), 0);
        for came in [1, 50_000, 100_000, 200_000] {
            decoder.push(Bytes::from(vec![0; came]));
            assert_eq!(decoder.next_frame(), Ok(None));
            let bound = (decoder.payload_len() * 2).max(Buffering::BOUNDED.reserve_max);
            assert!(decoder.payload_capacity() <= bound, "{} reserved", decoder.payload_capacity());
        }
    }

    #[test]
    fn a_frame_of_the_usual_size_is_never_moved() {
        let bytes = frame(FrameType::Publish, &vec![1; 65_000]);
        let (mut decoder, mut address) = (FrameDecoder::new(Buffering::BOUNDED), None);
        for part in bytes.chunks(1_452) {
            decoder.push(Bytes::copy_from_slice(part));
            if let Some(frame) = decoder.next_frame().unwrap() {
                assert_eq!(Some(frame.payload.as_ptr()), address);
                return;
            }
            let now = decoder.payload.as_ptr();
            assert_eq!(*address.get_or_insert(now), now);
        }
        panic!("the frame never became complete");
    }

    #[test]
    fn only_a_trusting_decoder_keeps_the_chunk_of_a_large_payload() {
        let bytes = frame(FrameType::Deliver, &vec![1; 5_000]);
        let inside = bytes.slice(FRAME_HEADER_BYTES..).as_ptr();
        for (buffering, is_slice) in [(Buffering::BOUNDED, false), (Buffering::TRUSTING, true)] {
            let mut decoder = FrameDecoder::new(buffering);
            decoder.push(bytes.clone());
            let frame = decoder.next_frame().unwrap().unwrap();
            assert_eq!(frame.payload.as_ptr() == inside, is_slice);
        }
    }
}
