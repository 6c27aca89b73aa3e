//! The state that the writer decides on: ahead of what is durable by the groups under way. It has no clock, no queue
//! and no thread: each command adds to the group in the making.

mod audit;
mod expiry;
mod logs;
mod names;

use std::sync::Arc;

use levada_delivery::producer::Check;
use levada_protocol::{
    batch::Batch,
    duplicates::Duplicates,
    error::{ErrorCode, Refusal},
    ids::{
        CommitIndex, Epoch, Offset, PartitionId, ProducerId, Sequence, SubscriptionId, Timestamp, TopicId,
        TopicName,
    },
    publish::{Ack, AckOutcome, PublishHeader},
    request::TopicSettings,
};
use levada_store::{Family, Op, Store, commit::AppliedRow};

use super::{
    announcement::Announcement,
    command::{Append, CancelScheduled, Command, MoveDue},
    due::{already_due, due_at},
    group::{Group, Reply},
    proposal::{
        AppendRequest, AppendTarget, Condition, Proposal, ProposalRefused, QueuedEvents, RedrivenBatch,
        StateChange,
    },
    room::{Room, charge_of},
    tables::{
        Cancel, Destination, DuePart, Generation, Generations, NewBatch, ProducerKey, Redrives, TableLimits,
        Tables, Unique, retain_for_ms,
    },
    transact::{
        Ask, Decide, ForgetTransactions, Transact, TransactBatch, Transacted, changed_since,
        transaction_not_found,
    },
};
use crate::{
    catalogue::{Catalogue, CatalogueEvent, Change, Decided},
    check_times::CheckTimes,
    error::Error,
    guard::Guard,
    queue_ends::QueueEnds,
    rows::{self, EngineId, Row, Share, Undecided, Verdict},
    topic::Topic,
    topics::Topics,
};

/// How long dead letters are kept at least: 30 days, not the topic's own time.
const DEAD_LETTERS_RETAIN_MS: u64 = 30 * 24 * 3_600_000;
/// Topics that are named in the log when the clock was set back; of more there is the count alone.
const NAMED_MAX: usize = 10;

/// How much the state may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Records of the catalogue.
    pub(super) records_max: usize,
    /// What the tables keep in memory.
    pub(super) tables: TableLimits,
}

/// What others see of the state, as far as it is durable.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) topics: Arc<Topics>,
    pub(super) checks: Arc<CheckTimes>,
    pub(super) queues: Arc<QueueEnds>,
}

/// The writer's state.
pub(super) struct State {
    store: Arc<dyn Store>,
    guard: Arc<Guard>,
    live: Live,
    limits: Limits,
    catalogue: Catalogue,
    tables: Tables,
    /// They outlive what is read again from the store: owners do, too.
    generations: Generations,
    /// So do those who ask for these.
    redrives: Redrives,
    /// The data directory's identity; `None` until the first commit.
    engine_id: Option<EngineId>,
    /// The commit that was written last.
    last: AppliedRow,
}

impl State {
    /// Reads everything that the writer owns, and brings the live topics in line with it. Blocks on the disk.
    ///
    /// # Errors
    /// If the store fails, or something in it is damaged.
    pub(super) fn open(
        store: Arc<dyn Store>,
        guard: Arc<Guard>,
        live: Live,
        limits: Limits,
        schedule_revision: u64,
    ) -> Result<Self, Error> {
        // What was recovered becomes visible now, so it must be durable now.
        store.sync()?;
        let catalogue = Catalogue::load(store.as_ref())?;
        let (tables, extents) = Tables::load(store.as_ref(), &catalogue, limits.tables, schedule_revision)?;
        live.topics.recover(&catalogue, extents);
        for (id, info) in tables.dedup.infos() {
            live.topics.get(id).inspect(|topic| topic.dedup.add(&info));
        }
        live.checks.recover(tables.transactions.undecided());
        tables.queues.ends().for_each(|(id, end)| live.queues.set(id, end));
        live.topics.recover_prepared(|id| tables.transactions.prepared_for(id));
        live.topics.recover_schedules(tables.schedule.summaries(), schedule_revision);
        let (engine_id, last) = (rows::get(store.as_ref(), &())?, store.last());
        let (generations, redrives) = (Generations::default(), Redrives::default());
        Ok(Self { store, guard, live, limits, catalogue, tables, generations, redrives, engine_id, last })
    }

