//! The breaker of an attachment point: when nearly all events fail, or failing calls take too much time, it stops the
//! point and lets it probe with growing pauses (decision 21).
//!
//! Pure: the time is an argument. Must not know events or calls.

use std::time::Duration;

use levada_protocol::limits::CALL_EVENTS_MAX;

/// Failed events in a row that open the breaker.
pub(crate) const FAILED_IN_ROW_MAX: u32 = 20;
/// Time spent in failing calls within [`TIME_WINDOW`] that opens it.
pub(crate) const TIME_SPENT_MAX: Duration = Duration::from_secs(2);
/// See [`TIME_SPENT_MAX`].
pub(crate) const TIME_WINDOW: Duration = Duration::from_secs(60);
/// The first pause; each failing probe doubles it.
pub(crate) const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Most events in one call.
pub(crate) const EVENTS_MAX: u32 = CALL_EVENTS_MAX as u32;
const SLICES: usize = 6;
/// What a failing probe may cost where time alone counts.
const PROBE_SPENT_MAX: Duration = Duration::from_millis(100);

/// What the plugins of one attachment point have done wrong lately.
#[derive(Debug)]
pub(crate) struct Breaker {
    /// Per stage.
    failed_in_row: Vec<u32>,
    /// Time spent in failing calls by slice of the window, a ring.
    time_spent: [Duration; SLICES],
    /// Which slice of all time `time_spent` was last written in.
    slice: u64,
    /// Set from the moment it opens until a call goes well again.
    open: Option<Open>,
    /// Most events in one call: 1 after it opened, doubling with each call that goes well.
    call_limit: u32,
    /// Events that fail do not open it, but the time that they waste does.
    minds_time_alone: bool,
    /// Time spent in failing calls since it was last open.
    probe_spent: Duration,
    /// How often it has opened: what was admitted before says nothing about what happened since.
    openings: u64,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    until: Duration,
    pause: Duration,
}

impl Breaker {
    pub(crate) fn new(stages: usize) -> Self {
        Self {
            failed_in_row: vec![0; stages],
            time_spent: [Duration::ZERO; SLICES],
            slice: 0,
            open: None,
            call_limit: EVENTS_MAX,
            minds_time_alone: false,
            probe_spent: Duration::ZERO,
            openings: 0,
        }
    }

    /// The same, for a point where an event that fails costs nothing but time.
    pub(crate) fn minding_time_alone(self) -> Self {
        Self { minds_time_alone: true, ..self }
    }

    /// The same as when it was new.
    pub(crate) fn reset(&mut self) {
        let (minds_time_alone, openings) = (self.minds_time_alone, self.openings + 1);
        *self = Self { minds_time_alone, openings, ..Self::new(self.failed_in_row.len()) };
    }

    /// How often it has opened, for [`Breaker::went_well`].
    pub(crate) fn openings(&self) -> u64 {
        self.openings
    }

    /// How many events a call may have now; while the breaker is open, how long it stays so.
    pub(crate) fn admits(&self, now: Duration) -> Result<u32, Duration> {
        match self.open {
            Some(open) if now < open.until => Err(open.until - now),
            _ => Ok(self.call_limit),
        }
    }

    /// True if the next event decides whether the breaker stays open.
    pub(crate) fn is_probing(&self) -> bool {
        self.open.is_some()
    }

    /// An event passed `stage`.
    pub(crate) fn passed(&mut self, stage: usize) {
        if let Some(in_row) = self.failed_in_row.get_mut(stage) {
            *in_row = 0;
        }
    }

    /// A whole call's events were decided at every stage without opening the breaker: it is closed, unless it has opened since the call
    /// was admitted, at so many `openings`.
    pub(crate) fn went_well(&mut self, openings: u64) {
        if openings != self.openings {
            return;
        }
        self.open = None;
        self.call_limit = (self.call_limit * 2).min(EVENTS_MAX);
    }

    /// An event failed at `stage` for good. Returns for how long the breaker opened, if it did.
    pub(crate) fn failed(&mut self, stage: usize, now: Duration) -> Option<Duration> {
        if let Some(open) = self.open.filter(|open| now < open.until) {
            // Another run at the point has opened it since this call was admitted, which does not count twice.
            return Some(open.until - now);
        }
        self.failed_in_row[stage] += 1;
        let opens = if self.minds_time_alone {
            self.is_probing() && self.probe_spent >= PROBE_SPENT_MAX
        } else {
            self.is_probing() || self.failed_in_row[stage] >= FAILED_IN_ROW_MAX
        };
        opens.then(|| self.open(now))
    }

