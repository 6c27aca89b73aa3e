//! Redriving: the events of dead letters go to a topic, or back to their subscription alone, each once.
//!
//! Pure: what to append and to note for which dead letter, and what is answered about each. Who reads, commits and tries
//! again is `requests/dead_letters.rs`.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use levada_protocol::{
    batch::{Batch, BatchBuilder, BatchFull, EventRef, Stamp},
    dead_letters::{DEAD_LETTER_HEADER_PREFIX, DeadLetter, REDRIVES_HEADER},
    error::{ErrorCode, Refusal},
    event::Event,
    ids::{Offset, PartitionId, SubscriptionId, Timestamp, TopicId, TopicName},
    limits::{BATCH_BYTES_TARGET, REDRIVES_MAX},
    partition::partition_of,
    request::{RedriveInfo, RedriveOutcome},
};
use tokio::sync::oneshot;

use crate::{
    rows::{Redriven, SubscriptionRecord},
    shard::{AppendRequest, AppendTarget, Queued, QueuedEvents, RedrivenBatch},
    topic::Topic,
};

/// A dead letter that was picked to be redriven.
#[derive(Debug, Clone)]
pub(crate) struct Picked {
    pub(crate) offset: Offset,
    /// The dead letter as it is stored.
    event: Event,
    /// How often its event was redriven before it became this dead letter.
    redrives: u32,
    /// What it does not hold of its event, if that is so.
    missing: Option<String>,
    /// Where its event was in the subscription's topic, if it says so.
    place: Option<(PartitionId, Offset)>,
}

impl Picked {
    pub(crate) fn new(offset: Offset, event: &EventRef<'_>, batch: &Batch) -> Self {
        let DeadLetter { redrives, missing, partition, offset: at, .. } = DeadLetter::of(event);
        let missing = missing.map(str::to_owned);
        let place = partition.map(PartitionId).zip(at.map(Offset));
        Self { offset, event: event.to_event(batch), redrives, missing, place }
    }

    /// The event as it was before it became a dead letter, with the count of its redrives.
    fn source_event(&self) -> Event {
        let mut event = self.event.clone();
        let is_own = |name: &str| !name.starts_with(DEAD_LETTER_HEADER_PREFIX) && name != REDRIVES_HEADER;
        event.headers.retain(|(name, _)| is_own(name));
        let redrives = self.redrives.saturating_add(1).to_string();
        event.headers.push((REDRIVES_HEADER.to_owned(), Bytes::from(redrives)));
        event
    }

    /// Where its event goes among so many partitions: by its key, else by its id, as a publisher places it; else by the
    /// dead letter's offset.
    fn partition(&self, partitions: u16) -> PartitionId {
        let by = self.event.key.as_deref().or_else(|| self.event.id.as_deref().map(str::as_bytes));
        match by {
            Some(bytes) => partition_of(bytes, partitions),
            None => {
                let number = self.offset.0 % u64::from(partitions.max(1));
                PartitionId(u16::try_from(number).expect("a remainder of a u16 fits a u16"))
            }
        }
    }
}

/// Which dead letters are redriven, whence and where to.
#[derive(Debug)]
pub(crate) struct Redriving<'a> {
    /// The dead letters' topic and partition.
    pub(crate) from: (TopicId, PartitionId),
    pub(crate) to: Target<'a>,
    pub(crate) force: bool,
}

/// Where the events go.
#[derive(Debug)]
pub(crate) enum Target<'a> {
    /// To a topic, behind what it holds.
    Topic(&'a Topic),
    /// To the subscription of this record alone, whose topic has so many partitions.
    Subscription(&'a SubscriptionRecord, u16),
}

/// What a step is to append, and what is known about the others.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) appends: Vec<AppendRequest>,
    /// What goes to a subscription alone.
    pub(crate) queued: Option<Box<QueuedEvents>>,
    outcomes: Vec<RedriveOutcome>,
    under_way: Vec<UnderWay>,
    /// What is told of those that go to a subscription alone, but for the time, which comes.
    queueing: Option<(Vec<RedriveInfo>, oneshot::Receiver<Timestamp>)>,
}

