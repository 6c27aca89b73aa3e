//! Which starts are refused whatever is stored: times that have not come.
//!
//! A time between the last event and now means the end. One in the future would mean the same and quietly miss what is
//! appended until then, so whoever names it is mistaken about the time, or wants `latest`.

use std::sync::Arc;

use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, Timestamp},
    request::Start,
};
use levada_store::Store;

use crate::{error::Error, log::Log, setback::AHEAD_MS_MAX, topic::Topic};

/// Checks a start of a topic's partitions. A minute is allowed for, as the other side's clock may be ahead.
///
/// # Errors
/// `OFFSET_OUT_OF_RANGE` for a time that is later than the clock's, `now`.
pub(crate) async fn check(
    store: &Arc<dyn Store>,
    topic: &Arc<Topic>,
    start: Start,
    now: Timestamp,
) -> Result<(), Error> {
    let Start::Time(time) = start else { return Ok(()) };
    if time <= now.0.saturating_add(AHEAD_MS_MAX) {
        return Ok(());
    }
    let mut newest = None;
    for number in topic.partition_ids() {
        let log = Log::new(Arc::clone(store), Arc::clone(topic), number)?;
        let last = log.partition().end().0.checked_sub(1).map(Offset);
        if let Some(last) = last {
            newest = newest.max(log.append_time(last).await);
        }
    }
    let holds = newest.map_or_else(
        || "holds no event".to_owned(),
        |newest| format!("has its newest event of {}", written(newest)),
    );
    let message = format!(
        "expected a time that has come, got {}: the engine's clock says {}, and topic {} {holds}; `latest` begins with what \
         comes from now on",
        written(Timestamp(time)),
        written(now),
        topic.name
    );
    Err(Error::refused(ErrorCode::OffsetOutOfRange, message))
}

fn written(time: Timestamp) -> String {
    levada_json::time::format(time).unwrap_or_else(|| format!("{} ms after 1970", time.0))
}
