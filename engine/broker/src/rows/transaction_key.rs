//! Which transaction a row is about: its producer group and its id, told apart by a byte that neither has.

use std::fmt;

use levada_protocol::ids::{GroupName, TransactionId};

use super::key::{KeyBuilder, KeyFields, KeyRange};

/// Ends a group's name and an id: neither holds it.
const END: u8 = 0x00;

/// The name of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TransactionKey {
    pub(crate) group: GroupName,
    pub(crate) id: TransactionId,
}

impl TransactionKey {
    /// Bytes of both with their ends.
    pub(super) fn len(&self) -> usize {
        self.group.as_str().len() + self.id.as_str().len() + 2
    }

    pub(super) fn put(&self, key: KeyBuilder) -> KeyBuilder {
        let key = key.bytes(self.group.as_str().as_bytes()).u8(END);
        key.bytes(self.id.as_str().as_bytes()).u8(END)
    }

    /// Reads both.
    pub(super) fn read(fields: &mut KeyFields<'_>) -> Option<Self> {
        let (group, id) = (fields.until(END)?, fields.until(END)?);
        let text = |bytes| str::from_utf8(bytes).ok();
        Some(Self { group: text(group)?.parse().ok()?, id: text(id)?.parse().ok()? })
    }
}

/// The rows of a kind that are about one group.
pub(super) fn of_group(tag: u8, group: &GroupName) -> KeyRange {
    KeyBuilder::new(group.as_str().len() + 2).u8(tag).bytes(group.as_str().as_bytes()).u8(END).range()
}

impl fmt::Display for TransactionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.id)
    }
}
