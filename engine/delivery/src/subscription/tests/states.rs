//! The model's states of one offset.

use super::{ConsumerId, LostRange, Offset, PartitionId};

/// The shortest backoff, jitter included.
pub(super) const BACKOFF_MIN: u64 = 90;

/// Where one offset stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Fresh,
    Waiting {
        not_before: u64,
    },
    Flight {
        token: u64,
        consumer: ConsumerId,
        deadline: u64,
    },
    /// Decided, and not in a commit yet.
    Settling(Why),
    Submitted(Why),
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Said {
        token: u64,
        consumer: ConsumerId,
        dead: bool,
    },
    Dead,
    /// Filtered; it may settle with its neighbours, later.
    Dropped,
    Lost,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    pub(super) at: At,
    pub(super) attempts: u16,
    pub(super) returned: u8,
    /// Whose delivery of it failed last, since the start.
    pub(super) by: Option<ConsumerId>,
}

impl Event {
    pub(super) fn fail(&mut self, now: u64, by: Option<ConsumerId>, delay_ms: Option<u32>) {
        self.by = by;
        self.attempts += 1;
        self.returned = 0;
        self.at = if self.attempts >= 3 {
            At::Settling(Why::Dead)
        } else {
            At::Waiting { not_before: now + delay_ms.map_or(BACKOFF_MIN, u64::from) }
        };
    }
}

impl At {
    pub(super) fn is_open(self, now: u64) -> bool {
        match self {
            Self::Fresh => true,
            Self::Waiting { not_before } => not_before <= now,
            _ => false,
        }
    }

    pub(super) fn holder(self) -> Option<ConsumerId> {
        match self {
            Self::Flight { consumer, .. } => Some(consumer),
            _ => None,
        }
    }

    pub(super) fn token(self) -> Option<u64> {
        match self {
            Self::Flight { token, .. } => Some(token),
            _ => None,
        }
    }
}

/// Lost offsets in order as a commit reports them: one range for each partition.
pub(super) fn ranges_of(lost: &[(usize, u64)]) -> Vec<LostRange> {
    let range = |part: &[(usize, u64)]| LostRange {
        partition: PartitionId(part[0].0 as u16),
        first: Offset(part[0].1),
        last: Offset(part[part.len() - 1].1),
        events: part.len() as u64,
    };
    lost.chunk_by(|one, other| one.0 == other.0).map(range).collect()
}
