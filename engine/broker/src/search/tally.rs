//! What a search has scanned, how much it still may, and when that is to be told.

use std::time::Duration;

use levada_protocol::{error::ErrorCode, progress::Scanned, request::Search};

use crate::error::Error;

/// Bytes scanned between two reports of progress.
const REPORT_BYTES: u64 = 8 << 20;
/// Time between two reports while something is scanned, however little.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The account of one search, or of one who reads through a mask.
#[derive(Debug)]
pub(crate) struct Tally {
    scanned: Scanned,
    /// `None` if it follows: then it scans what comes, without end.
    bytes_max: Option<u64>,
    /// Events that may still be delivered.
    events_left: u64,
    reported: Scanned,
    reported_at: Duration,
}

impl Tally {
    /// The account that a search asks for, of at most `limit` bytes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if it asks for more, or for any bound while it follows.
    pub(crate) fn new(search: &Search, follow: bool, limit: u64) -> Result<Self, Error> {
        let refused = |message: String| Err(Error::refused(ErrorCode::InvalidArgument, message));
        let bytes_max = match search.scan_bytes_max {
            0 => (!follow).then_some(limit),
            asked if follow => {
                return refused(format!(
                    "expected no scan_bytes_max beside follow, got {asked}: a reader that follows has no end"
                ));
            }
            asked if asked > limit => {
                return refused(format!(
                    "expected a scan_bytes_max of at most {limit} bytes, the engine's subscribe.scan_bytes_max, got \
                     {asked}; a search that ends there can be continued where it was"
                ));
            }
            asked => Some(asked),
        };
        let events_left = if search.events_max == 0 { u64::MAX } else { search.events_max };
        Ok(Self { bytes_max, events_left, ..Self::unbounded() })
    }

    /// The account of one who reads everything.
    pub(crate) fn unbounded() -> Self {
        let (scanned, reported) = (Scanned::default(), Scanned::default());
        Self { scanned, bytes_max: None, events_left: u64::MAX, reported, reported_at: Duration::ZERO }
    }

    /// What was scanned so far.
    pub(crate) fn scanned(&self) -> Scanned {
        self.scanned
    }

    /// Bytes that may still be scanned.
    pub(crate) fn left(&self) -> u64 {
        self.bytes_max.map_or(u64::MAX, |max| max.saturating_sub(self.scanned.bytes))
    }

    /// Events that may still be delivered.
    pub(crate) fn events_left(&self) -> u64 {
        self.events_left
    }

    /// These were delivered.
    pub(crate) fn delivered(&mut self, events: u64) {
        self.events_left = self.events_left.saturating_sub(events);
    }

    /// So many events were withheld.
    pub(crate) fn withheld(&mut self, events: u64) {
        self.scanned.withheld += events;
    }

    /// Adds a stretch.
    pub(crate) fn add(&mut self, more: Scanned) {
        self.scanned.bytes += more.bytes;
        self.scanned.events += more.events;
        self.scanned.matched += more.matched;
        self.scanned.undecodable += more.undecodable;
        self.scanned.withheld += more.withheld;
    }

    /// True if a report is due at this time since the reading began: much was scanned since the last one, or something and that is a
    /// while ago, or events were withheld.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.scanned.withheld > self.reported.withheld
            || self.scanned.bytes - self.reported.bytes >= REPORT_BYTES
            || (self.scanned != self.reported && now.saturating_sub(self.reported_at) >= REPORT_INTERVAL)
    }

    /// What was scanned so far is reported.
    pub(crate) fn reported(&mut self, now: Duration) {
        (self.reported, self.reported_at) = (self.scanned, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(scan_bytes_max: u64) -> Search {
        Search { scan_bytes_max, ..Search::default() }
    }

    fn bytes(bytes: u64) -> Scanned {
        Scanned { bytes, ..Scanned::default() }
    }

    #[test]
    fn a_search_may_scan_up_to_the_limit_and_a_following_one_has_no_bound() {
        let left = |asked, follow| Tally::new(&asking(asked), follow, 100).map(|tally| tally.left());
        assert_eq!(left(0, false).unwrap(), 100);
        assert_eq!(left(1, false).unwrap(), 1);
        assert_eq!(left(100, false).unwrap(), 100);
        assert_eq!(left(101, false).unwrap_err().code(), ErrorCode::InvalidArgument);
        assert_eq!(left(0, true).unwrap(), u64::MAX);
        let error = left(1, true).unwrap_err().to_string();
        assert!(error.contains("scan_bytes_max") && error.contains("follow"), "{error}");
    }

    #[test]
    fn a_search_ends_with_as_many_events_as_it_asks_for() {
        let of = |events_max| Tally::new(&Search { events_max, ..Search::default() }, true, 100).unwrap();
        let mut tally = of(3);
        tally.delivered(2);
        assert_eq!(tally.events_left(), 1);
        tally.delivered(1);
        assert_eq!((tally.events_left(), of(0).events_left()), (0, u64::MAX));
    }

    #[test]
    fn what_was_scanned_is_no_longer_left_and_reports_are_paced_by_bytes() {
        let mut tally = Tally::new(&asking(0), false, 3 * REPORT_BYTES).unwrap();
        let mut is_due = |more| {
            tally.add(bytes(more));
            let is_due = tally.is_due(Duration::ZERO);
            if is_due {
                tally.reported(Duration::ZERO);
            }
            is_due
        };
        assert_eq!([REPORT_BYTES - 1, 1, 1, 5 * REPORT_BYTES].map(&mut is_due), [false, true, false, true]);
        assert_eq!(tally.left(), 0, "the last read may go beyond");
    }

    #[test]
    fn slow_scans_report_by_time_and_what_is_withheld_is_reported_at_once() {
        let mut tally = Tally::unbounded();
        assert!(!tally.is_due(10 * REPORT_INTERVAL), "nothing was scanned");
        tally.add(bytes(1));
        assert!(tally.is_due(10 * REPORT_INTERVAL));
        tally.reported(10 * REPORT_INTERVAL);
        tally.add(bytes(1));
        assert!(!tally.is_due(11 * REPORT_INTERVAL - Duration::from_millis(1)));
        assert!(tally.is_due(11 * REPORT_INTERVAL));
        tally.reported(11 * REPORT_INTERVAL);
        tally.withheld(1);
        assert!(tally.is_due(11 * REPORT_INTERVAL));
    }
}
