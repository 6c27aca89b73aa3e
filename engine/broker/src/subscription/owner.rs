//! The owner of one subscription: reads ahead, runs the chain, sends what the rules say to whom, commits progress.
//!
//! The rules are `levada_delivery`'s; this is the shell around them. Nobody else touches the subscription's state.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_delivery::subscription::{ConsumerId, LostRange, Options, Sent, Subscription, Wanted, WantedKind};
use levada_protocol::{
    deliver::DeliverHeader,
    error::ErrorCode,
    ids::{Offset, PartitionId, SubscriptionId, Timestamp, TopicName},
    request::{Position, Subscribed, SubscriptionInfo},
    verbs::{RefusedVerb, Verbs},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Attached as AttachedReply, COMMANDS_QUEUED_MAX, Command, Context, Described, FRAMES_QUEUED_MAX, Left,
    SubscriptionHandle,
    consumers::{Attached, Consumers},
    progress,
    ready::Ready,
};
use crate::{
    catalogue::SubscriptionRecord,
    chains, clock,
    error::Error,
    frames::{deliver_frame, payload_len},
    log::{Found, Log},
    metrics,
    places::Floors,
    shard::FragmentRefused,
    stage::{DeadLetter, Figures, Input, Place, Source},
    topic::Topic,
};

/// Bytes that one look at the log brings.
const READ_BYTES: usize = 512 * 1024;
/// Deliveries after which commands have their turn.
const DELIVERIES_PER_TURN: usize = 32;
/// Commands that are taken before deliveries have their turn.
const COMMANDS_PER_TURN: usize = 256;
/// How long the owner waits after a read or a commit failed.
const RETRY: Duration = Duration::from_millis(500);
/// How long it waits after the chain could not be attached, which may have cost a compilation.
const RETRY_CHAIN: Duration = Duration::from_secs(5);

/// Makes a subscription's handle and the task that owns it.
pub(crate) fn open(
    record: &Arc<SubscriptionRecord>,
    topic: &Arc<Topic>,
    context: &Context,
) -> Result<(SubscriptionHandle, OwnerTask), Error> {
    let progress = progress::load(context.store.as_ref(), record)?;
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| {
        Error::refused(ErrorCode::Internal, format!("the system gives no random numbers: {error}"))
    })?;
    let seed = u64::from_le_bytes(seed);
    let rules = Subscription::new(Options::new(&record.options, seed), progress);
    let log = |number| Log::new(Arc::clone(&context.store), Arc::clone(topic), number);
    let logs = topic.partition_ids().map(log).collect::<Result<Vec<_>, _>>()?;
    let floors = Floors::new(rules.floors());
    let figures = Arc::new(Mutex::new(Vec::new()));
    let (commands, received) = mpsc::channel(COMMANDS_QUEUED_MAX);
    let stop = context.cancelled.child_token();
    let handle = SubscriptionHandle {
        record: Arc::clone(record),
        commands,
        floors: Arc::clone(&floors),
        figures: Arc::clone(&figures),
        stop: stop.clone(),
        outdated: Arc::default(),
        consumers: Arc::new(AtomicU64::new(1)),
        left: Arc::default(),
    };
    let task = OwnerTask {
        dead_letters: TopicName::internal(&format!("dlq.{}.{}", record.topic, record.name)),
        delivered: metrics::delivered(&format!("{}/{}", record.topic, record.name)),
        ready: logs.iter().map(|_| Ready::default()).collect(),
        record: Arc::clone(record),
        topic: Arc::clone(topic),
        context: context.clone(),
        stop,
        outdated: Arc::clone(&handle.outdated),
        left: Arc::clone(&handle.left),
        rules,
        logs,
        consumers: Consumers::new(),
        commands: received,
        letters: BTreeMap::new(),
        chain: None,
        paused: None,
        more: false,
        commit: None,
        commit_after: None,
        floors,
        figures,
        seed,
    };
    Ok((handle, task))
}

