//! A pass over one partition, step by step: each reads a bounded stretch.
//!
//! It must not know how what it makes is committed.

use levada_delivery::compaction::{Latest, Reached};
use levada_protocol::{
    batch::Batch,
    error::ErrorCode,
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
    shard::Rewritten,
};

/// A pass.
pub(super) struct Pass {
    pub(super) plan: Plan,
    config: CompactionConfig,
    latest: Latest,
    is_rewriting: bool,
    /// The next record to read.
    at: Offset,
    /// The record that was collected last, and how many bytes were appended before it.
    collected: Option<(Offset, u64)>,
    /// Why it ends before the planned bound.
    shortened: Option<Shortened>,
    /// The last record: those behind it that have no events left become part of it.
    held: Option<Held>,
    stored_bytes: u64,
    first_tombstone: Option<Offset>,
}

/// Why a pass ends before the bound that was planned.
#[derive(Debug)]
pub(super) enum Shortened {
    /// There are more keys than it may hold.
    Keys,
    /// A record is damaged.
    Damage(Error),
}

/// Records in order, and why there are no more if that is damage.
#[derive(Default)]
struct Found {
    records: Vec<Opened>,
    damage: Option<Error>,
}

/// A record that those behind it may become part of.
struct Held {
    record: Record,
    batches: Vec<Batch>,
    span: u32,
    merged: Vec<Offset>,
    /// By how many bytes it is shorter than what was stored, with those that became part of it.
    saved_bytes: u64,
    is_changed: bool,
}

/// What a step has made.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Records to store, in this order.
    pub(super) records: Vec<Rewritten>,
    /// There is nothing more to do.
    pub(super) is_last: bool,
}

impl Step {
    /// The records in commits of so many bytes at most, unless one record is larger.
    pub(super) fn into_commits(self, bytes_max: usize) -> Vec<Vec<Rewritten>> {
        let mut commits: Vec<Vec<Rewritten>> = Vec::new();
        let mut bytes = 0;
        for record in self.records {
            let len = record.encoded_len();
            bytes += len;
            match commits.last_mut().filter(|_| bytes <= bytes_max) {
                Some(commit) => commit.push(record),
                None => {
                    bytes = len;
                    commits.push(vec![record]);
                }
            }
        }
        commits
    }
}

impl Pass {
    pub(super) fn new(plan: Plan, config: CompactionConfig) -> Self {
        let events = plan.bound.0.saturating_sub(plan.dirty_from().0);
        let keys = config.keys_max.min(usize::try_from(events).unwrap_or(usize::MAX));
        Self {
            at: plan.dirty_from(),
            plan,
            config,
            latest: Latest::with_capacity(keys),
            is_rewriting: false,
            collected: None,
            shortened: None,
            held: None,
            stored_bytes: 0,
            first_tombstone: None,
        }
    }

    fn place(&self) -> (TopicId, PartitionId) {
        (self.plan.topic.id, self.plan.number)
    }

    /// One step. Blocks on the disk.
    ///
    /// # Errors
    /// If the store fails, or what was compacted before is damaged.
    pub(super) fn step(&mut self, store: &dyn Store) -> Result<Step, Error> {
        if self.is_rewriting { self.rewrite(store) } else { self.collect(store).map(|()| Step::default()) }
    }

