//! The row that says which commit was applied last. The store writes it in the same batch as the commit itself.
//!
//! Key `applied` in family `Meta`. The value is 48 bytes, all numbers little endian:
//!
//! ```text
//!  0         1          2       4          8       16         24      32     40     48
//!  +---------+----------+-------+----------+-------+----------+-------+------+------+
//!  | version | reserved | shard | crc32c   | index | previous | time  | term | hash |
//!  | u8 = 2  | u8 = 0   | u16   | u32      | u64   | u64      | u64   | u64  | u64  |
//!  +---------+----------+-------+----------+-------+----------+-------+------+------+
//! ```
//!
//! `crc32c` covers the 4 bytes before it and the 40 after it. `hash` is the commit's own.

use bytes::{Buf, BufMut};
use levada_protocol::ids::{CommitIndex, Timestamp};

use super::term::{CommitHash, Term};
use crate::Error;

/// The key of the row in [`super::Family::Meta`].
pub const APPLIED_KEY: &[u8] = b"applied";
/// Bytes of the row's value.
pub const APPLIED_ROW_BYTES: usize = 48;
const VERSION: u8 = 2;

/// Which commit was applied last. The default is that of an empty store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppliedRow {
    /// Whose history.
    pub shard: u16,
    /// The commit.
    pub index: CommitIndex,
    /// The one before it.
    pub previous: CommitIndex,
    /// When it was decided.
    pub time: Timestamp,
    /// Which writer decided it.
    pub term: Term,
    /// Its hash.
    pub hash: CommitHash,
}

impl AppliedRow {
    /// The row's value.
    pub fn encode(&self) -> [u8; APPLIED_ROW_BYTES] {
        let mut value = [0; APPLIED_ROW_BYTES];
        let mut out = &mut value[..];
        out.put_u8(VERSION);
        out.put_u8(0);
        out.put_u16_le(self.shard);
        out.put_u32_le(0);
        out.put_u64_le(self.index.0);
        out.put_u64_le(self.previous.0);
        out.put_u64_le(self.time.0);
        out.put_u64_le(self.term.0);
        out.put_u64_le(self.hash.0);
        let crc = checksum(&value);
        value[4..8].copy_from_slice(&crc.to_le_bytes());
        value
    }

    /// Reads the row's value.
    pub fn decode(value: &[u8]) -> Result<Self, Error> {
        let damaged =
            || Error::Corrupt { detail: "the row `applied` does not match its checksum".to_owned() };
        if value.len() != APPLIED_ROW_BYTES {
            return Err(damaged());
        }
        let mut rest = value;
        let (version, reserved, shard, crc) =
            (rest.get_u8(), rest.get_u8(), rest.get_u16_le(), rest.get_u32_le());
        if crc != checksum(value) {
            return Err(damaged());
        }
        if version > VERSION {
            let (found, supported) = (u32::from(version), u32::from(VERSION));
            return Err(Error::Newer { what: "the row `applied`".to_owned(), found, supported });
        }
        if version != VERSION || reserved != 0 {
            return Err(damaged());
        }
        let (index, previous) = (CommitIndex(rest.get_u64_le()), CommitIndex(rest.get_u64_le()));
        let time = Timestamp(rest.get_u64_le());
        let (term, hash) = (Term(rest.get_u64_le()), CommitHash(rest.get_u64_le()));
        Ok(Self { shard, index, previous, time, term, hash })
    }
}

fn checksum(value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&value[..4]), &value[8..])
}
