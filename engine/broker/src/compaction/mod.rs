//! Compaction: rounds over the partitions of topics that keep the last event of each key.
//!
//! A pass over a partition first collects the keys of what was never compacted, then rewrites all records before a bound
//! without the events that later ones have superseded, as commits that hold only if the topic is still compacted, the log
//! begins where it did and everybody who reads it has come to the bound (engine/adr/0017-compaction.md). Which events stay is
//! `levada_delivery::compaction`.

mod pass;
mod plan;
mod record;

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId, Timestamp, TopicId},
    request::Retain,
};
use levada_store::Store;
use tokio::sync::{Mutex, MutexGuard};

use self::{
    pass::{Pass, Shortened},
    plan::{Plan, plan},
};
use crate::{
    clock::Clock,
    config::CompactionConfig,
    error::Error,
    guard::Guard,
    log::blocking,
    running::OwnerTasks,
    shard::{ProposalRefused, Rewritten, ShardHandle, StateChange},
    topic::Topic,
};

/// Bytes that a commit has beside its records, at most.
const COMMIT_BYTES: usize = 1 << 10;

/// Compacts logs.
pub(crate) struct Compactor {
    store: Arc<dyn Store>,
    shard: ShardHandle,
    owner_tasks: Arc<OwnerTasks>,
    guard: Arc<Guard>,
    clock: Clock,
    config: CompactionConfig,
    /// Held while readers come, move or go, so that the owner tasks are those of the catalogue.
    changing: Arc<Mutex<()>>,
    /// Partitions that are left alone, and until when. Held during a round: one pass at a time, as each holds the keys of a
    /// stretch.
    resting: Mutex<HashMap<(TopicId, PartitionId), Timestamp>>,
    /// Held while records become part of others, and by who looks for one to cut a log at.
    merging: Mutex<()>,
}

/// How a pass has ended.
enum Ended {
    /// Nothing was to be done, or all of it was, or the next round decides anew.
    Ordinary,
    /// It held too few keys to be worth what it read.
    TooFewKeys,
}

/// How a pass has ended, or that it was refused.
type Passed = Result<Result<Ended, Error>, ProposalRefused>;

