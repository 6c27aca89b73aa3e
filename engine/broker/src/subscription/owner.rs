//! The owner of one subscription: the task that brings reads, the chain, consumers and commits together as the rules of
//! delivery say.
//!
//! The rules are `levada_delivery`'s; this is the shell around them. Nobody else touches the subscription's state. The
//! loop waits in one place for whatever happens next, and nothing that happens is waited for in its handling: a slow
//! disk or plugin delays neither verbs nor timeouts.
//!
//! ```text
//!   inbox ───────┐                       ┌── Subscription   the rules: who gets what, what settles
//!   reads ended ─┤                       ├── Reads          under way, and what they brought
//!   chain ready ─┼──► Owner, a turn at ──┼── Committer      the commit under way, dead letters
//!   commit ended ┤    a time             ├── Consumers      their streams and what they are to be told
//!   appends ─────┤                       ├── Pause, ChainSlot
//!   time ────────┘                       └── Publisher      what others see
//! ```

use arc_swap::ArcSwap;
use levada_stage::AttachmentPoint;
use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Duration,
};

use levada_delivery::{
    now::Now,
    subscription::{Assignment, CameBack, ConsumerId, Fetch, Options, Subscription},
};
use levada_protocol::{
    deliver::DeliverHeader,
    error::ErrorCode,
    ids::{Offset, PartitionId},
    request::{Order, Subscribed},
    verbs::{RefusedVerb, VerbKind, Verbs},
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    attached::Attached,
    chain::ChainSlot,
    command::{AckingTransact, Attached as AttachedReply, Command, Context},
    committer::{Committer, Ended, TransactionOutcome},
    consumers::Consumers,
    inbox::Inbox,
    losses::Losses,
    pause::Pause,
    publisher::Publisher,
    queue::{Place, Queued},
    reads::{Begun, Brought, Reads},
    slices::FoundSlices,
    untold::Untold,
};
use crate::{
    changes::{Hears, Listener},
    error::Error,
    frames::{LogSlice, payload_len},
    outbound::{Held, Window},
    outgoing::Outgoing,
    pause,
    rows::SubscriptionRecord,
    shard::ProposalRefused,
    topic::Topic,
};

/// Frames that may wait for a consumer's stream to take them.
const FRAMES_QUEUED_MAX: usize = 256;
/// Fetches after which commands have their turn.
const FETCHES_PER_TURN: usize = 32;
/// A consumer's stream that takes nothing for so long gets nothing more until it does.
const STUCK: Duration = Duration::from_secs(1);
/// How long nothing is delivered after a read failed.
const RETRY: Duration = Duration::from_millis(500);
/// How often it is tried again to tell a consumer which verbs are settled.
const UNTOLD_RETRY: Duration = Duration::from_millis(100);
/// How long the owner waits after the chain could not be attached, which may have cost a compilation.
const RETRY_CHAIN: Duration = Duration::from_secs(5);

/// Which subscription it is, and what it needs of the engine.
pub(super) struct Of {
    pub(super) record: Arc<SubscriptionRecord>,
    /// Where a record that has changed is found.
    pub(super) newest_record: Arc<ArcSwap<SubscriptionRecord>>,
    pub(super) topic: Arc<Topic>,
    pub(super) context: Context,
    /// Ends the owner.
    pub(super) stop: CancellationToken,
    /// Why it has ended.
    pub(super) ended: Arc<OnceLock<Error>>,
}

/// The owner's state.
pub(crate) struct Owner {
    of: Of,
    state: Subscription,
    reads: Reads,
    committer: Committer,
    losses: Losses,
    consumers: Consumers,
    pause: Pause,
    chain: ChainSlot,
    inbox: Inbox,
    publisher: Publisher,
    /// Hears of appends while there are consumers to get them; of dropped events always.
    changed: Listener,
    /// The last turn ended before everything that could be delivered was.
    more: bool,
}

/// What woke the owner.
enum Woken {
    Commands(Option<Vec<Command>>),
    Committed(u64, Ended),
    Read(Fetch, Result<Brought, Error>),
    /// It is stored since when there is no consumer, or that failed.
    Attendance,
    Chain(Result<(), Error>),
    Changed,
    Time,
}

