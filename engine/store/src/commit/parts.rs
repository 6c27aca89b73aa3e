//! An encoded commit in parts, for a journal whose messages have a limit. A commit that fits is one part.
//!
//! A part is 32 bytes and a stretch of the encoded commit. All numbers are little endian:
//!
//! ```text
//!  0         1          2       4      6       8       16     24          28       32
//!  +---------+----------+-------+------+-------+-------+------+-----------+--------+-------+
//!  | version | reserved | shard | part | parts | index | term | total_len | crc32c | bytes |
//!  | u8 = 1  | u8 = 0   | u16   | u16  | u16   | u64   | u64  | u32       | u32    |       |
//!  +---------+----------+-------+------+-------+-------+------+-----------+--------+-------+
//! ```
//!
//! - `part` counts from 0 and is below `parts`; `total_len` is the length of the encoded commit.
//! - `crc32c` covers the 28 bytes before it and the bytes after it.
//! - Parts of a commit are consecutive. A part 0 may come before the last part of the commit before: its writer
//!   has ended in between, and that commit never was.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use levada_protocol::ids::CommitIndex;

use super::{Commit, CommitError, Term};

/// The layout version in the first byte of a part.
pub const PART_VERSION: u8 = 1;
/// Bytes of a part before its stretch of the commit.
pub const PART_HEADER_BYTES: usize = 32;
/// Those of them before the checksum.
const CHECKED_HEADER_BYTES: usize = PART_HEADER_BYTES - 4;

/// Why bytes are no part of a commit, or not the one that is due.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// Shorter than a part can be.
    #[error("part is {got} bytes, expected at least {PART_HEADER_BYTES}")]
    Length {
        /// The length in bytes.
        got: usize,
    },
    /// A layout version that this build does not read.
    #[error("part version is {got}, expected {PART_VERSION}")]
    Version {
        /// The value that was read.
        got: u8,
    },
    /// The checksum does not match the bytes.
    #[error("part checksum is {got:08x}, the bytes give {expected:08x}")]
    Checksum {
        /// The checksum computed from the bytes.
        expected: u32,
        /// The checksum in the header.
        got: u32,
    },
    /// It is not the part that is due.
    #[error("part is {got}, expected {expected}")]
    Order {
        /// The part that is due.
        expected: String,
        /// The part that was read.
        got: String,
    },
    /// The commit is longer than the receiver's limit.
    #[error("commit is {got} bytes in parts, the limit is {limit}")]
    TooLong {
        /// The number in the header.
        got: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// The parts fit together, and what they give is no commit.
    #[error("the parts give no commit: {0}")]
    Commit(#[from] CommitError),
}

/// Which part of which commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    shard: u16,
    part: u16,
    parts: u16,
    index: CommitIndex,
    term: Term,
    total_len: u32,
}

impl Header {
    fn encode(self) -> [u8; CHECKED_HEADER_BYTES] {
        let mut header = [0; CHECKED_HEADER_BYTES];
        let mut out = &mut header[..];
        out.put_u8(PART_VERSION);
        out.put_u8(0);
        out.put_u16_le(self.shard);
        out.put_u16_le(self.part);
        out.put_u16_le(self.parts);
        out.put_u64_le(self.index.0);
        out.put_u64_le(self.term.0);
        out.put_u32_le(self.total_len);
        header
    }

    /// Reads a part's header and cuts it off.
    fn cut(part: &mut Bytes) -> Result<Self, PartError> {
        if part.len() < PART_HEADER_BYTES {
            return Err(PartError::Length { got: part.len() });
        }
        let expected =
            crc32c::crc32c_append(crc32c::crc32c(&part[..CHECKED_HEADER_BYTES]), &part[PART_HEADER_BYTES..]);
        let version = part.get_u8();
        if version != PART_VERSION {
            return Err(PartError::Version { got: version });
        }
        part.advance(1);
        let header = Self {
            shard: part.get_u16_le(),
            part: part.get_u16_le(),
            parts: part.get_u16_le(),
            index: CommitIndex(part.get_u64_le()),
            term: Term(part.get_u64_le()),
            total_len: part.get_u32_le(),
        };
        let got = part.get_u32_le();
        if got == expected { Ok(header) } else { Err(PartError::Checksum { expected, got }) }
    }

    fn describe(&self) -> String {
        let Self { shard, part, parts, index, term, .. } = self;
        format!("part {part} of {parts} of commit {index} of shard {shard}, term {term}")
    }
}

/// A commit's bytes in as few parts as have `part_bytes_max` bytes at most each, headers included. `None` if that takes
/// more than 65,535 parts, or is not more than a header.
pub fn split(commit: &Commit, part_bytes_max: usize) -> Option<Vec<Bytes>> {
    let room = part_bytes_max.checked_sub(PART_HEADER_BYTES).filter(|room| *room > 0)?;
    let encoded = commit.encode();
    let parts = u16::try_from(encoded.len().div_ceil(room)).ok()?;
    let total_len = super::narrow(encoded.len());
    let (shard, index, term) = (commit.shard, commit.index, commit.term);
    let part = |(part, bytes): (u16, &[u8])| {
        let header = Header { shard, part, parts, index, term, total_len }.encode();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header), bytes);
        let mut out = BytesMut::with_capacity(PART_HEADER_BYTES + bytes.len());
        out.put_slice(&header);
        out.put_u32_le(crc);
        out.put_slice(bytes);
        out.freeze()
    };
    Some((0..).zip(encoded.chunks(room)).map(part).collect())
}