impl Compactor {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        shard: ShardHandle,
        owner_tasks: Arc<OwnerTasks>,
        guard: Arc<Guard>,
        changing: Arc<Mutex<()>>,
        (clock, config): (Clock, CompactionConfig),
    ) -> Self {
        let (resting, merging) = (Mutex::default(), Mutex::default());
        Self { store, shard, owner_tasks, guard, clock, config, changing, resting, merging }
    }

    /// No record becomes part of another while this is held: a log can be cut where one begins.
    pub(crate) async fn hold_merges(&self) -> MutexGuard<'_, ()> {
        self.merging.lock().await
    }

    /// Runs a round each `interval`. Never ends; may be dropped at any await.
    pub(crate) async fn run(&self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            // What went wrong is in the log of the engine.
            let _ = self.round(self.clock.now()).await;
        }
    }

    /// One round as if it were `now`: every partition that it is worth for, one after the other.
    ///
    /// # Errors
    /// The first error of a partition; it keeps no other from its pass.
    pub(crate) async fn round(&self, now: Timestamp) -> Result<(), Error> {
        let mut resting = self.resting.lock().await;
        let longest = u64::try_from(self.config.rest.as_millis()).unwrap_or(u64::MAX);
        // What is further away was noted before the clock was set back.
        resting.retain(|_, end| now < *end && end.0 - now.0 <= longest);
        let catalogue = self.shard.catalogue();
        let mut done = Ok(());
        for record in catalogue.topics.values().filter(|record| record.settings.retain == Retain::Compact) {
            let Some(topic) = self.shard.view().topics().get(record.id()) else { continue };
            for number in topic.partition_ids() {
                let place = (topic.id, number);
                if resting.contains_key(&place) {
                    continue;
                }
                if self.is_short_of_room() {
                    return done;
                }
                let began = self.clock.now();
                let ended = self.compact(&topic, number, now).await;
                let at = self.clock.now();
                let rest = match &ended {
                    Err(error) if error.code() == ErrorCode::StorageCorrupt => longest,
                    // So that not all of the time goes into such passes, and the log does not grow without end.
                    Ok(Ended::TooFewKeys) => at.0.saturating_sub(began.0).min(longest),
                    _ => 0,
                };
                if rest > 0 {
                    resting.insert(place, Timestamp(now.max(at).0.saturating_add(rest)));
                }
                if let Err(error) = ended {
                    tracing::warn!(topic = %topic.name, partition = %number, %error, "a log was not compacted");
                    done = done.and(Err(error));
                }
            }
        }
        done
    }

    /// True if a pass must not begin nor go on: until its space is given back it takes more room than it saves.
    fn is_short_of_room(&self) -> bool {
        self.guard.measure_is_low() || self.guard.refusal().is_some()
    }

    /// Compacts a partition, if that is worth it.
    async fn compact(&self, topic: &Arc<Topic>, number: PartitionId, now: Timestamp) -> Result<Ended, Error> {
        // It may have been set otherwise while other passes ran.
        if !topic.is_compacted() {
            return Ok(Ended::Ordinary);
        }
        let (floors, readers) = self.owner_tasks.floors_of(topic.id);
        let floors: Vec<Offset> = floors.iter().map(|it| it.floor(usize::from(number.0))).collect();
        let (store, of, config) = (Arc::clone(&self.store), Arc::clone(topic), self.config);
        let planned = blocking(move || plan(store.as_ref(), (of, number), (&floors, readers), now, &config));
        let Some(plan) = planned.await? else { return Ok(Ended::Ordinary) };
        match self.pass(plan, now).await {
            Ok(ended) => ended,
            // The next round decides anew.
            Err(ProposalRefused::Gone | ProposalRefused::Shifted | ProposalRefused::OtherReaders) => {
                Ok(Ended::Ordinary)
            }
            // Its rows went with it.
            Err(_) if topic.is_deleting() => Ok(Ended::Ordinary),
            Err(refused) => Err(refused.error()),
        }
    }

    /// Carries a pass out. What it has rewritten when it ends early is right as it is, and its space is given back.
    async fn pass(&self, plan: Plan, now: Timestamp) -> Passed {
        let mut space = Space { from: plan.start, to: plan.start, bytes: 0 };
        let (topic, number) = (Arc::clone(&plan.topic), plan.number);
        let passed = self.steps(plan, now, &mut space).await;
        let noted = self.give_back(&topic, number, &mut space).await;
        let passed = passed?;
        noted.map(|()| passed)
    }

    async fn steps(&self, plan: Plan, now: Timestamp, space: &mut Space) -> Passed {
        let (topic, partition) = (Arc::clone(&plan.topic), plan.number);
        let mut pass = Pass::new(plan, self.config);
        loop {
            if self.is_short_of_room() {
                return Ok(Ok(Ended::Ordinary));
            }
            let store = Arc::clone(&self.store);
            let stepped = blocking(move || {
                let step = pass.step(store.as_ref());
                Ok((pass, step))
            });
            let (after, step) = stepped.await.map_err(ProposalRefused::Failed)?;
            pass = after;
            let step = match step {
                Ok(step) => step,
                Err(error) => return Ok(Err(error)),
            };
            let is_last = step.is_last;
            for records in step.into_commits(self.config.step_bytes.saturating_sub(COMMIT_BYTES)) {
                self.rewrite(&mut pass.plan, &records, space).await?;
            }
            if is_last {
                break;
            }
            if space.bytes >= self.config.reclaim_bytes {
                self.give_back(&topic, partition, space).await?;
            }
        }
        let compacted = pass.compacted(now.max(self.clock.now()));
        tracing::debug!(topic = %topic.name, %partition, until = %compacted.until, "a log is compacted");
        let is_worth = pass.is_worth();
        // A pass before it that ended early may not have come to its own note.
        let noted = if pass.plan.before.saved_bytes > 0 {
            Some(pass.plan.start..compacted.until)
        } else {
            space.noted()
        };
        let changes = || {
            let done = StateChange::Compacted { topic: topic.id, partition, compacted };
            let note = noted.clone();
            let note = note.map(|offsets| StateChange::Superseded { topic: topic.id, partition, offsets });
            std::iter::once(done).chain(note).collect()
        };
        self.commit(&mut pass.plan, changes).await?;
        space.bytes = 0;
        Ok(match pass.into_shortened() {
            Some(Shortened::Damage(error)) => Err(error),
            Some(Shortened::Keys) if !is_worth => Ok(Ended::TooFewKeys),
            Some(Shortened::Keys) | None => Ok(Ended::Ordinary),
        })
    }

    /// Commits what a step has rewritten.
    async fn rewrite(
        &self,
        plan: &mut Plan,
        records: &[Rewritten],
        space: &mut Space,
    ) -> Result<(), ProposalRefused> {
        let (topic, partition, appended_bytes) = (plan.topic.id, plan.number, plan.appended_bytes);
        self.commit(plan, || {
            let records = records.to_vec();
            vec![StateChange::Rewrite { topic, partition, records, appended_bytes }]
        })
        .await?;
        let saved_bytes = records.iter().map(|record| record.saved_bytes).sum::<u64>();
        plan.topic.counters.add_superseded(saved_bytes);
        space.bytes += saved_bytes + records.iter().map(|record| record.encoded_len() as u64).sum::<u64>();
        space.to = records.last().map_or(space.to, |last| last.base.plus(u64::from(last.span)));
        Ok(())
    }

    /// Commits a part of a pass if the log begins where it did, the topic is still to be compacted, and everybody who reads
    /// it now has come to where the pass ends.
    async fn commit(
        &self,
        plan: &mut Plan,
        changes: impl Fn() -> Vec<StateChange>,
    ) -> Result<(), ProposalRefused> {
        loop {
            let committed = {
                let _merging = self.merging.lock().await;
                self.shard.commit(vec![plan.holds()], changes(), Vec::new()).await
            };
            match committed {
                Err(ProposalRefused::OtherReaders) if self.follow_readers(plan).await => {}
                committed => return committed,
            }
        }
    }

    /// Looks at who reads the topic now; false if somebody needs what the pass would take, or that is not known.
    async fn follow_readers(&self, plan: &mut Plan) -> bool {
        let _changing = self.changing.lock().await;
        let (floors, readers) = self.owner_tasks.floors_of(plan.topic.id);
        plan.readers = readers;
        // As everybody is known who is decided; else it would be refused again.
        let is_known = self.shard.catalogue().readers.of(plan.topic.id) == readers;
        is_known && floors.iter().all(|it| it.floor(usize::from(plan.number.0)) >= plan.bound)
    }

    /// Notes that the space of what was replaced so far is to be given back.
    async fn give_back(
        &self,
        topic: &Topic,
        partition: PartitionId,
        space: &mut Space,
    ) -> Result<(), ProposalRefused> {
        let Some(offsets) = space.noted() else { return Ok(()) };
        *space = Space { from: offsets.end, to: offsets.end, bytes: 0 };
        let note = StateChange::Superseded { topic: topic.id, partition, offsets };
        self.shard.commit(Vec::new(), vec![note], Vec::new()).await
    }
}

/// Where a pass has replaced records, whose space is to be given back, and how many bytes of them.
struct Space {
    from: Offset,
    to: Offset,
    bytes: u64,
}

impl Space {
    /// What is to be noted; `None` if that is nothing.
    fn noted(&self) -> Option<Range<Offset>> {
        (self.bytes > 0).then_some(self.from..self.to)
    }
}
