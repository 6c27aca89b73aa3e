//! What a search has scanned, how much it still may, and when that is to be told.

use levada_protocol::{error::ErrorCode, progress::Scanned, request::Search};

use crate::error::Error;

/// Bytes scanned between two reports of progress.
const REPORT_BYTES: u64 = 8 << 20;

/// The account of one search, or of one who reads through a mask.
#[derive(Debug)]
pub(crate) struct Tally {
    scanned: Scanned,
    /// `None` if it follows: then it scans what comes, without end.
    bytes_max: Option<u64>,
    /// Events that may still be delivered.
    events_left: u64,
    reported_bytes: u64,
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
        Ok(Self { scanned: Scanned::default(), bytes_max, events_left, reported_bytes: 0 })
    }

    /// The account of one who reads everything.
    pub(crate) fn unbounded() -> Self {
        Self { scanned: Scanned::default(), bytes_max: None, events_left: u64::MAX, reported_bytes: 0 }
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

    /// Adds a stretch; true if a report is due.
    pub(crate) fn add(&mut self, more: Scanned) -> bool {
        self.scanned.bytes += more.bytes;
        self.scanned.events += more.events;
        self.scanned.matched += more.matched;
        self.scanned.undecodable += more.undecodable;
        self.scanned.withheld += more.withheld;
        let is_due = self.scanned.bytes - self.reported_bytes >= REPORT_BYTES;
        if is_due {
            self.reported_bytes = self.scanned.bytes;
        }
        is_due
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
        assert!(!tally.add(bytes(REPORT_BYTES - 1)));
        assert!(tally.add(bytes(1)));
        assert!(!tally.add(bytes(1)));
        assert!(tally.add(bytes(5 * REPORT_BYTES)));
        assert_eq!(tally.left(), 0, "the last read may go beyond");
    }
}