/// Puts commits together again from their parts.
#[derive(Debug)]
pub struct Assembler {
    commit_bytes_max: usize,
    /// The last part that came of a commit that is not whole yet, and the bytes so far.
    under_way: Option<(Header, BytesMut)>,
}

impl Assembler {
    /// Takes commits of up to this many bytes.
    pub fn new(commit_bytes_max: usize) -> Self {
        Self { commit_bytes_max, under_way: None }
    }

    /// Adds a part; returns the commit if this was its last one.
    ///
    /// # Errors
    /// Says what is wrong with the part. The parts before it of the same commit are discarded then.
    pub fn push(&mut self, mut part: Bytes) -> Result<Option<Commit>, PartError> {
        let before = self.under_way.take();
        let header = Header::cut(&mut part)?;
        let mut bytes = match before {
            // Another writer has taken over in between, or this one begins.
            _ if header.part == 0 => BytesMut::new(),
            Some((last, bytes)) if header == (Header { part: last.part + 1, ..last }) => bytes,
            before => {
                let expected = match before {
                    Some((last, _)) => Header { part: last.part + 1, ..last }.describe(),
                    None => "part 0 of a commit".to_owned(),
                };
                return Err(PartError::Order { expected, got: header.describe() });
            }
        };
        let total = header.total_len as usize;
        if total > self.commit_bytes_max || bytes.len() + part.len() > total {
            let got = total.max(bytes.len() + part.len());
            return Err(PartError::TooLong { got, limit: self.commit_bytes_max.min(total) });
        }
        bytes.extend_from_slice(&part);
        if header.part + 1 < header.parts {
            self.under_way = Some((header, bytes));
            return Ok(None);
        }
        // The commit knows its own length.
        Ok(Some(Commit::decode(bytes.freeze())?))
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::ids::Timestamp;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{Family, Op, commit::CommitHash};

    fn commit(index: u64, term: u64, values: &[Vec<u8>]) -> Commit {
        let put = |value: &Vec<u8>| Op::Put {
            family: Family::Meta,
            key: Bytes::from_static(b"k"),
            value: Bytes::copy_from_slice(value),
        };
        Commit {
            shard: 3,
            index: CommitIndex(index),
            previous: CommitIndex(index - 1),
            time: Timestamp(5),
            term: Term(term),
            parent: CommitHash(6),
            ops: values.iter().map(put).collect(),
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let parts = split(&commit(2, 4, &[]), PART_HEADER_BYTES + 40).unwrap();
        assert_eq!(parts.len(), 2);
        let expected = [1, 0, 3, 0, 1, 0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 56, 0, 0, 0];
        assert_eq!(parts[1][..CHECKED_HEADER_BYTES], expected);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&expected), &parts[1][PART_HEADER_BYTES..]);
        assert_eq!(parts[1][CHECKED_HEADER_BYTES..PART_HEADER_BYTES], crc.to_le_bytes());
        assert_eq!(parts[1].len(), PART_HEADER_BYTES + 16);
    }

    #[test]
    fn a_commit_of_another_writer_may_begin_before_one_is_whole() {
        let mut assembler = Assembler::new(1 << 20);
        let (old, new) = (commit(7, 1, &[vec![1; 300]]), commit(7, 2, &[vec![2; 300]]));
        let (old_parts, new_parts) = (split(&old, 150).unwrap(), split(&new, 150).unwrap());
        assert!(assembler.push(old_parts[0].clone()).unwrap().is_none());
        let mut whole = None;
        for part in &new_parts {
            whole = assembler.push(part.clone()).unwrap();
        }
        assert_eq!(whole, Some(new));
        let late = assembler.push(old_parts[1].clone()).unwrap_err();
        assert!(matches!(late, PartError::Order { .. }), "{late}");
    }

    #[test]
    fn a_commit_over_the_limit_is_refused_at_its_first_part() {
        let parts = split(&commit(1, 1, &[vec![0; 1_000]]), 100).unwrap();
        let refused = Assembler::new(500).push(parts[0].clone()).unwrap_err();
        assert!(matches!(refused, PartError::TooLong { limit: 500, .. }), "{refused}");
        assert_eq!(split(&commit(1, 1, &[]), PART_HEADER_BYTES), None);
    }

    proptest! {
        #[test]
        fn any_commit_comes_back_from_parts_of_any_length(
            values in vec(vec(any::<u8>(), 0..200), 0..10), part_bytes in PART_HEADER_BYTES + 1..600,
        ) {
            let commit = commit(9, 1, &values);
            let parts = split(&commit, part_bytes).unwrap();
            prop_assert!(parts.iter().all(|part| part.len() <= part_bytes));
            let mut assembler = Assembler::new(1 << 20);
            let (last, first) = parts.split_last().unwrap();
            for part in first {
                prop_assert_eq!(assembler.push(part.clone()).unwrap(), None);
            }
            prop_assert_eq!(assembler.push(last.clone()).unwrap(), Some(commit));
        }

        #[test]
        fn a_flipped_bit_and_a_part_too_many_or_too_few_are_noticed(
            values in vec(vec(any::<u8>(), 0..60), 1..6), bit in any::<usize>(), at in any::<usize>(), drops in any::<bool>(),
        ) {
            let commit = commit(9, 1, &values);
            let mut parts = split(&commit, PART_HEADER_BYTES + 20).unwrap();
            let at = at % parts.len();
            if drops {
                parts.remove(at);
            } else {
                let mut bytes = parts[at].to_vec();
                let bit = bit % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                parts[at] = bytes.into();
            }
            let mut assembler = Assembler::new(1 << 20);
            let whole = parts.into_iter().any(|part| matches!(assembler.push(part), Ok(Some(_))));
            prop_assert!(!whole);
        }
    }
}