    /// A call failed after so much time. Returns for how long the breaker opened, if it did.
    ///
    /// A probe is never cut off by this: its event must get the tries that it has before it has failed.
    pub(crate) fn time_spent(&mut self, spent: Duration, now: Duration) -> Option<Duration> {
        let slice_len = TIME_WINDOW / u32::try_from(SLICES).expect("a small constant");
        let slice = u64::try_from(now.as_nanos() / slice_len.as_nanos()).unwrap_or(u64::MAX);
        let passed = slice.saturating_sub(self.slice).min(SLICES as u64);
        for gone in 0..passed {
            self.time_spent[Self::index(slice - gone)] = Duration::ZERO;
        }
        self.slice = self.slice.max(slice);
        self.time_spent[Self::index(self.slice)] += spent;
        self.probe_spent += spent;
        let total: Duration = self.time_spent.iter().sum();
        (!self.is_probing() && total >= TIME_SPENT_MAX).then(|| self.open(now))
    }

    fn index(slice: u64) -> usize {
        usize::try_from(slice % SLICES as u64).expect("a small remainder")
    }

    fn open(&mut self, now: Duration) -> Duration {
        let pause = self.open.map_or(PAUSE_FIRST, |open| (open.pause * 2).min(PAUSE_MAX));
        self.open = Some(Open { until: now + pause, pause });
        self.failed_in_row.fill(0);
        self.time_spent.fill(Duration::ZERO);
        self.probe_spent = Duration::ZERO;
        self.openings += 1;
        self.call_limit = 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn opens_at_twenty_failures_in_a_row_and_not_when_one_passes_between() {
        let mut breaker = Breaker::new(2);
        for _ in 0..FAILED_IN_ROW_MAX - 1 {
            assert_eq!(breaker.failed(1, SECOND), None);
            breaker.passed(0);
        }
        breaker.passed(1);
        for _ in 0..FAILED_IN_ROW_MAX - 1 {
            assert_eq!(breaker.failed(1, SECOND), None);
        }
        assert_eq!(breaker.failed(1, SECOND), Some(PAUSE_FIRST));
        assert_eq!(breaker.admits(SECOND), Err(PAUSE_FIRST));
        assert_eq!(breaker.admits(SECOND + PAUSE_FIRST), Ok(1));
    }

    #[test]
    fn opens_when_failing_calls_take_two_seconds_within_a_minute_and_not_over_several() {
        let mut breaker = Breaker::new(1);
        for minute in 0..10 {
            assert_eq!(breaker.time_spent(SECOND, SECOND * 61 * minute), None);
        }
        let now = SECOND * 61 * 9;
        assert_eq!(breaker.time_spent(SECOND, now + SECOND * 30), Some(PAUSE_FIRST));
    }

    #[test]
    fn doubles_its_pause_with_each_failing_probe_and_widens_again_after_a_good_one() {
        let mut breaker = Breaker::new(1);
        let mut now = Duration::ZERO;
        assert!(breaker.time_spent(TIME_SPENT_MAX, now).is_some());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            now += PAUSE_MAX;
            assert_eq!(breaker.time_spent(TIME_SPENT_MAX, now), None, "a probe gets all its tries");
            pauses.extend(breaker.failed(0, now).map(|pause| pause.as_secs()));
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
        now += PAUSE_MAX;
        let mut limits = Vec::new();
        for _ in 0..11 {
            limits.extend(breaker.admits(now));
            breaker.went_well(breaker.openings());
        }
        assert_eq!(limits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512]);
    }

    #[test]
    fn what_was_admitted_before_it_opened_neither_closes_it_nor_lengthens_the_pause() {
        let mut breaker = Breaker::new(1);
        let before = breaker.openings();
        assert_eq!(breaker.time_spent(TIME_SPENT_MAX, SECOND), Some(PAUSE_FIRST));
        breaker.went_well(before);
        assert_eq!(breaker.failed(0, SECOND + PAUSE_FIRST / 2), Some(PAUSE_FIRST / 2));
        assert_eq!(breaker.admits(SECOND), Err(PAUSE_FIRST));
        breaker.went_well(breaker.openings());
        assert_eq!(breaker.admits(SECOND), Ok(2));
    }

    #[test]
    fn where_time_alone_counts_events_that_fail_quickly_open_nothing() {
        let mut breaker = Breaker::new(1).minding_time_alone();
        let fails = |breaker: &mut Breaker, spent: Duration, now: Duration| {
            breaker.time_spent(spent, now).or_else(|| breaker.failed(0, now))
        };
        let quickly = Duration::from_micros(10);
        assert!((0..10_000).all(|_| fails(&mut breaker, quickly, SECOND).is_none()));
        assert_eq!(fails(&mut breaker, TIME_SPENT_MAX, SECOND), Some(PAUSE_FIRST));
        // A probe that wastes time again makes the pause longer; one that fails quickly does not.
        let probed = SECOND + PAUSE_FIRST;
        assert_eq!(fails(&mut breaker, SECOND, probed), Some(2 * PAUSE_FIRST));
        assert_eq!(fails(&mut breaker, quickly, probed + 2 * PAUSE_FIRST), None);
        breaker.reset();
        assert!((0..100).all(|_| fails(&mut breaker, quickly, probed).is_none()), "it stays what it is");
    }
}
