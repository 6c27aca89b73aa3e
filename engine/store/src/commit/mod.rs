//! The commit: one change of state as plain data, and its bytes. It knows nothing of how a store keeps it, and
//! applying it needs no clock, no randomness and no lookup.
//!
//! Encoded, a commit is 56 bytes and its operations back to back. All numbers are little endian:
//!
//! ```text
//!  0         1          2       4       8       16         24      32     40       48        52       56
//!  +---------+----------+-------+-------+-------+----------+-------+------+--------+---------+--------+-----+
//!  | version | reserved | shard | count | index | previous | time  | term | parent | ops_len | crc32c | ops |
//!  | u8 = 2  | u8 = 0   | u16   | u32   | u64   | u64      | u64   | u64  | u64    | u32     | u32    |     |
//!  +---------+----------+-------+-------+-------+----------+-------+------+--------+---------+--------+-----+
//! ```
//!
//! - `count` operations follow, in `ops_len` bytes. `time` is the engine's, in milliseconds since the Unix epoch.
//! - `term` is the writer's: one that takes over the shard has a higher one, and the writer before it is fenced.
//!   `parent` is the hash of the commit before, 0 for the first one. Together they distinguish a history from a fork of
//!   it, as the prepares of TigerBeetle's replication (`view` and `parent`) do.
//! - `crc32c` covers the 52 bytes before it, then the operations.
//! - A commit's hash is XXH3-64 of the same bytes. It is not stored in the commit but in what follows: in the row
//!   `applied`, and as the parent of the next one.
//!
//! The engine keeps commits below a limit, 960 KiB by default, so that one message of a common broker can carry each.
//! One publish, proposal or change that alone needs more makes a longer commit, which a journal carries in parts:
//! [`parts`].
//!
//! Each operation:
//!
//! ```text
//!  0      1        2          4         8
//!  +------+--------+----------+---------+-----------+-----+-------+
//!  | kind | family | reserved | key_len | value_len | key | value |
//!  | u8   | u8     | u16 = 0  | u32     | u32       |     |       |
//!  +------+--------+----------+---------+-----------+-----+-------+
//! ```
//!
//! - `kind` 1 puts `value` at `key`; 2 deletes `key` (`value_len` is 0); 3 deletes from `key` up to, not with, `value`.

mod applied;
mod error;
mod family;
mod op;
pub mod parts;
mod term;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use levada_protocol::ids::{CommitIndex, Timestamp};
use xxhash_rust::xxh3::Xxh3;

use op::{narrow, read_op};

pub use self::{
    applied::{APPLIED_KEY, APPLIED_ROW_BYTES, AppliedRow},
    error::CommitError,
    family::Family,
    op::{OP_HEADER_BYTES, Op},
    term::{CommitHash, Term},
};

/// The layout version in the first byte of an encoded commit.
pub const COMMIT_VERSION: u8 = 2;
/// Bytes of an encoded commit before its operations.
pub const COMMIT_HEADER_BYTES: usize = 56;
/// Those of them before the checksum.
const CHECKED_HEADER_BYTES: usize = COMMIT_HEADER_BYTES - 4;
/// One change of state, applied as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Whose history this is part of.
    pub shard: u16,
    /// Its index in that history.
    pub index: CommitIndex,
    /// The commit that it follows; 0 if it is the first.
    pub previous: CommitIndex,
    /// The engine's time when it was decided. It may stand still, and go back when the clock is set.
    pub time: Timestamp,
    /// Which writer decided it.
    pub term: Term,
    /// The hash of the commit that it follows.
    pub parent: CommitHash,
    /// What changes, in order.
    pub ops: Vec<Op>,
}

impl Commit {
    /// The commit that follows on the one applied last, of a writer of this term.
    pub fn after(last: &AppliedRow, term: Term, time: Timestamp, ops: Vec<Op>) -> Self {
        let AppliedRow { shard, index: previous, hash: parent, .. } = *last;
        Self { shard, index: CommitIndex(previous.0 + 1), previous, time, term, parent, ops }
    }