/// A batch that is being appended.
#[derive(Debug)]
struct UnderWay {
    to: TopicName,
    partition: PartitionId,
    dead_letters: Vec<(Offset, u32)>,
    appended: oneshot::Receiver<(Offset, Timestamp)>,
}

/// A batch of one partition in the making, with the dead letters whose events it holds.
#[derive(Debug)]
struct Open {
    builder: BatchBuilder,
    dead_letters: Vec<(Offset, u32)>,
}

/// What is being put together, by where it goes.
enum Going<'a> {
    ToTopic(&'a Topic, BTreeMap<PartitionId, Open>),
    ToSubscription { to: &'a SubscriptionRecord, partitions: u16, events: Vec<Queued> },
}

impl Redriving<'_> {
    /// Plans a step. `noted` holds what is noted of the dead letters; those before `start` are gone.
    pub(crate) fn plan(&self, picked: &[Picked], noted: &HashMap<Offset, Redriven>, start: Offset) -> Plan {
        let mut plan = Plan::default();
        let mut going = match self.to {
            Target::Topic(to) => Going::ToTopic(to, BTreeMap::new()),
            Target::Subscription(to, partitions) => {
                Going::ToSubscription { to, partitions, events: Vec::new() }
            }
        };
        for letter in picked {
            let before = noted.get(&letter.offset);
            let outcome = match before {
                _ if letter.offset < start => gone(letter.offset),
                Some(row) if !self.force => RedriveOutcome::AlreadyRedriven(info(letter.offset, row)),
                _ if letter.redrives >= REDRIVES_MAX && !self.force => {
                    RedriveOutcome::OverLimit { offset: letter.offset.0, redrives: letter.redrives }
                }
                _ => {
                    let times = before.map_or(0, |row| row.times).saturating_add(1);
                    match self.add(letter, times, &mut going, &mut plan) {
                        Ok(()) => continue,
                        Err(refusal) => RedriveOutcome::Refused { offset: letter.offset.0, refusal },
                    }
                }
            };
            plan.outcomes.push(outcome);
        }
        match going {
            Going::ToTopic(to, open) => {
                open.into_iter().for_each(|(partition, open)| self.finish(to, partition, open, &mut plan));
            }
            Going::ToSubscription { to, events, .. } => self.queue(to, events, &mut plan),
        }
        plan
    }

    fn add(
        &self,
        letter: &Picked,
        times: u32,
        going: &mut Going<'_>,
        plan: &mut Plan,
    ) -> Result<(), Refusal> {
        if let Some(missing) = &letter.missing {
            let message = format!("the dead letter does not hold its whole event: {missing} are missing");
            return Err(Refusal::new(ErrorCode::InvalidArgument, message));
        }
        match going {
            Going::ToTopic(to, open) => self.append(letter, times, (to, open), plan),
            Going::ToSubscription { partitions, events, .. } => {
                events.push(queued(letter, times, *partitions)?);
                Ok(())
            }
        }
    }

    fn append(
        &self,
        letter: &Picked,
        times: u32,
        (to, open): (&Topic, &mut BTreeMap<PartitionId, Open>),
        plan: &mut Plan,
    ) -> Result<(), Refusal> {
        if to.is_compacted() && letter.event.key.is_none() {
            return Err(to.keyless("the event of the dead letter"));
        }
        let partitions = u16::try_from(to.partitions.len()).unwrap_or(u16::MAX);
        let (event, partition) = (letter.source_event(), letter.partition(partitions));
        let batch = open.entry(partition).or_insert_with(Open::new);
        let pushed = match batch.builder.push(&event) {
            Err(BatchFull::Full) => {
                let full = std::mem::replace(batch, Open::new());
                self.finish(to, partition, full, plan);
                batch.builder.push(&event)
            }
            other => other,
        };
        pushed.map_err(|error| Refusal::new(ErrorCode::EventTooLarge, error.to_string()))?;
        batch.dead_letters.push((letter.offset, times));
        if batch.builder.len() >= BATCH_BYTES_TARGET {
            let full = std::mem::replace(batch, Open::new());
            self.finish(to, partition, full, plan);
        }
        Ok(())
    }

    fn finish(&self, to: &Topic, partition: PartitionId, open: Open, plan: &mut Plan) {
        let Open { mut builder, dead_letters } = open;
        if builder.is_empty() {
            return;
        }
        let ((topic, of), (appended, answer)) = (self.from, oneshot::channel());
        let redrives = RedrivenBatch { topic, partition: of, dead_letters: dead_letters.clone(), appended };
        plan.appends.push(AppendRequest {
            target: AppendTarget::Topic(to.id),
            partition,
            batch: builder.finish(Stamp::ENGINE),
            hops: 0,
            redrives: Some(Box::new(redrives)),
        });
        let to = to.name.clone();
        plan.under_way.push(UnderWay { to, partition, dead_letters, appended: answer });
    }

    fn queue(&self, to: &SubscriptionRecord, events: Vec<Queued>, plan: &mut Plan) {
        if events.is_empty() {
            return;
        }
        let told = |event: &Queued| RedriveInfo {
            offset: event.dead_letter.0,
            to: to.topic.clone(),
            to_partition: event.partition.0,
            to_offset: event.offset.0,
            time_ms: 0,
            times: event.times,
            alone: true,
        };
        let (queued, answer) = oneshot::channel();
        plan.queueing = Some((events.iter().map(told).collect(), answer));
        let (subscription, topic) = (SubscriptionId(to.id), to.topic.clone());
        plan.queued = Some(Box::new(QueuedEvents { subscription, topic, from: self.from, events, queued }));
    }
}

