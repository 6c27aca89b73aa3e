//! How many events a consumer requests: about a second of its own pace ahead of what it works on.
//!
//! Pure; time is an argument. It starts small and grows with every settled event, so that it doubles in each round
//! trip while acknowledgements come quickly. Owns the counts of events that were requested, received and taken.

use std::time::Duration;

use crate::clock::Instant;

/// Events that a consumer requests before anything is known of its pace.
const FIRST_EVENTS: u64 = 16;
/// The time for which a consumer requests events ahead, and over which its pace is measured.
const AHEAD: Duration = Duration::from_secs(1);

/// How far ahead of the application a consumer requests events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prefetch {
    /// About a second of the pace at which the application takes events, so that several consumers share the work
    /// fairly and none holds what it cannot get to: a few events at first, more with every acknowledgement, up to
    /// the credit.
    #[default]
    Paced,
    /// The whole credit, from the beginning.
    All,
}

/// What decides how many events are requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Paced,
    All,
    /// A pull: so many, of those that it waits for.
    Pulled(u64),
}

#[derive(Debug)]
pub(super) struct Pace {
    /// Most events that are requested, queued and held together.
    max: u64,
    /// As many of them as acknowledgements have earned.
    grown: u64,
    mode: Mode,
    /// The time that the application took for recent events, and their number.
    busy: Duration,
    events: f64,
    /// When the application began its current events, and their number.
    working: Option<(Instant, u64)>,
    /// The application waits for events.
    waiting: bool,
    /// Requested and not received.
    asked: u64,
    /// Received and not taken.
    queued: u64,
    /// Taken and not settled.
    held: u64,
}

impl Pace {
    pub(super) fn new(max: u64, prefetch: Prefetch) -> Self {
        match prefetch {
            Prefetch::Paced => Self::with(max, FIRST_EVENTS.min(max), Mode::Paced),
            Prefetch::All => Self::with(max, max, Mode::All),
        }
    }

    /// Requests nothing but what is pulled.
    pub(super) fn pulled(max: u64) -> Self {
        Self::with(max, max, Mode::Pulled(0))
    }

    fn with(max: u64, grown: u64, mode: Mode) -> Self {
        Self {
            max,
            grown,
            mode,
            busy: Duration::ZERO,
            events: 0.0,
            working: None,
            waiting: false,
            asked: 0,
            queued: 0,
            held: 0,
        }
    }

    /// A new stream: nothing was requested on it, and events of the old one no longer count.
    pub(super) fn attached(&mut self) {
        (self.asked, self.queued, self.held) = (0, 0, 0);
    }

    /// Events were received; filtered ones do not count.
    pub(super) fn arrived(&mut self, events: u64) {
        self.asked = self.asked.saturating_sub(events);
        self.queued += events;
    }

    /// The application asks for more: its work on what it took last is over, or was handed on.
    pub(super) fn wants(&mut self, now: Instant) {
        if let Some((since, events)) = self.working.take() {
            self.busy += now.saturating_duration_since(since);
            self.events += count(events);
            if self.busy > AHEAD {
                self.events *= AHEAD.as_secs_f64() / self.busy.as_secs_f64();
                self.busy = AHEAD;
            }
        }
        self.waiting = true;
    }

    /// The application takes events and works on them.
    pub(super) fn took(&mut self, events: u64, now: Instant) {
        self.queued = self.queued.saturating_sub(events);
        self.held += events;
        self.working = Some((now, events));
        self.waiting = false;
    }

    /// Queued events are of no use any more.
    pub(super) fn skipped(&mut self, events: u64) {
        self.queued = self.queued.saturating_sub(events);
    }

    /// The application has settled events that it held.
    pub(super) fn settled(&mut self, events: u64) {
        self.held = self.held.saturating_sub(events);
        self.grown = self.grown.saturating_add(events).min(self.max);
    }

    /// The application has dropped events without a verb.
    pub(super) fn dropped(&mut self, events: u64) {
        self.held = self.held.saturating_sub(events);
    }

    /// A pull waits for so many events, those included that are queued; 0 if none does any more.
    pub(super) fn pull(&mut self, events: u64) {
        debug_assert!(matches!(self.mode, Mode::Pulled(_)), "only who pulls does");
        self.mode = Mode::Pulled(events);
    }

    /// Events that were received and not taken.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// True if no event is on its way, and none can be requested before some are settled.
    pub(super) fn is_spent(&self) -> bool {
        self.asked == 0 && self.to_request() == 0
    }

    /// Events to request now.
    pub(super) fn to_request(&self) -> u64 {
        let ahead = self.asked + self.queued;
        self.grown.saturating_sub(ahead + self.held).min(self.ahead_max().saturating_sub(ahead))
    }

    /// Events that are worth a credit frame of their own.
    pub(super) fn worth_a_frame(&self) -> u64 {
        match self.mode {
            Mode::Paced | Mode::All => (self.grown.min(self.ahead_max()) / 4).max(1),
            Mode::Pulled(_) => 1,
        }
    }

    /// Events were requested.
    pub(super) fn ask(&mut self, events: u64) {
        self.asked += events;
    }

