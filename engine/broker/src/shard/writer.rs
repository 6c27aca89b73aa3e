//! The thread that decides: it takes what has queued, in order, gives out offsets, and writes one commit.
//!
//! It alone owns offsets, producers and the catalogue. It waits for the disk only when nobody
//! else waits for it: otherwise the syncer does.

use std::{
    sync::{Arc, mpsc as std_mpsc},
    time::Instant,
};

use bytes::Bytes;
use levada_delivery::producer::{Check, Producer};
use levada_protocol::{
    batch::Batch,
    deliver::Run,
    error::{ErrorCode, Refusal},
    ids::{CommitIndex, Epoch, Offset, PartitionId, ProducerId, Sequence, Timestamp, TopicId},
    publish::{Ack, AckOutcome, PublishHeader},
};
use levada_store::{
    Commit, Family, Op, Store,
    commit::Term,
    record::{self, LogRange, Prefix},
};
use tokio::sync::mpsc;

use super::{
    Shown,
    command::{Append, Command, Fragment, Trim},
    ending::Ending,
    group::{Announcement, Group, OpenRecord, RECORD_BYTES_MAX, Reply},
    state::State,
    syncer::{Durable, ToSyncer},
    waiting::Waiting,
};
use crate::{
    catalogue::{Change, Decided, TopicChange},
    clock::Clock,
    error::Error,
    frames::Piece,
    guard::Guard,
    identity, reclaim,
    rows::{EngineId, LogStart, Row, Segment, Setback},
    tail::TailBudget,
    topic::Topic,
};

/// A group of at most this many bytes that nobody waits behind is synced by the writer itself.
const OWN_SYNC_BYTES_MAX: usize = 16 * 1024;

/// The writer's thread.
pub(super) struct Writer {
    /// First, so that it is dropped before the commands that wait.
    pub(super) _ending: Ending,
    /// Which shard's history this is.
    pub(super) shard: u16,
    /// This writer's: higher than that of every commit before it, also after the store was opened again.
    pub(super) term: Term,
    pub(super) state: State,
    pub(super) budget: Arc<TailBudget>,
    pub(super) store: Arc<dyn Store>,
    pub(super) guard: Arc<Guard>,
    pub(super) shown: Arc<Shown>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) waiting: Arc<Waiting>,
    pub(super) groups: std_mpsc::SyncSender<ToSyncer>,
    pub(super) durable: Arc<Durable>,
    pub(super) group_bytes_max: usize,
    pub(super) producers_max: usize,
    pub(super) records_max: usize,
    /// When the store was last tried to be opened again.
    pub(super) reopened: Option<Instant>,
    /// What gives events their append times.
    pub(super) clock: Clock,
}

impl Writer {
    /// Runs until it is told to stop or every handle is gone.
    pub(super) fn run(mut self) {
        while let Some(first) = self.commands.blocking_recv() {
            if !self.is_open() {
                if self.refuse(first) {
                    break;
                }
                continue;
            }
            let mut group = Group::default();
            let now = self.clock.now();
            let mut stop = self.take(first, &mut group, now);
            while !stop && group.bytes < self.group_bytes_max {
                let Ok(command) = self.commands.try_recv() else { break };
                stop = self.take(command, &mut group, now);
            }
            for fragment in self.waiting.take() {
                self.fragment(fragment, &mut group, now);
            }
            self.write(group, now);
            if stop {
                break;
            }
        }
        self.commands.close();
        // Those that were being sent at this moment come as well.
        while let Some(command) = self.commands.blocking_recv() {
            refuse(command, &Error::ShuttingDown);
        }
    }

    /// Decides one command into the group; true if it says stop.
    fn take(&mut self, command: Command, group: &mut Group, now: Timestamp) -> bool {
        match command {
            Command::Append(append) => self.append(append, group, now),
            Command::Fragment(fragment) => self.fragment(fragment, group, now),
            Command::Change { change, reply } => {
                let result = self.change(&change, group, now);
                group.replies.push(Reply::Done { reply, result });
            }
            Command::Trim(trim) => self.trim(trim, group),
            Command::Forget(forget) => {
                let result = self.forget_idle(&forget, group);
                group.replies.push(Reply::Done { reply: forget.reply, result });
            }
            Command::Reclaimed { notes, reply } => {
                let gone = notes.into_iter().map(|key| Op::Delete { family: Family::Meta, key });
                group.ops.extend(gone);
                group.replies.push(Reply::Done { reply, result: Ok(()) });
            }
            Command::CheckClock { reply } => {
                self.check_clock(group, now);
                group.replies.push(Reply::Done { reply, result: Ok(()) });
            }
            Command::Wake => {}
            Command::Stop => return true,
        }
        false
    }

