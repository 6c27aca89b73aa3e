//! A publisher's state: its lanes, what they may hold together, and who is to be woken.
//!
//! Owns all of it under one short lock. Must not know streams or tasks; time is an argument.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use levada_protocol::{
    error::{ErrorCode, Refusal},
    event::Event,
    ids::{Offset, PartitionId},
    partition::partition_of,
    publish::{Ack, Durability, PublishHeader},
};

use super::{
    after_failure::AfterFailure,
    lane::{BatchLimits, Ended, Lane, LaneOptions},
    placement::Placement,
    producer_ids::ProducerIds,
    spread::Spread,
    ticket::{BatchOutcome, Ticket},
};
use crate::{clock, clock::Instant, error::Error};

/// Bytes handed to the stream at a time: enough to keep it busy, little enough for later events to join a
/// batch.
const SEND_BYTES: usize = 512 * 1024;

/// Batches that went out before they were full and are not answered, over all partitions, from which on others that are
/// not full wait. Topics with many partitions would otherwise get many batches of few events, which cost about as much as
/// large ones.
const PARTIAL_UNANSWERED_MAX: usize = 256;

/// What a publisher has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublisherStats {
    /// Events accepted by `publish`.
    pub events: u64,
    /// Batches sent, resends included.
    pub batches: u64,
    /// Bytes of those batches.
    pub bytes: u64,
    /// How often a stream was opened, the first time included.
    pub streams: u64,
    /// How often a publish call woke the sending task. Far fewer than events under load.
    pub wake_ups: u64,
    /// Bytes of batches that are not acknowledged at the moment.
    pub buffered_bytes: usize,
}

/// What became of an attempt to add an event.
pub(super) struct Pushed {
    /// The event's, which is on its way. `None` if there is no room: try again after the next change.
    pub(super) ticket: Option<Ticket>,
    /// Wake the driver.
    pub(super) wake: bool,
}

#[derive(Debug)]
pub(super) struct Core {
    lane_options: LaneOptions,
    durability: Option<Durability>,
    buffer_bytes: usize,
    lanes: Vec<Lane>,
    producer_ids: ProducerIds,
    /// Lanes with a closed batch that may go out, in turn.
    ready: VecDeque<u16>,
    /// Lanes with nothing but an open batch, which goes out while fewer than [`PARTIAL_UNANSWERED_MAX`] such are
    /// unanswered; in turn.
    ready_partial: VecDeque<u16>,
    /// Batches that went out before they were full and are not answered, over all lanes.
    partial_unanswered: usize,
    /// Lanes that wait after a refusal.
    backing_off: Vec<u16>,
    /// Lanes whose open batch lingers, and until when. All linger equally long, so the times rise.
    lingering: VecDeque<(Instant, u16)>,
    /// Where events without key and id go.
    spread: Spread,
    /// Batches with such events that were sent and not answered, over all lanes.
    spread_unanswered: usize,
    /// The driver sleeps until it is woken.
    asleep: bool,
    /// Somebody waits for room.
    starved: bool,
    closing: bool,
    failed: Option<Error>,
    correlation: u32,
    stats: PublisherStats,
}

/// What the driver does next.
pub(super) struct Turn {
    /// Wake up then at the latest.
    pub(super) deadline: Option<Instant>,
    /// Nothing is left.
    pub(super) idle: bool,
    /// Nothing is left and nothing will come.
    pub(super) finished: bool,
}

impl Core {
    pub(super) fn new(
        lane_options: LaneOptions,
        durability: Option<Durability>,
        buffer_bytes: usize,
        partitions: u16,
        mut producer_ids: ProducerIds,
    ) -> Self {
        let first = producer_ids.fresh();
        Self {
            lane_options,
            durability,
            buffer_bytes,
            lanes: (0..partitions).map(|partition| Lane::new(PartitionId(partition), first)).collect(),
            producer_ids,
            ready: VecDeque::new(),
            ready_partial: VecDeque::new(),
            partial_unanswered: 0,
            backing_off: Vec::new(),
            lingering: VecDeque::new(),
            spread: Spread::new(partitions, clock::random_below(u32::from(partitions))),
            spread_unanswered: 0,
            asleep: false,
            starved: false,
            closing: false,
            failed: None,
            correlation: 0,
            stats: PublisherStats { streams: 1, ..PublisherStats::default() },
        }
    }

    /// Batches that are begun from now on are within these limits, unless they hold one event.
    pub(super) fn limit_batches(&mut self, limits: BatchLimits) {
        self.lane_options.limits = limits;
    }

