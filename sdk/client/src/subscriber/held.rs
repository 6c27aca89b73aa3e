//! The deliveries that a consumer holds: what was said about each, and which are kept from timing out.
//!
//! Pure; time is an argument. A delivery that the application holds, or that waits for it, is extended well before its
//! time is out, as long as the application shows that it is at work: for `max_processing` after it last took or said
//! anything of it. A process that stood still for longer than the timeout has lost what it held.

use std::{collections::BTreeMap, time::Duration};

use levada_protocol::{
    ids::{DeliveryToken, Offset, PartitionId},
    verbs::{Verb, VerbKind},
};

use super::ranges::Ranges;
use crate::clock::Instant;

/// Names a delivery on this side.
pub(super) type HeldId = u64;

/// What must be known of a delivery to keep it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    pub(super) partition: PartitionId,
    pub(super) token: DeliveryToken,
    pub(super) first: Offset,
    pub(super) last: Offset,
}

#[derive(Debug)]
struct Entry {
    names: Names,
    /// Spoken of, or dropped without a word.
    spoken: Ranges,
    /// Events that were not.
    events: u64,
    /// How many there were.
    arrived_events: u64,
    /// What its frame took from the credit, and what of that was not given back.
    bytes: u64,
    owed: u64,
    /// What of its frame is in memory, as far as this side knows.
    frame: u64,
    /// When all that is not settled was set aside, the frame is taken to be gone.
    aside: Aside,
    /// When its time began to run last, as far as this side knows.
    began: Instant,
    arrived: Instant,
    /// When the application last showed that it works on it; `None` while it waits in the queue.
    active: Option<Instant>,
    /// It is kept no more: its time ran out unnoticed, or the application had enough time.
    let_go: bool,
}

/// Events that the application has copies of, and how many of them were not settled.
#[derive(Debug, Default)]
struct Aside {
    offsets: Ranges,
    events: u64,
}

impl Entry {
    /// All that was not settled, and something was not, was set aside.
    fn is_all_aside(&self) -> bool {
        self.events > 0 && self.events <= self.aside.events
    }

    /// What `events` of it may keep of the credit.
    fn share(&self, events: u64) -> u64 {
        share(self.bytes, events, self.arrived_events).min(self.owed)
    }
}

/// Bytes of frames that are held for some of their events may be so many times the credit: as long as they are fewer, what
/// is spoken of gives its part of the credit back at once, so that an event that stays does not keep its neighbours' part.
const FRAMES_OF_CREDIT: u64 = 16;

/// What was taken back by a word: events, and their part of the credit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) events: u64,
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct Held {
    /// The subscription's acknowledgement timeout.
    ack_timeout: Duration,
    max_processing: Duration,
    entries: BTreeMap<HeldId, Entry>,
    /// Bytes of all their frames, and how many they may be before the credit of a frame comes back with its last event.
    frames: u64,
    frames_max: u64,
    next: HeldId,
    /// When the application last took or said anything.
    active: Option<Instant>,
    /// When to check next what must be extended.
    due_at: Option<Instant>,
}

impl Held {
    /// Nothing is held; the consumer has a credit of so many bytes.
    pub(super) fn new(max_processing: Duration, credit_bytes: u64) -> Self {
        Self {
            ack_timeout: Duration::ZERO,
            max_processing,
            entries: BTreeMap::new(),
            frames: 0,
            frames_max: credit_bytes.saturating_mul(FRAMES_OF_CREDIT),
            next: 0,
            active: None,
            due_at: None,
        }
    }

    /// The subscription's timeout, as the engine said.
    pub(super) fn keep_within(&mut self, ack_timeout: Duration) {
        self.ack_timeout = ack_timeout;
    }