    /// Writes what must be durable before anything is taken: the engine's id, if it is new; and the end of a time at
    /// which the clock ran ahead. To be called once, before [`Writer::run`]; answers the id.
    pub(super) fn begin(&mut self) -> Result<EngineId, Error> {
        let (mut group, now) = (Group::default(), self.clock.now());
        self.check_clock(&mut group, now);
        if let Some(id) = self.state.engine_id {
            self.write(group, now);
            return Ok(id);
        }
        let id = identity::new_engine_id()?;
        group.ops.push(id.put(&()));
        self.write(group, now);
        if let Some(closed) = &**self.shown.closed.load() {
            return Err(closed.error());
        }
        self.state.engine_id = Some(id);
        Ok(id)
    }

    fn append(&mut self, append: Append, group: &mut Group, now: Timestamp) {
        let Append { topic, header, batch, ack_written, reply, admitted } = append;
        group.admitted.push(admitted);
        let decided = self.decide_append(&topic, &header, batch, group, now);
        let outcome = decided.unwrap_or_else(AckOutcome::Refused);
        let when_written = ack_written && matches!(outcome, AckOutcome::Appended { .. });
        let ack = Ack { correlation: header.correlation, partition: header.partition, outcome };
        group.replies.push(Reply::Ack { permit: reply, ack, when_written });
    }

    fn decide_append(
        &mut self,
        topic: &Arc<Topic>,
        header: &PublishHeader,
        batch: Batch,
        group: &mut Group,
        now: Timestamp,
    ) -> Result<AckOutcome, Refusal> {
        if !self.state.topics.contains_key(&topic.id) {
            let message = format!("topic {} was deleted", topic.name);
            return Err(Refusal::new(ErrorCode::TopicNotFound, message));
        }
        let key = (topic.id, header.partition, ProducerId(batch.header().producer_id));
        let (epoch, sequence) = (Epoch(batch.header().epoch), Sequence(batch.header().first_sequence));
        let count = batch.count();
        let idempotent = key.2.0 != 0;
        if idempotent {
            let producer = self.producer(key, group).map_err(|error| error.refusal())?;
            match producer.check(epoch, sequence, count) {
                Check::Append => {}
                Check::Duplicate { base, events } => {
                    return Ok(AckOutcome::Appended { base, count: events, duplicate: true });
                }
                refused => return Err(producer_refusal(&refused, sequence)),
            }
        }
        if let Some(refusal) = self.guard.refusal() {
            return Err(refusal);
        }
        let next = self.state.ends.get(&(topic.id, header.partition)).map_or(Offset(0), |end| end.next);
        if let Some(expected) = header.expect_offset.filter(|expected| *expected != next) {
            let message = format!("the partition's next offset is {next}, expected {expected}");
            return Err(Refusal::new(ErrorCode::OffsetMismatch, message));
        }
        let base = self.lay(topic, header.partition, batch, 0, group, now);
        if idempotent && let Some(producer) = self.state.producers.get_mut(&key) {
            producer.record(now, epoch, sequence, count, (base, count));
            group.producers.insert(key);
        }
        Ok(AckOutcome::Appended { base: Some(base), count, duplicate: false })
    }

    /// Gives a batch its offsets and puts it with the partition's others of this group.
    pub(super) fn lay(
        &mut self,
        topic: &Arc<Topic>,
        partition: PartitionId,
        batch: Batch,
        hops: u8,
        group: &mut Group,
        now: Timestamp,
    ) -> Offset {
        let key = (topic.id, partition);
        let len = batch.bytes().len();
        let fits = |open: &OpenRecord| open.hops == hops && open.bytes + len <= RECORD_BYTES_MAX;
        if group.open.get(&key).is_some_and(|open| !fits(open))
            && let Some(full) = group.open.remove(&key)
        {
            self.close_record(key, full, group);
        }
        let mut end = self.state.ends.entry(key).or_default();
        if end.is_ahead_of(now) {
            self.check_clock(group, now);
            end = self.state.ends.entry(key).or_default();
        }
        let base = end.next;
        end.append_time = end.append_time.max(now);
        if !group.open.contains_key(&key) && end.wants_segment(now, topic.settings().retain_for_ms) {
            let segment = Segment { append_time: end.append_time, bytes_before: end.bytes };
            end.segment = Some((base, segment));
            group.ops.push(segment.put(&(topic.id, partition, base)));
        }
        let bytes_before = end.bytes;
        end.next = base.plus(u64::from(batch.span()));
        end.bytes += len as u64;
        group.bytes += len;
        let open = group.open.entry(key).or_insert_with(|| OpenRecord {
            topic: Arc::clone(topic),
            base,
            append_time: end.append_time,
            bytes_before,
            hops,
            batches: Vec::new(),
            bytes: 0,
            events: 0,
            span: 0,
        });
        open.bytes += len;
        open.events += batch.count();
        open.span += batch.span();
        open.batches.push(batch);
        base
    }

