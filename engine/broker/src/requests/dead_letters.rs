//! Requests about dead letters. All that look at many go through the log a bounded stretch at a time: the client asks for
//! one step after the other, and nothing is kept between two steps.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, btree_map::Entry},
    ops::{Bound, Range},
    sync::Arc,
};

use levada_protocol::{
    access::Scope,
    batch::{Batch, EventRef},
    dead_letters::{DeadLetter, DeadLettersOf},
    error::{ErrorCode, Refusal},
    ids::{Offset, PartitionId, SubscriptionId, SubscriptionName, TopicId, TopicName},
    limits::{DEAD_LETTER_GROUPS_MAX, REDRIVE_EVENTS_MAX},
    progress::Scanned,
    request::{
        DeadLetterGroup, DeadLetterGroups, DeadLetterSelection, DeadLetterTopic, GroupDeadLetters,
        PurgeDeadLetters, Purged, Redrive, RedriveOutcome, Redriven as RedrivenStep, Response, Search, Start,
        Stretch,
    },
};
use levada_store::Store;

use super::{
    pages::{self, Page},
    purge::{Cut, cut_within},
};
use crate::{
    access::Viewer,
    broker::Broker,
    error::Error,
    frames::{LogSlice, SliceBatches},
    log::{Log, blocking},
    redrive::{self, Picked, Redriving, Target},
    rows::{self, Redriven, SubscriptionRecord},
    search::{Found, Scanner, Step},
    shard::{Condition, ProposalRefused, StateChange},
    subscription::SubscriptionHandle,
    topic::Topic,
};

/// Dead-letter topics have one partition.
const PARTITION: PartitionId = PartitionId(0);
/// Stored bytes that are read at a time. A redrive step appends up to twice that, and one event more.
const READ_BYTES: usize = 256 * 1024;
/// Stored bytes after which a step ends.
const STEP_SCAN_BYTES: u64 = 8 << 20;
/// How often a step is tried while others redrive or drop dead letters of the same topic.
const TRIES: usize = 16;
/// How soon a client may try again that was overtaken that often.
const RETRY_AFTER_MS: u32 = 200;

/// Where a redrive goes.
enum To {
    Topic(Arc<Topic>),
    /// A subscription, and its topic.
    Subscription(Arc<SubscriptionRecord>, Arc<Topic>),
}

/// A walk through stretches of a dead-letter topic.
struct Walk {
    log: Log,
    scanner: Scanner,
    /// What is to be walked through, in order.
    ranges: VecDeque<Range<Offset>>,
    /// The offset before which the whole walk ends, over all steps.
    until: Offset,
    scanned: Scanned,
    /// How many of what was found last are undecodable.
    last_undecodable: u64,
}

impl Walk {
    /// Scans on, about [`READ_BYTES`]; `None` at the end.
    async fn next(&mut self) -> Result<Option<Found>, Error> {
        while let Some(range) = self.ranges.front_mut() {
            if range.is_empty() {
                self.ranges.pop_front();
                continue;
            }
            match self.scanner.step(&self.log, range.clone(), READ_BYTES).await? {
                Step::Found(found) => {
                    range.start = found.reached;
                    self.scanned.bytes += found.scanned.bytes;
                    self.scanned.events += found.scanned.events;
                    self.scanned.undecodable += found.scanned.undecodable;
                    self.last_undecodable = found.scanned.undecodable;
                    return Ok(Some(found));
                }
                Step::End => {
                    self.ranges.pop_front();
                }
                Step::Dropped(start) => range.start = range.start.max(start),
            }
        }
        Ok(None)
    }

    /// True if the step has scanned as much as it may.
    fn is_spent(&self) -> bool {
        self.scanned.bytes >= STEP_SCAN_BYTES
    }

