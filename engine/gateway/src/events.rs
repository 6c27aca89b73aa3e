//! Events of a delivery, one by one, with where they are stored.

use levada_broker::Delivery;
use levada_cloudevents::Stored;
use levada_protocol::{
    batch::EventRef,
    deliver::{DELIVER_HEADER_BYTES, RUN_HEADER_BYTES},
    error::ErrorCode,
    ids::{TopicId, TopicName},
};

use crate::problem::Problem;

/// Calls `each` for the events in order.
pub(crate) fn for_each(
    (topic, id): (&TopicName, TopicId),
    delivery: &Delivery,
    mut each: impl FnMut(&Stored<'_>, &EventRef<'_>),
) -> Result<(), Problem> {
    for run in &delivery.runs {
        for batch in run.batches() {
            let (base, batch) = batch.map_err(|error| {
                let message = format!("stored events of topic {topic} are damaged: {error}");
                Problem::new(ErrorCode::StorageCorrupt, message)
            })?;
            for event in batch.events() {
                let stored = Stored {
                    topic: topic.as_str(),
                    topic_id: id.0,
                    partition: delivery.header.partition,
                    offset: event.offset(base),
                    appended: Some(run.append_time),
                };
                each(&stored, &event);
            }
        }
    }
    Ok(())
}

/// What a reader's credit counts for a delivery.
pub(crate) fn credit_bytes(delivery: &Delivery) -> u64 {
    let runs: usize = delivery.runs.iter().map(|run| RUN_HEADER_BYTES + run.batches.len()).sum();
    (DELIVER_HEADER_BYTES + runs) as u64
}
