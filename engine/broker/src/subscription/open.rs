//! Making a subscription's handle and its owner, from what the store holds of its progress.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
};

use levada_delivery::subscription::{Options, Subscription};
use levada_protocol::error::ErrorCode;
use tokio::sync::mpsc;

use super::{
    ASKED_QUEUED_MAX, COMMANDS_QUEUED_MAX, Context, SubscriptionHandle, consumers::Consumers, lost::Untold,
    owner::OwnerTask, progress, ready::Ready,
};
use crate::{
    dead_letters, error::Error, floors::Floors, log::Log, metrics::Delivered, rows::SubscriptionRecord,
    shard::Generation, topic::Topic,
};

/// Makes a subscription's handle and the task that owns it.
pub(crate) fn open(
    record: &Arc<SubscriptionRecord>,
    topic: &Arc<Topic>,
    context: &Context,
    generation: Generation,
) -> Result<(SubscriptionHandle, OwnerTask), Error> {
    let progress = progress::load(context.store.as_ref(), record)?;
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| {
        Error::refused(ErrorCode::Internal, format!("the system gives no random numbers: {error}"))
    })?;
    let seed = u64::from_le_bytes(seed);
    let rules = Subscription::new(Options::new(&record.options, seed), progress, context.clock.moment());
    let log = |number| Log::new(Arc::clone(&context.store), Arc::clone(topic), number);
    let logs = topic.partition_ids().map(log).collect::<Result<Vec<_>, _>>()?;
    let floors = Floors::new(rules.floors());
    let (commands, received) = mpsc::channel(COMMANDS_QUEUED_MAX);
    let (asking, asked) = mpsc::channel(ASKED_QUEUED_MAX);
    let stop = context.cancelled.child_token();
    let handle = SubscriptionHandle {
        record: Arc::clone(record),
        commands,
        asking,
        floors: Arc::clone(&floors),
        costs: Arc::default(),
        stop: stop.clone(),
        outdated: Arc::default(),
        consumers: Arc::new(AtomicU64::new(1)),
        left: Arc::default(),
        attached: Arc::default(),
        delivered: Delivered::default(),
        ended: Arc::default(),
    };
    let task = OwnerTask {
        dead_letters: dead_letters::of_subscription(record.topic.as_str(), record.name.as_str())?,
        delivered: handle.delivered.clone(),
        ready: logs.iter().map(|_| Ready::default()).collect(),
        ready_bytes: 0,
        record: Arc::clone(record),
        generation,
        ended: Arc::clone(&handle.ended),
        topic: Arc::clone(topic),
        context: context.clone(),
        stop,
        outdated: Arc::clone(&handle.outdated),
        left: Arc::clone(&handle.left),
        rules,
        logs,
        consumers: Consumers::new(),
        untold: Untold::default(),
        commands: received,
        asked,
        letters: BTreeMap::new(),
        chain: None,
        paused: None,
        more: false,
        commit: None,
        commit_after: None,
        commit_failing: false,
        seen: None,
        floors,
        costs: Arc::clone(&handle.costs),
        seed,
    };
    Ok((handle, task))
}
