//! Masks: what those who may read a topic through plugins alone see of its events.
//!
//! Nothing here knows readers, searches or frames. Events keep their offsets; one that a plugin drops is not there for the reader,
//! and one on which a plugin fails is withheld, so that a faulty plugin never shows what it should hide.
//!
//! All who read a topic through the same versions of the same plugins share one attachment: its instances, its breaker and its turns. So
//! what masks cost depends on how many different ones there are, and not on how many readers come.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use levada_chain::{Chain, Input, Source};
use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId, TopicName},
    limits::CHAIN_STAGES_MAX,
    request::StageSpec,
};
use levada_stage::{AttachmentPoint, StageStats};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use crate::{
    catalogue::Catalogue,
    chains::{Attached, Chains},
    error::Error,
    frames::LogSlice,
    shard::ShardHandle,
    tasks::Tasks,
};

/// Stretches that may pass one mask at a time, over all its readers; others wait in turn.
const TURNS: usize = 4;
/// How many masks are kept that nobody reads through, and for how long.
const IDLE_COUNT_MAX: usize = 16;
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a reader waits at most before it looks again whether plugins are left alone: another version may be active then.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// All masks that are in use.
pub(crate) struct Masks {
    shard: ShardHandle,
    chains: Chains,
    tasks: Tasks,
    attached: Mutex<HashMap<Key, Entry>>,
    spent: Arc<Spent>,
    withheld: AtomicU64,
}

/// A mask that is attached, or is being attached.
struct Entry {
    mask: Arc<Mask>,
    /// When somebody last began to read through it.
    used: Instant,
}

/// What masks have cost that nobody reads through any more, by the ids of the plugins' versions.
#[derive(Default)]
struct Spent(Mutex<BTreeMap<u64, StageStats>>);

/// What tells masks apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    topic: TopicName,
    /// The ids of the plugins' versions with their configurations, in order: a name without a version means another one once that is
    /// deployed.
    stages: Vec<(u64, String)>,
}

/// Plugins in order on the events of one topic, as all their readers use them.
struct Mask {
    attached: OnceCell<Attached>,
    turns: Arc<Semaphore>,
    spent: Arc<Spent>,
}

/// The mask of one reader.
pub(crate) struct Masking {
    masks: Arc<Masks>,
    topic: TopicName,
    stages: Vec<StageSpec>,
    key: Key,
    mask: Arc<Mask>,
}

/// What is shown of a stretch.
pub(crate) enum Masked {
    /// What is shown of its beginning.
    Shown {
        slices: Vec<LogSlice>,
        /// The first offset that did not pass the mask yet.
        reached: Offset,
        /// Events on which a plugin failed, in order.
        withheld: Vec<Offset>,
    },
    /// Nothing can pass now: the plugins have wasted so much time that they are left alone for so long.
    Paused(Duration),
}

impl Masks {
    pub(crate) fn new(shard: ShardHandle, chains: Chains, tasks: Tasks) -> Arc<Self> {
        let (attached, spent, withheld) = (Mutex::default(), Arc::default(), AtomicU64::new(0));
        Arc::new(Self { shard, chains, tasks, attached, spent, withheld })
    }

    /// What all masks have cost so far, by the ids of the plugins' versions.
    pub(crate) fn costs(&self) -> BTreeMap<u64, StageStats> {
        let attached: Vec<Arc<Mask>> = self.lock().values().map(|entry| Arc::clone(&entry.mask)).collect();
        let mut sums = self.spent.lock().clone();
        attached.iter().for_each(|mask| mask.add_to(&mut sums));
        sums
    }

    /// How many events were withheld from readers since the engine began.
    pub(crate) fn withheld(&self) -> u64 {
        self.withheld.load(Ordering::Relaxed)
    }

    /// The mask of one who reads a topic through these plugins, attached.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for more plugins than a chain may have; `PLUGIN_NOT_FOUND` or another refusal of a plugin.
    pub(crate) async fn of(
        self: &Arc<Self>,
        topic: &TopicName,
        stages: Vec<StageSpec>,
    ) -> Result<Masking, Error> {
        if stages.len() > CHAIN_STAGES_MAX {
            let message = format!(
                "topic {topic} is read through {} plugins, by all permissions with `via` that match it; expected at most \
                 {CHAIN_STAGES_MAX}: ask an administrator for fewer lines",
                stages.len()
            );
            return Err(Error::refused(ErrorCode::PermissionDenied, message));
        }
        let catalogue = self.shard.catalogue();
        let key = Key::new(&catalogue, topic, &stages)?;
        let mask = self.attach(&key, &stages, catalogue).await?;
        Ok(Masking { masks: Arc::clone(self), topic: topic.clone(), stages, key, mask })
    }

    /// The mask that is attached already, or a new one. The plugins are attached where the broker's tasks run, whoever calls this.
    async fn attach(
        &self,
        key: &Key,
        stages: &[StageSpec],
        catalogue: Arc<Catalogue>,
    ) -> Result<Arc<Mask>, Error> {
        let mask = self.entry(key);
        if mask.attached.initialized() {
            return Ok(mask);
        }
        let (chains, topic, stages) = (self.chains.clone(), key.topic.clone(), stages.to_vec());
        let attaching = async move {
            let attach = async || {
                let (topic, point) = (topic.as_str(), AttachmentPoint::Read);
                chains.attach(&catalogue, &stages, topic, point, chains.trial()).await
            };
            mask.attached.get_or_try_init(attach).await?;
            Ok(mask)
        };
        self.tasks.run(tracing::debug_span!("mask", topic = %key.topic), attaching).await
    }