    /// The records that are read next; none behind the bound.
    fn read(&self, store: &dyn Store) -> Result<Found, Error> {
        let (topic, partition) = self.place();
        let key = |base| LogKey { topic, partition, base }.encode();
        let limit = ScanLimit::bytes(self.config.step_bytes);
        let rows = store.scan(Family::Log, &key(self.at), &key(self.plan.bound), limit).map_err(Error::from);
        let mut found = Found::default();
        let opened = match rows {
            Ok(rows) => rows.into_iter().map(Opened::new).collect(),
            Err(error) => vec![Err(error)],
        };
        for opened in opened {
            match opened {
                Ok(opened) => found.records.push(opened),
                Err(error) if error.code() == ErrorCode::StorageCorrupt => {
                    found.damage = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Notes the keys of what was never compacted, and lowers the bound to where there are too many, or a record is damaged.
    fn collect(&mut self, store: &dyn Store) -> Result<(), Error> {
        let Found { records, damage } = self.read(store)?;
        let mut is_done = records.is_empty();
        if let Some(damage) = damage.filter(|_| is_done) {
            // What came before the record in front of it can go without it; none came.
            let collected = self.collected.filter(|(base, _)| *base > self.plan.dirty_from());
            let Some(bound) = collected else { return Err(damage) };
            self.shorten(bound, Shortened::Damage(damage));
        }
        for opened in records {
            let bound = (opened.record.key.base, opened.record.bytes_before);
            let keys = self.latest.keys() as u64;
            if keys > 0 && keys + opened.record.count > self.config.keys_max as u64 {
                self.shorten(bound, Shortened::Keys);
                is_done = true;
                break;
            }
            for event in opened.events() {
                event.key.into_iter().for_each(|key| self.latest.note(key, event.offset));
            }
            (self.at, self.collected) = (opened.record.end(), Some(bound));
        }
        if is_done {
            (self.is_rewriting, self.at) = (true, self.plan.start);
        }
        Ok(())
    }

    fn shorten(&mut self, bound: (Offset, u64), why: Shortened) {
        (self.plan.bound, self.plan.appended_bytes) = bound;
        self.shortened = Some(why);
    }

    fn rewrite(&mut self, store: &dyn Store) -> Result<Step, Error> {
        let Found { records, damage } = self.read(store)?;
        if let Some(damage) = damage.filter(|_| records.is_empty()) {
            return Err(damage);
        }
        let edges = self.edges(store, &records)?;
        let mut step = Step { is_last: records.is_empty(), ..Step::default() };
        for opened in records {
            self.at = opened.record.end();
            let begins_segment = edges.binary_search(&opened.record.key.base).is_ok();
            self.take(&opened, begins_segment, &mut step)?;
        }
        // What is to become part of it later changes it again.
        step.records.extend(self.held.as_mut().and_then(Held::take_change));
        Ok(step)
    }

    /// Where segments begin among these records, but for the first offset of all: no record goes beyond its own.
    fn edges(&self, store: &dyn Store, records: &[Opened]) -> Result<Vec<Offset>, Error> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(Vec::new()) };
        let (topic, number) = self.place();
        let after = Offset(first.record.key.base.0.saturating_sub(1));
        let among = Segment::between(topic, number, after, last.record.end());
        let keys = rows::keys::<Segment>(store, among, usize::MAX)?;
        Ok(keys.into_iter().map(|(_, _, base)| base).collect())
    }

    fn take(&mut self, opened: &Opened, begins_segment: bool, step: &mut Step) -> Result<(), Error> {
        let record = &opened.record;
        let left = opened.without(|event| self.latest.keeps(event, self.plan.tombstones_until))?;
        self.stored_bytes += left.bytes();
        self.first_tombstone = self.first_tombstone.or(left.first_tombstone);
        if left.batches.is_empty()
            && !begins_segment
            && self.held.as_mut().is_some_and(|held| held.absorb(record))
        {
            return Ok(());
        }
        step.records.extend(self.held.as_mut().and_then(Held::take_change));
        self.held = Some(Held::new(record.clone(), left));
        Ok(())
    }

    /// Why it ended before the planned bound, if it did.
    pub(super) fn into_shortened(self) -> Option<Shortened> {
        self.shortened
    }

    /// True if it reads as little for each byte that it is about as it was planned to.
    pub(super) fn is_worth(&self) -> bool {
        self.plan.is_worth(self.plan.appended_bytes)
    }

    /// How far the partition is compacted once all steps are committed.
    pub(super) fn compacted(&self, now: Timestamp) -> Compacted {
        let last = Reached { until: self.plan.bound, at: now };
        let before = &self.plan.before;
        let passes = before.passes().with(last, self.config.tombstones_for_ms());
        Compacted {
            until: last.until,
            ended: last.at,
            earlier: passes.earlier,
            appended_bytes: self.plan.appended_bytes,
            dropped_bytes: self.plan.dropped_bytes,
            stored_bytes: self.stored_bytes,
            first_tombstone: self.first_tombstone,
            saved_bytes: before.saved_bytes.min(before.saved_before.saturating_sub(self.plan.appended_bytes)),
            saved_before: before.saved_before,
        }
    }
}

impl Held {
    fn new(record: Record, left: Left) -> Self {
        // With few events gone it may be longer: each of a selection takes four bytes more.
        let saved_bytes = (record.bytes.len() as u64).saturating_sub(left.bytes());
        let Left { batches, is_whole, .. } = left;
        Self { span: record.span, record, batches, merged: Vec::new(), saved_bytes, is_changed: !is_whole }
    }

    /// Takes the offsets of a record without events; false if that is not the next one, or does not fit.
    fn absorb(&mut self, next: &Record) -> bool {
        let is_next = self.record.key.base.plus(u64::from(self.span)) == next.key.base;
        let Some(span) = self.span.checked_add(next.span).filter(|_| is_next) else { return false };
        self.span = span;
        self.merged.push(next.key.base);
        self.saved_bytes += next.bytes.len() as u64;
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
            saved_bytes: std::mem::take(&mut self.saved_bytes),
        })
    }
}
