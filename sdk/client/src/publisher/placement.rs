//! Where and when a batch is to be appended.

use levada_protocol::{ids::Offset, schedule::Due};

/// The same for all events of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// At the partition's end, at once.
    End,
    /// There too, but only if this is the partition's next offset.
    At(Offset),
    /// Once it is due.
    Due(Due),
}

impl Placement {
    /// The offset that the partition's end must have.
    pub(super) fn expected(self) -> Option<Offset> {
        match self {
            Self::At(offset) => Some(offset),
            Self::End | Self::Due(_) => None,
        }
    }

    /// When its events are due, if not at once.
    pub(super) fn due(self) -> Option<Due> {
        match self {
            Self::Due(due) => Some(due),
            Self::End | Self::At(_) => None,
        }
    }
}