    pub(super) fn partitions(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn stats(&self) -> PublisherStats {
        self.stats
    }

    /// Why it takes no more events, if it does not.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    pub(super) fn refusal(&self) -> Option<&Refusal> {
        self.lanes.iter().find_map(Lane::refusal)
    }

    /// Adds an event to its partition's open batch.
    #[inline]
    pub(super) fn push(
        &mut self,
        partition: Option<PartitionId>,
        event: &Event,
        placement: Placement,
    ) -> Result<Pushed, Box<Error>> {
        if let Some(error) = &self.failed {
            return Err(Box::new(error.clone()));
        }
        if self.stats.buffered_bytes >= self.buffer_bytes {
            return Ok(Pushed { ticket: None, wake: self.wait_for_room() });
        }
        let (index, spread) = self.lane_of(partition, event)?;
        let lane = &mut self.lanes[usize::from(index)];
        let had_open = lane.has_open_batch();
        let grown = lane.push((event, placement), &self.lane_options, clock::now)?;
        let ticket = lane.last_ticket();
        self.stats.buffered_bytes += grown;
        self.stats.events += 1;
        if spread {
            lane.mark_spread();
            self.spread.took(grown);
        }
        let lingers = !self.lane_options.linger.is_zero() && !had_open;
        if lingers && let Some(at) = lane.due_at(&self.lane_options) {
            self.lingering.push_back((at, index));
        }
        self.make_ready(index);
        let wake = self.asleep && (lingers || self.can_send());
        if wake {
            self.asleep = false;
            self.stats.wake_ups += 1;
        }
        Ok(Pushed { ticket, wake })
    }

    /// Adds events as one batch that is appended only at the expected offset; `None` if there is no room.
    pub(super) fn push_expecting(
        &mut self,
        partition: PartitionId,
        events: &[Event],
        expected: Offset,
    ) -> Result<(Option<Vec<Ticket>>, bool), Box<Error>> {
        if let Some(error) = &self.failed {
            return Err(Box::new(error.clone()));
        }
        let count = u16::try_from(self.lanes.len()).unwrap_or(u16::MAX);
        if partition.0 >= count {
            return Err(no_such_partition(partition.0, count));
        }
        if self.stats.buffered_bytes >= self.buffer_bytes {
            return Ok((None, self.wait_for_room()));
        }
        let lane = &mut self.lanes[usize::from(partition.0)];
        let pushed = lane.push_expecting(events, expected, clock::now());
        // Also if it is refused: what was open before is closed.
        self.make_ready(partition.0);
        let (tickets, grown) = pushed?;
        self.stats.buffered_bytes += grown;
        self.stats.events += u64::try_from(events.len()).unwrap_or(u64::MAX);
        let wake = self.asleep && self.can_send();
        if wake {
            self.asleep = false;
            self.stats.wake_ups += 1;
        }
        Ok((Some(tickets), wake))
    }

    /// Somebody waits for room: nothing lingers any more. Answers whether to wake the driver.
    #[cold]
    fn wait_for_room(&mut self) -> bool {
        if !std::mem::replace(&mut self.starved, true) && !self.lane_options.linger.is_zero() {
            self.make_all_due();
        }
        self.asleep && self.can_send() && std::mem::take(&mut self.asleep)
    }

    /// The event's lane, and whether it was the publisher's own choice.
    #[inline]
    fn lane_of(&mut self, partition: Option<PartitionId>, event: &Event) -> Result<(u16, bool), Box<Error>> {
        let count = u16::try_from(self.lanes.len()).unwrap_or(u16::MAX);
        if let Some(PartitionId(partition)) = partition {
            if partition >= count {
                return Err(no_such_partition(partition, count));
            }
            return Ok((partition, false));
        }
        if count == 1 {
            return Ok((0, false));
        }
        if let Some(key) = &event.key {
            return Ok((partition_of(key, count).0, false));
        }
        if let Some(id) = &event.id {
            return Ok((partition_of(id.as_bytes(), count).0, false));
        }
        // A batch that went out, and one that is full, are followed by one of another partition.
        let current = self.spread.current;
        let lane = &mut self.lanes[usize::from(current)];
        if !lane.has_room_for(event, &self.lane_options) {
            lane.seal();
            self.spread.advance();
            self.make_ready(current);
        }
        Ok((self.spread.current, true))
    }

