//! When what waits of a partition is given before anything new of it is read.
//!
//! Where most keys have events that wait, most of what is new would have to wait as well, and be read and looked at once more
//! for nothing. It must not know keys or events, only how many there are.

/// For how long nothing new is read at most.
const DRAIN_MS: u64 = 32;
/// For how long it does not begin anew after its time was over before half as much was given: what waits does not move quickly.
const PAUSE_MS: u64 = 10 * DRAIN_MS;

/// The state of one partition.
#[derive(Debug, Default)]
pub(super) struct Drain {
    /// Waiting events that were given.
    given: u64,
    last: Option<Last>,
}

/// The last time that nothing new was to be read.
#[derive(Debug, Clone, Copy)]
struct Last {
    /// On the monotonic clock.
    until: u64,
    until_given: u64,
    /// What waits moves quickly if so many were given by then.
    half_given: u64,
}

impl Drain {
    /// A waiting event was given.
    pub(super) fn give(&mut self) {
        self.given += 1;
    }

    /// So many wait, and are to be given before anything new is read.
    pub(super) fn begin(&mut self, now: u64, waiting: u64) {
        let pauses = |last: Last| self.given < last.half_given && now < last.until.saturating_add(PAUSE_MS);
        if !self.last.is_some_and(pauses) {
            let given = |events: u64| self.given.saturating_add(events);
            let (until_given, half_given) = (given(waiting), given(waiting.div_ceil(2)));
            self.last = Some(Last { until: now.saturating_add(DRAIN_MS), until_given, half_given });
        }
    }

    /// Until when nothing new is read.
    pub(super) fn until(&self, now: u64) -> Option<u64> {
        let last = self.last.filter(|last| now < last.until && self.given < last.until_given)?;
        Some(last.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_once_as_many_were_given_as_waited_and_may_begin_anew_at_once() {
        let mut drain = Drain::default();
        assert_eq!(drain.until(0), None);
        drain.begin(0, 2);
        drain.give();
        assert_eq!(drain.until(1), Some(DRAIN_MS));
        drain.give();
        assert_eq!(drain.until(1), None);
        drain.begin(1, 1);
        assert_eq!(drain.until(1), Some(1 + DRAIN_MS));
    }

    #[test]
    fn it_ends_with_its_time_and_then_pauses_unless_half_of_what_waited_has_gone() {
        let mut drain = Drain::default();
        drain.begin(0, 4);
        assert_eq!(drain.until(DRAIN_MS), None);
        let paused = DRAIN_MS + PAUSE_MS - 1;
        drain.begin(paused, 2);
        assert_eq!(drain.until(paused), None, "it is not extended either");
        drain.give();
        drain.give();
        drain.begin(paused, 1);
        assert_eq!(drain.until(paused), Some(paused + DRAIN_MS));
        let over = paused + DRAIN_MS + PAUSE_MS;
        drain.begin(over, 1);
        assert_eq!(drain.until(over), Some(over + DRAIN_MS));
    }
}