    /// Goes back, so that the next step begins at `offset`, which was scanned, and counts what follows.
    async fn turn_back(&mut self, offset: Offset) -> Result<(), Error> {
        let end = self.ranges.front().map_or_else(|| offset.plus(1), |range| range.start);
        let again = offset..end.max(offset.plus(1));
        self.scanned.events = self.scanned.events.saturating_sub(again.end.0 - again.start.0);
        // Which of them are undecodable was not kept, and is seldom asked.
        if self.last_undecodable > 0
            && let Step::Found(found) = self.scanner.step(&self.log, again.clone(), READ_BYTES).await?
        {
            self.scanned.undecodable = self.scanned.undecodable.saturating_sub(found.scanned.undecodable);
        }
        self.ranges.push_front(again);
        Ok(())
    }

    fn stretch(&self) -> Stretch {
        let Scanned { bytes, events, undecodable, .. } = self.scanned;
        let next = self.ranges.iter().find(|range| !range.is_empty()).map(|range| range.start.0);
        Stretch { next, until: self.until.0, scanned_bytes: bytes, scanned: events, undecodable }
    }
}

/// The events of these slices, each handed over with its offset and its batch, until `take` has had enough; returns the
/// offset that it did not take.
fn each_event(
    slices: &[LogSlice],
    mut take: impl FnMut(Offset, &EventRef<'_>, &Batch) -> bool,
) -> Result<Option<Offset>, Error> {
    for slice in slices {
        for batch in SliceBatches::new(&slice.run, false) {
            let (base, batch) = batch?;
            for event in batch.events() {
                if !take(event.offset(base), &event, &batch) {
                    return Ok(Some(event.offset(base)));
                }
            }
        }
    }
    Ok(None)
}

impl Broker {
    /// The dead letters of this topic.
    fn dead_letters(&self, name: &TopicName) -> Result<(DeadLettersOf, Arc<Topic>), Error> {
        let Some(of) = DeadLettersOf::of(name) else {
            let message =
                format!("topic {name} holds no dead letters: expected a name such as dlq.{name}.payment");
            return Err(Error::refused(ErrorCode::InvalidArgument, message));
        };
        match self.inner.shard.topic(name) {
            Ok(topic) => Ok((of, topic)),
            Err(_) => {
                let message = format!("{of} has no dead letters: there is no topic {name}");
                Err(Error::refused(ErrorCode::TopicNotFound, message))
            }
        }
    }

    fn log_of(&self, topic: &Arc<Topic>) -> Result<Log, Error> {
        Log::new(Arc::clone(&self.inner.store), Arc::clone(topic), PARTITION)
    }

    /// A walk from `from` to `until`, for one step.
    fn walk(
        &self,
        topic: &Arc<Topic>,
        condition: Option<String>,
        (from, until): (u64, Option<u64>),
    ) -> Result<Walk, Error> {
        let scanner = self.scanner(&Search { condition, ..Search::default() })?;
        let log = self.log_of(topic)?;
        let (start, end) = (log.partition().start(), log.partition().end());
        let until = until.map_or(end, |until| Offset(until).min(end));
        let ranges = VecDeque::from([Offset(from).max(start)..until]);
        Ok(Walk { log, scanner, ranges, until, scanned: Scanned::default(), last_undecodable: 0 })
    }

    /// Lists dead-letter topics.
    pub(super) async fn list_dead_letters(
        &self,
        viewer: &Viewer,
        topic: Option<TopicName>,
        page: Page<DeadLetterTopic>,
        after: Option<&str>,
    ) -> Result<Response, Error> {
        let catalogue = viewer.catalogue();
        let after = after.map(TopicName::parse_any).transpose()?;
        let is_first = after.is_none();
        let mut page = page;
        for (name, record) in catalogue.topics.range((pages::behind(after.as_ref()), Bound::Unbounded)) {
            let Some(of) = DeadLettersOf::of(name) else { continue };
            if topic.as_ref().is_some_and(|topic| topic.as_str() != of.topic())
                || !viewer.sees(&Scope::Topic(name.clone()))
            {
                continue;
            }
            // A missing one was deleted since the catalogue was read.
            let Some(live) = self.inner.shard.view().topics().get(record.id()) else { continue };
            if !page.add(name, self.dead_letter_topic(&live).await?) {
                break;
            }
        }
        let (topics, next) = page.finish();
        // Dead letters may stay when their topic goes.
        if let (Some(topic), true, true) = (&topic, is_first, topics.is_empty()) {
            catalogue.topic(topic)?;
        }
        Ok(Response::DeadLetterTopics { topics, next })
    }

    async fn dead_letter_topic(&self, topic: &Arc<Topic>) -> Result<DeadLetterTopic, Error> {
        let log = self.log_of(topic)?;
        let (start, end) = (log.partition().start(), log.partition().end());
        let count = end.0.saturating_sub(start.0);
        let (mut oldest_ms, mut newest_ms) = (None, None);
        if count > 0 {
            oldest_ms = log.append_time(start).await.map(|time| time.0);
            newest_ms = log.append_time(Offset(end.0 - 1)).await.map(|time| time.0);
        }
        let bytes = log.partition().bytes();
        Ok(DeadLetterTopic { name: topic.name.clone(), count, bytes, oldest_ms, newest_ms })
    }

    /// Counts a stretch of dead letters by reason and plugin.
    pub(super) async fn group_dead_letters(&self, asked: GroupDeadLetters) -> Result<Response, Error> {
        let (_, topic) = self.dead_letters(&asked.topic)?;
        let _turn = self.dead_letter_turn().await?;
        let mut walk = self.walk(&topic, asked.condition, (asked.from, asked.until))?;
        let mut groups = BTreeMap::new();
        while !walk.is_spent() {
            let Some(found) = walk.next().await? else { break };
            let (store, id) = (Arc::clone(&self.inner.store), topic.id);
            let (grouped, rest) = blocking(move || {
                let noted = noted_in(store.as_ref(), id, &found)?;
                let rest = group(&found, &noted, &mut groups)?;
                Ok((groups, rest))
            })
            .await?;
            groups = grouped;
            if let Some(offset) = rest {
                walk.turn_back(offset).await?;
                break;
            }
        }
        let groups = groups.into_values().collect();
        Ok(Response::DeadLetterGroups(DeadLetterGroups { groups, stretch: walk.stretch() }))
    }

    /// Lists which dead letters were redriven.
    pub(super) async fn list_redrives(
        &self,
        name: &TopicName,
        from: u64,
        until: Option<u64>,
    ) -> Result<Response, Error> {
        let (_, topic) = self.dead_letters(name)?;
        let store = Arc::clone(&self.inner.store);
        let until = Offset(until.unwrap_or(u64::MAX));
        blocking(move || {
            if Offset(from) >= until {
                return Ok(Response::Redrives { redrives: Vec::new(), next: None });
            }
            let range = Redriven::between(topic.id, PARTITION, Offset(from), until);
            let rows::Page { rows, more } = rows::page::<Redriven>(store.as_ref(), &range)?;
            let redrives: Vec<_> =
                rows.iter().map(|((_, _, offset), row)| redrive::info(*offset, row)).collect();
            let next = redrives.last().filter(|_| more).map(|last| last.offset + 1);
            Ok(Response::Redrives { redrives, next })
        })
        .await
    }

    /// Redrives a stretch of dead letters. It goes to its end even if the caller gives up.
    pub(super) async fn redrive(&self, asked: Redrive) -> Result<Response, Error> {
        if let Some(to) = asked.to.as_ref().filter(|to| to.is_internal()) {
            let message = format!(
                "{to} is a topic of the engine's own, which would lead dead letters back to dead letters: expected a \
                 topic that can be published to"
            );
            return Err(Error::refused(ErrorCode::RedriveLoop, message));
        }
        let of_route =
            DeadLettersOf::of(&asked.topic).filter(|of| asked.to.is_none() && of.route().is_some());
        if let Some(of) = of_route {
            let message = format!(
                "{of} names a route, which has no subscription to take its dead letters back: expected a topic to redrive \
                 them to"
            );
            return Err(Error::refused(ErrorCode::InvalidArgument, message));
        }
        let (of, source) = self.dead_letters(&asked.topic)?;
        let target = match &asked.to {
            Some(to) => To::Topic(self.inner.shard.topic(to)?),
            None => self.subscription_of(&of)?,
        };
        let (broker, turn) = (self.clone(), self.dead_letter_turn().await?);
        let done = self.to_the_end(async move {
            let _turn = turn;
            broker.redrive_step(&source, &target, asked).await
        });
        done.await.map(Response::Redriven)
    }

    /// The subscription whose dead letters these are.
    fn subscription_of(&self, of: &DeadLettersOf) -> Result<To, Error> {
        let (topic, name) = (TopicName::parse_any(of.topic())?, of.name().parse::<SubscriptionName>()?);
        let catalogue = self.inner.shard.catalogue();
        let gone = |_| {
            let message = format!(
                "there is no subscription {of} any more to take its dead letters back: redrive them to a topic, or make \
                 it again"
            );
            Error::refused(ErrorCode::SubscriptionNotFound, message)
        };
        let record = catalogue.subscription(&topic, &name).map_err(gone)?;
        Ok(To::Subscription(Arc::clone(record), self.inner.shard.topic(&topic)?))
    }

    async fn redrive_step(
        &self,
        source: &Arc<Topic>,
        target: &To,
        asked: Redrive,
    ) -> Result<RedrivenStep, Error> {
        let Redrive { select, from, until, force, .. } = asked;
        let (mut walk, named) = self.selected(source, select, (from, until))?;
        let picked = pick(&mut walk).await?;
        let to = match target {
            To::Topic(topic) => Target::Topic(topic),
            To::Subscription(record, topic) => {
                let partitions = u16::try_from(topic.partitions.len()).unwrap_or(u16::MAX);
                Target::Subscription(record, partitions)
            }
        };
        let redriving = Redriving { from: (source.id, PARTITION), to, force };
        let mut outcomes = self.commit_redrives(&redriving, source, &picked).await?;
        if let To::Subscription(record, _) = target {
            // Without an owner it looks when it begins.
            let owner = self.inner.owner_tasks.subscription(SubscriptionId(record.id));
            owner.inspect(SubscriptionHandle::wake);
        }
        // Of those that were named, what is not there is said in the step that passes it.
        let stretch = walk.stretch();
        redrive::tell_gone(&mut outcomes, &named, Offset(stretch.next.unwrap_or(u64::MAX)));
        Ok(RedrivenStep { outcomes, stretch })
    }

    /// A walk through what was selected, and the offsets that were named from `from` on, in order.
    fn selected(
        &self,
        source: &Arc<Topic>,
        select: DeadLetterSelection,
        (from, until): (u64, Option<u64>),
    ) -> Result<(Walk, Vec<u64>), Error> {
        let mut offsets = match select {
            DeadLetterSelection::All => return Ok((self.walk(source, None, (from, until))?, Vec::new())),
            DeadLetterSelection::Where { condition } => {
                return Ok((self.walk(source, Some(condition), (from, until))?, Vec::new()));
            }
            DeadLetterSelection::Offsets { offsets } => offsets,
            DeadLetterSelection::Unknown => {
                let message = "this engine does not know such a selection of dead letters";
                return Err(Error::refused(ErrorCode::Unsupported, message));
            }
        };
        if offsets.is_empty() || offsets.len() > REDRIVE_EVENTS_MAX {
            let message = format!("expected 1 to {REDRIVE_EVENTS_MAX} offsets, got {}", offsets.len());
            return Err(Error::refused(ErrorCode::InvalidArgument, message));
        }
        offsets.sort_unstable();
        offsets.dedup();
        offsets.retain(|offset| *offset >= from);
        let mut walk = self.walk(source, None, (from, until))?;
        let whole = walk.ranges.pop_front().unwrap_or_default();
        let mut ranges = VecDeque::<Range<Offset>>::new();
        for offset in offsets.iter().copied().map(Offset).filter(|offset| whole.contains(offset)) {
            match ranges.back_mut() {
                Some(last) if last.end == offset => last.end = offset.plus(1),
                _ => ranges.push_back(offset..offset.plus(1)),
            }
        }
        walk.ranges = ranges;
        Ok((walk, offsets))
    }

    /// Appends the events of the dead letters that may be redriven, and notes that they were, in one commit. What is noted
    /// is read anew whenever others have changed it meanwhile.
    async fn commit_redrives(
        &self,
        redriving: &Redriving<'_>,
        source: &Arc<Topic>,
        picked: &[Picked],
    ) -> Result<Vec<RedriveOutcome>, Error> {
        let (Some(first), Some(last)) = (picked.first(), picked.last()) else { return Ok(Vec::new()) };
        let range = Redriven::between(source.id, PARTITION, first.offset, last.offset.plus(1));
        let shard = &self.inner.shard;
        for _ in 0..TRIES {
            let revision = shard.redrive_revision(source.id).await?;
            let (store, range) = (Arc::clone(&self.inner.store), range.clone());
            let noted = blocking(move || noted(store.as_ref(), range)).await?;
            let mut plan = redriving.plan(picked, &noted, source.partition(PARTITION)?.start());
            let appends = std::mem::take(&mut plan.appends);
            let queued = plan.queued.take().map(StateChange::Queue).into_iter().collect();
            // Without any append, too: what was read may not be durable.
            let condition = Condition::Redrives { topic: source.id, at: revision };
            match shard.commit(vec![condition], queued, appends).await {
                Ok(()) => return Ok(plan.outcomes()),
                Err(ProposalRefused::Overtaken) => {}
                Err(ProposalRefused::Gone) => return Err(source.deleted_error()),
                Err(refused) => return Err(refused.error()),
            }
        }
        Err(overtaken())
    }

    /// Drops dead letters from the oldest on.
    pub(super) async fn purge_dead_letters(&self, asked: PurgeDeadLetters) -> Result<Response, Error> {
        let (of, topic) = self.dead_letters(&asked.topic)?;
        let (broker, turn) = (self.clone(), self.dead_letter_turn().await?);
        let done = self.to_the_end(async move {
            let _turn = turn;
            broker.purge(&of, &topic, &asked).await
        });
        done.await.map(Response::Purged)
    }

    async fn purge(
        &self,
        of: &DeadLettersOf,
        topic: &Arc<Topic>,
        asked: &PurgeDeadLetters,
    ) -> Result<Purged, Error> {
        let (shard, log) = (&self.inner.shard, self.log_of(topic)?);
        for _ in 0..TRIES {
            let at = shard.redrive_revision(topic.id).await?;
            let before = log.partition().start();
            let until = log.position(asked.before_ms.map_or(Start::Latest, Start::Time)).await?;
            let until = asked.until.map_or(until, |bound| until.min(Offset(bound)));
            let (store, id) = (Arc::clone(&self.inner.store), topic.id);
            let found = blocking(move || purgeable(store.as_ref(), (id, PARTITION), before..until)).await?;
            let Some((Cut { start, dropped_bytes }, redriven)) = found else {
                return Ok(Purged { start: before.0, ..Purged::default() });
            };
            let purged = start.0.saturating_sub(before.0);
            let not_redriven = purged.saturating_sub(redriven);
            // Nobody who begins earlier may come between the look at who has yet to come so far and the commit.
            let _changing = self.inner.changing.lock().await;
            if !asked.force {
                let behind = self.inner.owner_tasks.behind(topic.id, PARTITION, start);
                let behind =
                    behind.into_iter().min_by(|(one, at), (other, than)| (at, one).cmp(&(than, other)));
                still_needed(of, (purged, not_redriven), behind, start)?;
            }
            let condition = Condition::Redrives { topic: topic.id, at };
            let trim = StateChange::Trim { topic: topic.id, partition: PARTITION, start, dropped_bytes };
            match shard.commit(vec![condition], vec![trim], Vec::new()).await {
                Ok(()) => return Ok(Purged { purged, not_redriven, start: start.0 }),
                Err(ProposalRefused::Overtaken) => {}
                Err(ProposalRefused::Gone) => return Err(topic.deleted_error()),
                Err(refused) => return Err(refused.error()),
            }
        }
        Err(overtaken())
    }
}

/// Others have redriven or dropped dead letters of the topic, again and again.
fn overtaken() -> Error {
    let message = "others redrive or drop dead letters of the same topic at this moment; nothing was done";
    Refusal::new(ErrorCode::LimitExceeded, message).retry_after(RETRY_AFTER_MS).into()
}

/// Refuses a purge up to `start` of dead letters that were never redriven, or that somebody has yet to read.
fn still_needed(
    of: &DeadLettersOf,
    (purged, not_redriven): (u64, u64),
    behind: Option<(String, Offset)>,
    start: Offset,
) -> Result<(), Error> {
    let never = (not_redriven > 0).then(|| {
        let which = match (not_redriven, purged) {
            (_, 1) => format!("the only dead letter of {of} that would be purged was"),
            (1, _) => format!("1 of the {purged} dead letters of {of} that would be purged was"),
            _ => format!("{not_redriven} of the {purged} dead letters of {of} that would be purged were"),
        };
        format!("{which} never redriven: redrive them first, or force")
    });
    let unread = behind.map(|(who, at)| {
        format!(
            "{who} has come to offset {at} of those before {start} that would be purged: let it catch up, move or delete \
             it, or force"
        )
    });
    let code = if never.is_some() { ErrorCode::NotRedriven } else { ErrorCode::TopicInUse };
    let reasons: Vec<String> = never.into_iter().chain(unread).collect();
    if reasons.is_empty() { Ok(()) } else { Err(Error::refused(code, reasons.join("; "))) }
}

/// Picks dead letters from the walk: as many as one step may redrive.
async fn pick(walk: &mut Walk) -> Result<Vec<Picked>, Error> {
    let (mut picked, mut bytes) = (Vec::new(), 0);
    // What is found in another stretch is to have room as well.
    while bytes < READ_BYTES / 2 && picked.len() < REDRIVE_EVENTS_MAX / 2 && !walk.is_spent() {
        let Some(found) = walk.next().await? else { break };
        let rest = each_event(&found.slices, |offset, event, batch| {
            let has_room = picked.len() < REDRIVE_EVENTS_MAX && bytes < 2 * READ_BYTES;
            if has_room {
                bytes += event.record().len();
                picked.push(Picked::new(offset, event, batch));
            }
            has_room
        })?;
        if let Some(offset) = rest {
            walk.turn_back(offset).await?;
            break;
        }
    }
    Ok(picked)
}

/// What is noted of the dead letters in a range of keys.
fn noted(store: &dyn Store, range: rows::KeyRange) -> Result<HashMap<Offset, Redriven>, Error> {
    let mut noted = HashMap::new();
    rows::for_each::<Redriven>(store, range, |(_, _, offset), row| {
        noted.insert(offset, row);
    })?;
    Ok(noted)
}

/// What is noted of the dead letters that a stretch holds.
fn noted_in(store: &dyn Store, topic: TopicId, found: &Found) -> Result<HashMap<Offset, Redriven>, Error> {
    match found.slices.first() {
        None => Ok(HashMap::new()),
        Some(first) => noted(store, Redriven::between(topic, PARTITION, first.run.base, found.reached)),
    }
}

/// Groups by reason and plugin.
type Groups = BTreeMap<(String, Option<String>), DeadLetterGroup>;

/// Adds a stretch to its groups. Returns the offset of the first dead letter that found no room.
fn group(
    found: &Found,
    noted: &HashMap<Offset, Redriven>,
    groups: &mut Groups,
) -> Result<Option<Offset>, Error> {
    for slice in &found.slices {
        let time = slice.run.append_time.0;
        let rest = each_event(std::slice::from_ref(slice), |offset, event, _| {
            let letter = DeadLetter::of(event);
            let key = (letter.reason.to_owned(), letter.plugin.map(str::to_owned));
            let (reason, plugin) = key.clone();
            let one = DeadLetterGroup {
                reason,
                plugin,
                count: 1,
                redriven: u64::from(noted.contains_key(&offset)),
                first: offset.0,
                last: offset.0,
                oldest_ms: time,
                newest_ms: time,
                error: letter.error.to_owned(),
            };
            let is_full = groups.len() >= DEAD_LETTER_GROUPS_MAX;
            match groups.entry(key) {
                Entry::Occupied(mut group) => group.get_mut().add(one),
                Entry::Vacant(_) if is_full => return false,
                Entry::Vacant(room) => {
                    room.insert(one);
                }
            }
            true
        })?;
        if rest.is_some() {
            return Ok(rest);
        }
    }
    Ok(None)
}

/// Where a purge of `range` would cut the log, and how many dead letters before that were redriven; `None` if it would drop
/// nothing. Blocks on the disk.
fn purgeable(
    store: &dyn Store,
    (topic, partition): (TopicId, PartitionId),
    range: Range<Offset>,
) -> Result<Option<(Cut, u64)>, Error> {
    let Some(cut) = cut_within(store, (topic, partition), range.clone())? else { return Ok(None) };
    let mut redriven = 0;
    rows::for_each::<Redriven>(
        store,
        Redriven::between(topic, partition, range.start, cut.start),
        |_, _| {
            redriven += 1;
        },
    )?;
    Ok(Some((cut, redriven)))
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        deliver::Run,
        event::Event,
        ids::Timestamp,
    };

    use super::*;

    /// A dead letter of each of so many plugin versions, from offset 10 on, all appended at once.
    fn stretch(versions: usize, time: u64) -> Found {
        let mut builder = BatchBuilder::of_engine();
        for version in 0..versions {
            let letter = Event::new("x")
                .with_header("lv-dlq-reason", "plugin_error")
                .with_header("lv-dlq-plugin", format!("p@{version}"))
                .with_header("lv-dlq-error", format!("error at {time}"));
            builder.push(&letter).unwrap();
        }
        let batches = builder.finish(Stamp::ENGINE).bytes().clone();
        let run = Run { base: Offset(10), append_time: Timestamp(time), hops: 0, batches };
        Found::all(vec![LogSlice::of(run, true).unwrap()])
    }

    #[test]
    fn as_many_groups_as_one_response_may_hold_are_counted_and_no_more() {
        let mut groups = Groups::new();
        let most = stretch(DEAD_LETTER_GROUPS_MAX, 1);
        assert_eq!(group(&most, &HashMap::new(), &mut groups).unwrap(), None);
        assert_eq!(groups.len(), DEAD_LETTER_GROUPS_MAX);
        // Those that are known are counted on.
        assert_eq!(group(&most, &HashMap::new(), &mut groups).unwrap(), None);
        let more = stretch(DEAD_LETTER_GROUPS_MAX + 1, 3);
        let left = Offset(10).plus(DEAD_LETTER_GROUPS_MAX as u64);
        assert_eq!(group(&more, &HashMap::new(), &mut groups).unwrap(), Some(left));
        assert!(groups.values().all(|group| group.count == 3 && group.error == "error at 3"));
    }

    #[test]
    fn a_group_says_how_many_were_redriven_and_spans_what_it_counts() {
        let (mut groups, found) = (Groups::new(), stretch(1, 7));
        let row = Redriven {
            times: 4,
            time: Timestamp(9),
            alone: false,
            to: "orders".parse().unwrap(),
            to_partition: PartitionId(0),
            to_offset: Offset(0),
        };
        group(&found, &HashMap::from([(Offset(10), row)]), &mut groups).unwrap();
        let group = groups.into_values().next().unwrap();
        assert_eq!((group.count, group.redriven, group.first, group.last), (1, 1, 10, 10));
        assert_eq!((group.oldest_ms, group.newest_ms, group.plugin.as_deref()), (7, 7, Some("p@0")));
    }
}