    #[inline]
    fn make_ready(&mut self, index: u16) {
        let partial = self.may_send_partial(index);
        let lane = &mut self.lanes[usize::from(index)];
        if !lane.queued && lane.sendable(&self.lane_options, false) {
            lane.queued = true;
            self.ready.push_back(index);
        } else if !lane.queued_partial && lane.sendable(&self.lane_options, partial) {
            lane.queued_partial = true;
            self.ready_partial.push_back(index);
        }
    }

    /// True if another open batch may go out.
    #[inline]
    fn has_room_for_partial(&self) -> bool {
        self.partial_unanswered < PARTIAL_UNANSWERED_MAX
    }

    /// True if the driver would find something to send, as far as the queues know.
    #[inline]
    fn can_send(&self) -> bool {
        !self.ready.is_empty() || (self.has_room_for_partial() && !self.ready_partial.is_empty())
    }

    /// Whether the lane may send a batch that is not full, as far as its own count goes. Events without a key share few
    /// batches in flight over all partitions, as if they had one: more partitions do not make smaller batches.
    #[inline]
    fn may_send_partial(&self, index: u16) -> bool {
        index != self.spread.current || self.spread_unanswered < self.lane_options.in_flight_partial
    }

    /// Changes a lane, and keeps the counts of what is unanswered.
    fn change<T>(
        &mut self,
        index: u16,
        change: impl FnOnce(&mut Lane, &LaneOptions, &mut ProducerIds) -> T,
    ) -> T {
        let lane = &mut self.lanes[usize::from(index)];
        let (partial, spread) = (lane.partial_unanswered(), lane.spread_unanswered());
        let result = change(lane, &self.lane_options, &mut self.producer_ids);
        self.partial_unanswered = self.partial_unanswered + lane.partial_unanswered() - partial;
        self.spread_unanswered = self.spread_unanswered + lane.spread_unanswered() - spread;
        result
    }

    /// Takes the frames to send; if there are none, marks the driver asleep.
    pub(super) fn turn(&mut self, now: Instant, out: &mut Vec<Bytes>) -> Turn {
        self.wake_lanes(now);
        let mut bytes = 0;
        // One of each in turn: neither kind waits for the end of the other.
        while bytes < SEND_BYTES && self.can_send() {
            if let Some(index) = self.ready.pop_front() {
                self.lanes[usize::from(index)].queued = false;
                bytes += self.send(index, false, out);
            }
            if self.has_room_for_partial()
                && let Some(index) = self.ready_partial.pop_front()
            {
                self.lanes[usize::from(index)].queued_partial = false;
                bytes += self.send(index, self.may_send_partial(index), out);
            }
        }
        self.asleep = out.is_empty();
        let lingers = self.lingering.front().map(|(at, _)| *at);
        let rests = self.backing_off.iter().filter_map(|index| self.lane(*index).retry_at()).min();
        let deadline = [lingers, rests].into_iter().flatten().min();
        let idle = self.is_empty();
        Turn { deadline, idle, finished: self.closing && idle }
    }

    /// Sends the lane's next batch, if it may send one; returns its bytes.
    fn send(&mut self, index: u16, partial: bool, out: &mut Vec<Bytes>) -> usize {
        self.correlation = self.correlation.wrapping_add(1);
        let correlation = self.correlation;
        let sent =
            self.change(index, |lane, lane_options, _| lane.send_next(lane_options, partial, correlation));
        self.make_ready(index);
        let Some((batch, placement)) = sent else { return 0 };
        let (partition, durability) = (PartitionId(index), self.durability);
        let (expect_offset, due) = (placement.expected(), placement.due());
        let header = PublishHeader { correlation, partition, durability, expect_offset, due };
        let bytes = batch.bytes().len();
        out.push(Bytes::copy_from_slice(&header.frame_prefix(bytes)));
        out.push(batch.bytes().clone());
        self.stats.batches += 1;
        self.stats.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
        bytes
    }

    /// Lets lanes go on whose time has come.
    fn wake_lanes(&mut self, now: Instant) {
        while let Some(&(at, index)) = self.lingering.front()
            && at <= now
        {
            self.lingering.pop_front();
            // The batch that was meant may have gone out full; the one that is open now has its own time.
            if self.lane(index).due_at(&self.lane_options).is_some_and(|at| at <= now) {
                self.lanes[usize::from(index)].make_due();
                self.make_ready(index);
            }
        }
        let mut at = 0;
        while let Some(&index) = self.backing_off.get(at) {
            match self.lane(index).retry_at() {
                Some(time) if time > now => at += 1,
                Some(_) | None => {
                    self.lanes[usize::from(index)].retry();
                    self.backing_off.swap_remove(at);
                    self.make_ready(index);
                }
            }
        }
    }

