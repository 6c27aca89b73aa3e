//! Which starts are refused whatever is stored: times that have not come.
//!
//! A time between the last event and now means the end. One in the future would mean the same and quietly miss what is
//! appended until then, so whoever names it is mistaken about the time, or wants `latest`.

use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, Timestamp},
    request::Start,
};

use crate::{
    error::Error,
    setback::AHEAD_MS_MAX,
    topic::{Partition, Topic},
};

/// Checks a start of a topic's partitions; reads nothing. A minute is allowed for, as the other side's clock may be ahead.
///
/// # Errors
/// `OFFSET_OUT_OF_RANGE` for a time that is later than the clock's, `now`.
pub(crate) fn check(topic: &Topic, start: Start, now: Timestamp) -> Result<(), Error> {
    let Start::Time(time) = start else { return Ok(()) };
    if time <= now.0.saturating_add(AHEAD_MS_MAX) {
        return Ok(());
    }
    let newest = topic.partitions.iter().filter_map(newest_in_memory).max();
    // A clock that was ahead has appended events of times that have not come.
    if newest.is_some_and(|newest| newest.0 >= time) {
        return Ok(());
    }
    let holds = match newest {
        Some(newest) => format!(", the newest event of topic {} is of {}", topic.name, written(newest)),
        None if topic.partitions.iter().all(|it| it.end() == Offset(0)) => {
            format!(", topic {} holds no event", topic.name)
        }
        None => String::new(),
    };
    let message = format!(
        "expected a time that is not in the future, got {}: the engine's clock says {}{holds}; `latest` begins with what comes \
         from now on",
        written(Timestamp(time)),
        written(now),
    );
    Err(Error::refused(ErrorCode::OffsetOutOfRange, message))
}

/// When the newest event of a partition was appended, if that is known without a read.
fn newest_in_memory(partition: &Partition) -> Option<Timestamp> {
    let last = Offset(partition.end().0.checked_sub(1)?);
    let pieces = partition.tail.read(last, 1)?;
    pieces.last().map(|piece| piece.run.append_time)
}

fn written(time: Timestamp) -> String {
    levada_json::time::format(time).unwrap_or_else(|| format!("{} ms after 1970", time.0))
}