    /// Reads everything again, after the store was opened again: what was decided and is not stored is void.
    ///
    /// # Errors
    /// As [`State::open`]; nothing has changed then.
    pub(super) fn reload(&mut self) -> Result<(), Error> {
        let (store, guard, live) = (Arc::clone(&self.store), Arc::clone(&self.guard), self.live.clone());
        let revision = self.tables.schedule.revision() + 1;
        let read = Self::open(store, guard, live, self.limits, revision)?;
        let (generations, redrives) =
            (std::mem::take(&mut self.generations), std::mem::take(&mut self.redrives));
        *self = Self { generations, redrives, ..read };
        Ok(())
    }

    pub(super) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    pub(super) fn engine_id(&self) -> Option<EngineId> {
        self.engine_id
    }

    pub(super) fn set_engine_id(&mut self, id: EngineId, group: &mut Group) {
        group.draft.push(id.put(&()));
        self.engine_id = Some(id);
    }

    /// The commit that was written last.
    pub(super) fn last(&self) -> &AppliedRow {
        &self.last
    }

    pub(super) fn set_last(&mut self, last: AppliedRow) {
        self.last = last;
    }

    /// The index of the commit that is being made.
    pub(super) fn next_index(&self) -> CommitIndex {
        CommitIndex(self.last.index.0 + 1)
    }

    /// Adds to the group what the tables have held back until its end.
    pub(super) fn flush(&mut self, group: &mut Group, now: Timestamp) {
        self.tables.flush(now, &mut group.draft);
    }

    /// Decides one command into the group; true if it says stop.
    pub(super) fn take(&mut self, command: Command, group: &mut Group, now: Timestamp) -> bool {
        match command {
            Command::Append(append) => self.append(append, group, now),
            Command::Propose(proposal) => self.propose(proposal, group, now),
            Command::Change { change, by, reply } => {
                let result = audit::change(self, &change, &by, group, now);
                group.reply(Reply::Done { reply, result });
            }
            Command::TakeOver { subscription, reply } => {
                let result = self.take_over(subscription);
                group.reply(Reply::TakenOver { reply, result });
            }
            Command::Redrives { topic, reply } => {
                let result = Ok(self.redrives.revision(topic));
                group.reply(Reply::Redrives { reply, result });
            }
            Command::OpenProducer(open) => {
                let result = names::open(self, &open, group, now);
                group.reply(Reply::ProducerOpened { reply: open.reply, result });
            }
            Command::Trim(trim) => logs::trim(self, trim, group),
            Command::Expire(seen) => {
                let result = expiry::expire(self, &seen, group, now);
                group.reply(Reply::Done { reply: seen.reply, result });
            }
            Command::Forget(forget) => {
                let result = names::forget_idle(self, &forget.idle, forget.before, group);
                group.reply(Reply::Done { reply: forget.reply, result });
            }
            Command::Reclaimed { notes, reply } => {
                for key in notes {
                    group.draft.push(Op::Delete { family: Family::Meta, key });
                }
                group.reply(Reply::Done { reply, result: Ok(()) });
            }
            Command::MoveDue(MoveDue { revision, parts, reply }) => {
                self.move_due(revision, parts, group, now);
                group.reply(Reply::Done { reply, result: Ok(()) });
            }
            Command::Cancel(cancel) => {
                let result = self.cancel(&cancel, group);
                group.reply(Reply::Done { reply: cancel.reply, result });
            }
            Command::Transact(transact) => self.transact(transact, group, now),
            Command::Decide(decide) => {
                let result = self.decide_transaction(&decide, group, now);
                group.hold(decide.admitted);
                group.reply(Reply::Transacted { reply: decide.reply, result });
            }
            Command::Barrier { reply } => group.reply(Reply::Done { reply, result: Ok(()) }),
            Command::Ask(ask) => {
                let result = Ok(self.ask(&ask, group, now));
                group.reply(Reply::Asked { reply: ask.reply, result });
            }
            Command::ForgetTransactions(ForgetTransactions { ends, reply }) => {
                let (store, draft) = (self.store.as_ref(), &mut group.draft);
                let transactions = &mut self.tables.transactions;
                let result = ends.iter().try_for_each(|end| transactions.forget(store, end, draft));
                group.reply(Reply::Done { reply, result });
            }
            Command::CheckClock { reply } => {
                self.check_clock(group, now);
                self.tables.expire_ids(now);
                group.reply(Reply::Done { reply, result: Ok(()) });
            }
            Command::Wake => {}
            Command::Stop => return true,
        }
        false
    }