/// An event for the queue of its subscription, whose topic has so many partitions.
fn queued(letter: &Picked, times: u32, partitions: u16) -> Result<Queued, Refusal> {
    // Those of a topic that was deleted may stay, and be found by another one of its name.
    let place = letter.place.filter(|(partition, _)| partition.0 < partitions);
    let Some((partition, offset)) = place else {
        let message = "the dead letter names no partition of the subscription's topic that its event was in: redrive it to \
                       a topic";
        return Err(Refusal::new(ErrorCode::InvalidArgument, message));
    };
    let mut builder = BatchBuilder::of_engine();
    let pushed = builder.push(&letter.source_event());
    pushed.map_err(|error| Refusal::new(ErrorCode::EventTooLarge, error.to_string()))?;
    let batch = builder.finish(Stamp::ENGINE).bytes().clone();
    Ok(Queued { dead_letter: letter.offset, times, partition, offset, batch })
}

impl Open {
    fn new() -> Self {
        Self { builder: BatchBuilder::of_engine(), dead_letters: Vec::new() }
    }
}

impl Plan {
    /// What became of every dead letter, in order of offset, once the appends are durable.
    pub(crate) fn outcomes(self) -> Vec<RedriveOutcome> {
        let Self { appends: _, queued: _, mut outcomes, under_way, queueing } = self;
        if let Some((told, mut queued)) = queueing {
            let time_ms = queued.try_recv().expect("what was applied was decided").0;
            outcomes.extend(
                told.into_iter().map(|info| RedriveOutcome::Redriven(RedriveInfo { time_ms, ..info })),
            );
        }
        for UnderWay { to, partition, dead_letters, mut appended } in under_way {
            let (base, time) = appended.try_recv().expect("what was applied was decided");
            for (index, (offset, times)) in (0..).zip(dead_letters) {
                outcomes.push(RedriveOutcome::Redriven(RedriveInfo {
                    offset: offset.0,
                    to: to.clone(),
                    to_partition: partition.0,
                    to_offset: base.plus(index).0,
                    time_ms: time.0,
                    times,
                    alone: false,
                }));
            }
        }
        outcomes.sort_by_key(offset_of);
        outcomes
    }
}

/// Adds that there is no dead letter at those of the `asked` offsets before `passed` of which nothing was told: they were
/// dropped meanwhile, or never were.
pub(crate) fn tell_gone(outcomes: &mut Vec<RedriveOutcome>, asked: &[u64], passed: Offset) {
    let told: HashSet<u64> = outcomes.iter().map(offset_of).collect();
    let untold = asked.iter().filter(|offset| **offset < passed.0 && !told.contains(*offset));
    outcomes.extend(untold.map(|offset| gone(Offset(*offset))));
    outcomes.sort_by_key(offset_of);
}

