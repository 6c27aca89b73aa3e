//! The thread that makes written groups durable, and then has their replies sent, in order.
//!
//! Nothing of a group is visible and nothing decided in it is answered before the sync that covers it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Instant,
};

use levada_protocol::error::ErrorCode;
use levada_store::Store;

use super::{
    announcement::Announcement,
    fail_stop::FailStopGuard,
    group::{DurableGroup, Group},
    notifier::Notifier,
    view::ShardView,
};
use crate::{catalogue::CatalogueEvent, metrics, topic::Topic};

/// Groups that one sync covers at most; bounds how long an early waiter waits for later groups.
const GROUPS_PER_SYNC_MAX: usize = 16;

/// What the writer sends.
#[derive(Debug)]
pub(super) enum ToSyncer {
    Group(Box<Group>),
    /// Answer once everything sent before has been dealt with.
    Barrier(mpsc::SyncSender<()>),
}

/// Makes groups durable and announces them: the syncer's work, and the writer's own for a small group on its own.
pub(super) struct Durable {
    store: Arc<dyn Store>,
    view: Arc<ShardView>,
    notifier: Notifier,
    synced: metrics::Synced,
    /// Groups that were sent to the syncer and not dealt with yet.
    under_way: AtomicUsize,
}

impl Durable {
    pub(super) fn new(store: Arc<dyn Store>, view: Arc<ShardView>, notifier: Notifier) -> Arc<Self> {
        let (synced, under_way) = (metrics::Synced::new(), AtomicUsize::new(0));
        Arc::new(Self { store, view, notifier, synced, under_way })
    }

    /// Notes that a group is about to be sent to the syncer.
    pub(super) fn sending(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    /// True if the syncer has nothing to do: the caller, who alone sends to it, may do the next group itself.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }
}

/// The syncer's thread.
pub(super) struct Syncer {
    /// First, so that it is dropped before the groups that wait.
    _fail_stop: FailStopGuard,
    durable: Arc<Durable>,
    groups: mpsc::Receiver<ToSyncer>,
}

impl Syncer {
    pub(super) fn new(
        durable: Arc<Durable>,
        groups: mpsc::Receiver<ToSyncer>,
        fail_stop: FailStopGuard,
    ) -> Self {
        Self { _fail_stop: fail_stop, durable, groups }
    }

    /// Runs until the writer is gone and everything it wrote is durable.
    pub(super) fn run(self) {
        while let Ok(first) = self.groups.recv() {
            let mut groups = Vec::new();
            let mut barrier = None;
            let mut next = Some(first);
            while let Some(message) = next.take() {
                match message {
                    ToSyncer::Group(group) => groups.push(*group),
                    ToSyncer::Barrier(reply) => barrier = Some(reply),
                }
                if barrier.is_none() && groups.len() < GROUPS_PER_SYNC_MAX {
                    next = self.groups.try_recv().ok();
                }
            }
            let dealt_with = groups.len();
            self.durable.make_durable(groups);
            self.durable.under_way.fetch_sub(dealt_with, Ordering::Release);
            if let Some(reply) = barrier {
                // The writer waits for it unless it has ended.
                let _ = reply.send(());
            }
        }
    }
}

impl Durable {
    /// Syncs once for all of these groups, then announces each in order. If the sync fails, all of them have.
    pub(super) fn make_durable(&self, groups: Vec<Group>) {
        // What was decided after a group that failed rests on state that is void, replies without a write included.
        if let Some(closed) = self.view.closed() {
            for group in groups {
                group.fail(ErrorCode::OutcomeUnknown, &closed.reason);
            }
            return;
        }
        if groups.iter().any(Group::is_written) {
            let started = Instant::now();
            if let Err(error) = self.store.sync() {
                tracing::error!(%error, "sync failed, no writes are taken");
                self.view.close(error.code(), error.to_string());
                for group in groups {
                    group.fail(ErrorCode::OutcomeUnknown, &error.to_string());
                }
                return;
            }
            let elapsed = started.elapsed();
            self.synced.add(elapsed, groups.len());
            self.view.note_sync(elapsed);
        }
        for group in groups {
            self.announce(group);
        }
    }