    /// The stream is gone: nothing that came on it is held any more.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.frames = 0;
        self.due_at = None;
    }

    /// A delivery came and waits.
    pub(super) fn arrived(&mut self, names: Names, events: u64, bytes: u64, now: Instant) -> HeldId {
        self.next += 1;
        let entry = Entry {
            names,
            spoken: Ranges::default(),
            events,
            arrived_events: events,
            bytes,
            owed: bytes,
            frame: bytes,
            aside: Aside::default(),
            began: now,
            arrived: now,
            active: None,
            let_go: false,
        };
        self.entries.insert(self.next, entry);
        self.frames += bytes;
        if self.due_at.is_none() {
            self.due_at = Some(now + self.interval());
        }
        self.next
    }

    /// How the engine knows a delivery of which not all is settled.
    pub(super) fn names(&self, id: HeldId) -> Option<(PartitionId, DeliveryToken)> {
        self.entries.get(&id).map(|entry| (entry.names.partition, entry.names.token))
    }

    /// True if a delivery has expired: another consumer gets it.
    pub(super) fn is_lost(&self, id: HeldId, now: Instant) -> bool {
        self.entries.get(&id).is_none_or(|entry| now > entry.began + self.ack_timeout)
    }

    /// When a delivery that came and waits should be handed out at the latest: in time to work on it, whether or not it is
    /// extended meanwhile.
    pub(super) fn hand_out_at(&self, id: HeldId) -> Option<Instant> {
        self.entries.get(&id).map(|entry| entry.arrived + self.ack_timeout / 2)
    }

    /// The application takes a delivery, or an event of it. False if it has expired: another consumer gets it.
    pub(super) fn take(&mut self, id: HeldId, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        if now > entry.began + self.ack_timeout {
            entry.let_go = true;
            return false;
        }
        entry.active = Some(now);
        self.active = Some(now);
        true
    }

    /// The application says something of these offsets: `say` is called with the parts that were not settled before,
    /// and returns how many events each has. With `last_word` they are settled from now on.
    pub(super) fn say(
        &mut self,
        id: HeldId,
        (first, last): (Offset, Offset),
        last_word: bool,
        now: Instant,
        mut say: impl FnMut(&Names, Offset, Offset) -> u64,
    ) -> Freed {
        let Some(entry) = self.entries.get_mut(&id) else { return Freed::default() };
        entry.active = Some(now);
        self.active = Some(now);
        let (mut events, mut aside, names) = (0, 0, entry.names);
        entry.spoken.gaps(first, last, |first, last| {
            events += say(&names, first, last);
            aside += entry.aside.offsets.covered(first, last);
        });
        if !last_word {
            // The application's own word renews its time.
            entry.began = now;
            return Freed::default();
        }
        entry.spoken.add(first, last);
        let events = events.min(entry.events);
        entry.events -= events;
        entry.aside.events -= aside.min(entry.aside.events);
        let kept = match entry.events {
            0 => 0,
            _ if self.frames > self.frames_max => entry.owed,
            left => entry.share(left),
        };
        let bytes = entry.owed - kept;
        entry.owed = kept;
        let more = match (entry.events, entry.is_all_aside()) {
            (0, _) => self.forget(id),
            (_, true) => self.free_frame(id),
            (_, false) => 0,
        };
        Freed { events, bytes: bytes + more }
    }

    /// The application has a copy of an event that was not settled, and does not need the frame for it. Returns what that
    /// frees of the credit; `None` if the event was settled or set aside before.
    pub(super) fn set_aside(&mut self, id: HeldId, offset: Offset) -> Option<u64> {
        let entry = self.entries.get_mut(&id)?;
        let known = entry.spoken.covered(offset, offset) + entry.aside.offsets.covered(offset, offset) > 0;
        if known {
            return None;
        }
        entry.aside.offsets.add(offset, offset);
        entry.aside.events += 1;
        Some(if entry.is_all_aside() { self.free_frame(id) } else { 0 })
    }

    /// Nothing more can be said of a delivery: what it still held is free.
    pub(super) fn release(&mut self, id: HeldId) -> Freed {
        let Some(entry) = self.entries.get(&id) else { return Freed::default() };
        let (events, owed) = (entry.events, entry.owed);
        Freed { events, bytes: owed + self.forget(id) }
    }

    /// Forgets a delivery; returns what that frees of the others' credit.
    fn forget(&mut self, id: HeldId) -> u64 {
        let frame = self.entries.remove(&id).map_or(0, |entry| entry.frame);
        self.less_frames(frame)
    }

    /// A delivery's frame is no longer in memory; returns what that frees of the credit.
    fn free_frame(&mut self, id: HeldId) -> u64 {
        let frame = self.entries.get_mut(&id).map_or(0, |entry| std::mem::take(&mut entry.frame));
        self.less_frames(frame)
    }

    /// Fewer bytes of frames are in memory. If that brings them within their bound, what was kept back of the credit
    /// meanwhile is returned.
    fn less_frames(&mut self, bytes: u64) -> u64 {
        let was_over = self.frames > self.frames_max;
        self.frames -= bytes;
        if !was_over || self.frames > self.frames_max {
            return 0;
        }
        let kept_back = self.entries.values_mut().map(|entry| {
            let kept = entry.share(entry.events);
            std::mem::replace(&mut entry.owed, kept) - kept
        });
        kept_back.sum()
    }

    /// When [`Held::extend`] has something to do.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// Verbs that extend what is to be kept and was not extended for a third of the timeout.
    pub(super) fn extend(&mut self, now: Instant, mut extend: impl FnMut(Verb)) {
        if self.due_at.is_none_or(|at| now < at) {
            return;
        }
        let (interval, last_sign) = (self.interval(), self.active);
        for entry in self.entries.values_mut().filter(|entry| !entry.let_go) {
            let waiting = || last_sign.map_or(entry.arrived, |sign| sign.max(entry.arrived));
            let sign = entry.active.unwrap_or_else(waiting);
            let worked = now < sign + self.max_processing;
            entry.let_go = !worked || now > entry.began + self.ack_timeout;
            if entry.let_go || now < entry.began + interval {
                continue;
            }
            entry.began = now;
            let Names { partition, token, first, last } = entry.names;
            entry.spoken.gaps(first, last, |first, last| {
                extend(Verb { kind: VerbKind::InProgress, partition, token, first, last });
            });
        }
        let kept = self.entries.values().any(|entry| !entry.let_go);
        self.due_at = kept.then_some(now + interval / 2);
    }

    /// How long after its time began a delivery is extended, at the latest half as long again.
    fn interval(&self) -> Duration {
        (self.ack_timeout / 3).max(Duration::from_millis(1))
    }
}