impl Owner {
    /// An owner without consumers.
    pub(super) fn new(
        of: Of,
        state: Subscription,
        reads: Reads,
        (committer, losses): (Committer, Losses),
        chain: ChainSlot,
        (inbox, consumers): (Inbox, Consumers),
        publisher: Publisher,
    ) -> Self {
        let mut pause = Pause::default();
        pause.request(of.record.pause());
        Self {
            changed: of.topic.listen(Hears::Drops),
            of,
            state,
            reads,
            committer,
            losses,
            consumers,
            pause,
            chain,
            inbox,
            publisher,
            more: false,
        }
    }

    /// Runs until the subscription, its topic or the engine ends.
    pub(crate) async fn run(mut self) {
        let (stop, topic) = (self.of.stop.clone(), Arc::clone(&self.of.topic));
        // Dropping the work at any await is safe: what is not committed is delivered again.
        let error = tokio::select! {
            biased;
            () = stop.cancelled() => deleted(),
            () = topic.deleted.cancelled() => deleted(),
            error = self.serve() => error,
        };
        // Several of these may be true at once; the consumers hear of the one that is behind the others.
        let error = if self.of.context.cancelled.is_cancelled() {
            Error::ShuttingDown
        } else if topic.deleted.is_cancelled() {
            topic.deleted_error()
        } else {
            error
        };
        // Only this sets it.
        let _ = self.of.ended.set(error.clone());
        self.consumers.end_all(&error, self.now().wall);
    }

    /// Serves until it must end, and says why.
    async fn serve(&mut self) -> Error {
        loop {
            // Reads may end without a pause between them; what was said meanwhile counts before any timeout does.
            self.inbox.queued().into_iter().for_each(|command| self.take(command));
            self.note_told();
            let now = self.now();
            if let Some(error) = self.follow_record(now) {
                return error;
            }
            self.refresh(now);
            self.turn(now);
            match self.wait(now).await {
                Woken::Commands(None) => return deleted(),
                Woken::Commands(Some(commands)) => commands.into_iter().for_each(|it| self.take(it)),
                Woken::Committed(id, ended) => {
                    if let Some(error) = self.committed(id, &ended) {
                        return error;
                    }
                }
                Woken::Read(fetch, brought) => {
                    self.read(fetch, brought);
                }
                Woken::Attendance | Woken::Chain(Ok(())) | Woken::Changed | Woken::Time => {}
                Woken::Chain(Err(error)) => {
                    self.pause.begin(Instant::now(), pause::of_attach(&error), Some(RETRY_CHAIN))
                }
            }
        }
    }

    /// Takes what became of a commit. Returns the error for consumers if the owner has to end.
    fn committed(&mut self, id: u64, ended: &Ended) -> Option<Error> {
        let now = self.now();
        match ended {
            Ended::Progress(outcome) => {
                let back = self.settled(id, outcome.is_ok(), now);
                let queue = self.reads.queue();
                back.into_iter().for_each(|it| self.consumers.refuse(queue.came_back(it)));
                match outcome {
                    Err(ProposalRefused::Gone) => Some(deleted()),
                    // The record tells of it in a moment.
                    Err(ProposalRefused::Stale { .. }) => Some(moved()),
                    _ => None,
                }
            }
            Ended::Transaction(outcome) => {
                // No verb was said of its events: whoever made the transaction was told.
                drop(self.settled(id, *outcome == TransactionOutcome::Stored, now));
                // What it acknowledged may be acknowledged: only the store knows, which the next owner reads.
                (*outcome == TransactionOutcome::Unknown).then(moved)
            }
        }
    }

    /// A commit is durable, or failed: returns the verbs that are void then.
    fn settled(&mut self, id: u64, durable: bool, now: Now) -> Vec<CameBack> {
        let lost = self.losses.end(durable);
        if !lost.is_empty() {
            self.publisher.lost(self.losses.shown());
        }
        lost.into_iter().for_each(|lost| self.consumers.add_loss(lost));
        self.state.settled(id, durable, now)
    }

    /// Notes which losses clients were told of; that is to be stored.
    fn note_told(&mut self) {
        for (partition, range) in self.inbox.told() {
            if self.losses.tell(partition, range) {
                self.state.touch(partition);
            }
        }
    }

