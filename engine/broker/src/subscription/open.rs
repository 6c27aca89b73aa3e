//! Making a subscription's handle and its owner, from what the store holds of its progress.

use std::sync::Arc;

use levada_delivery::subscription::{Options, Subscription};
use levada_protocol::{
    error::ErrorCode,
    ids::{PartitionId, SubscriptionId},
};

use super::{
    attendance::Attendance,
    attending::Attending,
    chain::ChainSlot,
    command::Context,
    committer::Committer,
    consumers::Consumers,
    handle::SubscriptionHandle,
    inbox::Inbox,
    losses::Losses,
    owner::{Of, Owner},
    progress,
    publisher::Publisher,
    queue::{self, Queue},
    reads::Reads,
    status::Status,
};
use crate::{
    dead_letter_topics,
    error::Error,
    log::Log,
    rows::{self, SubscriptionRecord, UnattendedSince},
    shard::Generation,
    topic::Topic,
};

/// Makes a subscription's handle and the task that owns it; `before` is the handle of the owner that it replaces.
pub(crate) fn open(
    record: &Arc<SubscriptionRecord>,
    topic: &Arc<Topic>,
    context: &Context,
    generation: Generation,
    before: Option<&SubscriptionHandle>,
) -> Result<(SubscriptionHandle, Owner), Error> {
    let id = SubscriptionId(record.id);
    let mut progress = progress::load(context.store.as_ref(), record)?;
    let number = u16::try_from(topic.partitions.len()).expect("a topic has at most 1,024 partitions");
    let (number, end) = (PartitionId(number), context.shard.view().queues().of(id));
    progress.push(progress::load_queue(context.store.as_ref(), id, end.get() > 0)?);
    let losses = Losses::load(context.store.as_ref(), id)?;
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| {
        Error::refused(ErrorCode::Internal, format!("the system gives no random numbers: {error}"))
    })?;
    let options = Options::new(&record.options, context.bounds, u64::from_le_bytes(seed));
    let mut state = Subscription::new(&options, progress, context.clock.moment());
    state.set_queue(number);
    let log = |number| Log::new(Arc::clone(&context.store), Arc::clone(topic), number);
    let logs = topic.partition_ids().map(log).collect::<Result<Vec<_>, _>>()?;
    let target = dead_letter_topics::of_subscription(record.topic.as_str(), record.name.as_str())?;
    let (commands, signals, inbox) = Inbox::new();
    let status = Status::new(
        Arc::clone(topic),
        state.floors(),
        Arc::clone(&end),
        before.map(SubscriptionHandle::status),
    );
    // What is settled above the floor is no longer open.
    status.publish_partition(number, &state.partition(number));
    status.publish_lost(losses.shown());
    let stop = context.cancelled.child_token();
    let stored =
        rows::get::<UnattendedSince>(context.store.as_ref(), &id)?.map(|UnattendedSince(since)| since);
    // Consumers of an owner before it, or of an engine before this one, left when that ended.
    let since = before.map_or(stored, |before| before.attendance().since());
    let attendance = Arc::new(Attendance::new(since.unwrap_or_else(|| context.clock.now())));
    let attending = Attending::new(Arc::clone(&attendance), id, (context.shard.clone(), generation), stored);
    let shown = (Arc::clone(&status), attendance);
    let handle = SubscriptionHandle::new(record, commands, signals, shown, stop.clone());
    let of_queue = queue::Of { store: Arc::clone(&context.store), subscription: id };
    let (stale, costs) = handle.chain_signs();
    let of = Of {
        record: Arc::clone(record),
        newest_record: handle.newest_record(),
        topic: Arc::clone(topic),
        context: context.clone(),
        stop,
        ended: handle.ended_sign(),
    };
    let owner = Owner::new(
        of,
        state,
        Reads::new(
            logs,
            Queue::new(of_queue, number, end),
            record.options.order(),
            Arc::clone(&context.retained),
        ),
        (
            Committer::new(
                Arc::clone(record),
                Arc::clone(topic),
                target,
                (context.shard.clone(), generation),
            ),
            losses,
        ),
        ChainSlot::new(!record.options.chain().is_empty(), stale, costs),
        (inbox, Consumers::new(attending)),
        Publisher::new(status),
    );
    Ok((handle, owner))
}
