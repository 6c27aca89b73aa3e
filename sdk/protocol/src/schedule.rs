//! Delayed events: when a publish is due, and how what waits is listed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;

/// When a publish is appended, if not at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Due {
    /// At this time, by the engine's clock; at once if it has passed.
    At(Timestamp),
    /// So many milliseconds after the engine accepts it: the caller's clock does not matter.
    After(u64),
}

/// What the event waits with in a publish header: the byte that says how to read the number, and the number.
const AT: u8 = 0;
const AFTER: u8 = 1;

impl Due {
    /// The two fields of a publish header; zeros say that there is no delay. Time 0 and a delay of 0 are written as 1.
    pub(crate) fn fields(due: Option<Self>) -> (u8, u64) {
        match due {
            None => (AT, 0),
            Some(Self::At(time)) => (AT, time.0.max(1)),
            Some(Self::After(delay)) => (AFTER, delay.max(1)),
        }
    }

    /// Reads the two fields; the first has a meaning only if the second is not 0.
    pub(crate) fn from_fields(kind: u8, value: u64) -> Result<Option<Self>, String> {
        match (kind, value) {
            (_, 0) => Ok(None),
            (AT, time) => Ok(Some(Self::At(Timestamp(time)))),
            (AFTER, delay) => Ok(Some(Self::After(delay))),
            (other, _) => {
                Err(format!("due is {other}, expected 0 (deliver_at is a time) or 1 (it is a delay)"))
            }
        }
    }
}

/// After a delay, of a whole number of milliseconds: a part of one counts as one.
impl From<Duration> for Due {
    fn from(delay: Duration) -> Self {
        let milliseconds = delay.as_nanos().div_ceil(1_000_000);
        Self::After(u64::try_from(milliseconds).unwrap_or(u64::MAX))
    }
}

impl From<Timestamp> for Due {
    fn from(time: Timestamp) -> Self {
        Self::At(time)
    }
}

/// An event that waits for its time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduledInfo {
    /// Its id within the topic, never given again there, also if the topic is deleted and made anew.
    pub id: u64,
    /// The partition that it will be appended to.
    pub partition: u16,
    /// When it is due, in milliseconds since the Unix epoch.
    pub deliver_at_ms: u64,
    /// Its key, bytes that are no UTF-8 replaced.
    pub key: Option<String>,
    /// The event id that its publisher gave it.
    pub event_id: Option<String>,
    /// Bytes of its payload.
    pub payload_bytes: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_fields_of_a_header_say_when_it_is_due(value in 1..=u64::MAX, kind in 2..=u8::MAX) {
            for due in [Due::At(Timestamp(value)), Due::After(value)] {
                let (kind, value) = Due::fields(Some(due));
                prop_assert_eq!(Due::from_fields(kind, value), Ok(Some(due)));
            }
            prop_assert!(Due::from_fields(kind, value).is_err());
            prop_assert_eq!(Due::from_fields(kind, 0), Ok(None));
        }
    }

    #[test]
    fn a_delay_of_nothing_still_is_one() {
        assert_eq!(Due::fields(None), (AT, 0));
        assert_eq!(Due::fields(Some(Due::At(Timestamp(0)))), (AT, 1));
        assert_eq!(Due::fields(Some(Duration::ZERO.into())), (AFTER, 1));
        assert_eq!(Due::from(Duration::from_micros(1_001)), Due::After(2));
        assert_eq!(Due::from(Duration::MAX), Due::After(u64::MAX));
    }
}