    fn lane(&self, index: u16) -> &Lane {
        &self.lanes[usize::from(index)]
    }

    fn is_empty(&self) -> bool {
        self.stats.buffered_bytes == 0
    }

    /// Answers of the engine. Tell the tickets of what has ended after the lock is released.
    pub(super) fn answers(&mut self, acks: Vec<Ack>, now: Instant, ended: &mut Vec<Ended>) {
        for ack in acks {
            if usize::from(ack.partition.0) >= self.lanes.len() {
                continue;
            }
            self.change(ack.partition.0, |lane, lane_options, producer_ids| {
                lane.answer(ack.correlation, ack.outcome, (lane_options, now), producer_ids, ended);
            });
            if self.lane(ack.partition.0).retry_at().is_some() && !self.backing_off.contains(&ack.partition.0)
            {
                self.backing_off.push(ack.partition.0);
            }
            self.make_ready(ack.partition.0);
        }
        // It may have waited for an answer to another lane.
        self.make_ready(self.spread.current);
        self.stop_if_failed(ended);
        self.give_back(ended);
    }

    /// If one of these has failed with what the publisher stops at, lets nothing behind it go out.
    fn stop_if_failed(&mut self, ended: &mut Vec<Ended>) {
        if self.failed.is_some() {
            return;
        }
        let errors = ended.iter().filter_map(|it| it.result.as_ref().err());
        let Some(error) = errors.into_iter().find(|error| self.stops_at(error)) else { return };
        let error = match error.clone() {
            // Nobody has sent what fails with it.
            Error::Fenced { refusal, .. } => Error::Fenced { refusal, in_doubt: false },
            other => other,
        };
        for index in 0..u16::try_from(self.lanes.len()).unwrap_or(u16::MAX) {
            self.change(index, |lane, _, _| lane.stop(&error, ended));
        }
        self.failed = Some(error);
    }

    /// True if nothing goes on after an event that has failed so: the program wants it so, or the publisher's name is
    /// another's by now, or nobody's.
    fn stops_at(&self, error: &Error) -> bool {
        match error {
            Error::Fenced { .. } => true,
            Error::Refused(refusal) if refusal.code == ErrorCode::ProducerUnknown => {
                self.producer_ids.are_of_a_name() || self.lane_options.after_failure == AfterFailure::Stop
            }
            // Who appends at an offset decides again what to append.
            Error::OffsetMismatch { .. } => false,
            _ => self.lane_options.after_failure == AfterFailure::Stop,
        }
    }

    /// The bytes of ended batches are free again.
    fn give_back(&mut self, ended: &[Ended]) {
        let freed: usize = ended.iter().map(|ended| ended.bytes).sum();
        self.stats.buffered_bytes = self.stats.buffered_bytes.saturating_sub(freed);
    }

    /// True once if somebody waits for room and there is a good deal of it again.
    pub(super) fn has_room_again(&mut self) -> bool {
        let enough = self.buffer_bytes - self.buffer_bytes / 4;
        let wake = self.starved && (self.stats.buffered_bytes < enough || self.failed.is_some());
        if wake {
            self.starved = false;
        }
        wake
    }

    /// The stream is gone.
    pub(super) fn disconnected(&mut self) {
        self.asleep = false;
        self.backing_off.clear();
        self.lanes.iter_mut().for_each(Lane::disconnected);
        (self.partial_unanswered, self.spread_unanswered) = (0, 0);
    }

    /// A new stream stands: everything unacked goes out on it.
    pub(super) fn reopened(&mut self) {
        self.stats.streams += 1;
        for index in 0..u16::try_from(self.lanes.len()).unwrap_or(u16::MAX) {
            self.make_ready(index);
        }
    }

    /// Fails what is too old.
    pub(super) fn expire(&mut self, now: Instant, ended: &mut Vec<Ended>) {
        for index in 0..u16::try_from(self.lanes.len()).unwrap_or(u16::MAX) {
            self.change(index, |lane, lane_options, producer_ids| {
                lane.expire(lane_options, now, producer_ids, ended)
            });
            self.make_ready(index);
        }
        self.make_ready(self.spread.current);
        self.stop_if_failed(ended);
        self.give_back(ended);
    }