/// That there is no dead letter at this offset.
fn gone(offset: Offset) -> RedriveOutcome {
    let message = format!("there is no dead letter at offset {offset}: it was dropped, or never was");
    RedriveOutcome::Refused { offset: offset.0, refusal: Refusal::new(ErrorCode::OffsetOutOfRange, message) }
}

/// What is noted of the dead letter at an offset, as it is told.
pub(crate) fn info(offset: Offset, row: &Redriven) -> RedriveInfo {
    RedriveInfo {
        offset: offset.0,
        to: row.to.clone(),
        to_partition: row.to_partition.0,
        to_offset: row.to_offset.0,
        time_ms: row.time.0,
        times: row.times,
        alone: row.alone,
    }
}

/// The dead letter that an outcome is about.
fn offset_of(outcome: &RedriveOutcome) -> u64 {
    match outcome {
        RedriveOutcome::Redriven(info) | RedriveOutcome::AlreadyRedriven(info) => info.offset,
        RedriveOutcome::OverLimit { offset, .. } | RedriveOutcome::Refused { offset, .. } => *offset,
        RedriveOutcome::Unknown => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::request::{Retain, TopicSettings};

    use super::*;
    use crate::{tail::TailBudget, topic::Extent};

    fn picked(offset: u64, event: &Event) -> Picked {
        let mut builder = BatchBuilder::of_engine();
        builder.push(event).unwrap();
        let batch = builder.finish(Stamp::ENGINE);
        Picked::new(Offset(offset), &batch.events().next().unwrap(), &batch)
    }

    /// A dead letter of this event.
    fn dead(event: Event) -> Event {
        event.with_header("lv-dlq-reason", "rejected").with_header("lv-dlq-error", "no")
    }

    fn plan(picked: &[Picked], noted: &HashMap<Offset, Redriven>, force: bool) -> Plan {
        let (name, settings) = ("repaired".parse().unwrap(), TopicSettings::default());
        let to = Topic::new(TopicId(2), name, settings, &[Extent::default(); 4], &TailBudget::new(0));
        Redriving { from: (TopicId(1), PartitionId(0)), to: Target::Topic(&to), force }.plan(
            picked,
            noted,
            Offset(0),
        )
    }

    /// The events that a plan appends, each with its partition and its dead letter.
    fn appended(plan: &Plan) -> Vec<(PartitionId, u64, Event)> {
        let of_append = |append: &AppendRequest| {
            let offsets = append.redrives.as_ref().unwrap().dead_letters.clone();
            let events = append.batch.events().map(|event| event.to_event(&append.batch));
            let partition = append.partition;
            let all = offsets.into_iter().zip(events);
            all.map(|((offset, _), event)| (partition, offset.0, event)).collect::<Vec<_>>()
        };
        plan.appends.iter().flat_map(of_append).collect()
    }

    #[test]
    fn an_event_goes_where_its_key_says_else_its_id_else_its_dead_letters_offset() {
        let keyed = dead(Event::new("k").with_key("order-42"));
        let named = Event { id: Some("customer-7".into()), ..dead(Event::new("i")) };
        let both = Event { id: Some("customer-7".into()), ..keyed.clone() };
        let events = [keyed, named, both, dead(Event::new("n")), dead(Event::new("n"))];
        let all: Vec<Picked> = (4..).zip(&events).map(|(offset, event)| picked(offset, event)).collect();
        let mut found: Vec<(u64, PartitionId)> =
            appended(&plan(&all, &HashMap::new(), false)).iter().map(|it| (it.1, it.0)).collect();
        found.sort_unstable();
        let (by_key, by_id) = (partition_of(b"order-42", 4), partition_of(b"customer-7", 4));
        let expected = [by_key, by_id, by_key, PartitionId(3), PartitionId(0)];
        assert_eq!(found, (4..).zip(expected).collect::<Vec<_>>());
    }

    #[test]
    fn the_count_of_redrives_is_one_header_that_rises() {
        let redriven = dead(Event::new("x").with_header("own", "1")).with_header(REDRIVES_HEADER, "4");
        let plan = plan(&[picked(0, &redriven)], &HashMap::new(), false);
        let headers = &appended(&plan)[0].2.headers;
        assert_eq!(
            headers[..],
            [("own".to_owned(), "1".into()), (REDRIVES_HEADER.to_owned(), Bytes::from("5"))]
        );
    }

    #[test]
    fn the_last_redrive_that_is_allowed_is_the_eighth_and_force_goes_on() {
        let after = |redrives: u32| dead(Event::new("x")).with_header(REDRIVES_HEADER, redrives.to_string());
        let (last, over) = (picked(0, &after(REDRIVES_MAX - 1)), picked(1, &after(REDRIVES_MAX)));
        let all = [last, over];
        let offsets = |plan: &Plan| appended(plan).iter().map(|(_, offset, _)| *offset).collect::<Vec<_>>();
        let guarded = plan(&all, &HashMap::new(), false);
        assert_eq!(offsets(&guarded), [0]);
        assert_eq!(guarded.outcomes, [RedriveOutcome::OverLimit { offset: 1, redrives: REDRIVES_MAX }]);
        let mut forced = offsets(&plan(&all, &HashMap::new(), true));
        forced.sort_unstable();
        assert_eq!(forced, [0, 1]);
    }

    #[test]
    fn every_offset_that_was_asked_for_and_passed_has_an_outcome() {
        // Of 2, 3, 5 and 8, the log gave 5 alone: 2 and 3 were dropped meanwhile, and 8 is left to the next step.
        let over = RedriveOutcome::OverLimit { offset: 5, redrives: REDRIVES_MAX };
        let mut outcomes = vec![over.clone()];
        tell_gone(&mut outcomes, &[2, 3, 5, 8], Offset(8));
        assert_eq!(outcomes, [gone(Offset(2)), gone(Offset(3)), over]);
        let RedriveOutcome::Refused { refusal, .. } = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(refusal.code, ErrorCode::OffsetOutOfRange);
    }

    #[test]
    fn an_event_without_a_key_is_not_redriven_to_a_topic_that_keeps_the_last_of_each() {
        let settings = TopicSettings { retain: Retain::Compact, ..TopicSettings::default() };
        let name = "repaired".parse().unwrap();
        let to = Topic::new(TopicId(2), name, settings, &[Extent::default()], &TailBudget::new(0));
        let redriving = Redriving { from: (TopicId(1), PartitionId(0)), to: Target::Topic(&to), force: true };
        let all = [picked(5, &dead(Event::new("x"))), picked(6, &dead(Event::new("y").with_key("k")))];
        let plan = redriving.plan(&all, &HashMap::new(), Offset(0));
        assert_eq!(appended(&plan).iter().map(|(_, offset, _)| *offset).collect::<Vec<_>>(), [6]);
        let [RedriveOutcome::Refused { offset: 5, refusal }] = &plan.outcomes[..] else {
            panic!("{:?}", plan.outcomes)
        };
        assert_eq!(refusal.code, ErrorCode::InvalidArgument);
        assert!(refusal.message.starts_with("the event of the dead letter has no key"), "{refusal}");
    }

    #[test]
    fn a_dead_letter_that_does_not_hold_its_event_is_never_redriven() {
        let bare = dead(Event::new("")).with_header("lv-dlq-missing", "3 headers, 9 bytes of payload");
        let plan = plan(&[picked(5, &bare)], &HashMap::new(), true);
        assert!(plan.appends.is_empty());
        let [RedriveOutcome::Refused { offset: 5, refusal }] = &plan.outcomes[..] else {
            panic!("{:?}", plan.outcomes)
        };
        assert_eq!(refusal.code, ErrorCode::InvalidArgument);
        assert!(refusal.message.contains("3 headers, 9 bytes of payload are missing"), "{refusal}");
    }
}
