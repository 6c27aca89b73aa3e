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
        }
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

    /// A whole call's events were decided at every stage without opening the breaker: it is closed.
    pub(crate) fn went_well(&mut self) {
        self.open = None;
        self.call_limit = (self.call_limit * 2).min(EVENTS_MAX);
    }

    /// An event failed at `stage` for good. Returns for how long the breaker opened, if it did.
    pub(crate) fn failed(&mut self, stage: usize, now: Duration) -> Option<Duration> {
        self.failed_in_row[stage] += 1;
        (self.is_probing() || self.failed_in_row[stage] >= FAILED_IN_ROW_MAX).then(|| self.open(now))
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
            breaker.went_well();
        }
        assert_eq!(limits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512]);
    }
}