    /// Fails everything, now and from now on.
    pub(super) fn fail(&mut self, error: &Error, ended: &mut Vec<Ended>) {
        self.lanes.iter_mut().for_each(|lane| lane.fail(error, ended));
        (self.partial_unanswered, self.spread_unanswered) = (0, 0);
        self.failed.get_or_insert_with(|| error.clone());
        self.give_back(ended);
    }

    /// No more events will come.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.make_all_due();
    }

    pub(super) fn is_finished(&self) -> bool {
        self.closing && self.is_empty()
    }

    /// Lets every open batch go; answers everything that has not ended.
    pub(super) fn flush(&mut self) -> Vec<Arc<BatchOutcome>> {
        self.make_all_due();
        self.lanes.iter().flat_map(Lane::outcomes).cloned().collect()
    }

    fn make_all_due(&mut self) {
        for index in 0..u16::try_from(self.lanes.len()).unwrap_or(u16::MAX) {
            self.lanes[usize::from(index)].make_due();
            self.make_ready(index);
        }
    }
}

#[cold]
fn no_such_partition(partition: u16, count: u16) -> Box<Error> {
    let has = match count {
        1 => "one partition, 0".to_owned(),
        more => format!("partitions 0 to {}", more.saturating_sub(1)),
    };
    let what = format!("the topic has {has}, got partition {partition}");
    Box::new(Refusal::new(ErrorCode::PartitionNotFound, what).into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use levada_protocol::{batch::Batch, frame::FRAME_HEADER_BYTES, ids::ProducerId, publish::AckOutcome};

    use super::*;
    use crate::publisher::WhenFull;

    fn core(partitions: u16) -> Core {
        let lane_options = LaneOptions {
            batch_bytes: 8 * 1024,
            linger: Duration::ZERO,
            in_flight: 32,
            in_flight_partial: 4,
            delivery_timeout: Duration::from_secs(60),
            when_full: WhenFull::Wait,
            after_failure: AfterFailure::GoOn,
            limits: BatchLimits::NONE,
        };
        Core::new(lane_options, None, usize::MAX, partitions, ProducerIds::from(ProducerId(7)))
    }

    /// The batches that the core sends now: their number, partition and count of events.
    fn sent(core: &mut Core) -> Vec<(u32, PartitionId, u32)> {
        let mut out = Vec::new();
        core.turn(clock::now(), &mut out);
        let batch = |frame: &[Bytes]| {
            let mut payload = [&frame[0][FRAME_HEADER_BYTES..], &frame[1]].concat().into();
            let header = PublishHeader::read(&mut payload).unwrap();
            (header.correlation, header.partition, Batch::check(payload).unwrap().count())
        };
        out.chunks(2).map(batch).collect()
    }

    fn answer(core: &mut Core, batch: (u32, PartitionId, u32)) {
        answer_all(core, &[batch]);
    }

    /// Answers to many batches in one frame.
    fn answer_all(core: &mut Core, batches: &[(u32, PartitionId, u32)]) {
        let ack = |&(correlation, partition, count): &(u32, PartitionId, u32)| {
            let outcome = AckOutcome::Appended { base: None, count, duplicate: false, duplicates: None };
            Ack { correlation, partition, outcome }
        };
        core.answers(batches.iter().map(ack).collect(), clock::now(), &mut Vec::new());
    }

    /// Publishes events without a key faster than they are answered; how many went to each partition, and how many
    /// batches that took.
    fn flood(partitions: u16) -> (Vec<u32>, usize) {
        let mut core = core(partitions);
        let (mut counts, mut unanswered) = (vec![0; usize::from(partitions)], VecDeque::new());
        let (mut batches, event) = (0, Event::new("x".repeat(80)));
        let mut left = 20_000;
        while left > 0 || !core.is_empty() {
            for _ in 0..left.min(10) {
                drop(core.push(None, &event, Placement::End).unwrap());
                left -= 1;
            }
            for batch in sent(&mut core) {
                counts[usize::from(batch.1.0)] += batch.2;
                batches += 1;
                unanswered.push_back(batch);
            }
            // Six batches are on their way at any time.
            while unanswered.len() > if left > 0 { 6 } else { 0 } {
                answer(&mut core, unanswered.pop_front().unwrap());
            }
        }
        (counts, batches)
    }

    #[test]
    fn under_load_events_without_a_key_are_even_over_the_partitions_in_batches_as_large() {
        let (_, of_one) = flood(1);
        for partitions in [2, 4, 16] {
            let (counts, batches) = flood(partitions);
            assert_eq!(counts.iter().sum::<u32>(), 20_000);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most <= &(2 * least), "{counts:?}");
            assert!(
                batches <= of_one + usize::from(partitions),
                "{batches} batches, {of_one} of one partition"
            );
        }
    }

    /// More partitions than batches that may be unanswered, and events for all of them.
    #[test]
    fn under_load_events_of_many_keys_gather_until_batches_are_answered() {
        const EVENTS: u32 = 100_000;
        let (mut core, mut unanswered) = (core(1_000), VecDeque::new());
        let (mut published, mut received, mut batches) = (0, 0, 0);
        while received < EVENTS {
            let until = EVENTS.min(published + 100);
            for key in published..until {
                drop(core.push(None, &Event::new("x").with_key(key.to_string()), Placement::End).unwrap());
            }
            published = until;
            unanswered.extend(sent(&mut core));
            assert!(
                unanswered.len() <= PARTIAL_UNANSWERED_MAX,
                "{} batches are unanswered",
                unanswered.len()
            );
            for batch in unanswered.drain(..unanswered.len().min(2)).collect::<Vec<_>>() {
                answer(&mut core, batch);
                batches += 1;
                received += batch.2;
            }
        }
        assert!(core.is_empty() && core.partial_unanswered == 0);
        assert!(batches < EVENTS / 20, "{batches} batches of {EVENTS} events");
    }

    /// Partitions whose every answer is followed by another batch: full ones, or such as are not.
    #[test]
    fn a_single_event_goes_out_beside_partitions_that_always_have_more() {
        for (partitions, payload, prefilled) in [(8_u16, 2_000, 1_000_u32), (300, 1, 10)] {
            let mut core = core(partitions + 1);
            let event = Event::new("x".repeat(payload));
            let push = |core: &mut Core, partition: u16, count: u32| {
                for _ in 0..count {
                    drop(core.push(Some(PartitionId(partition)), &event, Placement::End).unwrap());
                }
            };
            (0..partitions).for_each(|partition| push(&mut core, partition, prefilled));
            let mut unanswered = VecDeque::new();
            loop {
                let more = sent(&mut core);
                (0..partitions).for_each(|partition| push(&mut core, partition, 1));
                unanswered.extend(more.iter().copied());
                if more.is_empty() {
                    break;
                }
            }
            push(&mut core, partitions, 1);
            let mut went_out = false;
            for _ in 0..2 * PARTIAL_UNANSWERED_MAX {
                let answered = unanswered.pop_front().unwrap();
                push(&mut core, answered.1.0, 8);
                answer(&mut core, answered);
                let more = sent(&mut core);
                went_out |= more.iter().any(|batch| batch.1.0 == partitions);
                unanswered.extend(more.into_iter().filter(|batch| batch.1.0 < partitions));
            }
            assert!(went_out, "beside {partitions} busy partitions");
        }
    }

    #[test]
    fn answers_to_many_batches_at_once_let_all_go_on_that_wait() {
        let mut core = core(1_000);
        let publish = |core: &mut Core, partitions: std::ops::Range<u16>| {
            for partition in partitions {
                drop(core.push(Some(PartitionId(partition)), &Event::new("x"), Placement::End).unwrap());
            }
        };
        publish(&mut core, 0..256);
        let mut unanswered = sent(&mut core);
        publish(&mut core, 0..1_000);
        let mut received = 0;
        // Nothing is published any more, and no time passes.
        while !unanswered.is_empty() {
            answer_all(&mut core, &unanswered);
            received += unanswered.iter().map(|batch| batch.2).sum::<u32>();
            unanswered = sent(&mut core);
        }
        assert_eq!(received, 1_256);
        assert!(core.is_empty());
    }

    #[test]
    fn a_lost_stream_lets_waiting_partitions_go_on() {
        let mut core = core(1_000);
        for key in 0..5_000 {
            drop(core.push(None, &Event::new("x").with_key(key.to_string()), Placement::End).unwrap());
        }
        let before = sent(&mut core);
        assert_eq!(before.len(), PARTIAL_UNANSWERED_MAX);
        core.disconnected();
        core.reopened();
        let (mut events, mut again) = (0, VecDeque::from(sent(&mut core)));
        while let Some(batch) = again.pop_front() {
            answer(&mut core, batch);
            events += batch.2;
            again.extend(sent(&mut core));
        }
        assert_eq!(events, 5_000);
        assert!(core.is_empty());
    }
}
