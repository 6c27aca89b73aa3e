//! Events as they come: one delivery frame, checked, with what is known about each event.
//!
//! Owns the check of received frames. Must not know streams.

use std::{
    fmt,
    ops::RangeInclusive,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use levada_protocol::{
    batch::EventRef,
    deliver::{DeliverHeader, PlacedBatch, Runs, checked_batches},
    event::Event,
    frame::Frame,
    ids::{DeliveryToken, Offset, PartitionId, Timestamp},
    request::AckedDelivery,
    verbs::{Rejection, VerbKind},
};

use crate::{
    error::Error,
    subscriber::{Lease, Of},
};

/// Events of one partition that came together, in order of their offsets.
///
/// A delivery from [`crate::Subscriber::next_delivery`] is to be acknowledged: all at once or range by range, here or
/// in another task. While it is held the client extends it by itself, so that it is not given to another consumer, for
/// as long as [`crate::SubscribeOptions::max_processing`] allows; every verb about a part of it starts that time again.
/// Events without a verb when it is dropped are delivered again after the subscription's `ack_timeout`, unless one of them was
/// set aside ([`crate::DeliveredEvent::set_aside`]) or is the rest of a pull's: then once that is dropped, too. The verbs
/// return at once and are sent together, with the next call of the subscriber or within a millisecond; verbs after the
/// connection was lost, or about events of a [`crate::Reader`], have no effect. Offsets of a range that are not in the
/// delivery do not matter.
pub struct Delivery {
    header: DeliverHeader,
    first: Offset,
    last: Offset,
    batches: Vec<PlacedBatch>,
    /// A batch of it does not hold all offsets that it spans.
    has_gaps: bool,
    /// If so, the offsets of all events, once they are needed.
    offsets: OnceLock<Vec<Offset>>,
    /// How many events of the batches are before its own: they were handed out before.
    handed_out: usize,
    lease: Option<Arc<Lease>>,
}

impl Delivery {
    /// Checks a received frame. `None` for one without events, which only says that others were filtered.
    pub(crate) fn check(incoming: Incoming) -> Result<Option<Self>, Error> {
        let Incoming { header, runs, .. } = incoming;
        let batches = checked_batches(runs)?;
        let count: u64 = batches.iter().map(|placed| u64::from(placed.batch.count())).sum();
        if count != u64::from(header.count) {
            let what = format!("a delivery holds {count} events, its header says {}", header.count);
            return Err(Error::bad_answer(what));
        }
        if batches.windows(2).any(|pair| placed_end(&pair[0]) > pair[1].base) {
            return Err(Error::bad_answer(
                "the events of a delivery are not in the order of their offsets".to_owned(),
            ));
        }
        let (Some(head), Some(tail)) = (batches.first(), batches.last()) else { return Ok(None) };
        let Some(first) = head.batch.events().next().map(|event| event.offset(head.base)) else {
            return Ok(None);
        };
        // A batch's span ends with its last event.
        let last = tail.base.plus(u64::from(tail.batch.span()) - 1);
        let has_gaps = batches.iter().any(|placed| placed.batch.header().is_selection());
        let offsets = OnceLock::new();
        Ok(Some(Self { header, first, last, batches, has_gaps, offsets, handed_out: 0, lease: None }))
    }

    /// The lease through which verbs take effect.
    pub(crate) fn leased(self, lease: Arc<Lease>) -> Self {
        Self { lease: Some(lease), ..self }
    }

    /// Its last `count` events, which begin at `first`.
    pub(crate) fn rest_from(self, first: Offset, count: u32) -> Self {
        let handed_out = self.header.count.saturating_sub(count);
        let handed_out = usize::try_from(handed_out).expect("a count of events in memory fits");
        Self { first, handed_out, header: DeliverHeader { count, ..self.header }, ..self }
    }

    /// The partition that all of these events are from.
    pub fn partition(&self) -> PartitionId {
        self.header.partition
    }

    /// Which delivery of these events this is, from 1; 255 means 255 or more.
    pub fn attempt(&self) -> u8 {
        self.header.attempt
    }

    /// Names this delivery to the engine.
    pub fn token(&self) -> DeliveryToken {
        self.header.token
    }

    /// Its first `count` events, fewer than it has and at least one, and the others: two deliveries of their own.
    pub(crate) fn cut_at(self, count: u32) -> (Self, Self) {
        let at = usize::try_from(count).expect("a count of events in memory fits");
        let mut offsets = self.events().skip(at.saturating_sub(1)).map(|(offset, ..)| offset);
        let last = offsets.next().unwrap_or(self.first);
        let first = offsets.next().unwrap_or(self.last);
        drop(offsets);
        let head = Self {
            header: DeliverHeader { count, ..self.header },
            last,
            batches: self.batches.clone(),
            offsets: OnceLock::new(),
            lease: self.lease.clone(),
            ..self
        };
        let left = self.header.count.saturating_sub(count);
        let rest = Self {
            first,
            handed_out: self.handed_out + at,
            header: DeliverHeader { count: left, ..self.header },
            ..self
        };
        (head, rest)
    }

    /// The number of events; at least 1.
    pub fn count(&self) -> u32 {
        self.header.count
    }

    /// The first event's offset.
    pub fn first(&self) -> Offset {
        self.first
    }

    /// The last event's offset.
    pub fn last(&self) -> Offset {
        self.last
    }

    /// The events with their offsets and the times at which they were appended, borrowed.
    pub fn events(&self) -> impl Iterator<Item = (Offset, Timestamp, EventRef<'_>)> {
        let all = self.batches.iter().flat_map(|placed| {
            placed.batch.events().map(|event| (event.offset(placed.base), placed.append_time, event))
        });
        all.skip(self.handed_out).take(self.len())
    }

    /// The events with their offsets, each with a life of its own; the bytes stay shared.
    pub fn to_events(&self) -> impl Iterator<Item = (Offset, Event)> {
        self.to_appended_events().map(|(offset, _, event)| (offset, event))
    }

    pub(crate) fn to_appended_events(&self) -> impl Iterator<Item = (Offset, Timestamp, Event)> {
        let all = self.batches.iter().flat_map(|placed| {
            placed.batch.events().map(move |event| (event.offset(placed.base), placed, event))
        });
        all.skip(self.handed_out)
            .take(self.len())
            .map(|(offset, placed, event)| (offset, placed.append_time, event.to_event(&placed.batch)))
    }

    fn len(&self) -> usize {
        usize::try_from(self.header.count).expect("a count of events in memory fits")
    }

    /// The batches as they came: what [`Delivery::events`] walks. If this is a part of a delivery, because
    /// [`crate::Subscriber::next`] has handed out events of it before or a pull has cut it, they hold the others too.
    pub fn batches(&self) -> &[PlacedBatch] {
        &self.batches
    }

    /// From the first offset to the last, both included.
    pub fn range(&self) -> RangeInclusive<Offset> {
        self.first..=self.last
    }

    /// All done: never deliver these events again.
    pub fn ack(&self) {
        self.say(self.range(), VerbKind::Ack);
    }

    /// These are done: never deliver them again.
    pub fn ack_range(&self, range: RangeInclusive<Offset>) {
        self.say(range, VerbKind::Ack);
    }

    /// The events of this delivery up to this offset, itself included, are done: never deliver them again.
    pub fn ack_until(&self, last: Offset) {
        self.say(self.first..=last, VerbKind::Ack);
    }

    /// Deliver these again: after `delay`, at most 49 days, or after the subscription's backoff. Where order matters, later
    /// events come again too, as with [`crate::DeliveredEvent::nack`].
    pub fn nack(&self, range: RangeInclusive<Offset>, delay: Option<Duration>) {
        self.say(range, VerbKind::Nack { delay_ms: nack_delay_ms(delay) });
    }

    /// Never deliver these again, they cannot be processed: to the dead-letter topic, with the reason (cut to
    /// 1 KiB).
    pub fn reject(&self, range: RangeInclusive<Offset>, reason: &str) {
        self.say(range, VerbKind::reject(reason));
    }

    /// Never deliver these again, they cannot be decoded: as [`Delivery::reject`], with the reason `undecodable`.
    pub fn reject_undecodable(&self, range: RangeInclusive<Offset>, error: &str) {
        self.say(range, VerbKind::Reject { reason: error.to_owned(), kind: Rejection::Undecodable });
    }

    /// Still at work on what was not settled: `max_processing` and the subscription's `ack_timeout` start again.
    pub fn in_progress(&self) {
        self.say(self.range(), VerbKind::InProgress);
    }

    /// What its verbs go through; `None` for one of a reader.
    pub(crate) fn lease(&self) -> Option<&Arc<Lease>> {
        self.lease.as_ref()
    }

    /// A copy of one event, with the first offset that a verb for it covers and when it was appended.
    pub(crate) fn copied_event(&self, offset: Offset) -> Option<(Offset, Timestamp, Event)> {
        let batch = self.batches.partition_point(|placed| placed_end(placed) <= offset);
        let placed = self.batches.get(batch).filter(|_| self.range().contains(&offset))?;
        let event = placed.batch.events().find(|event| event.offset(placed.base) == offset)?;
        Some((self.behind_event_before(offset), placed.append_time, event.to_copied_event()))
    }

    fn say(&self, range: RangeInclusive<Offset>, kind: VerbKind) {
        let (first, last) = (self.first.max(*range.start()), self.last.min(*range.end()));
        if let Some(lease) = &self.lease
            && first <= last
        {
            // Verbs about events that follow on each other become one, whatever lies between those.
            let range = (self.behind_event_before(first), last);
            lease.say(range, &kind, |first, last| self.count_between(first, last));
        }
    }

    /// The offset behind the last event before this one, which is not before the delivery's first.
    fn behind_event_before(&self, first: Offset) -> Offset {
        let behind = match self.listed_offsets() {
            Some(offsets) => {
                let before = offsets.partition_point(|offset| *offset < first);
                offsets[..before].last().map(|last| last.plus(1))
            }
            None => {
                let before = self.batches.partition_point(|placed| placed.base < first);
                self.batches[..before].last().map(|placed| placed_end(placed).min(first))
            }
        };
        behind.map_or(self.first, |behind| behind.max(self.first))
    }

    /// The offsets of all events; `None` if each batch holds all that it spans.
    fn listed_offsets(&self) -> Option<&[Offset]> {
        let all = || self.batches.iter().flat_map(|it| it.batch.events().map(|event| event.offset(it.base)));
        self.has_gaps.then(|| self.offsets.get_or_init(|| all().collect()).as_slice())
    }

    /// What a transaction that acknowledges all of it tells the engine; `None` if it cannot be acknowledged any more.
    pub(crate) fn acked(&self) -> Option<AckedDelivery> {
        let (partition, token) = self.lease.as_ref()?.names()?;
        let (first, last, events) = (self.first.0, self.last.0, u64::from(self.count()));
        Some(AckedDelivery { token: token.0, partition: partition.0, first, last, events })
    }

    /// Which subscription it was delivered to; `None` for one of a reader.
    pub(crate) fn of(&self) -> Option<&Of> {
        self.lease.as_ref().map(|lease| lease.of())
    }

    /// A transaction has acknowledged all of it.
    pub(crate) fn settle(&self) {
        if let Some(lease) = &self.lease {
            lease.settle((self.first, self.last), |first, last| self.count_between(first, last));
        }
    }

    /// How many of the events have an offset from `first` to `last`, both included.
    pub(crate) fn count_between(&self, first: Offset, last: Offset) -> u64 {
        if first <= self.first && self.last <= last {
            return u64::from(self.count());
        }
        if let Some(offsets) = self.listed_offsets() {
            let until = offsets.partition_point(|offset| *offset <= last);
            let from = offsets[..until].partition_point(|offset| *offset < first);
            return u64::try_from(until - from).expect("a count fits 64 bits");
        }
        let from = self.batches.partition_point(|placed| placed_end(placed) <= first);
        let among = self.batches[from..].iter().take_while(|placed| placed.base <= last);
        among.map(|placed| placed_end(placed).min(last.plus(1)).0 - placed.base.max(first).0).sum()
    }
}

impl fmt::Debug for Delivery {
    /// Leaves the payloads out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("header", &self.header)
            .field("first", &self.first)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// The offset behind those that a batch spans.
fn placed_end(placed: &PlacedBatch) -> Offset {
    placed.base.plus(u64::from(placed.batch.span()))
}

/// How a nack's delay is written; without one the subscription's backoff decides.
pub(crate) fn nack_delay_ms(delay: Option<Duration>) -> Option<u32> {
    // All ones mean the backoff.
    delay.map(|delay| u32::try_from(delay.as_millis()).unwrap_or(u32::MAX).min(u32::MAX - 1))
}

/// A delivery frame whose batches were not checked yet.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) header: DeliverHeader,
    runs: Bytes,
    /// What the frame takes from the credit in bytes.
    pub(crate) bytes: u64,
}

impl Incoming {
    pub(crate) fn read(frame: Frame) -> Result<Self, Error> {
        let mut payload = frame.payload;
        let bytes = u64::try_from(payload.len()).expect("a length fits 64 bits");
        let header = DeliverHeader::read(&mut payload)?;
        Ok(Self { header, runs: payload, bytes })
    }

    /// Where its offsets begin, and the first one behind them, filtered events included. `None` if it has no events.
    pub(crate) fn span(&self) -> Option<(Offset, Offset)> {
        let first_run = Runs::new(self.runs.clone()).next()?.ok()?;
        Some((first_run.base, first_run.base.plus(u64::from(self.header.span))))
    }

    /// The first offset behind the frame, filtered events included.
    pub(crate) fn next_offset(&self) -> Option<Offset> {
        self.span().map(|(_, next)| next)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        deliver::Run,
    };

    use super::*;

    /// A delivery of batches with these offsets each; one that has gaps is a selection.
    fn delivery(batches: &[&[u64]]) -> Delivery {
        let placed = batches.iter().map(|offsets| {
            let (base, is_dense) = (offsets[0], offsets.windows(2).all(|pair| pair[0] + 1 == pair[1]));
            let mut builder = if is_dense { BatchBuilder::new() } else { BatchBuilder::selection() };
            for offset in *offsets {
                let mut own = BatchBuilder::new();
                own.push(&Event::new("x")).unwrap();
                let own = own.finish(Stamp::ENGINE);
                let delta = u32::try_from(offset - base).unwrap();
                builder.push_ref(delta, &own.events().next().unwrap()).unwrap();
            }
            let batch = builder.finish(Stamp::ENGINE);
            PlacedBatch { base: Offset(base), append_time: Timestamp(0), hops: 0, batch }
        });
        let placed: Vec<_> = placed.collect();
        let count = batches.iter().map(|offsets| offsets.len()).sum::<usize>();
        let header = DeliverHeader {
            partition: PartitionId(0),
            built: true,
            attempt: 1,
            count: u32::try_from(count).unwrap(),
            token: DeliveryToken(1),
            span: 0,
        };
        let mut runs = BytesMut::new();
        for it in &placed {
            let batches = it.batch.bytes().clone();
            Run { base: it.base, append_time: it.append_time, hops: 0, batches }.write(&mut runs);
        }
        let incoming = Incoming { header, runs: runs.freeze(), bytes: 0 };
        Delivery::check(incoming).unwrap().unwrap()
    }

    #[test]
    fn a_delivery_can_be_cut_between_any_two_events() {
        let all: Vec<u64> = vec![3, 5, 6, 9, 12, 13, 20];
        for count in 1..all.len() {
            let whole = delivery(&[&[3, 5, 6], &[9, 12], &[13], &[20]]);
            let (head, rest) = whole.cut_at(u32::try_from(count).unwrap());
            for (part, offsets) in [(&head, &all[..count]), (&rest, &all[count..])] {
                let has: Vec<u64> = part.events().map(|(offset, ..)| offset.0).collect();
                assert_eq!(has, offsets);
                assert_eq!(part.to_events().map(|(offset, _)| offset.0).collect::<Vec<_>>(), offsets);
                let (first, last) = (Offset(offsets[0]), Offset(*offsets.last().unwrap()));
                assert_eq!((part.first(), part.last(), part.count() as usize), (first, last, offsets.len()));
                assert_eq!(part.count_between(first, last), offsets.len() as u64);
                assert_eq!(part.count_between(last, last), 1);
                let of_others = all.iter().filter(|offset| part.copied_event(Offset(**offset)).is_some());
                assert_eq!(of_others.copied().collect::<Vec<_>>(), offsets);
            }
            if all.len() - count > 1 {
                let (next, _) = rest.cut_at(1);
                assert_eq!(next.events().map(|(offset, ..)| offset.0).collect::<Vec<_>>(), [all[count]]);
            }
        }
    }

    #[test]
    fn events_are_counted_and_a_verb_reaches_back_to_the_event_before() {
        for batches in
            [&[&[3, 4, 5][..], &[6], &[9, 10]][..], &[&[3, 5, 6], &[9, 12], &[20]], &[&[3], &[8], &[9, 11]]]
        {
            let delivery = delivery(batches);
            let all: Vec<u64> = batches.concat();
            for first in 3..=*all.last().unwrap() {
                let before = all.iter().copied().filter(|offset| *offset < first).max();
                let behind = before.map_or(3, |before| before + 1);
                assert_eq!(
                    delivery.behind_event_before(Offset(first)),
                    Offset(behind),
                    "{first} of {batches:?}"
                );
                for last in first..25 {
                    let count = all.iter().filter(|offset| (first..=last).contains(offset)).count() as u64;
                    assert_eq!(
                        delivery.count_between(Offset(first), Offset(last)),
                        count,
                        "{first} to {last}"
                    );
                }
            }
        }
    }
}
