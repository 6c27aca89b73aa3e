//! What orders the events of a partition.

/// What orders an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    /// Events with this hash go in order.
    Hash(u64),
    /// An event without a key, by its offset: it has no order.
    None(u64),
}

impl Key {
    pub(super) fn of(offset: u64, hash: Option<u64>) -> Self {
        hash.map_or(Self::None(offset), Self::Hash)
    }
}
