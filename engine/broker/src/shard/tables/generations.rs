//! Which owner of a subscription may commit: one that took over has a higher generation, and those before it are
//! refused. This is the fence of decision 5: an owner that was replaced may still have proposals under way.
//!
//! Generations live as long as the process, as owners do. Between processes the writer's term does the same.

use std::{collections::HashMap, fmt};

use levada_protocol::ids::SubscriptionId;

/// Which owner of a subscription: the first since the engine's start is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation(u64);

impl Generation {
    /// The first owner of a subscription since the engine's start.
    pub(crate) const FIRST: Self = Self(1);
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The generations of subscriptions that had more than one owner, deleted ones included: a deletion may be taken back, and
/// no id is given twice.
#[derive(Debug, Default)]
pub(in crate::shard) struct Generations(HashMap<SubscriptionId, Generation>);

impl Generations {
    fn current(&self, id: SubscriptionId) -> Generation {
        self.0.get(&id).copied().unwrap_or(Generation::FIRST)
    }

    /// Lets a new owner take the subscription over. What the owners before it propose from now on is refused.
    pub(in crate::shard) fn take_over(&mut self, id: SubscriptionId) -> Generation {
        let next = Generation(self.current(id).0 + 1);
        self.0.insert(id, next);
        next
    }

    /// Refuses an owner that was replaced, and says which one is current.
    pub(in crate::shard) fn check(&self, id: SubscriptionId, proposed: Generation) -> Result<(), Generation> {
        let current = self.current(id);
        if proposed == current { Ok(()) } else { Err(current) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_took_over_last_may_commit_and_nobody_else() {
        let (mut generations, id, other) = (Generations::default(), SubscriptionId(1), SubscriptionId(2));
        assert!(generations.check(id, Generation::FIRST).is_ok());
        let second = generations.take_over(id);
        let third = generations.take_over(id);
        assert!(Generation::FIRST < second && second < third);
        for stale in [Generation::FIRST, second] {
            assert_eq!(generations.check(id, stale), Err(third));
        }
        assert!(generations.check(id, third).is_ok());
        assert!(generations.check(other, Generation::FIRST).is_ok());
    }
}