    /// Acknowledges events as a part of a transaction, which is committed next.
    fn transact(&mut self, asked: AckingTransact) {
        let AckingTransact { mut acked, transact } = asked;
        acked.iter_mut().for_each(|it| *it = self.reads.queue().acked(&self.state, *it));
        let number = self.committer.transaction_number();
        let refused = if self.committer.has_transaction(&transact.key) {
            let message = format!("transaction {} is being committed: ask again", transact.key);
            Some((ErrorCode::OutcomeUnknown, message))
        } else {
            self.state.acknowledge_all(number, &acked).err().map(|code| {
                let message = format!(
                    "an event that transaction {} acknowledges is no longer this consumer's: it expired, or was given back or \
                     settled; nothing of the transaction was stored",
                    transact.key
                );
                (code, message)
            })
        };
        match refused {
            // Whoever asked may have gone.
            Some((code, message)) => drop(transact.reply.send(Err(Error::refused(code, message)))),
            None => self.committer.keep_transaction(number, transact),
        }
    }

    /// Takes over what has changed of the subscription's record. Returns the error for consumers if that takes an owner who
    /// begins anew.
    fn follow_record(&mut self, now: Now) -> Option<Error> {
        let newest = self.of.newest_record.load();
        if Arc::ptr_eq(&newest, &self.of.record) {
            return None;
        }
        let before = std::mem::replace(&mut self.of.record, Arc::clone(&newest));
        drop(newest);
        if before.begins_anew_with(&self.of.record) {
            return Some(moved());
        }
        let options = &self.of.record.options;
        let (has_chain, is_other) = (!options.chain().is_empty(), options.chain() != before.options.chain());
        self.state.set_options(&Options::new(options, self.of.context.bounds, 0), now);
        self.pause.request(self.of.record.pause());
        if is_other {
            self.chain.replace(has_chain);
            self.restart_chain();
        }
        None
    }

    /// What the chain has under way is begun again, with the chain as it is now.
    fn restart_chain(&mut self) {
        self.reads.restart().into_iter().for_each(|fetch| self.state.abandon(fetch));
        // What would end by itself was of the plugins as they were.
        self.pause.end_if_timed();
    }

    fn now(&self) -> Now {
        self.of.context.clock.moment()
    }

    /// Brings the rules up to date: ends and starts of partitions, the end of the queue, streams that take nothing, timeouts.
    fn refresh(&mut self, now: Now) {
        for partition in self.changed.take() {
            self.refresh_partition(partition);
        }
        if self.reads.queue().is_ahead() {
            self.refresh_queue();
        }
        let ack_timeout_ms = u64::from(self.of.record.options.ack_timeout_ms());
        let stuck_after = STUCK.min(Duration::from_millis(ack_timeout_ms / 2));
        for (consumer, held) in self.consumers.refresh(stuck_after) {
            self.state.hold(consumer, held);
        }
        let consumers = &self.consumers;
        self.state.on_time(now, |consumer| consumers.taken(consumer));
    }

    fn refresh_partition(&mut self, partition: PartitionId) {
        let log = &self.of.topic.partitions[usize::from(partition.0)];
        self.state.end(partition, log.end());
        // What is lost settles with the next commit, which says so.
        let _ = self.state.lost(partition, log.start());
    }

    /// Something was redriven to this subscription alone, or could not be delivered before what is older.
    fn refresh_queue(&mut self) {
        let partition = self.reads.queue().partition();
        let floor = self.state.partition(partition).floor;
        if let Some(end) = self.reads.queue_mut().next_end(floor) {
            self.state.end(partition, end);
        }
    }

    /// Delivers what can be delivered, commits what can be committed, shows and confirms what has become of it.
    fn turn(&mut self, now: Now) {
        if self.may_deliver() {
            self.deliver(now);
        }
        if self.committer.may_submit(Instant::now())
            && let Some(mut settling) = self.state.take_settling()
        {
            let losses = self.losses.begin(std::mem::take(&mut settling.lost));
            self.committer.submit(settling, losses, &self.reads);
        }
        self.consumers.store_attendance(Instant::now());
        self.publish();
        self.publisher.explain(&self.state, &self.consumers, self.reads.queue(), now, Instant::now());
        self.consumers.confirm(self.state.confirmed(), &self.of.record);
        let finished = self.consumers.end_finished(|consumer| self.state.in_flight(consumer));
        finished.into_iter().for_each(|consumer| self.detach(now, consumer));
    }

