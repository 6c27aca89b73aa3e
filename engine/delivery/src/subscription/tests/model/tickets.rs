//! The verbs that were accepted and are not confirmed yet.

use std::ops::Range;

/// What a verb must have done once it is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// The event is settled.
    Settled,
    /// That many of its deliveries have failed, or it is settled.
    Failed(u16),
}

/// What one verb said of one event.
#[derive(Debug, Clone, Copy)]
struct Said {
    ticket: u64,
    partition: usize,
    offset: u64,
    effect: Effect,
}

/// Every verb of one life of the subscription, by its ticket.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    last: u64,
    confirmed: u64,
    said: Vec<Said>,
}

impl Tickets {
    /// Notes a verb that was accepted, and what it was about.
    pub(super) fn accept(&mut self, ticket: u64, partition: usize, effects: &[(u64, Effect)]) {
        assert_eq!(ticket, self.last + 1, "each verb has a ticket of its own");
        self.last = ticket;
        let said = effects.iter().map(|(offset, effect)| Said {
            ticket,
            partition,
            offset: *offset,
            effect: *effect,
        });
        self.said.extend(said);
    }

    /// What settled these events is void, and that was reported.
    pub(super) fn take_back(&mut self, partition: usize, range: &Range<u64>) {
        let is_void = |it: &Said| {
            it.partition == partition && range.contains(&it.offset) && it.effect == Effect::Settled
        };
        self.said.retain(|it| !is_void(it));
    }

    /// Everything up to this ticket must be durable; `is_durable` says what is.
    pub(super) fn confirm(&mut self, confirmed: u64, is_durable: impl Fn(usize, u64, Effect) -> bool) {
        assert!(self.confirmed <= confirmed, "{} was confirmed, now it is {confirmed}", self.confirmed);
        assert!(confirmed <= self.last, "{confirmed} is confirmed of {}", self.last);
        self.confirmed = confirmed;
        let due = self.said.extract_if(.., |it| it.ticket <= confirmed);
        for it in due {
            assert!(
                is_durable(it.partition, it.offset, it.effect),
                "{it:?} is confirmed, and is not durable"
            );
        }
    }

    /// True if every verb is confirmed.
    pub(super) fn are_confirmed(&self) -> bool {
        self.confirmed == self.last
    }
}
