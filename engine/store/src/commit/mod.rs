//! The commit: one change of state as plain data, and its bytes. It knows nothing of how a store keeps it, and
//! applying it needs no clock, no randomness and no look-up.
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
//! - `term` is the writer's: whoever takes the shard over has a higher one, and the writer before it is fenced. `parent`
//!   is the hash of the commit before, 0 for the first one. Together they tell a history from a fork of it, as the
//!   prepares of TigerBeetle's replication (`view` and `parent`) do.
//! - `crc32c` covers the 52 bytes before it, then the operations.
//! - A commit's hash is XXH3-64 of the same bytes. It is not stored in the commit but in what follows: in the row
//!   `applied`, and as the parent of the next one.
//!
//! The engine keeps commits below a limit, 960 KiB by default, so that one message of a common broker can carry each. One
//! publish, proposal or change that alone needs more makes a longer commit, which a journal carries in parts:
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
pub mod parts;

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use levada_protocol::ids::{CommitIndex, Timestamp};
use xxhash_rust::xxh3::Xxh3;

use crate::Error;

pub use applied::{APPLIED_KEY, APPLIED_ROW_BYTES, AppliedRow};

/// The layout version in the first byte of an encoded commit.
pub const COMMIT_VERSION: u8 = 2;
/// Bytes of an encoded commit before its operations.
pub const COMMIT_HEADER_BYTES: usize = 56;
/// Those of them before the checksum.
const CHECKED_HEADER_BYTES: usize = COMMIT_HEADER_BYTES - 4;
/// Bytes of an operation before its key.
pub const OP_HEADER_BYTES: usize = 12;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;

/// Which writer of a shard made a commit: one that takes over has a higher term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What tells a commit from any other: XXH3-64 of its bytes. 0 stands for no commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CommitHash(pub u64);

impl fmt::Display for CommitHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A space of keys of its own. The numbers are stored and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// Few rows about the whole.
    Meta = 0,
    /// Topics, subscriptions, plugins, routes.
    Catalogue = 1,
    /// The events.
    Log = 2,
    /// How far subscriptions and routes have come.
    Cursors = 3,
    /// Producers' epochs, sequences and recent outcomes.
    Producers = 4,
    /// Event ids seen within a window.
    Dedup = 5,
    /// Events that wait for their time.
    Schedule = 6,
    /// Events that wait for a decision.
    Prepared = 7,
    /// What plugins remember.
    PluginState = 8,
    /// Events that are delivered again to one subscription alone. Reserved: nothing writes it yet.
    Side = 9,
}

impl Family {
    /// Every family, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Meta,
        Self::Catalogue,
        Self::Log,
        Self::Cursors,
        Self::Producers,
        Self::Dedup,
        Self::Schedule,
        Self::Prepared,
        Self::PluginState,
        Self::Side,
    ];

    /// The stored number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The family with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The name of its column family; stored, so it never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Catalogue => "catalogue",
            Self::Log => "log",
            Self::Cursors => "cursors",
            Self::Producers => "producers",
            Self::Dedup => "dedup",
            Self::Schedule => "schedule",
            Self::Prepared => "prepared",
            Self::PluginState => "plugin_state",
            Self::Side => "side",
        }
    }
}

/// One operation of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes a row, new or over an older one.
    Put {
        /// Where.
        family: Family,
        /// The row's key.
        key: Bytes,
        /// The row's value; its first byte is a format version.
        value: Bytes,
    },
    /// Removes a row; nothing happens if there is none.
    Delete {
        /// Where.
        family: Family,
        /// The row's key.
        key: Bytes,
    },
    /// Removes every row of `[from, to)`; nothing happens if the range is empty or turned round.
    DeleteRange {
        /// Where.
        family: Family,
        /// The first key that goes.
        from: Bytes,
        /// The first key that stays.
        to: Bytes,
    },
}

impl Op {
    /// Kind, family, key and value as they are laid out.
    fn parts(&self) -> (u8, Family, &[u8], &[u8]) {
        match self {
            Self::Put { family, key, value } => (PUT, *family, key, value),
            Self::Delete { family, key } => (DELETE, *family, key, &[]),
            Self::DeleteRange { family, from, to } => (DELETE_RANGE, *family, from, to),
        }
    }

    /// The bytes before its key.
    fn header(&self) -> [u8; OP_HEADER_BYTES] {
        let (kind, family, key, value) = self.parts();
        let mut header = [0; OP_HEADER_BYTES];
        let mut out = &mut header[..];
        out.put_u8(kind);
        out.put_u8(family.number());
        out.put_u16_le(0);
        out.put_u32_le(narrow(key.len()));
        out.put_u32_le(narrow(value.len()));
        header
    }

    /// How many bytes it takes encoded.
    pub fn encoded_len(&self) -> usize {
        let (_, _, key, value) = self.parts();
        OP_HEADER_BYTES + key.len() + value.len()
    }