/// The part of `bytes` that `some` of `all` events have.
fn share(bytes: u64, some: u64, all: u64) -> u64 {
    let share = u128::from(bytes) * u128::from(some) / u128::from(all.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn held(max_processing: Duration) -> Held {
        let mut held = Held::new(max_processing, 1_000);
        held.keep_within(TIMEOUT);
        held
    }

    fn names(first: u64, last: u64) -> Names {
        Names {
            partition: PartitionId(0),
            token: DeliveryToken(first),
            first: Offset(first),
            last: Offset(last),
        }
    }

    fn extended(held: &mut Held, now: Instant) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        held.extend(now, |verb| ranges.push((verb.first.0, verb.last.0)));
        ranges
    }

    fn ack(held: &mut Held, id: HeldId, first: u64, last: u64, now: Instant) -> Freed {
        held.say(id, (Offset(first), Offset(last)), true, now, |_, first, last| last.0 - first.0 + 1)
    }

    #[test]
    fn what_is_not_settled_is_extended_and_keeps_its_part_of_the_credit() {
        let (mut held, mut now) = (held(Duration::from_secs(600)), clock::now());
        let id = held.arrived(names(10, 19), 10, 500, now);
        assert!(held.take(id, now));
        assert_eq!(ack(&mut held, id, 13, 14, now), Freed { events: 2, bytes: 100 });
        now += TIMEOUT / 3;
        assert_eq!(extended(&mut held, now), [(10, 12), (15, 19)]);
        assert_eq!(extended(&mut held, now), [], "not twice");
        assert_eq!(ack(&mut held, id, 10, 19, now), Freed { events: 8, bytes: 400 });
        assert_eq!(ack(&mut held, id, 10, 19, now), Freed::default());
        assert_eq!(extended(&mut held, now + TIMEOUT), []);
        assert_eq!(held.due_at(), None, "an idle consumer is not woken");
    }

    #[test]
    fn frames_that_are_held_for_a_few_events_are_bounded() {
        let (mut held, now) = (held(Duration::from_secs(600)), clock::now());
        let frames = 1_000 * FRAMES_OF_CREDIT / 500;
        let ids: Vec<_> =
            (0..=frames).map(|at| held.arrived(names(at * 10, at * 10 + 9), 10, 500, now)).collect();
        let all_but_one = |held: &mut Held, at: u64| ack(held, ids[at as usize], at * 10, at * 10 + 8, now);
        for at in [0, 1] {
            assert_eq!(all_but_one(&mut held, at), Freed { events: 9, bytes: 0 }, "too much is held");
        }
        let within = Freed { events: 1, bytes: 500 + 450 };
        assert_eq!(ack(&mut held, ids[0], 9, 9, now), within, "what was kept back of the other's is free");
        assert_eq!(all_but_one(&mut held, 2), Freed { events: 9, bytes: 450 });
        assert_eq!(held.release(ids[1]), Freed { events: 1, bytes: 50 });
    }

    #[test]
    fn what_is_set_aside_keeps_its_share_of_the_credit_and_no_frame() {
        let (mut held, now) = (held(Duration::from_secs(600)), clock::now());
        let frames = 1_000 * FRAMES_OF_CREDIT / 500;
        let ids: Vec<_> =
            (0..=frames).map(|at| held.arrived(names(at * 10, at * 10 + 9), 10, 500, now)).collect();
        let all_but_one =
            |held: &mut Held, at: usize| ack(held, ids[at], at as u64 * 10, at as u64 * 10 + 8, now);
        assert_eq!(all_but_one(&mut held, 0), Freed { events: 9, bytes: 0 }, "too much is held");
        assert_eq!(held.set_aside(ids[0], Offset(3)), None, "it was settled");
        assert_eq!(held.set_aside(ids[0], Offset(9)), Some(450), "its frame is not held, nor is too much");
        assert_eq!(held.set_aside(ids[0], Offset(9)), None, "it was set aside");
        assert_eq!(all_but_one(&mut held, 1), Freed { events: 9, bytes: 450 });
        assert_eq!(held.set_aside(ids[2], Offset(20)), Some(0));
        assert_eq!(ack(&mut held, ids[2], 20, 20, now), Freed { events: 1, bytes: 50 });
        assert_eq!(ack(&mut held, ids[2], 21, 28, now), Freed { events: 8, bytes: 400 });
        assert_eq!(held.frames, 500 * frames, "the one that is left of it was not set aside");
        assert_eq!(ack(&mut held, ids[0], 9, 9, now), Freed { events: 1, bytes: 50 });
    }

    #[test]
    fn an_application_that_shows_no_sign_keeps_nothing() {
        let (mut held, begun) = (held(Duration::from_secs(100)), clock::now());
        let taken = held.arrived(names(0, 9), 10, 1, begun);
        let waits = held.arrived(names(10, 19), 10, 1, begun);
        assert!(held.take(taken, begun));
        let mut now = begun;
        let mut last = begun;
        while let Some(at) = held.due_at() {
            now = at;
            if !extended(&mut held, now).is_empty() {
                last = now;
            }
        }
        assert!(now < begun + Duration::from_secs(115));
        assert!(last > begun + Duration::from_secs(80) && last < begun + Duration::from_secs(100));
        assert!(!held.take(waits, last + TIMEOUT + Duration::from_millis(1)), "somebody else has it");
    }

    #[test]
    fn what_waits_is_kept_while_the_application_works_on_others() {
        let (mut held, begun) = (held(Duration::from_secs(100)), clock::now());
        let taken = held.arrived(names(0, 99), 100, 1, begun);
        let waits = held.arrived(names(100, 199), 100, 1, begun);
        assert!(held.take(taken, begun));
        let mut now = begun;
        for offset in 0..20 {
            let done = begun + Duration::from_secs(60 * (offset + 1));
            while let Some(at) = held.due_at()
                && at < done
            {
                now = at;
                extended(&mut held, now);
            }
            now = done;
            ack(&mut held, taken, offset, offset, now);
        }
        assert!(held.take(waits, now), "20 minutes later");
    }

    #[test]
    fn what_comes_after_a_long_silence_is_kept_as_long() {
        let (mut held, begun) = (held(Duration::from_secs(100)), clock::now());
        let id = held.arrived(names(0, 0), 1, 1, begun);
        assert!(held.take(id, begun));
        ack(&mut held, id, 0, 0, begun);
        let later = begun + Duration::from_secs(3_600);
        held.extend(later, |_| {});
        held.arrived(names(1, 1), 1, 1, later);
        assert_eq!(extended(&mut held, later + TIMEOUT / 3), [(1, 1)]);
    }

    #[test]
    fn a_process_that_stood_still_has_lost_what_it_held() {
        let (mut held, begun) = (held(Duration::from_secs(600)), clock::now());
        let id = held.arrived(names(0, 9), 10, 7, begun);
        let woken = begun + TIMEOUT + Duration::from_millis(1);
        assert_eq!(extended(&mut held, woken), [], "its events are somebody else's");
        assert!(!held.take(id, woken));
        assert_eq!(held.release(id), Freed { events: 10, bytes: 7 });
    }

    proptest! {
        #[test]
        fn what_is_held_never_times_out_while_the_driver_looks_in_time(
            timeout_ms in 20_u64..60_000,
            late_percent in 0_u32..30,
            steps in 1_usize..200,
        ) {
            let timeout = Duration::from_millis(timeout_ms);
            let mut held = Held::new(Duration::from_secs(24 * 3600), 1_000);
            held.keep_within(timeout);
            let mut now = clock::now();
            held.arrived(names(0, 9), 10, 1, now);
            let mut extended_at = now;
            for _ in 0..steps {
                now = held.due_at().unwrap() + timeout * late_percent / 100;
                held.extend(now, |_| extended_at = now);
                prop_assert!(now - extended_at < timeout);
            }
        }
    }
}
