//! The operations of a commit, and their bytes.

use bytes::{Buf, BufMut, Bytes};

use super::{APPLIED_KEY, Family};

/// Bytes of an operation before its key.
pub const OP_HEADER_BYTES: usize = 12;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;

/// One operation of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes a row, new or over an older one.
    Put {
        /// The family of the key.
        family: Family,
        /// The row's key.
        key: Bytes,
        /// The row's value; its first byte is a format version.
        value: Bytes,
    },
    /// Removes a row; nothing happens if there is none.
    Delete {
        /// The family of the key.
        family: Family,
        /// The row's key.
        key: Bytes,
    },
    /// Removes every row of `[from, to)`; nothing happens if the range is empty or turned round.
    DeleteRange {
        /// The family of the key.
        family: Family,
        /// The first key that goes.
        from: Bytes,
        /// The first key that stays.
        to: Bytes,
    },
}

impl Op {
    /// Kind, family, key and value as they are laid out.
    pub(super) fn parts(&self) -> (u8, Family, &[u8], &[u8]) {
        match self {
            Self::Put { family, key, value } => (PUT, *family, key, value),
            Self::Delete { family, key } => (DELETE, *family, key, &[]),
            Self::DeleteRange { family, from, to } => (DELETE_RANGE, *family, from, to),
        }
    }

    /// The bytes before its key.
    pub(super) fn header(&self) -> [u8; OP_HEADER_BYTES] {
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

/// Cuts one operation off the front.
pub(super) fn read_op(rest: &mut Bytes) -> Result<Op, &'static str> {
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

pub(super) fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("a commit is a few MiB at most")
}