    /// The row that the commit leaves behind.
    pub fn applied_row(&self) -> AppliedRow {
        let Self { shard, index, previous, time, term, .. } = *self;
        AppliedRow { shard, index, previous, time, term, hash: self.hash() }
    }

    /// How many bytes [`Commit::encode`] makes.
    pub fn encoded_len(&self) -> usize {
        COMMIT_HEADER_BYTES + self.ops.iter().map(Op::encoded_len).sum::<usize>()
    }

    /// The commit's bytes, as a journal would carry them.
    ///
    /// # Panics
    /// If the operations are 4 GiB or more: commits are bounded to a few MiB where they are made.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        out.put_slice(&self.header());
        out.put_u32_le(0);
        for op in &self.ops {
            let (_, _, key, value) = op.parts();
            out.put_slice(&op.header());
            out.put_slice(key);
            out.put_slice(value);
        }
        let crc = checksum(&out);
        out[CHECKED_HEADER_BYTES..COMMIT_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        out.freeze()
    }

    /// The bytes before the checksum.
    fn header(&self) -> [u8; CHECKED_HEADER_BYTES] {
        let mut header = [0; CHECKED_HEADER_BYTES];
        let mut out = &mut header[..];
        out.put_u8(COMMIT_VERSION);
        out.put_u8(0);
        out.put_u16_le(self.shard);
        out.put_u32_le(narrow(self.ops.len()));
        out.put_u64_le(self.index.0);
        out.put_u64_le(self.previous.0);
        out.put_u64_le(self.time.0);
        out.put_u64_le(self.term.0);
        out.put_u64_le(self.parent.0);
        out.put_u32_le(narrow(self.encoded_len() - COMMIT_HEADER_BYTES));
        header
    }

    /// What distinguishes it from any other commit.
    pub fn hash(&self) -> CommitHash {
        let mut hash = Xxh3::new();
        hash.update(&self.header());
        for op in &self.ops {
            let (_, _, key, value) = op.parts();
            hash.update(&op.header());
            hash.update(key);
            hash.update(value);
        }
        CommitHash(hash.digest())
    }

    /// Reads a commit back; keys and values share `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Self, CommitError> {
        let wrong_length = |expected| CommitError::Length { expected, got: bytes.len() };
        let mut header = bytes.get(..COMMIT_HEADER_BYTES).ok_or_else(|| wrong_length(COMMIT_HEADER_BYTES))?;
        let (version, reserved, shard, count) =
            (header.get_u8(), header.get_u8(), header.get_u16_le(), header.get_u32_le());
        let (index, previous, time) = (header.get_u64_le(), header.get_u64_le(), header.get_u64_le());
        let (term, parent) = (Term(header.get_u64_le()), CommitHash(header.get_u64_le()));
        let (ops_len, crc) = (header.get_u32_le() as usize, header.get_u32_le());
        if version != COMMIT_VERSION {
            return Err(CommitError::Version { got: version });
        }
        if COMMIT_HEADER_BYTES + ops_len != bytes.len() {
            return Err(wrong_length(COMMIT_HEADER_BYTES + ops_len));
        }
        let expected = checksum(&bytes);
        if crc != expected {
            return Err(CommitError::Checksum { expected, got: crc });
        }
        if reserved != 0 {
            return Err(CommitError::Malformed { what: "its reserved byte is not 0" });
        }
        let mut rest = bytes.slice(COMMIT_HEADER_BYTES..);
        // A count is believed only as far as there are bytes for it.
        let mut ops = Vec::with_capacity((count as usize).min(ops_len / OP_HEADER_BYTES));
        for index in 0..count {
            ops.push(read_op(&mut rest).map_err(|what| CommitError::Op { index, what })?);
        }
        if !rest.is_empty() {
            return Err(CommitError::Malformed { what: "there are bytes after its last operation" });
        }
        let (index, previous, time) = (CommitIndex(index), CommitIndex(previous), Timestamp(time));
        Ok(Self { shard, index, previous, time, term, parent, ops })
    }
}

/// CRC-32C of the header without the checksum field, then the operations.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CHECKED_HEADER_BYTES]), &bytes[COMMIT_HEADER_BYTES..])
}

#[cfg(test)]
mod tests;