    /// Lays a partition's batches under one key.
    fn close_record(&self, (topic, partition): (TopicId, PartitionId), open: OpenRecord, group: &mut Group) {
        let index = self.next_index();
        let key = record::LogKey { topic, partition, base: open.base };
        let batches: Vec<&Batch> = open.batches.iter().collect();
        let OpenRecord { hops, append_time, bytes_before, span, .. } = open;
        let prefix = Prefix { hops, append_time, commit_index: index, bytes_before, span };
        let value = record::encode(&key, &prefix, &batches);
        let stored = value.slice(record::RECORD_PREFIX_BYTES..);
        let key = Bytes::copy_from_slice(&key.encode());
        group.ops.push(Op::Put { family: Family::Log, key, value });
        let piece = Piece {
            run: Run { base: open.base, append_time: open.append_time, hops: open.hops, batches: stored },
            events: open.events,
            span: open.span,
            built: false,
        };
        group.announcements.push(Announcement::Appended { topic: open.topic, partition, piece });
    }

    fn close_records(&self, group: &mut Group) {
        for (key, open) in std::mem::take(&mut group.open) {
            self.close_record(key, open, group);
        }
    }

    fn fragment(&mut self, fragment: Fragment, group: &mut Group, now: Timestamp) {
        let Fragment { owner, rows, step, appends, reply } = fragment;
        let result = self.check_fragment(owner, step, &appends);
        if result.is_ok() {
            group.ops.extend(rows);
            if let Some(step) = step {
                self.step_route(owner, step, group);
            }
            for append in appends {
                self.append_fragment(append, group, now);
            }
        }
        group.replies.push(Reply::Fragment { reply, result });
    }

    pub(super) fn change(&mut self, change: &Change, group: &mut Group, now: Timestamp) -> Result<(), Error> {
        let decided = change.decide(&self.state.catalogue, now, &self.budget, self.records_max)?;
        // What lies in the group for a topic must come before its deletion, and within the same commit order.
        self.close_records(group);
        self.take_decided(decided, group);
        Ok(())
    }

    pub(super) fn take_decided(&mut self, decided: Decided, group: &mut Group) {
        group.ops.extend(decided.ops);
        self.state.catalogue = decided.next;
        self.state.take_route_cursors();
        group.catalogue = Some(Arc::new(self.state.catalogue.clone()));
        for change in decided.topics {
            match &change {
                TopicChange::Created(topic) => {
                    self.state.topics.insert(topic.id, Arc::clone(topic));
                }
                TopicChange::Deleted(topic) => {
                    topic.set_going(true);
                    self.state.topics.remove(&topic.id);
                    self.state.ends.retain(|(id, _), _| *id != topic.id);
                    self.state.producers.retain(|(id, ..), _| *id != topic.id);
                    group.producers.retain(|(id, ..)| *id != topic.id);
                }
                TopicChange::Settings(..) => {}
            }
            group.announcements.push(Announcement::Topic(change));
        }
    }

    fn trim(&mut self, trim: Trim, group: &mut Group) {
        let Trim { topic, partition, start, dropped_bytes, reply } = trim;
        let kept_from = topic.partitions[usize::from(partition.0)].start();
        if self.state.topics.contains_key(&topic.id) && start > kept_from {
            // A reader must not look for events that the commit takes away before it is announced.
            topic.partitions[usize::from(partition.0)].hide_before(start);
            if let Some(end) = self.state.ends.get_mut(&(topic.id, partition)) {
                // The row of a segment that began before goes: the next event begins a new one.
                end.segment = end.segment.filter(|(base, _)| *base >= start);
            }
            let row = LogStart { offset: start, dropped_bytes };
            group.ops.push(row.put(&(topic.id, partition)));
            let log = LogRange::offsets(topic.id, partition, Offset(0), start);
            reclaim::drop_rows(&mut group.ops, Family::Log, (log.from, log.to));
            group.ops.push(Segment::delete_range(Segment::below(topic.id, partition, start)));
            group.ops.push(Setback::delete_range(Setback::below(topic.id, partition, start)));
            group.announcements.push(Announcement::Trimmed { topic, partition, start, dropped_bytes });
        }
        group.replies.push(Reply::Done { reply, result: Ok(()) });
    }