    fn append(&mut self, append: Append, group: &mut Group, now: Timestamp) {
        let Append { topic, header, batch, ack_written, reply, admitted } = append;
        let decided = self.decide_append(&topic, &header, batch, group, now);
        let outcome = decided.unwrap_or_else(AckOutcome::Refused);
        let is_stored = matches!(outcome, AckOutcome::Appended { .. } | AckOutcome::Scheduled { .. });
        if !is_stored {
            admitted.put_back();
        }
        group.hold(admitted);
        let when_written = ack_written && is_stored;
        let ack = Ack { correlation: header.correlation, partition: header.partition, outcome };
        group.reply(Reply::Ack { permit: reply, ack, when_written });
    }

    fn decide_append(
        &mut self,
        topic: &Topic,
        header: &PublishHeader,
        batch: Batch,
        group: &mut Group,
        now: Timestamp,
    ) -> Result<AckOutcome, Refusal> {
        let deleted = || topic.deleted_error().refusal();
        let record = self.catalogue.topics.by_id(topic.id).ok_or_else(deleted)?;
        let retain_for_ms = retain_for_ms(&record.settings);
        let has_quota = record.settings.has_backlog_quota();
        let key = (topic.id, header.partition, ProducerId(batch.header().producer_id));
        let sequence = (Epoch(batch.header().epoch), Sequence(batch.header().first_sequence));
        let count = batch.count();
        names::check(self, key, sequence.0, now)?;
        let idempotent = key.2.0 != 0;
        if idempotent && let Some(repeat) = self.check_sequence(key, sequence, header, count)? {
            return Ok(repeat);
        }
        if let Some(refusal) = self.guard.refusal() {
            return Err(refusal);
        }
        let partition = header.partition;
        if let Some(at) = header.expect_offset {
            let end = Condition::End { topic: topic.id, partition, at };
            match self.check_condition(&end) {
                Ok(()) => {}
                Err(ProposalRefused::End { next, .. }) => {
                    let message = format!("the partition's next offset is {next}, expected {at}");
                    return Ok(AckOutcome::OffsetMismatch { next, message });
                }
                Err(refused) => return Err(refused.error().refusal()),
            }
        }
        let due = header.due.map(|due| due_at(due, now)).transpose()?;
        if has_quota {
            self.room().admit(topic.id, charge_of(&batch), &mut group.draft, now)?;
        }
        if let Some(at) = due {
            let draft = &mut group.draft;
            let first = self.tables.schedule.add(topic.id, header.partition, at, &batch, draft);
            if idempotent {
                self.tables.producers.record_scheduled(key, now, sequence, count, first, draft);
            }
            return Ok(AckOutcome::Scheduled { first: Some(first), count, duplicate: false });
        }
        let new = NewBatch { topic: topic.id, partition, batch, hops: 0, retain_for_ms };
        let (next, stored, duplicates) = self.append_unique(new, group, now).ok_or_else(deleted)?;
        if idempotent {
            let (stored, draft) = ((next, stored, duplicates.clone()), &mut group.draft);
            self.tables.producers.record(key, now, sequence, count, stored, draft);
        }
        let base = (stored > 0).then_some(next);
        Ok(AckOutcome::Appended { base, count: stored, duplicate: false, duplicates })
    }