/// The owner's state.
pub(crate) struct OwnerTask {
    pub(super) record: Arc<SubscriptionRecord>,
    pub(super) topic: Arc<Topic>,
    pub(super) context: Context,
    stop: CancellationToken,
    outdated: Arc<AtomicBool>,
    left: Arc<Left>,
    pub(super) rules: Subscription,
    pub(super) logs: Vec<Log>,
    consumers: Consumers,
    commands: mpsc::Receiver<Command>,
    ready: Vec<Ready>,
    /// Events that the chain failed on, until their commit.
    pub(super) letters: BTreeMap<(PartitionId, Offset), DeadLetter>,
    pub(super) dead_letters: TopicName,
    chain: Option<chains::Attached>,
    paused: Option<Paused>,
    /// The last turn ended before everything that could be delivered was.
    more: bool,
    pub(super) commit: Option<UnderWay>,
    /// No commit is made before: the last one failed, or is young.
    commit_after: Option<Instant>,
    floors: Arc<Floors>,
    figures: Arc<Mutex<Vec<(u64, Figures)>>>,
    delivered: ::metrics::Counter,
    seed: u64,
}

/// The commit under way.
pub(super) struct UnderWay {
    pub(super) id: u64,
    pub(super) outcome: oneshot::Receiver<Result<(), FragmentRefused>>,
}

/// Why nothing is delivered, and when to try again by itself.
struct Paused {
    why: String,
    until: Option<Instant>,
}

/// What woke the owner.
enum Woken {
    Command(Option<Command>),
    Left,
    Committed(Result<(), FragmentRefused>),
    Time,
}

impl OwnerTask {
    /// Runs until the subscription, its topic or the engine ends.
    pub(crate) async fn run(mut self) {
        let (stop, topic) = (self.stop.clone(), Arc::clone(&self.topic));
        // Dropping the work at any await is safe: what is not committed is delivered again.
        let error = tokio::select! {
            biased;
            () = stop.cancelled() => {
                if self.context.cancelled.is_cancelled() { Error::ShuttingDown } else { deleted() }
            }
            () = topic.deleted.cancelled() => deleted(),
            error = self.serve() => error,
        };
        for consumer in self.consumers.values() {
            consumer.end(error.clone());
        }
    }

    /// Serves until it must end, and says why.
    async fn serve(&mut self) -> Error {
        let topic = Arc::clone(&self.topic);
        let mut appended = topic.appended();
        loop {
            appended.mark_unchanged();
            let now = clock::now();
            self.look(now);
            if let Err(error) = self.turn(now).await {
                tracing::error!(%error, "subscription cannot go on for now");
                self.pause(error.to_string(), Some(RETRY));
            }
            match self.wait(now, &mut appended).await {
                Woken::Command(None) => return deleted(),
                Woken::Command(Some(command)) => self.take_commands(command),
                Woken::Left => self.take_left(),
                Woken::Committed(outcome) => {
                    if let Err(error) = self.committed(outcome) {
                        return error;
                    }
                }
                Woken::Time => {}
            }
        }
    }

    /// Looks how far the topic has come.
    fn look(&mut self, now: Timestamp) {
        for (number, partition) in self.topic.partition_ids().zip(&self.topic.partitions) {
            self.rules.end(number, partition.end());
            note_lost(self.rules.lost(number, partition.start()));
        }
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.rules.on_time(now, self.seed);
    }

    /// Delivers what can be delivered, commits what can be committed, confirms what is.
    async fn turn(&mut self, now: Timestamp) -> Result<(), Error> {
        if self.may_deliver().await? {
            self.more = true;
            for _ in 0..DELIVERIES_PER_TURN {
                let Some(wanted) = self.rules.next(now) else {
                    self.more = false;
                    break;
                };
                self.deliver(now, wanted).await?;
                if self.paused.is_some() || !self.commands.is_empty() {
                    break;
                }
            }
        }
        if self.commit.is_none() && self.commit_after.is_none_or(|after| after <= Instant::now()) {
            self.commit_after = None;
            if self.submit().await? {
                // What is acknowledged meanwhile goes together: one commit and one answer instead of many.
                self.commit_after = Some(Instant::now() + self.context.shard.progress_delay());
            }
        }
        let confirmed = self.rules.confirmed();
        for consumer in self.consumers.values_mut() {
            consumer.confirm(confirmed);
        }
        Ok(())
    }