    fn next_index(&self) -> CommitIndex {
        CommitIndex(self.state.last.index.0 + 1)
    }

    /// Writes the group's commit and hands it to the syncer.
    fn write(&mut self, mut group: Group, now: Timestamp) {
        if group.is_empty() {
            return;
        }
        self.close_records(&mut group);
        for key in std::mem::take(&mut group.producers) {
            let Some(producer) = self.state.producers.get(&key) else { continue };
            if producer.is_unknown() {
                self.state.producers.remove(&key);
                group.ops.push(Producer::delete(&key));
            } else {
                group.ops.push(producer.put(&key));
            }
        }
        if !group.ops.is_empty() {
            let ops = std::mem::take(&mut group.ops);
            let next = Commit::after(&self.state.last, self.term, now, ops);
            let commit = Commit { shard: self.shard, ..next };
            if let Err(error) = self.store.apply(&commit) {
                tracing::error!(%error, "commit failed, no writes are taken");
                self.shown.close(error.code(), error.to_string());
                group.fail(error.code(), &error.to_string());
                return;
            }
            let last = self.store.last();
            if last.index != commit.index {
                // The store has taken it for one that it had long ago: it is ahead of this writer.
                let message = "the store has commits of another writer, this one writes no more";
                tracing::error!(applied = %last.index, commit = %commit.index, "{message}");
                self.shown.close(ErrorCode::StorageFenced, message.to_owned());
                group.fail(ErrorCode::StorageFenced, message);
                return;
            }
            self.state.last = last;
            group.index = Some(commit.index);
            self.durable.answer_written(&mut group);
        }
        let small = group.bytes <= OWN_SYNC_BYTES_MAX;
        if small && self.durable.is_idle() && self.commands.is_empty() {
            // Nobody waits behind it: handing it over would only cost a wake-up.
            self.durable.make_durable(vec![group]);
            return;
        }
        self.durable.sending();
        // The syncer outlives the writer: it ends when this sender is dropped, or by a panic, which closes the shard.
        // What it did not take answers by being dropped that its outcome is unknown.
        let _ = self.groups.send(ToSyncer::Group(Box::new(group)));
    }

    /// Refuses everything that is there while the store takes no writes; true if something says stop.
    fn refuse(&mut self, first: Command) -> bool {
        let closed = (**self.shown.closed.load()).clone();
        let error = closed.map_or(Error::ShuttingDown, |closed| closed.error());
        let stop = matches!(first, Command::Stop);
        refuse(first, &error);
        for fragment in self.waiting.take() {
            refuse(Command::Fragment(fragment), &error);
        }
        stop
    }
}

pub(super) fn refuse(command: Command, error: &Error) {
    match command {
        Command::Append(append) => {
            let (correlation, partition) = (append.header.correlation, append.header.partition);
            let refusal = error.refusal().retry_after(500);
            let ack = Ack { correlation, partition, outcome: AckOutcome::Refused(refusal) };
            Reply::Ack { permit: append.reply, ack, when_written: false }.send();
        }
        Command::Fragment(fragment) => {
            let result = Err(super::FragmentRefused::Failed(error.clone()));
            Reply::Fragment { reply: fragment.reply, result }.send();
        }
        Command::Change { reply, .. } => Reply::Done { reply, result: Err(error.clone()) }.send(),
        Command::Trim(trim) => Reply::Done { reply: trim.reply, result: Err(error.clone()) }.send(),
        Command::Forget(forget) => Reply::Done { reply: forget.reply, result: Err(error.clone()) }.send(),
        Command::Reclaimed { reply, .. } | Command::CheckClock { reply } => {
            Reply::Done { reply, result: Err(error.clone()) }.send();
        }
        Command::Wake | Command::Stop => {}
    }
}

fn producer_refusal(check: &Check, sequence: Sequence) -> Refusal {
    match check {
        Check::Gap { expected } => Refusal::new(
            ErrorCode::SequenceGap,
            format!("the producer's next sequence is {expected}, got {sequence}"),
        ),
        Check::Fenced { epoch } => Refusal::new(
            ErrorCode::ProducerFenced,
            format!("the producer's epoch is {epoch}; an older one may not publish"),
        ),
        Check::Unknown => Refusal::new(
            ErrorCode::ProducerUnknown,
            format!("nothing is known of this producer; expected sequence 0, got {sequence}"),
        ),
        Check::Append | Check::Duplicate { .. } => {
            Refusal::new(ErrorCode::Internal, "an accepted sequence was refused")
        }
    }
}
