//! The payload of a benched event: which one it is and when it was sent, in bytes or as JSON.
//!
//! Owns both layouts. Knows nothing of publishing.

use bytes::{BufMut, Bytes, BytesMut};

/// Payloads are cut from blocks of about this size: one allocation for many events.
const BLOCK_BYTES: usize = 256 * 1024;
/// Smallest payload in bytes: the stamp itself.
pub(crate) const BINARY_BYTES_MIN: usize = 24;
const JSON_START: &[u8] = b"{\"seq\":\"";
const JSON_MIDDLE: &[u8] = b"\",\"rank\":";
const JSON_PAD: &[u8] = b",\"pad\":\"";
const JSON_END: &[u8] = b"\"}";
const SEQUENCE_DIGITS: usize = 12;
const RANK_DIGITS: usize = 6;
/// Smallest JSON payload in bytes.
pub(crate) const JSON_BYTES_MIN: usize =
    JSON_START.len() + SEQUENCE_DIGITS + JSON_MIDDLE.len() + RANK_DIGITS + JSON_PAD.len() + JSON_END.len();
/// Ranks lie between this and twice this: six digits, none of them a leading zero.
pub(crate) const RANK_BASE: u64 = 100_000;

/// How a payload is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `sequence u64, lane u64, sent u64` (little endian), then filling.
    Binary,
    /// The same with all bytes in opposite order, as the sample plugin's transform leaves them.
    Reversed,
    /// `{"seq":"000000000042","rank":142857,"pad":"…"}`; lane 0, no time.
    Json,
}

/// What a payload says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which publishing task made the event; each counts its events from 0.
    pub(crate) lane: u64,
    /// The event's number in its lane.
    pub(crate) sequence: u64,
    /// When it was sent, in nanoseconds of the bench's clock.
    pub(crate) sent: u64,
}

impl Stamp {
    /// Reads a payload back; `None` if it is none of ours.
    #[inline]
    pub(crate) fn read(layout: Layout, payload: &[u8]) -> Option<Self> {
        match layout {
            Layout::Binary => {
                let field = |at: usize| payload.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
                Some(Self { sequence: field(0)?, lane: field(8)?, sent: field(16)? })
            }
            Layout::Reversed => {
                let end = payload.len();
                let field = |at: usize| {
                    let bytes = payload.get(end.checked_sub(at + 8)?..)?.first_chunk().copied();
                    bytes.map(u64::from_be_bytes)
                };
                Some(Self { sequence: field(0)?, lane: field(8)?, sent: field(16)? })
            }
            Layout::Json => {
                let digits = payload.strip_prefix(JSON_START)?.get(..SEQUENCE_DIGITS)?;
                let mut sequence = 0;
                for digit in digits {
                    sequence =
                        sequence * 10 + u64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
                }
                Some(Self { sequence, lane: 0, sent: 0 })
            }
        }
    }
}

/// Spreads sequences evenly over the ranks, so that `rank < x` passes a known share in no regular pattern.
pub(crate) fn rank(sequence: u64) -> u64 {
    RANK_BASE + (sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % RANK_BASE
}

/// Makes payloads.
#[derive(Debug)]
pub(crate) struct Stamper {
    layout: Layout,
    size: usize,
    block: BytesMut,
}

impl Stamper {
    /// Payloads of `size` bytes, at least the layout's smallest.
    pub(crate) fn new(layout: Layout, size: usize) -> Self {
        Self { layout, size, block: BytesMut::new() }
    }

    /// The payload of one event.
    #[inline]
    pub(crate) fn payload(&mut self, stamp: Stamp) -> Bytes {
        if self.block.capacity() < self.size {
            self.block = BytesMut::with_capacity(BLOCK_BYTES.max(self.size));
        }
        match self.layout {
            Layout::Binary | Layout::Reversed => {
                self.block.put_u64_le(stamp.sequence);
                self.block.put_u64_le(stamp.lane);
                self.block.put_u64_le(stamp.sent);
                self.block.put_bytes(b'x', self.size - BINARY_BYTES_MIN);
            }
            Layout::Json => {
                self.block.put_slice(JSON_START);
                self.put_digits(stamp.sequence, SEQUENCE_DIGITS);
                self.block.put_slice(JSON_MIDDLE);
                self.put_digits(rank(stamp.sequence), RANK_DIGITS);
                self.block.put_slice(JSON_PAD);
                self.block.put_bytes(b'x', self.size - JSON_BYTES_MIN);
                self.block.put_slice(JSON_END);
            }
        }
        self.block.split().freeze()
    }

    fn put_digits(&mut self, number: u64, digits: usize) {
        let mut text = [b'0'; SEQUENCE_DIGITS];
        let mut rest = number;
        for digit in text[..digits].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).expect("a decimal digit fits a byte");
            rest /= 10;
        }
        self.block.put_slice(&text[..digits]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_reads_back_what_was_stamped() {
        let stamp = Stamp { lane: 3, sequence: 123_456, sent: 77 };
        let binary = Stamper::new(Layout::Binary, 100).payload(stamp);
        assert_eq!(binary.len(), 100);
        assert_eq!(Stamp::read(Layout::Binary, &binary), Some(stamp));
        let reversed: Vec<u8> = binary.iter().rev().copied().collect();
        assert_eq!(Stamp::read(Layout::Reversed, &reversed), Some(stamp));
        let json = Stamper::new(Layout::Json, 100).payload(stamp);
        assert_eq!(json.len(), 100);
        assert_eq!(Stamp::read(Layout::Json, &json), Some(Stamp { lane: 0, sent: 0, ..stamp }));
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["rank"], rank(123_456));
    }

    #[test]
    fn foreign_payloads_are_no_stamps() {
        for layout in [Layout::Binary, Layout::Reversed, Layout::Json] {
            assert_eq!(Stamp::read(layout, b"short"), None);
        }
        assert_eq!(Stamp::read(Layout::Json, br#"{"seq":"00000000004x","#), None);
    }

    #[test]
    fn ranks_spread_evenly() {
        let below = (0..100_000).filter(|sequence| rank(*sequence) < RANK_BASE + RANK_BASE / 10).count();
        assert!((9_000..11_000).contains(&below), "{below}");
    }
}