    /// True if events can pass: nothing is paused and the chain is there.
    fn may_deliver(&mut self) -> bool {
        if self.chain.drop_stale() {
            self.restart_chain();
        }
        if self.pause.lasts(Instant::now()) {
            return false;
        }
        let (record, context) = (&self.of.record, &self.of.context);
        self.chain.is_ready(|| {
            let (record, chains) = (Arc::clone(record), context.chains.clone());
            let catalogue = context.shard.catalogue();
            Box::pin(async move {
                let specs = record.options.chain();
                chains
                    .attach(
                        &catalogue,
                        specs,
                        record.topic.as_str(),
                        AttachmentPoint::Subscription,
                        record.id,
                    )
                    .await
            })
        })
    }

    /// Sends what is in memory, and begins to read what is not.
    fn deliver(&mut self, now: Now) {
        let (mut progress, mut later) = (false, Vec::new());
        self.more = true;
        for _ in 0..FETCHES_PER_TURN {
            if self.pause.is_on() || (progress && !self.inbox.is_empty()) {
                break;
            }
            let Some(fetch) = self.state.fetch(now) else {
                self.more = false;
                break;
            };
            progress |= match self.reads.begin(fetch, self.chain.current(), now.wall) {
                Ok(Begun::Retained(fetch)) => self.hand_out(now, fetch),
                Ok(Begun::Ended(fetch, brought)) => self.read(fetch, Ok(brought)),
                Ok(Begun::UnderWay) => true,
                // A read that ends wakes the owner. Until then, what is in memory can still be sent.
                Ok(Begun::Full(fetch)) => {
                    later.push(fetch);
                    false
                }
                Err((fetch, error)) => self.read(fetch, Err(error)),
            };
        }
        later.into_iter().for_each(|fetch| self.state.abandon(fetch));
        self.more &= progress;
    }

    /// Takes what a read brought; true if that changed anything.
    fn read(&mut self, fetch: Fetch, brought: Result<Brought, Error>) -> bool {
        match brought {
            Ok(Brought::Slices(slices)) => self.found(fetch, slices),
            Ok(Brought::Queued(queued)) => {
                let Queued { place, found, ahead } = *queued;
                self.reads.queue_mut().keep(fetch.range.start, place, ahead);
                self.found(fetch, found)
            }
            // The end that the rules know is older; an append brings another.
            Ok(Brought::End) => {
                self.state.abandon(fetch);
                false
            }
            Ok(Brought::Dropped(start)) => {
                let partition = fetch.partition;
                self.state.abandon(fetch);
                let _ = self.state.lost(partition, start);
                true
            }
            Err(error) => {
                self.state.abandon(fetch);
                self.fail(&error);
                false
            }
        }
    }

    /// Takes the events that a read found; true if that changed anything.
    fn found(&mut self, fetch: Fetch, found: FoundSlices) -> bool {
        let FoundSlices { slices, dead_letters, paused } = found;
        let partition = fetch.partition;
        self.committer.keep_failed(partition, dead_letters);
        let state = &self.state;
        self.reads.retain(partition, slices, |partition, range| state.needs(partition, range));
        let handed_out = if self.pause.is_on() {
            self.state.abandon(fetch);
            false
        } else {
            self.hand_out(self.now(), fetch)
        };
        if let Some(paused) = paused {
            let retry_after = paused.retry_after;
            self.pause.begin(Instant::now(), pause::of_chain(*paused), retry_after);
        }
        handed_out
    }

    /// Gives what is in memory of a fetch to consumers; true if any of it could be used.
    fn hand_out(&mut self, now: Now, fetch: Fetch) -> bool {
        let (from, needs_keys) = (fetch.range.start, fetch.needs_keys);
        let queue = self.reads.queue();
        let place = if fetch.partition == queue.partition() { queue.place(from) } else { None };
        let slices = match self.reads.find(&fetch, now.wall) {
            Ok(Some(slices)) => slices,
            Ok(None) => {
                self.state.abandon(fetch);
                return false;
            }
            Err(error) => {
                self.state.abandon(fetch);
                self.fail(&error);
                return false;
            }
        };
        let (mut rooms, consumers) = (VecDeque::new(), &mut self.consumers);
        let assigned = self.state.assign(now, fetch, slices.fetched(from, needs_keys), |consumer, wanted| {
            let held = consumers.take_room(consumer, wanted)?;
            let bytes = held.bytes() as u64;
            rooms.push_back(held);
            Some(bytes)
        });
        let used = assigned.until > from;
        let (mut gone, mut unsent, mut failed) = (Vec::new(), Vec::new(), None);
        let takers: Vec<_> = assigned.assignments.iter().map(|it| it.offsets.as_slice()).collect();
        let divided = slices.divide(&takers);
        for ((assignment, pieces), held) in assigned.assignments.iter().zip(divided).zip(rooms) {
            match pieces {
                Ok(pieces) => {
                    self.state.sent(assignment.token, payload_len(&pieces) as u64);
                    self.publisher.delivered(assignment.events);
                    if !consumers.send(assignment.consumer, delivery(assignment, pieces, held, place)) {
                        gone.push(assignment.consumer.0);
                    }
                }
                Err(error) => {
                    unsent.push(assignment.token);
                    failed = Some(error);
                }
            }
        }
        // The last one first: what comes back behind another one is not known any more.
        unsent.into_iter().rev().for_each(|token| self.state.recall(now, token));
        gone.into_iter().for_each(|consumer| self.detach(now, consumer));
        if let Some(error) = failed {
            self.fail(&error);
        }
        used
    }