    /// Most events requested and queued. A consumer that takes longer than a second for one requests when it waits.
    fn ahead_max(&self) -> u64 {
        match self.mode {
            Mode::Pulled(events) => return events,
            Mode::All => return self.max,
            Mode::Paced if self.busy.is_zero() => return self.max,
            Mode::Paced => {}
        }
        let paced = self.events / self.busy.as_secs_f64() * AHEAD.as_secs_f64();
        if paced < 1.0 {
            return u64::from(self.waiting);
        }
        if paced >= count(self.max) { self.max } else { whole(paced) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a pace need not be exact")]
fn count(events: u64) -> f64 {
    events as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is between 1 and a bound that is a u64"
)]
fn whole(events: f64) -> u64 {
    events as u64
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::clock;

    /// An engine that has plenty and answers at once, and a consumer that takes events one by one.
    fn consume(pace: &mut Pace, now: &mut Instant, events: u64, each: Duration) -> u64 {
        let mut most = 0;
        for _ in 0..events {
            pace.wants(*now);
            let asked = pace.to_request();
            pace.ask(asked);
            pace.arrived(pace.asked);
            most = most.max(pace.queued);
            pace.took(1, *now);
            *now += each;
            pace.settled(1);
        }
        most
    }

    #[test]
    fn a_slow_consumer_asks_for_a_second_of_its_work() {
        let (mut pace, mut now) = (Pace::new(1_000, Prefetch::Paced), clock::now());
        assert_eq!(pace.to_request(), FIRST_EVENTS);
        consume(&mut pace, &mut now, 100, Duration::from_millis(35));
        let most = consume(&mut pace, &mut now, 100, Duration::from_millis(35));
        assert!((25..=30).contains(&most), "{most} events of 35 ms");
        consume(&mut pace, &mut now, 100, Duration::from_millis(400));
        assert_eq!(consume(&mut pace, &mut now, 10, Duration::from_millis(400)), 2);
    }

    #[test]
    fn a_consumer_of_seconds_for_an_event_asks_for_the_next_when_it_is_done() {
        let (mut pace, mut now) = (Pace::new(1_000, Prefetch::Paced), clock::now());
        consume(&mut pace, &mut now, 20, Duration::from_secs(5));
        pace.wants(now);
        assert_eq!((pace.queued, pace.to_request()), (0, 1));
        pace.ask(1);
        pace.arrived(1);
        pace.took(1, now);
        assert_eq!(pace.to_request(), 0, "others may have the rest");
    }

    #[test]
    fn a_fast_consumer_has_its_whole_credit_after_a_few_round_trips() {
        let (mut pace, mut now) = (Pace::new(1_000, Prefetch::Paced), clock::now());
        let mut rounds = 0;
        while pace.to_request() + pace.asked < 1_000 {
            rounds += 1;
            let asked = pace.to_request();
            pace.ask(asked);
            pace.arrived(asked);
            pace.wants(now);
            pace.took(asked, now);
            now += Duration::from_micros(asked);
            pace.settled(asked);
        }
        assert!(rounds <= 7, "{rounds} round trips");
        // A pause in which it does something else costs little.
        pace.wants(now + Duration::from_secs(60));
        let mut now = now + Duration::from_secs(60);
        consume(&mut pace, &mut now, 2_000, Duration::from_micros(10));
        assert!(pace.to_request() + pace.queued >= 999);
    }

    #[test]
    fn a_consumer_that_works_on_many_at_once_gets_as_many() {
        let (mut pace, now) = (Pace::new(1_000, Prefetch::Paced), clock::now());
        for round in 0..7 {
            let asked = pace.to_request();
            pace.ask(asked);
            pace.arrived(asked);
            for _ in 0..asked {
                pace.wants(now);
                pace.took(1, now);
            }
            pace.settled(pace.held);
            assert!(pace.to_request() >= (FIRST_EVENTS << (round + 1)).min(1_000));
        }
    }

    #[test]
    fn who_pulls_requests_what_is_missing_and_nothing_ahead() {
        let (mut pace, now) = (Pace::pulled(10), clock::now());
        assert_eq!(pace.to_request(), 0);
        pace.pull(4);
        pace.ask(pace.to_request());
        pace.arrived(3);
        assert_eq!((pace.queued, pace.to_request()), (3, 0), "the fourth was requested");
        pace.took(3, now);
        pace.pull(20);
        assert_eq!(pace.to_request(), 6, "one was requested, three are held, and ten are the most");
        pace.pull(0);
        pace.settled(3);
        assert_eq!(pace.to_request(), 0);
    }

    proptest! {
        #[test]
        fn never_more_than_the_maximum_and_never_nothing_for_ever(
            max in 1_u64..2_000,
            steps in vec((0_u8..5, 1_u64..100, 0_u64..3_000), 1..200),
        ) {
            let (mut pace, mut now) = (Pace::new(max, Prefetch::Paced), clock::now());
            for (what, events, millis) in steps {
                now += Duration::from_millis(millis);
                match what {
                    0 => {
                        let request = pace.to_request();
                        pace.ask(request);
                    }
                    1 => pace.arrived(events.min(pace.asked)),
                    2 => {
                        pace.wants(now);
                        let events = events.min(pace.queued);
                        if events > 0 {
                            pace.took(events, now);
                        }
                    }
                    3 => pace.settled(events.min(pace.held)),
                    _ => pace.dropped(events.min(pace.held)),
                }
                prop_assert!(pace.asked + pace.queued + pace.held + pace.to_request() <= max);
            }
            pace.wants(now);
            pace.skipped(pace.queued);
            pace.settled(pace.held);
            prop_assert!(pace.asked > 0 || pace.to_request() > 0, "a consumer that waits gets something");
        }
    }
}
