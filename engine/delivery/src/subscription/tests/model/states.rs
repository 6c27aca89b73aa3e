//! The model's states of one offset.

use std::ops::Range;

use levada_protocol::ids::{DeliveryToken, Offset, PartitionId};

use super::{
    super::{ConsumerId, LostRange},
    rules::Rules,
};
use crate::progress::{History, RETURNS_MAX};

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
        /// Together with what else has this number, and with nothing beside that.
        transaction: Option<u64>,
    },
    Dead,
    /// Filtered; it may settle with its neighbours, later.
    Dropped,
    /// Retention took it.
    Lost,
}

impl Why {
    /// True if it is a part of this transaction, which is one.
    pub(super) fn is_part_of(self, of: Option<u64>) -> bool {
        matches!(self, Self::Said { transaction: Some(own), .. } if Some(own) == of)
    }

    /// True if it may settle in the commit of this transaction, or of none. What was filtered may settle anywhere.
    pub(super) fn may_settle_with(self, commit: Option<u64>) -> bool {
        match self {
            Self::Said { transaction, .. } => transaction == commit,
            Self::Dead => commit.is_none(),
            Self::Dropped | Self::Lost => true,
        }
    }
}

/// A delivery, as it was made.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) partition: usize,
    pub(super) consumer: ConsumerId,
    pub(super) token: DeliveryToken,
    pub(super) range: Range<u64>,
    pub(super) events: u64,
    pub(super) bytes: u64,
}

/// What is known of an event's earlier deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Past {
    pub(super) attempts: u16,
    pub(super) returned: u8,
    pub(super) first_ms: u64,
    pub(super) last_ms: u64,
    /// It waits until one of these, the first and the last included; 0 if it does not.
    pub(super) not_before_ms: (u64, u64),
}

impl Past {
    /// Another delivery has failed, and it waits for so long.
    fn fail(self, now: u64, wait: (u64, u64), returned: u8) -> Self {
        let first_ms = if self.attempts == 0 { now } else { self.first_ms };
        let not_before_ms = if wait.1 == 0 { (0, 0) } else { (now + wait.0, now + wait.1) };
        Self { attempts: self.attempts + 1, returned, first_ms, last_ms: now, not_before_ms }
    }

    /// Its consumer's connection ended.
    fn go_back(self) -> Self {
        Self { returned: (self.returned + 1).min(RETURNS_MAX), not_before_ms: (0, 0), ..self }
    }

    pub(super) fn is_alone(self) -> bool {
        self.returned >= RETURNS_MAX
    }

    /// True if the history says the same.
    pub(super) fn is(self, history: History) -> bool {
        let History { attempts, returned, first_failure_ms, last_failure_ms, not_before_ms } = history;
        let waits = (self.not_before_ms.0..=self.not_before_ms.1).contains(&not_before_ms);
        (attempts, returned) == (self.attempts, self.returned)
            && (first_failure_ms, last_failure_ms) == (self.first_ms, self.last_ms)
            && waits
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    pub(super) at: At,
    pub(super) past: Past,
    /// Whose delivery of it failed last, since the start.
    pub(super) by: Option<ConsumerId>,
}

impl Event {
    pub(super) const NEW: Self = Self {
        at: At::Fresh,
        past: Past { attempts: 0, returned: 0, first_ms: 0, last_ms: 0, not_before_ms: (0, 0) },
        by: None,
    };

    /// Its consumer gave it back.
    pub(super) fn give_back(&mut self, rules: &Rules, now: u64, by: ConsumerId, delay_ms: Option<u32>) {
        let backoff = rules.backoff(self.past.attempts + 1);
        let wait = delay_ms.map_or(backoff, |delay| (delay.into(), delay.into()));
        self.by = Some(by);
        self.fail(rules, now, wait, 0);
    }

    /// Its time is over; a stream that has not taken it says nothing of it.
    pub(super) fn time_out(&mut self, rules: &Rules, now: u64, by: ConsumerId, is_taken: bool) {
        self.by = Some(by);
        if is_taken {
            self.fail(rules, now, (0, 0), 0);
        } else {
            self.at = At::Waiting { not_before: now };
        }
    }

    /// Its consumer is gone. That is a failure if nothing else was in flight there.
    pub(super) fn lose_consumer(&mut self, rules: &Rules, now: u64, is_taken: bool) {
        self.by = None;
        if is_taken && self.past.is_alone() {
            self.fail(rules, now, rules.backoff(self.past.attempts + 1), RETURNS_MAX);
            return;
        }
        if is_taken {
            self.past = self.past.go_back();
        }
        self.at = At::Waiting { not_before: now };
    }

    fn fail(&mut self, rules: &Rules, now: u64, wait: (u64, u64), returned: u8) {
        if self.past.attempts + 1 >= rules.max_attempts {
            self.at = At::Settling(Why::Dead);
            return;
        }
        self.past = self.past.fail(now, wait, returned);
        self.at = At::Waiting { not_before: now + wait.0 };
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

    /// True if it becomes a dead letter with a commit to come.
    pub(super) fn is_to_be_dead(self) -> bool {
        matches!(self, Self::Settling(Why::Dead | Why::Said { dead: true, .. }))
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