    /// Delivers nothing for a while, because of an error.
    fn fail(&mut self, error: &Error) {
        // A topic that is about to be gone is no fault; this ends once its deletion is durable.
        if !self.of.topic.is_deleting() {
            tracing::error!(%error, "subscription cannot go on for now");
        }
        self.pause.begin(Instant::now(), pause::of_storage(error), Some(RETRY));
    }

    /// Shows others how things are.
    fn publish(&mut self) {
        let (reads, committer) = (&mut self.reads, &mut self.committer);
        self.publisher.publish(&mut self.state, &self.consumers, self.pause.reason(), |partition, floor| {
            reads.settle(partition, floor);
            committer.settle(partition, floor);
        });
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Attach { consumer, name, created, window, reply } => {
                self.attach(consumer, name, created, window, reply);
            }
            Command::Detach { consumer } => self.detach(self.now(), consumer),
            Command::Credit { consumer, credit } => {
                self.state.grant(ConsumerId(consumer), credit.events, credit.bytes);
            }
            Command::Room { consumer, held } => {
                if let Some(attached) = self.consumers.get_mut(consumer) {
                    attached.found_room(held);
                    self.state.hold(ConsumerId(consumer), attached.is_held());
                }
            }
            Command::Finish { consumer, finish } => {
                if let Some(attached) = self.consumers.get_mut(consumer) {
                    attached.finish(finish);
                    self.state.hold(ConsumerId(consumer), true);
                }
            }
            Command::Verbs { consumer, verbs, room } => self.verbs(consumer, &verbs, room),
            Command::Transact(asked) => self.transact(*asked),
            Command::Resume => {
                self.pause.end();
                self.chain.resume();
            }
        }
    }

    fn attach(
        &mut self,
        consumer: u64,
        name: String,
        created: bool,
        window: Arc<Window>,
        reply: oneshot::Sender<AttachedReply>,
    ) {
        let partitions = self.of.topic.partitions.len();
        self.note_told();
        // Every event in flight may be a frame of its own, and answers to verbs come on top.
        let outgoing_max = self.of.record.options.max_in_flight() as usize + FRAMES_QUEUED_MAX;
        let (outgoing, received) = mpsc::channel(outgoing_max);
        // A loss in every partition finds room.
        let (notices, noticed) = mpsc::channel(partitions.max(1));
        if let Err(code) = self.state.attach(ConsumerId(consumer)) {
            // The new stream ends at once with the reason.
            let _ = outgoing
                .try_send(Err(Error::refused(code, "the subscription has as many consumers as it may")));
        } else {
            let mut untold = Untold::new(notices, Arc::clone(self.inbox.signals()));
            self.losses.untold().for_each(|(partition, range)| untold.add(partition, range));
            self.consumers.add(consumer, Attached::new(name, outgoing, untold, window));
        }
        if self.consumers.len() == 1 {
            // Without consumers nobody looked at the ends.
            self.changed = self.of.topic.listen(Hears::All);
            self.refresh(self.now());
        }
        self.publish();
        let positions = self.publisher.positions();
        let before = positions.iter().zip(&self.of.topic.partitions);
        let stored_before = before.map(|(at, log)| at.offset.saturating_sub(log.start().0)).sum();
        let exclusive = self.of.record.options.order() == Order::Partition;
        let subscribed = Subscribed {
            created,
            partitions: u16::try_from(partitions).unwrap_or(u16::MAX),
            positions,
            stored_before,
            standby: exclusive && self.consumers.len() > 1,
            ack_timeout_ms: self.of.record.options.ack_timeout_ms(),
        };
        // Whoever asked may have gone; then it is detached like one that goes later.
        let _ = reply.send(AttachedReply { subscribed, outgoing: received, notices: noticed });
    }

    fn detach(&mut self, now: Now, consumer: u64) {
        if let Some(taken) = self.consumers.remove(consumer, now.wall) {
            self.state.taken(ConsumerId(consumer), taken);
            self.state.detach(now, ConsumerId(consumer));
        }
        if self.consumers.is_empty() {
            self.changed = self.of.topic.listen(Hears::Drops);
        }
    }

    fn verbs(&mut self, consumer: u64, verbs: &Verbs, mut room: OwnedSemaphorePermit) {
        let Some(attached) = self.consumers.get_mut(consumer) else { return };
        let now = self.of.context.clock.moment();
        let (mut ticket, mut extended) = (0, 0);
        for verb in &verbs.verbs {
            let queued = self.reads.queue().verb(&self.state, verb);
            match self.state.verb(now, ConsumerId(consumer), queued.as_ref().unwrap_or(verb)) {
                Ok(applied) => {
                    ticket = applied.ticket;
                    extended += usize::from(verb.kind == VerbKind::InProgress);
                }
                Err(code) => {
                    let (partition, first, last) = (verb.partition, verb.first, verb.last);
                    attached.refuse(verbs.sequence, RefusedVerb { partition, first, last, code });
                }
            }
        }
        // An extension that took effect is nothing to be remembered until it is confirmed.
        drop(room.split(extended));
        attached.note(verbs.sequence, ticket, room);
    }

    /// Waits for something to do. Cancel safe.
    async fn wait(&mut self, now: Now) -> Woken {
        let more = self.more && !self.pause.is_on();
        let until = |at: Instant| at - Instant::now().min(at);
        let alarms = [
            self.state.next_deadline(now).map(|at| Duration::from_millis(at.saturating_sub(now.mono_ms))),
            self.pause.until().map(until),
            self.committer.ready_at().map(until),
            self.consumers.attendance_at().map(until),
            self.publisher.explain_at().map(until),
            more.then_some(Duration::ZERO),
            // A stream whose frames fill its channel wakes nobody when it takes them.
            self.consumers.have_untold_verbs().then_some(UNTOLD_RETRY),
        ];
        let alarm = alarms.into_iter().flatten().min();
        let time = async {
            match alarm {
                // Let others have the thread once; then go on.
                Some(Duration::ZERO) => tokio::task::yield_now().await,
                Some(alarm) => tokio::time::sleep(alarm).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // First what is rare: commands may never end.
            (id, ended) = self.committer.ended() => Woken::Committed(id, ended),
            (fetch, brought) = self.reads.ended() => Woken::Read(fetch, brought),
            () = self.consumers.attendance_stored() => Woken::Attendance,
            attached = self.chain.attached() => Woken::Chain(attached),
            commands = self.inbox.next() => Woken::Commands(commands),
            () = self.changed.changed() => Woken::Changed,
            () = time => Woken::Time,
        }
    }
}