    /// True if it would change the row that belongs to the store.
    pub(crate) fn touches_applied(&self) -> bool {
        match self {
            Self::Put { family: Family::Meta, key, .. } | Self::Delete { family: Family::Meta, key } => {
                key.as_ref() == APPLIED_KEY
            }
            Self::DeleteRange { family: Family::Meta, from, to } => {
                from.as_ref() <= APPLIED_KEY && APPLIED_KEY < to.as_ref()
            }
            Self::Put { .. } | Self::Delete { .. } | Self::DeleteRange { .. } => false,
        }
    }
}

/// One change of state, applied as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Whose history this is part of.
    pub shard: u16,
    /// Its place in that history.
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

/// Why bytes are no commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Shorter or longer than they say.
    #[error("commit is {got} bytes, expected {expected}")]
    Length {
        /// What the header says, or the least a commit can be.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// A layout version that this build does not read.
    #[error("commit version is {got}, expected {COMMIT_VERSION}")]
    Version {
        /// What came.
        got: u8,
    },
    /// The checksum does not match the bytes.
    #[error("commit checksum is {got:08x}, the bytes give {expected:08x}")]
    Checksum {
        /// What the bytes give.
        expected: u32,
        /// What the header says.
        got: u32,
    },
    /// A field has a value that it cannot have.
    #[error("operation {index} of the commit is malformed: {what}")]
    Op {
        /// Its index in the commit.
        index: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A reserved field is in use, or there are bytes after the last operation.
    #[error("commit is malformed: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Commit {
    /// The commit that follows on the one applied last, of a writer of this term.
    pub fn after(last: &AppliedRow, term: Term, time: Timestamp, ops: Vec<Op>) -> Self {
        let AppliedRow { shard, index: previous, hash: parent, .. } = *last;
        Self { shard, index: CommitIndex(previous.0 + 1), previous, time, term, parent, ops }
    }

    /// Decides what to do with the commit where `last` was applied last: answers the row that it leaves behind if it is
    /// to be applied, and `None` if it was applied before. `known` is the hash of the commit that was applied with an
    /// index, if it is still known.
    pub(crate) fn check_follows(
        &self,
        last: &AppliedRow,
        known: impl FnOnce(CommitIndex) -> Result<Option<CommitHash>, Error>,
    ) -> Result<Option<AppliedRow>, Error> {
        let diverged = |detail| Error::Diverged { index: self.index, detail };
        if last.index.0 > 0 && self.shard != last.shard {
            return Err(diverged(format!(
                "it is of shard {}, the store holds shard {}",
                self.shard, last.shard
            )));
        }
        let row = AppliedRow::of(self);
        if self.index <= last.index {
            return match known(self.index)? {
                Some(hash) if hash != row.hash && self.term < last.term => {
                    Err(Error::Fenced { index: self.index, term: self.term, newest: last.term })
                }
                Some(hash) if hash != row.hash => {
                    Err(diverged(format!("its hash is {}, one of hash {hash} was applied", row.hash)))
                }
                _ => Ok(None),
            };
        }
        if self.term < last.term {
            return Err(Error::Fenced { index: self.index, term: self.term, newest: last.term });
        }
        if self.previous != last.index {
            return Err(Error::Gap { index: self.index, previous: self.previous, applied: last.index });
        }
        if self.parent != last.hash {
            let hash = last.hash;
            return Err(diverged(format!(
                "its parent's hash is {}, that of the one applied last is {hash}",
                self.parent
            )));
        }
        if self.ops.iter().any(Op::touches_applied) {
            return Err(Error::Reserved { index: self.index });
        }
        Ok(Some(row))
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

    /// What tells it from any other commit.
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

/// Cuts one operation off the front.
fn read_op(rest: &mut Bytes) -> Result<Op, &'static str> {
    if rest.len() < OP_HEADER_BYTES {
        return Err("its header is cut off");
    }
    let (kind, family, reserved) = (rest.get_u8(), rest.get_u8(), rest.get_u16_le());
    let (key_len, value_len) = (rest.get_u32_le() as usize, rest.get_u32_le() as usize);
    if key_len > rest.len() || value_len > rest.len() - key_len {
        return Err("its key and value go past the end");
    }
    if reserved != 0 {
        return Err("its reserved bytes are not 0");
    }
    let family = Family::from_number(family).ok_or("its family is unknown")?;
    let (key, value) = (rest.split_to(key_len), rest.split_to(value_len));
    match kind {
        PUT => Ok(Op::Put { family, key, value }),
        DELETE if value.is_empty() => Ok(Op::Delete { family, key }),
        DELETE => Err("it is a delete and has a value"),
        DELETE_RANGE => Ok(Op::DeleteRange { family, from: key, to: value }),
        _ => Err("its kind is unknown"),
    }
}

/// CRC-32C of the header without the checksum field, then the operations.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CHECKED_HEADER_BYTES]), &bytes[COMMIT_HEADER_BYTES..])
}

fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("a commit is a few MiB at most")
}

#[cfg(test)]
mod tests;
