//! When a delayed publish is due, and what is said of an event whose time has come.

use levada_protocol::{
    error::{ErrorCode, Refusal},
    ids::Timestamp,
    limits::DELAY_MS_MAX,
    schedule::Due,
};

use crate::error::Error;

/// When a publish is due: now at the earliest.
pub(super) fn due_at(due: Due, now: Timestamp) -> Result<Timestamp, Refusal> {
    let at = match due {
        Due::At(time) => time.max(now),
        Due::After(delay) => Timestamp(now.0.saturating_add(delay)),
    };
    let delay = at.0 - now.0;
    if delay > DELAY_MS_MAX {
        let days = DELAY_MS_MAX / (24 * 3_600_000);
        let message = format!(
            "the event would be due in {delay} ms, the limit is {days} days ({DELAY_MS_MAX} ms): publish it later, or \
             with a shorter delay"
        );
        return Err(Refusal::new(ErrorCode::DelayTooLong, message));
    }
    Ok(at)
}

/// The answer for an event whose time has come.
pub(crate) fn already_due(id: u64) -> Error {
    let message = format!(
        "the time of scheduled event {id} has come: it is in the log, unless its id was a duplicate by then, or it was due \
         more than 7 days ago and had been cancelled"
    );
    Error::refused(ErrorCode::AlreadyDue, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_counted_by_the_engine_s_clock_up_to_365_days() {
        let now = Timestamp(1_000_000);
        assert_eq!(due_at(Due::After(5), now), Ok(Timestamp(1_000_005)));
        assert_eq!(due_at(Due::At(Timestamp(1_000_005)), now), Ok(Timestamp(1_000_005)));
        assert_eq!(due_at(Due::At(Timestamp(3)), now), Ok(now), "a time that has passed is at once");
        let last = Timestamp(now.0 + DELAY_MS_MAX);
        assert_eq!(due_at(Due::After(DELAY_MS_MAX), now), Ok(last));
        assert_eq!(due_at(Due::At(last), now), Ok(last));
        for due in [Due::After(DELAY_MS_MAX + 1), Due::At(Timestamp(last.0 + 1)), Due::After(u64::MAX)] {
            assert_eq!(due_at(due, now).unwrap_err().code, ErrorCode::DelayTooLong);
        }
    }
}