/// What a consumer's listener is handed of an assignment. An event of the queue is shown at its place in the topic.
fn delivery(
    assignment: &Assignment,
    mut pieces: Vec<LogSlice>,
    mut held: Held,
    place: Option<Place>,
) -> Outgoing {
    if let Some(place) = place {
        pieces.iter_mut().for_each(|piece| piece.run.base = place.offset);
    }
    let first = pieces.first().map_or(Offset(0), |piece| piece.run.base);
    let end = pieces.last().map_or(Offset(0), LogSlice::end);
    let header = DeliverHeader {
        partition: place.map_or(assignment.partition, |place| place.partition),
        built: false,
        attempt: u8::try_from(assignment.attempt).unwrap_or(u8::MAX),
        count: 0,
        token: assignment.token,
        span: u32::try_from(end.0 - first.0).unwrap_or(u32::MAX),
    };
    held.shrink(payload_len(&pieces));
    Outgoing::delivery(header, pieces).counted(held)
}

/// The error for consumers of a subscription that begins anew, elsewhere or in another order.
fn moved() -> Error {
    let message =
        "the subscription was moved or changed so that its deliveries were taken back, attach again";
    Error::refused(ErrorCode::SubscriptionMoved, message)
}

/// The error for consumers of a subscription that is gone.
fn deleted() -> Error {
    Error::refused(ErrorCode::SubscriptionNotFound, "the subscription was deleted")
}