    /// True if the chain is there and nothing is paused.
    async fn may_deliver(&mut self) -> Result<bool, Error> {
        if let Some(paused) = &self.paused {
            if paused.until.is_none_or(|until| until > Instant::now()) {
                return Ok(false);
            }
            self.paused = None;
        }
        if self.outdated.swap(false, Ordering::AcqRel) {
            self.chain = None;
            self.ready.iter_mut().for_each(|ready| *ready = Ready::default());
        }
        if self.chain.is_none() && !self.record.options.chain.is_empty() {
            let catalogue = self.context.shard.catalogue();
            let (specs, seed) = (&self.record.options.chain, self.record.id);
            let chains = &self.context.chains;
            let attached =
                chains.attach(&catalogue, specs, &self.record.topic, Place::Subscription, seed).await;
            match attached {
                Ok(attached) => self.chain = Some(attached),
                Err(error) => {
                    self.pause(error.to_string(), Some(RETRY_CHAIN));
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Reads what is wanted, passes it through the chain and sends it.
    async fn deliver(&mut self, now: Timestamp, wanted: Wanted) -> Result<(), Error> {
        let place = usize::from(wanted.partition.0);
        let until = wanted.last.plus(1);
        let mut again = Ready::default();
        let fresh = wanted.kind == WantedKind::Fresh;
        if !(fresh && self.ready[place].is_from(wanted.first)) {
            // Fresh events are prepared beyond what is wanted now; the rest waits for the next time.
            let prepare_until = if fresh { Offset(u64::MAX) } else { until };
            match self.prepare(wanted.partition, wanted.first, prepare_until).await {
                Ok(Some(ready)) if fresh => self.ready[place] = ready,
                Ok(Some(ready)) => again = ready,
                Ok(None) => {
                    self.rules.abandon(wanted);
                    return Ok(());
                }
                Err(error) => {
                    self.rules.abandon(wanted);
                    return Err(error);
                }
            }
        }
        let ready = if fresh { &mut self.ready[place] } else { &mut again };
        let taken = match ready.take(until, wanted.events_max, wanted.bytes_max) {
            Ok(taken) => taken,
            Err(error) => {
                self.rules.abandon(wanted);
                return Err(error);
            }
        };
        let Some(last) = taken.last else {
            self.rules.abandon(wanted);
            return Ok(());
        };
        let (consumer, partition) = (wanted.consumer, wanted.partition);
        let bytes = payload_len(&taken.pieces) as u64;
        let sent = Sent { last, bytes, filtered: &taken.dropped, failed: &taken.failed };
        let Some(delivered) = self.rules.delivered(now, wanted, sent) else { return Ok(()) };
        let (Some(first), Some(end)) = (taken.pieces.first(), taken.pieces.last().map(|piece| piece.end()))
        else {
            return Ok(());
        };
        let header = DeliverHeader {
            partition,
            built: false,
            attempt: u8::try_from(delivered.attempt).unwrap_or(u8::MAX),
            count: 0,
            token: delivered.token,
            span: u32::try_from(end.0 - first.run.base.0).unwrap_or(u32::MAX),
        };
        let frame = deliver_frame(header, &taken.pieces);
        self.delivered.increment(delivered.events);
        if !self.consumers.get(&consumer.0).is_some_and(|attached| attached.send(frame)) {
            self.detach(now, consumer.0);
        }
        Ok(())
    }

    /// Reads from `from` and passes it through the chain; `None` if nothing can be sent now.
    async fn prepare(
        &mut self,
        number: PartitionId,
        from: Offset,
        until: Offset,
    ) -> Result<Option<Ready>, Error> {
        let pieces = match self.logs[usize::from(number.0)].read(from, READ_BYTES).await? {
            Found::Pieces(pieces) => pieces,
            Found::End => return Ok(None),
            Found::Dropped(start) => {
                note_lost(self.rules.lost(number, start));
                return Ok(None);
            }
        };
        let Some(attached) = &self.chain else { return Ok(Some(Ready::stored(from, pieces))) };
        let end = pieces.last().map_or(from, |piece| piece.end()).min(until);
        let sources = pieces
            .into_iter()
            .map(|piece| Source::check(piece.run))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::refused(ErrorCode::StorageCorrupt, error.to_string()))?;
        let input = Input { partition: number, offsets: from..end, sources: &sources };
        let mut filtered = attached.chain.filter(input).await;
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = attached.figures().collect();
        if let Some(paused) = filtered.progress.paused.take() {
            self.pause(paused.why, paused.retry_after);
        }
        let reached = filtered.progress.reached;
        let ready = Ready::filtered(from, number, filtered, &mut self.letters);
        Ok((reached > from).then_some(ready))
    }

    fn pause(&mut self, why: String, retry_after: Option<Duration>) {
        if self.paused.is_none() {
            tracing::warn!(why, "subscription paused");
        }
        self.paused = Some(Paused { why, until: retry_after.map(|pause| Instant::now() + pause) });
    }

    /// Waits for something to do.
    async fn wait(&mut self, now: Timestamp, appended: &mut tokio::sync::watch::Receiver<u64>) -> Woken {
        let more = self.paused.is_none() && self.more;
        let alarm = [
            self.rules.next_deadline(now).map(|at| Duration::from_millis(at.0.saturating_sub(now.0))),
            self.paused
                .as_ref()
                .and_then(|paused| paused.until)
                .map(|until| until - Instant::now().min(until)),
            // A commit under way wakes the owner when it ends.
            self.commit_after
                .filter(|_| self.commit.is_none())
                .map(|after| after - Instant::now().min(after)),
            more.then_some(Duration::ZERO),
        ];
        let alarm = alarm.into_iter().flatten().min();
        let time = async {
            match alarm {
                // Let others have the thread once; then go on.
                Some(Duration::ZERO) => tokio::task::yield_now().await,
                Some(alarm) => tokio::time::sleep(alarm).await,
                None => std::future::pending().await,
            }
        };
        let commit = async {
            match &mut self.commit {
                Some(under_way) => (&mut under_way.outcome).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // First what is rare: commands may never end.
            outcome = commit => {
                Woken::Committed(outcome.unwrap_or(Err(FragmentRefused::Failed(Error::ShuttingDown))))
            }
            () = self.left.notify.notified() => Woken::Left,
            command = self.commands.recv() => Woken::Command(command),
            // The topic outlives the owner: it holds the sending side.
            _ = appended.changed() => Woken::Time,
            () = time => Woken::Time,
        }
    }

    /// Ends the commit under way.
    fn committed(&mut self, outcome: Result<(), FragmentRefused>) -> Result<(), Error> {
        let Some(under_way) = self.commit.take() else { return Ok(()) };
        let now = clock::now();
        let ok = outcome.is_ok();
        for back in self.rules.settled(under_way.id, ok, now) {
            if let Some(consumer) = self.consumers.get_mut(&back.consumer.0) {
                let code = ErrorCode::OutcomeUnknown;
                let (partition, first, last) = (back.partition, back.first, back.last);
                consumer.refuse(RefusedVerb { partition, first, last, code });
            }
        }
        match outcome {
            Ok(()) => {
                for (place, floor) in self.rules.floors().enumerate() {
                    self.floors.set(place, floor);
                }
                let floors = &self.floors;
                self.letters.retain(|(number, offset), _| *offset >= floors.floor(usize::from(number.0)));
                Ok(())
            }
            Err(FragmentRefused::Gone) => Err(deleted()),
            Err(error) => {
                tracing::warn!(%error, "progress could not be committed; it is tried again");
                self.commit_after = Some(Instant::now() + RETRY);
                Ok(())
            }
        }
    }

    fn take_commands(&mut self, first: Command) {
        self.take_command(first);
        for _ in 0..COMMANDS_PER_TURN {
            let Ok(command) = self.commands.try_recv() else { return };
            self.take_command(command);
        }
    }

    /// Detaches consumers that left while the queue was full: what they said before is in it.
    fn take_left(&mut self) {
        let left = self.left.take();
        for _ in 0..self.commands.len() {
            let Ok(command) = self.commands.try_recv() else { break };
            self.take_command(command);
        }
        for consumer in left {
            self.detach(clock::now(), consumer);
        }
    }

    fn take_command(&mut self, command: Command) {
        match command {
            Command::Attach { consumer, name, created, reply } => self.attach(consumer, name, created, reply),
            Command::Detach { consumer } => self.detach(clock::now(), consumer),
            Command::Credit { consumer, credit } => {
                self.rules.grant(ConsumerId(consumer), credit.events, credit.bytes);
            }
            Command::Verbs { consumer, verbs } => self.verbs(consumer, verbs),
            Command::Describe { reply } => {
                // Whoever asked may have gone.
                let _ = reply.send(self.describe());
            }
            Command::Resume => {
                self.paused = None;
                if let Some(attached) = &self.chain {
                    attached.chain.resume();
                }
            }
        }
    }

    fn attach(&mut self, consumer: u64, name: String, created: bool, reply: oneshot::Sender<AttachedReply>) {
        // Every event in flight may be a frame of its own, and answers to verbs come on top.
        let frames_max = self.record.options.max_in_flight as usize + FRAMES_QUEUED_MAX;
        let (frames, received) = mpsc::channel(frames_max);
        if let Err(code) = self.rules.attach(ConsumerId(consumer)) {
            // The new stream ends at once with the reason.
            let _ = frames
                .try_send(Err(Error::refused(code, "the subscription has as many consumers as it may")));
        } else {
            self.consumers.insert(consumer, Attached::new(name, frames));
        }
        let positions = self.positions();
        let before = positions.iter().zip(&self.topic.partitions);
        let stored_before = before.map(|(at, log)| at.offset.saturating_sub(log.start().0)).sum();
        let ordered = self.record.options.order != levada_protocol::request::Order::None;
        let subscribed = Subscribed {
            created,
            partitions: u16::try_from(self.logs.len()).unwrap_or(u16::MAX),
            positions,
            stored_before,
            standby: ordered && self.consumers.len() > 1,
        };
        // Whoever asked may have gone; then it is detached like one that goes later.
        let _ = reply.send(AttachedReply { subscribed, frames: received });
    }

    fn detach(&mut self, now: Timestamp, consumer: u64) {
        if self.consumers.remove(&consumer).is_some() {
            self.rules.detach(now, ConsumerId(consumer), self.seed);
        }
    }

    fn verbs(&mut self, consumer: u64, verbs: Verbs) {
        let Some(attached) = self.consumers.get_mut(&consumer) else { return };
        let now = clock::now();
        let mut ticket = 0;
        for verb in &verbs.verbs {
            match self.rules.verb(now, ConsumerId(consumer), verb, self.seed) {
                Ok(applied) => ticket = applied.ticket,
                Err(code) => {
                    let (partition, first, last) = (verb.partition, verb.first, verb.last);
                    attached.refuse(RefusedVerb { partition, first, last, code });
                }
            }
        }
        attached.note(verbs.sequence, ticket);
    }

    fn positions(&self) -> Vec<Position> {
        let floors = self.topic.partition_ids().zip(self.rules.floors());
        floors.map(|(number, floor)| Position { partition: number.0, offset: floor.0 }).collect()
    }

    fn describe(&mut self) -> Described {
        self.look(clock::now());
        let figures = self.rules.figures();
        let mut oldest = Vec::new();
        let mut stuck = None;
        for number in self.topic.partition_ids() {
            let partition = self.rules.partition(number);
            stuck = stuck.or_else(|| partition.stuck.map(|offset| (number, offset)));
            if partition.lag > 0 {
                oldest.push((number, partition.floor));
            }
        }
        let paused = self.paused.as_ref().map(|paused| paused.why.clone());
        let stuck = stuck.map(|(number, offset)| {
            format!("WINDOW_FULL: too much lies above offset {offset} of partition {number}, which is not acknowledged")
        });
        let info = SubscriptionInfo {
            topic: self.record.topic.clone(),
            name: self.record.name.clone(),
            id: SubscriptionId(self.record.id).0,
            options: self.record.options.clone(),
            created_ms: self.record.created_ms,
            consumers: self.consumers.values().map(|consumer| consumer.name.clone()).collect(),
            positions: self.positions(),
            lag: figures.lag,
            oldest_unacked_age_ms: 0,
            in_flight: figures.in_flight,
            redelivered: figures.redelivered,
            dead_lettered: figures.dead_lettered,
            events_lost: figures.lost,
            paused: paused.or(stuck),
        };
        Described { info, oldest }
    }
}

fn note_lost(lost: Option<LostRange>) {
    if let Some(LostRange { partition, first, last, events }) = lost {
        tracing::warn!(%partition, %first, %last, events, "retention dropped unacknowledged events");
    }
}

fn deleted() -> Error {
    Error::refused(ErrorCode::SubscriptionNotFound, "the subscription was deleted")
}