    fn entry(&self, key: &Key) -> Arc<Mask> {
        let (mut attached, used) = (self.lock(), Instant::now());
        if let Some(entry) = attached.get_mut(key) {
            entry.used = used;
            return Arc::clone(&entry.mask);
        }
        let (turns, spent) = (Arc::new(Semaphore::new(TURNS)), Arc::clone(&self.spent));
        let mask = Arc::new(Mask { attached: OnceCell::new(), turns, spent });
        attached.insert(key.clone(), Entry { mask: Arc::clone(&mask), used });
        let gone = forget_idle(&mut attached, used);
        drop(attached);
        // What they have cost is added up under another lock.
        drop(gone);
        mask
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes out what nobody reads through and has not begun to for a while, and more of the oldest if these are many. One who reads now and
/// then does not attach plugins each time.
fn forget_idle(attached: &mut HashMap<Key, Entry>, now: Instant) -> Vec<Entry> {
    let mut idle: Vec<(Instant, Key)> = attached
        .iter()
        .filter(|(_, entry)| Arc::strong_count(&entry.mask) == 1)
        .map(|(key, entry)| (entry.used, key.clone()))
        .collect();
    idle.sort_unstable_by_key(|(used, _)| Reverse(*used));
    let is_old = |used: Instant| now.saturating_duration_since(used) >= IDLE_MAX;
    let gone =
        idle.into_iter().enumerate().filter(|(newer, (used, _))| *newer >= IDLE_COUNT_MAX || is_old(*used));
    gone.filter_map(|(_, (_, key))| attached.remove(&key)).collect()
}

impl Spent {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, StageStats>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mask {
    fn chain(&self) -> &Chain {
        &self.attached.get().expect("a mask is handed out once it is attached").chain
    }

    fn add_to(&self, sums: &mut BTreeMap<u64, StageStats>) {
        for (plugin, stage) in self.attached.get().into_iter().flat_map(Attached::stages) {
            sums.entry(plugin).or_default().add(&stage.stats());
        }
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        self.add_to(&mut self.spent.lock());
    }
}

impl Key {
    /// # Errors
    /// `PLUGIN_NOT_FOUND`.
    fn new(catalogue: &Catalogue, topic: &TopicName, stages: &[StageSpec]) -> Result<Self, Error> {
        let stage =
            |stage: &StageSpec| Ok((catalogue.plugins.resolve(&stage.plugin)?.id, stage.config.clone()));
        let stages = stages.iter().map(stage).collect::<Result<_, Error>>()?;
        Ok(Self { topic: topic.clone(), stages })
    }
}

impl Masking {
    /// A turn, if there is one now.
    pub(crate) fn try_turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.mask.turns).try_acquire_owned().ok()
    }

    /// A turn, for as long as it is held. Cancel safe.
    pub(crate) async fn turn(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.mask.turns).acquire_owned().await.expect("the turns are never closed")
    }

    /// For how long the plugins are left alone, if they are: at most [`PAUSE_MAX`].
    ///
    /// # Errors
    /// `PLUGIN_NOT_FOUND` or another refusal of a plugin, of which another version is active now.
    pub(crate) async fn paused(&mut self) -> Result<Option<Duration>, Error> {
        self.follow_versions().await?;
        Ok(self.mask.chain().paused().map(|wait| wait.min(PAUSE_MAX)))
    }

    /// So many events were withheld from its reader.
    pub(crate) fn withheld(&self, events: u64) {
        self.masks.withheld.fetch_add(events, Ordering::Relaxed);
    }

    /// Passes the events of `range` in these pieces through the mask. Not all may have passed: see [`Masked::Shown`].
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// `PLUGIN_NOT_FOUND` or another refusal of a plugin, of which another version is active now.
    pub(crate) async fn apply(
        &mut self,
        partition: PartitionId,
        range: Range<Offset>,
        pieces: Vec<LogSlice>,
    ) -> Result<Masked, Error> {
        self.follow_versions().await?;
        let end = pieces.last().map_or(range.start, LogSlice::end).min(range.end);
        let sources = pieces.into_iter().map(Source::of).collect::<Result<Vec<_>, _>>()?;
        let input = Input { partition, offsets: range.start..end, sources: &sources };
        let filtered = self.mask.chain().filter(input).await;
        let progress = filtered.progress;
        if let Some(paused) = progress.paused {
            if progress.reached <= range.start {
                return Ok(Masked::Paused(paused.retry_after.unwrap_or(PAUSE_MAX).min(PAUSE_MAX)));
            }
            // Once for each pause. What a plugin says may quote what it is to hide, and is for the log alone.
            tracing::warn!(topic = %self.topic, why = paused.why, "a mask is left alone for a while");
        }
        let mut withheld: Vec<Offset> = progress.dead_letters.iter().map(|letter| letter.offset).collect();
        withheld.sort_unstable();
        if let Some(last) = progress.dead_letters.last() {
            let (topic, plugin, why) = (&self.topic, &last.plugin, &last.error);
            tracing::debug!(%topic, ?plugin, why, "events are withheld from one who reads");
        }
        Ok(Masked::Shown { slices: filtered.passed, reached: progress.reached, withheld })
    }

    /// A plugin that is named without a version is the one that is active now.
    async fn follow_versions(&mut self) -> Result<(), Error> {
        let catalogue = self.masks.shard.catalogue();
        let key = Key::new(&catalogue, &self.topic, &self.stages)?;
        if key != self.key {
            self.mask = self.masks.attach(&key, &self.stages, catalogue).await?;
            self.key = key;
        }
        Ok(())
    }
}