    /// Shows a durable group: first the events, then who waits for them, then the replies.
    fn announce(&self, group: Group) {
        let DurableGroup { announcements, replies, catalogue } = group.into_durable();
        let (mut woken, mut events): (Vec<Arc<Topic>>, Vec<CatalogueEvent>) = (Vec::new(), Vec::new());
        for announcement in announcements {
            match announcement {
                Announcement::Appended { topic, partition, piece } => {
                    let Some(topic) = self.view.topics().get(topic) else { continue };
                    topic.counters.add(u64::from(piece.events), piece.run.batches.len() as u64);
                    topic.partitions[usize::from(partition.0)].announce(piece);
                    topic.changes.note(partition);
                    if woken.last().is_none_or(|last| last.id != topic.id) {
                        woken.push(topic);
                    }
                }
                Announcement::Trimmed { topic, partition, start, dropped_bytes } => {
                    self.view.note_dropped();
                    let Some(topic) = self.view.topics().get(topic) else { continue };
                    topic.partitions[usize::from(partition.0)].trim(start, dropped_bytes);
                    topic.changes.note_drop(partition);
                    woken.push(topic);
                }
                Announcement::Rewritten { topic, partition, until } => {
                    if let Some(topic) = self.view.topics().get(topic) {
                        topic.partitions[usize::from(partition.0)].tail.forget_before(until);
                    }
                }
                Announcement::Superseded => self.view.note_dropped(),
                Announcement::Compacted { topic, partition, compacted } => {
                    if let Some(topic) = self.view.topics().get(topic) {
                        topic.partitions[usize::from(partition.0)].set_compacted(compacted);
                    }
                }
                Announcement::Dedup { topic, info } => {
                    if let Some(topic) = self.view.topics().get(topic) {
                        topic.dedup.add(&info);
                    }
                }
                Announcement::Schedule { topic, summary } => self.view.topics().set_schedule(topic, summary),
                Announcement::DueMoved { revision } => self.view.topics().due_times().set_revision(revision),
                Announcement::Undecided { key, undecided } => self.view.checks().set(key, undecided),
                Announcement::Prepared { topic, prepared } => {
                    self.view.topics().set_prepared(topic, prepared)
                }
                Announcement::Queued { subscription, end } => self.view.queues().set(subscription, end),
                Announcement::Catalogue(event) => {
                    self.announce_event(&event);
                    events.push(event);
                }
            }
        }
        if let Some(catalogue) = catalogue {
            self.view.show(catalogue, events);
        }
        self.notifier.notify(woken, replies);
    }

    /// Has the live topics follow the catalogue: a topic lives before the catalogue names it, and as long.
    fn announce_event(&self, event: &CatalogueEvent) {
        let topics = self.view.topics();
        match event {
            CatalogueEvent::TopicCreated(record) => topics.create(record),
            CatalogueEvent::TopicChanged(record) => {
                if let Some(topic) = topics.get(record.id()) {
                    topic.set_settings(record.settings.clone());
                }
                // Without its dedup window a topic has no rows of event ids any more.
                self.view.note_dropped();
            }
            CatalogueEvent::TopicDeleted(id) => {
                topics.delete(*id);
                self.view.note_dropped();
            }
            CatalogueEvent::SubscriptionDeleted(id) => self.view.queues().forget(*id),
            CatalogueEvent::SubscriptionCreated(_)
            | CatalogueEvent::SubscriptionChanged(_)
            | CatalogueEvent::SubscriptionMoved(..)
            | CatalogueEvent::RouteCreated(_)
            | CatalogueEvent::RouteDeleted(_)
            | CatalogueEvent::PluginChanged(_)
            | CatalogueEvent::PushChanged(_)
            | CatalogueEvent::IdentitiesChanged
            | CatalogueEvent::Reloaded => {}
        }
    }

    /// Sends the replies that need not wait for the sync.
    pub(super) fn answer_written(&self, group: &mut Group) {
        self.notifier.notify(Vec::new(), group.take_written());
    }
}