    /// The room in topics' backlogs.
    fn room(&mut self) -> Room<'_> {
        let (store, topics, catalogue) = (self.store.as_ref(), self.live.topics.as_ref(), &self.catalogue);
        Room { store, topics, catalogue, tables: &mut self.tables }
    }

    /// What became of a batch that is a repeat; `None` if it is the next one of its producer.
    fn check_sequence(
        &mut self,
        key: ProducerKey,
        sequence: (Epoch, Sequence),
        header: &PublishHeader,
        count: u32,
    ) -> Result<Option<AckOutcome>, Refusal> {
        let check = self.tables.producers.check(self.store.as_ref(), key, sequence, count);
        match check.map_err(|error| error.refusal())? {
            Check::Append => Ok(None),
            Check::Scheduled { first, events: count } => {
                Ok(Some(AckOutcome::Scheduled { first: Some(first), count, duplicate: true }))
            }
            Check::Duplicate { base: None, events, duplicates: None } => {
                Ok(Some(Self::forgotten(header, events)))
            }
            Check::Duplicate { base, events: count, duplicates } => {
                Ok(Some(AckOutcome::Appended { base, count, duplicate: true, duplicates }))
            }
            refused => Err(producer_refusal(&refused, sequence)),
        }
    }

    /// Where and when the partition's next event is appended; `None` if there is no such partition.
    fn begin_append(
        &mut self,
        (topic, partition): (TopicId, PartitionId),
        group: &mut Group,
        now: Timestamp,
    ) -> Option<(Offset, Timestamp)> {
        if self.tables.partitions.is_ahead_of(topic, partition, now) {
            self.check_clock(group, now);
        }
        let partitions = &self.tables.partitions;
        Some((partitions.next(topic, partition)?, partitions.append_time(topic, partition, now)?))
    }

    /// Assigns offsets to the events of a published batch that the topic's dedup window does not hold. Returns the first
    /// one's offset, how many they are, and which the others are; `None` if there is no such partition.
    fn append_unique(
        &mut self,
        new: NewBatch,
        group: &mut Group,
        now: Timestamp,
    ) -> Option<(Offset, u32, Option<Arc<Duplicates>>)> {
        let place = (new.topic, new.partition);
        let (next, time) = self.begin_append(place, group, now)?;
        let draft = &mut group.draft;
        let Unique { batch, duplicates } = self.tables.dedup.take(place, new.batch, next, time, draft);
        let stored = batch.as_ref().map_or(0, Batch::count);
        if let Some(batch) = batch {
            self.tables.partitions.append(NewBatch { batch, ..new }, now, draft)?;
        }
        Some((next, stored, duplicates))
    }

    /// Assigns offsets to a batch; `None` if there is no such partition.
    fn append_batch(&mut self, new: NewBatch, group: &mut Group, now: Timestamp) -> Option<Offset> {
        self.begin_append((new.topic, new.partition), group, now)?;
        self.tables.partitions.append(new, now, &mut group.draft)
    }

    /// What a repeat of a batch is told whose outcome is no longer remembered.
    fn forgotten(header: &PublishHeader, count: u32) -> AckOutcome {
        match header.due {
            Some(_) => AckOutcome::Scheduled { first: None, count, duplicate: true },
            None => AckOutcome::Appended { base: None, count, duplicate: true, duplicates: None },
        }
    }

    /// Appends what is due, and takes it out of the schedule. Neither quota nor disk guard stands in its way: it was
    /// accepted long ago.
    fn move_due(&mut self, revision: u64, parts: Vec<DuePart>, group: &mut Group, now: Timestamp) {
        // What was read before the last decision, or before the store was opened again, may be void.
        if revision != self.tables.schedule.revision() {
            return;
        }
        for (topic, partition, batch) in self.tables.schedule.take_due(parts, now, &mut group.draft) {
            let Some(record) = self.catalogue.topics.by_id(topic) else { continue };
            let retain_for_ms = retain_for_ms(&record.settings);
            let new = NewBatch { topic, partition, batch, hops: 0, retain_for_ms };
            if self.append_unique(new, group, now).is_none() {
                tracing::error!(%topic, %partition, "delayed events were for a partition that does not exist");
            }
        }
    }

    fn cancel(&mut self, cancel: &CancelScheduled, group: &mut Group) -> Result<(), Error> {
        let CancelScheduled { topic, place, id, reply: _ } = cancel;
        if !self.catalogue.topics.has_id(*topic) {
            return Err(Error::refused(ErrorCode::TopicNotFound, "the topic was deleted"));
        }
        let index = u32::try_from(id - place.first).expect("a batch has few events");
        let (store, draft) = (self.store.as_ref(), &mut group.draft);
        match self.tables.schedule.cancel(store, (*topic, *place), index, draft)? {
            Cancel::Done => Ok(()),
            Cancel::TooLate => Err(already_due(*id)),
        }
    }

    fn transact(&mut self, mut transact: Transact, group: &mut Group, now: Timestamp) {
        let acked = transact.acked.take();
        let result = self.decide_transact(&transact, acked, group, now);
        group.hold(transact.admitted);
        group.reply(Reply::Transacted { reply: transact.reply, result });
    }

    /// Takes all of a transaction, or nothing.
    fn decide_transact(
        &mut self,
        transact: &Transact,
        acked: Option<(Condition, Vec<StateChange>)>,
        group: &mut Group,
        now: Timestamp,
    ) -> Result<Transacted, Error> {
        let (key, store) = (&transact.key, self.store.as_ref());
        if let Some(transaction) = self.tables.transactions.find(store, key)? {
            transact.check_repeat(&transaction)?;
            let undecided = self.tables.transactions.undecided_of(key);
            return Ok(Transacted { transaction, undecided, repeat: true });
        }
        if let Some(refusal) = self.guard.refusal() {
            return Err(refusal.into());
        }
        for TransactBatch { topic, partition, .. } in &transact.batches {
            self.tables.partitions.next(topic.id, *partition).ok_or_else(|| topic.deleted_error())?;
        }
        let expected = transact.expectations()?.into_iter();
        let expected = expected.map(|(topic, partition, at)| Condition::End { topic, partition, at });
        let owner = acked.iter().map(|(owner, _)| *owner);
        for condition in expected.chain(owner) {
            self.check_condition(&condition).map_err(|refused| transact.refused(&condition, refused))?;
        }
        if transact.check_after_ms.is_some() {
            self.tables.transactions.admit(&key.group, transact.bytes())?;
        }
        let appended = transact.batches.iter().map(|it| (it.topic.id, &it.batch));
        self.room().admit_all(appended, &mut group.draft, now).map_err(|(_, refusal)| refusal)?;
        let (mut transaction, mut undecided) = (transact.transaction(now), None);
        let batches = transact.batches.iter().map(|it| &it.batch);
        if let Some(after) = transact.check_after_ms {
            let bytes = transact.bytes();
            let next_check = Some(Timestamp(now.0.saturating_add(after)));
            let bytes = u32::try_from(bytes).expect("a transaction's bytes are bounded");
            let waits = Undecided { prepared: now, bytes, checks: 0, next_check };
            let draft = &mut group.draft;
            self.tables.transactions.prepare(key, transaction.clone(), batches, waits, draft);
            undecided = Some(waits);
        } else {
            for change in acked.into_iter().flat_map(|(_, changes)| changes) {
                self.apply_change(change, group, now);
            }
            for (share, batch) in transaction.batches.iter_mut().zip(batches) {
                self.append_share(share, batch.clone(), group, now);
            }
            (transaction.verdict, transaction.decided) = (Verdict::Committed, now);
            self.tables.transactions.decide(key, transaction.clone(), &mut group.draft);
        }
        Ok(Transacted { transaction, undecided, repeat: false })
    }

    /// Appends a transaction's batch, and notes where; a topic that was deleted gets nothing.
    fn append_share(&mut self, share: &mut Share, batch: Batch, group: &mut Group, now: Timestamp) {
        let Some(record) = self.catalogue.topics.by_id(share.topic) else { return };
        let retain_for_ms = retain_for_ms(&record.settings);
        let (topic, partition) = (share.topic, share.partition);
        let new = NewBatch { topic, partition, batch, hops: 0, retain_for_ms };
        if let Some((base, stored, duplicates)) = self.append_unique(new, group, now) {
            share.base = (stored > 0).then_some(base);
            share.duplicates = duplicates;
        }
    }

    /// Commits or rolls back what is prepared. Neither quota nor disk guard stands in its way: it was accepted before.
    fn decide_transaction(
        &mut self,
        decide: &Decide,
        group: &mut Group,
        now: Timestamp,
    ) -> Result<Transacted, Error> {
        let key = &decide.key;
        let found = self.tables.transactions.find(self.store.as_ref(), key)?;
        let mut transaction = found.ok_or_else(|| transaction_not_found(key))?;
        if let Some(repeat) = decide.repeat(&transaction) {
            return repeat;
        }
        // Another transaction has this name since it was read: the store was opened again, or it was forgotten.
        let is_it = transaction.digest == decide.found.digest;
        if !is_it || (decide.commit && decide.found.batches.len() != transaction.batches.len()) {
            return Err(changed_since(key));
        }
        for (share, batch) in transaction.batches.iter_mut().zip(&decide.found.batches) {
            self.append_share(share, batch.clone(), group, now);
        }
        transaction.verdict = if decide.commit { Verdict::Committed } else { Verdict::RolledBack };
        transaction.decided = now;
        self.tables.transactions.decide(key, transaction.clone(), &mut group.draft);
        audit::decision(self, decide, group, now);
        Ok(Transacted { transaction, undecided: None, repeat: false })
    }

    fn ask(&mut self, ask: &Ask, group: &mut Group, now: Timestamp) -> Vec<Option<Undecided>> {
        let next = Timestamp(now.0.saturating_add(ask.interval_ms));
        let (transactions, draft) = (&mut self.tables.transactions, &mut group.draft);
        ask.keys.iter().map(|key| transactions.ask(key, (now, next), ask.checks_max, draft)).collect()
    }

    /// Applies a proposal as a whole, or refuses it as a whole.
    fn propose(&mut self, proposal: Proposal, group: &mut Group, now: Timestamp) {
        let Proposal { conditions, changes, appends, reply } = proposal;
        let checked = conditions
            .iter()
            .try_for_each(|condition| self.check_condition(condition))
            .and_then(|()| changes.iter().try_for_each(|change| self.check_change(change)))
            .and_then(|()| appends.iter().try_for_each(|append| self.check_append(append)))
            .and_then(|()| self.room().admit_appends(&appends, &mut group.draft, now));
        let result = checked.map(|()| {
            for change in changes {
                self.apply_change(change, group, now);
            }
            for append in appends {
                self.apply_append(append, group, now);
            }
        });
        group.reply(Reply::Proposal { reply, result });
    }

    fn check_condition(&self, condition: &Condition) -> Result<(), ProposalRefused> {
        match *condition {
            Condition::Owner { subscription, generation } => {
                if !self.catalogue.subscriptions.has_id(subscription) {
                    return Err(ProposalRefused::Gone);
                }
                let checked = self.generations.check(subscription, generation);
                checked.map_err(|current| ProposalRefused::Stale { proposed: generation, current })
            }
            Condition::RouteCursor { route, partition, at } => self.tables.routes.check(route, partition, at),
            Condition::End { topic, partition, at } => match self.tables.partitions.next(topic, partition) {
                None => Err(ProposalRefused::Gone),
                Some(next) if next != at => Err(ProposalRefused::End { next, expected: at }),
                Some(_) => Ok(()),
            },
            Condition::Compacts { topic, partition, start, readers } => {
                logs::check_compacts(self, (topic, partition), start, readers)
            }
            Condition::Redrives { topic, .. } if !self.catalogue.topics.has_id(topic) => {
                Err(ProposalRefused::Gone)
            }
            Condition::Redrives { topic, at } if self.redrives.revision(topic) != at => {
                Err(ProposalRefused::Overtaken)
            }
            Condition::Redrives { .. } => Ok(()),
        }
    }

    fn check_append(&self, append: &AppendRequest) -> Result<(), ProposalRefused> {
        let (id, name) = match &append.target {
            AppendTarget::Topic(id) => match self.catalogue.topics.by_id(*id) {
                Some(record) => (*id, &record.name),
                None => {
                    let error = Error::refused(ErrorCode::TopicNotFound, "the target was deleted");
                    return Err(ProposalRefused::Blocked { target: None, error });
                }
            },
            AppendTarget::DeadLetters(name) => match self.catalogue.topics.get(name) {
                Some(record) => (record.id(), &record.name),
                None => return Ok(()),
            },
        };
        let blocked = |error| Err(ProposalRefused::Blocked { target: Some(name.clone()), error });
        if self.tables.partitions.next(id, append.partition).is_none() {
            let message = format!("topic {name} has no partition {}", append.partition);
            return blocked(Error::refused(ErrorCode::PartitionNotFound, message));
        }
        // A dead letter is part of what was accepted long ago: it takes the reserve.
        match (&append.target, self.guard.refusal()) {
            (AppendTarget::Topic(_), Some(refusal)) => blocked(Error::Refused(refusal)),
            _ => Ok(()),
        }
    }

    fn check_change(&self, change: &StateChange) -> Result<(), ProposalRefused> {
        let StateChange::Queue(queued) = change else { return Ok(()) };
        let blocked = |error| Err(ProposalRefused::Blocked { target: None, error });
        if !self.catalogue.subscriptions.has_id(queued.subscription) {
            return blocked(Error::refused(ErrorCode::SubscriptionNotFound, "the subscription was deleted"));
        }
        // As an append that somebody asks for.
        self.guard.refusal().map_or(Ok(()), |refusal| blocked(Error::Refused(refusal)))
    }

    fn apply_change(&mut self, change: StateChange, group: &mut Group, now: Timestamp) {
        match change {
            StateChange::Dequeue { subscription, events } => {
                self.tables.dequeue(subscription, &events, &mut group.draft);
            }
            StateChange::Queue(queued) => {
                let QueuedEvents { subscription, topic, from, events, queued } = *queued;
                for event in &events {
                    let key = (from.0, from.1, event.dead_letter);
                    self.redrives.note(key, &event.note(&topic, now), &mut group.draft);
                }
                let rows = events.iter().map(|event| event.row(now));
                self.tables.queues.add(subscription, rows, &mut group.draft);
                // Whoever proposed it may have ended.
                let _ = queued.send(now);
            }
            StateChange::Progress { subscription, partition, rows } => {
                self.tables.change_progress(subscription, partition, rows, &mut group.draft);
            }
            StateChange::Loss { subscription, partition, loss } => {
                group.draft.push(loss.put(&(subscription, partition)));
            }
            StateChange::Attendance { subscription, unattended_since } => {
                self.tables.unattended.set(subscription, unattended_since, &mut group.draft);
            }
            StateChange::RouteCursor { route, partition, to } => {
                self.tables.advance_route(route, partition, to, &mut group.draft);
            }
            StateChange::Trim { topic, partition, start, dropped_bytes } => {
                logs::drop_before(self, (topic, partition), start, dropped_bytes, group);
            }
            StateChange::Rewrite { topic, partition, records, appended_bytes } => {
                let (place, draft) = ((topic, partition), &mut group.draft);
                self.tables.partitions.rewrite(place, &records, appended_bytes, draft);
            }
            StateChange::Superseded { topic, partition, offsets } => {
                self.tables.partitions.note_superseded((topic, partition), offsets, &mut group.draft);
            }
            StateChange::Compacted { topic, partition, compacted } => {
                self.tables.partitions.note_compacted((topic, partition), compacted, &mut group.draft);
            }
        }
    }

    fn apply_append(&mut self, append: AppendRequest, group: &mut Group, now: Timestamp) {
        let AppendRequest { target, partition, batch, hops, redrives } = append;
        let record = match target {
            AppendTarget::Topic(id) => self.catalogue.topics.by_id(id).cloned(),
            AppendTarget::DeadLetters(name) => {
                if !self.catalogue.topics.contains(&name) {
                    self.create_dead_letters(&name, group, now);
                }
                self.catalogue.topics.get(&name).cloned()
            }
        };
        // It was checked together with the rest of the proposal.
        let Some(record) = record else { return };
        let retain_for_ms = retain_for_ms(&record.settings);
        let new = NewBatch { topic: record.id(), partition, batch, hops, retain_for_ms };
        let base = self.append_batch(new, group, now);
        if let (Some(redrives), Some(base)) = (redrives, base) {
            let RedrivenBatch { topic, partition: of, dead_letters, appended } = *redrives;
            let destination = Destination { to: &record.name, partition, base, time: now };
            for (index, (offset, times)) in (0..).zip(dead_letters) {
                self.redrives.note((topic, of, offset), &destination.row(index, times), &mut group.draft);
            }
            // Whoever proposed it may have ended.
            let _ = appended.send((base, now));
        }
    }

    fn create_dead_letters(&mut self, name: &TopicName, group: &mut Group, now: Timestamp) {
        let settings = TopicSettings { retain_for_ms: DEAD_LETTERS_RETAIN_MS, ..TopicSettings::default() };
        let change = Change::CreateTopic { name: name.clone(), settings, owner: "engine".to_owned() };
        // The records limit must not stop a dead letter: it is part of what was accepted long ago.
        match change.decide(&self.catalogue, now, usize::MAX) {
            Ok(decided) => self.take_decided(decided, group),
            Err(error) => tracing::error!(%error, topic = %name, "a dead-letter topic could not be created"),
        }
    }

    fn take_decided(&mut self, decided: Decided, group: &mut Group) {
        for op in decided.ops {
            group.draft.push(op);
        }
        self.catalogue = decided.next;
        group.set_catalogue(self.catalogue.clone());
        for event in decided.events {
            self.tables.follow(&event, &mut group.draft);
            // What its owner still has under way is about where it was.
            if let CatalogueEvent::SubscriptionMoved(record, _) = &event {
                self.generations.take_over(SubscriptionId(record.id));
            }
            // Its rows go with the commit: readers must not take that for damage.
            if let CatalogueEvent::TopicDeleted(id) = &event
                && let Some(topic) = self.live.topics.get(*id)
            {
                topic.set_deleting(true);
            }
            group.draft.announce(Announcement::Catalogue(event));
        }
    }

    fn take_over(&mut self, subscription: SubscriptionId) -> Result<Generation, Error> {
        if !self.catalogue.subscriptions.has_id(subscription) {
            let message = format!("subscription {subscription} was deleted");
            return Err(Error::refused(ErrorCode::SubscriptionNotFound, message));
        }
        Ok(self.generations.take_over(subscription))
    }

    /// Checks whether the clock was set back, and starts append times again where it was.
    pub(super) fn check_clock(&mut self, group: &mut Group, now: Timestamp) {
        let found = self.tables.partitions.set_back(now, &mut group.draft);
        if found.partitions > 0 {
            self.tables.backlogs.clock_was_set_back();
            let names = found.topics.iter().filter_map(|id| self.catalogue.topics.by_id(*id));
            let named: Vec<_> = names.take(NAMED_MAX).map(|record| record.name.as_str()).collect();
            tracing::warn!(
                topics = found.topics.len(),
                named = named.join(", "),
                partitions = found.partitions,
                ahead_ms_max = found.ahead_ms_max,
                "the clock was set back: events were stored while it ran ahead, they count as appended now"
            );
        }
    }
}

fn producer_refusal(check: &Check, (got, sequence): (Epoch, Sequence)) -> Refusal {
    match check {
        Check::Gap { expected } => Refusal::new(
            ErrorCode::SequenceGap,
            format!("the producer's next sequence is {expected}, got {sequence}"),
        ),
        Check::Fenced { epoch } => Refusal::new(
            ErrorCode::ProducerFenced,
            format!("the producer's epoch is {epoch}, got {got}; an older one may not publish"),
        ),
        Check::Unknown => Refusal::new(
            ErrorCode::ProducerUnknown,
            format!("nothing is known of this producer; expected sequence 0, got {sequence}"),
        ),
        Check::Append | Check::Duplicate { .. } | Check::Scheduled { .. } => {
            Refusal::new(ErrorCode::Internal, "an accepted sequence was refused")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_fenced_is_told_both_epochs() {
        let refusal = producer_refusal(&Check::Fenced { epoch: Epoch(3) }, (Epoch(2), Sequence(9)));
        assert_eq!(refusal.message, "the producer's epoch is 3, got 2; an older one may not publish");
    }
}
