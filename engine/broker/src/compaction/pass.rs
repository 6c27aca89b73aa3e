//! A pass over one partition, step by step: each reads a bounded stretch.
//!
//! It must not know how what it makes is committed.

use levada_delivery::compaction::Latest;
use levada_protocol::{
    batch::Batch,
    ids::{Offset, PartitionId, Timestamp, TopicId},
};
use levada_store::{
    Family, ScanLimit, Store,
    record::{LogKey, Record},
};

use super::{
    plan::Plan,
    record::{Left, Opened},
};
use crate::{
    config::CompactionConfig,
    error::Error,
    rows::{self, Compacted, Segment},
    setback::Setbacks,
    shard::Rewritten,
};

/// A pass.
pub(super) struct Pass {
    plan: Plan,
    config: CompactionConfig,
    latest: Latest,
    phase: Phase,
    /// The next record to read.
    at: Offset,
    /// Where segments begin: no record goes beyond its own.
    edges: Vec<Offset>,
    setbacks: Setbacks,
    /// The last record: those behind it that have no events left become part of it.
    held: Option<Held>,
    stored_bytes: u64,
    oldest_tombstone: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Collecting,
    Rewriting,
}

/// A record that those behind it may become part of.
struct Held {
    record: Record,
    batches: Vec<Batch>,
    span: u32,
    merged: Vec<Offset>,
    is_changed: bool,
}

/// What a step has made.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Records to store, which belong into one commit.
    pub(super) records: Vec<Rewritten>,
    /// By how much they are shorter than what they take the place of.
    pub(super) saved_bytes: u64,
    /// There is nothing more to do.
    pub(super) is_last: bool,
}

impl Pass {
    pub(super) fn new(plan: Plan, config: CompactionConfig) -> Self {
        Self {
            at: plan.dirty_from,
            plan,
            config,
            latest: Latest::default(),
            phase: Phase::New,
            edges: Vec::new(),
            setbacks: Setbacks::default(),
            held: None,
            stored_bytes: 0,
            oldest_tombstone: None,
        }
    }

    fn place(&self) -> (TopicId, PartitionId) {
        (self.plan.topic.id, self.plan.number)
    }

    /// One step. Blocks on the disk.
    ///
    /// # Errors
    /// If the store fails, or an event is damaged.
    pub(super) fn step(&mut self, store: &dyn Store) -> Result<Step, Error> {
        match self.phase {
            Phase::New => {
                let (topic, number) = self.place();
                self.setbacks = Setbacks::load(store, topic, number)?;
                let before = Segment::below(topic, number, self.plan.bound);
                rows::for_each::<Segment>(store, before, |(_, _, base), _| self.edges.push(base))?;
                self.phase = Phase::Collecting;
                Ok(Step::default())
            }
            Phase::Collecting => self.collect(store).map(|()| Step::default()),
            Phase::Rewriting => self.rewrite(store),
        }
    }

    /// The records that are read next; none behind the bound.
    fn read(&self, store: &dyn Store) -> Result<Vec<Opened>, Error> {
        let (topic, partition) = self.place();
        let key = |base| LogKey { topic, partition, base }.encode();
        let limit = ScanLimit::bytes(self.config.step_bytes);
        let rows = store.scan(Family::Log, &key(self.at), &key(self.plan.bound), limit)?;
        let time = |offset, stored| self.setbacks.time(offset, stored);
        rows.into_iter().map(|row| Opened::new(row, time)).collect()
    }

    /// Notes the keys of what was never compacted, and lowers the bound to where there are too many.
    fn collect(&mut self, store: &dyn Store) -> Result<(), Error> {
        let read = self.read(store)?;
        let mut is_done = read.is_empty();
        for opened in read {
            if self.latest.keys() >= self.config.keys_max {
                (self.plan.bound, self.plan.appended_bytes) =
                    (opened.record.key.base, opened.record.bytes_before);
                is_done = true;
                break;
            }
            for event in opened.events() {
                event.key.into_iter().for_each(|key| self.latest.note(key, event.offset));
            }
            self.at = opened.record.end();
        }
        if is_done {
            (self.phase, self.at) = (Phase::Rewriting, self.plan.start);
        }
        Ok(())
    }

    fn rewrite(&mut self, store: &dyn Store) -> Result<Step, Error> {
        let read = self.read(store)?;
        let mut step = Step { is_last: read.is_empty(), ..Step::default() };
        for opened in read {
            self.at = opened.record.end();
            self.take(&opened, &mut step);
        }
        // What is to become part of it later changes it again.
        step.records.extend(self.held.as_mut().and_then(Held::take_change));
        Ok(step)
    }

    fn take(&mut self, opened: &Opened, step: &mut Step) {
        let record = &opened.record;
        let left = opened.without(|event| self.latest.keeps(event, self.plan.tombstones_from));
        self.stored_bytes += left.bytes();
        step.saved_bytes += (record.bytes.len() as u64).saturating_sub(left.bytes());
        if left.has_tombstones {
            let oldest = self.oldest_tombstone.unwrap_or(Timestamp(u64::MAX));
            self.oldest_tombstone = Some(oldest.min(opened.append_time()));
        }
        let begins_segment = self.edges.binary_search(&record.key.base).is_ok();
        if left.batches.is_empty()
            && !begins_segment
            && self.held.as_mut().is_some_and(|held| held.absorb(record))
        {
            return;
        }
        step.records.extend(self.held.as_mut().and_then(Held::take_change));
        self.held = Some(Held::new(record.clone(), left));
    }

    /// How far the partition is compacted once all steps are committed.
    pub(super) fn compacted(&self) -> Compacted {
        Compacted {
            until: self.plan.bound,
            appended_bytes: self.plan.appended_bytes,
            dropped_bytes: self.plan.dropped_bytes,
            stored_bytes: self.stored_bytes,
            oldest_tombstone: self.oldest_tombstone,
        }
    }
}

impl Held {
    fn new(record: Record, left: Left) -> Self {
        let Left { batches, is_whole, .. } = left;
        Self { span: record.span, record, batches, merged: Vec::new(), is_changed: !is_whole }
    }

    /// Takes the offsets of a record without events; false if that is not the next one, or does not fit.
    fn absorb(&mut self, next: &Record) -> bool {
        let is_next = self.record.key.base.plus(u64::from(self.span)) == next.key.base;
        let Some(span) = self.span.checked_add(next.span).filter(|_| is_next) else { return false };
        self.span = span;
        self.merged.push(next.key.base);
        self.is_changed = true;
        true
    }

    /// What is to be stored of it; `None` if that is what is stored.
    fn take_change(&mut self) -> Option<Rewritten> {
        std::mem::take(&mut self.is_changed).then(|| Rewritten {
            base: self.record.key.base,
            append_time: self.record.append_time,
            hops: self.record.hops,
            bytes_before: self.record.bytes_before,
            span: self.span,
            batches: self.batches.clone(),
            merged: std::mem::take(&mut self.merged),
        })
    }
}
