//! What a topic's subscriptions and routes have yet to acknowledge, for those who ask: found out from what their owners
//! publish and from the store, without asking the writer.

use std::sync::Arc;

use levada_protocol::{
    access::Scope,
    ids::{Offset, PartitionId},
    request::{BacklogInfo, TopicInfo},
};

use levada_store::Store;
use tracing::warn;

use crate::{
    access::Viewer,
    clock::Clock,
    depth::Depth,
    error::Error,
    log::blocking,
    rows::{self, ScheduleBytes, TopicRecord},
    running::OwnerTasks,
    topic::Topic,
};

/// What answers about backlogs.
pub(super) struct BacklogRequests<'a> {
    pub(super) owners: &'a OwnerTasks,
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) clock: &'a Clock,
}

/// A subscription or a route that has something to acknowledge.
struct Behind {
    of: Scope,
    events: u64,
    /// Where it has something to acknowledge, and from where on.
    floors: Vec<(PartitionId, Offset)>,
}

impl BacklogRequests<'_> {
    /// A topic's description; with its backlog, if that is limited, and unless what is read for it is damaged.
    pub(super) async fn topic_info(
        &self,
        viewer: &Viewer,
        topic: &Arc<Topic>,
        record: &TopicRecord,
    ) -> TopicInfo {
        let mut info = topic.info(record);
        if record.settings.has_backlog_quota() {
            let backlog = self.backlog(topic, |scope| viewer.sees(scope)).await;
            let backlog =
                backlog.inspect_err(|error| warn!(topic = %topic.name, %error, "its backlog is unknown"));
            info.backlog = backlog.ok();
        }
        info
    }

    /// The backlog of a topic, with the name of the slowest if `sees` is true for it.
    pub(super) async fn backlog(
        &self,
        topic: &Arc<Topic>,
        sees: impl Fn(&Scope) -> bool,
    ) -> Result<BacklogInfo, Error> {
        let behind = self.behind(topic);
        let (refused, dropped) = (topic.backlog.refused(), topic.backlog.dropped());
        let mut info = BacklogInfo { refused, dropped, ..BacklogInfo::default() };
        let slowest = behind.iter().max_by_key(|it| it.events);
        let Some(slowest) = slowest else { return Ok(info) };
        if sees(&slowest.of) {
            info.slowest = slowest.of.to_string();
        }
        let prepared = topic.prepared();
        info.events = slowest.events + topic.scheduled() + prepared.events;
        let (store, of, now) = (Arc::clone(self.store), Arc::clone(topic), self.clock.now());
        blocking(move || {
            let waiting = rows::get::<ScheduleBytes>(store.as_ref(), &of.id)?.unwrap_or_default();
            for Behind { floors, .. } in behind {
                let mut bytes = waiting.0 + prepared.bytes;
                for (number, floor) in floors {
                    let partition = of.partition(number)?;
                    let floor = floor.max(partition.start());
                    // Nothing is there if all was dropped meanwhile.
                    let Some(depth) = Depth::find(store.as_ref(), (of.id, number), floor)? else { continue };
                    bytes += partition.bytes_behind(depth.bytes_before);
                    info.oldest_age_ms = info.oldest_age_ms.max(now.0.saturating_sub(depth.time.0));
                }
                info.bytes = info.bytes.max(bytes);
            }
            Ok(info)
        })
        .await
    }

    /// All that read a topic durably.
    fn behind(&self, topic: &Arc<Topic>) -> Vec<Behind> {
        let now = self.clock.moment();
        let subscriptions = self.owners.subscriptions().into_iter().filter(|it| it.topic_id() == topic.id);
        let of_subscriptions = subscriptions.map(|handle| {
            let described = handle.describe(now);
            let of = Scope::Subscription(described.info.topic.clone(), described.info.name.clone());
            Behind { of, events: described.info.lag, floors: described.oldest }
        });
        let routes = self.owners.routes().into_iter().filter(|it| it.topic_id() == topic.id);
        let of_routes = routes.map(|handle| {
            let floor = |number: PartitionId| (number, handle.floors().floor(usize::from(number.0)));
            let is_behind = |(number, floor): &(PartitionId, Offset)| {
                topic.partition(*number).is_ok_and(|partition| *floor < partition.end())
            };
            let floors = topic.partition_ids().map(floor).filter(is_behind).collect();
            let info = handle.info();
            Behind { of: Scope::Route(info.spec.name.clone()), events: info.lag, floors }
        });
        of_subscriptions.chain(of_routes).collect()
    }
}
