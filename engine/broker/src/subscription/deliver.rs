//! One delivery: read what the rules want, pass it through the chain, hand it to the consumer.
//!
//! It owns the chain and what has passed it. Who gets what, the rules say.

use std::{sync::atomic::Ordering, time::Duration};

use levada_chain::{Input, Source};
use levada_delivery::{
    now::Now,
    subscription::{ConsumerId, Sent, Wanted, WantedKind},
};
use levada_protocol::{
    deliver::DeliverHeader,
    ids::{Offset, PartitionId},
};
use levada_stage::AttachmentPoint;
use tokio::time::Instant;

use super::{lost, owner::OwnerTask, ready::Ready};
use crate::{
    error::Error,
    frames::{DELIVER_BYTES_TARGET, deliver_frame, payload_len},
    log::Found,
    outbound::Held,
};

/// Bytes that one look at the log brings at most.
const READ_BYTES: usize = 512 * 1024;
/// Bytes that may have been read for all partitions and wait for credit. More are given up and read again.
const READY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A frame is not made for less room than this, unless it needs less.
const ROOM_MIN: usize = 16 * 1024;
/// What a consumer without room waits for, unless it wants less.
const ROOM_WAITED: usize = 64 * 1024;
/// How long the owner waits after the chain could not be attached, which may have cost a compilation.
const RETRY_CHAIN: Duration = Duration::from_secs(5);

impl OwnerTask {
    /// True if the chain is there and nothing is paused.
    pub(super) async fn may_deliver(&mut self) -> Result<bool, Error> {
        if self.outdated.swap(false, Ordering::AcqRel) {
            self.chain = None;
            self.ready.iter_mut().for_each(|ready| *ready = Ready::default());
            // What would end by itself was of the plugins as they were.
            self.paused.take_if(|paused| paused.until.is_some());
        }
        if let Some(paused) = &self.paused {
            if paused.until.is_none_or(|until| until > Instant::now()) {
                return Ok(false);
            }
            self.paused = None;
        }
        if self.chain.is_none() && !self.record.options.chain().is_empty() {
            let catalogue = self.context.shard.catalogue();
            let (view, asked) = self.view();
            let (specs, id) = (view.record.options.chain(), view.record.id);
            let chains = &view.context.chains;
            let attach =
                chains.attach(&catalogue, specs, &view.record.topic, AttachmentPoint::Subscription, id);
            match view.during(asked, attach).await {
                Ok(attached) => {
                    self.costs.attach(0, attached.stages());
                    self.chain = Some(attached);
                }
                Err(error) => {
                    self.pause(error.to_string(), Some(RETRY_CHAIN));
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Reads what is wanted, passes it through the chain and sends it.
    pub(super) async fn deliver(&mut self, now: Now, wanted: Wanted) -> Result<(), Error> {
        let Some(held) = self.room(wanted.consumer, wanted.bytes_max) else {
            self.rules.abandon(wanted);
            return Ok(());
        };
        let place = usize::from(wanted.partition.0);
        let until = wanted.last.plus(1);
        let mut again = Ready::default();
        let fresh = wanted.kind == WantedKind::Fresh;
        if !(fresh && self.ready[place].is_from(wanted.first)) {
            // Fresh events are prepared beyond what is wanted now; the rest waits for the next time.
            let prepare_until = if fresh { Offset(u64::MAX) } else { until };
            match self.prepare(wanted.partition, wanted.first, prepare_until, held.bytes()).await {
                Ok(Some(ready)) if fresh => self.keep_ready(place, ready),
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
        let ready = if fresh { &self.ready[place] } else { &again };
        let least = ready.least();
        let Some(mut held) = self.room_for_one(wanted.consumer, held, least) else {
            self.rules.abandon(wanted);
            return Ok(());
        };
        let ready = if fresh { &mut self.ready[place] } else { &mut again };
        let bytes_max = wanted.bytes_max.min(held.bytes() as u64);
        let taken = match ready.take(until, wanted.events_max, bytes_max) {
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
        held.shrink(payload_len(&taken.pieces));
        let frame = deliver_frame(header, &taken.pieces).counted(held);
        self.delivered.increment(delivered.events);
        if !self.consumers.get_mut(&consumer.0).is_some_and(|attached| attached.send(frame)) {
            self.detach(now, consumer.0);
        }
        Ok(())
    }

    /// Bytes that a consumer's next frame may have, set aside; `None` if it has to wait for them, and is held until it has
    /// them.
    fn room(&mut self, consumer: ConsumerId, bytes_max: u64) -> Option<Held> {
        let attached = self.consumers.get_mut(&consumer.0)?;
        if let Some(held) = attached.room.take() {
            return Some(held);
        }
        let wanted = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(DELIVER_BYTES_TARGET);
        let bytes = wanted.min(attached.window.room()).max(wanted.min(ROOM_MIN));
        let held = attached.window.try_hold(bytes);
        if held.is_none() {
            attached.wait_for_room(wanted.min(ROOM_WAITED));
            self.rules.hold(consumer, true);
        }
        held
    }

    /// The same bytes, or more if a single batch needs them; `None` if the consumer has to wait for those.
    fn room_for_one(&mut self, consumer: ConsumerId, mut held: Held, least: usize) -> Option<Held> {
        let Some(more) = least.checked_sub(held.bytes()).filter(|more| *more > 0) else { return Some(held) };
        let attached = self.consumers.get_mut(&consumer.0)?;
        match attached.window.try_hold(more) {
            Some(more) => held.merge(more),
            // It has waited for so much and got all that there can be.
            None if attached.waited_for >= least => {}
            None => {
                drop(held);
                // All of the window, if nothing is untaken.
                let all = attached.window.try_hold(least);
                if all.is_none() {
                    attached.wait_for_room(least);
                    self.rules.hold(consumer, true);
                }
                return all;
            }
        }
        Some(held)
    }

    fn keep_ready(&mut self, place: usize, ready: Ready) {
        self.ready_bytes += ready.bytes();
        if self.ready_bytes > READY_BYTES_MAX {
            self.ready.iter_mut().for_each(|ready| *ready = Ready::default());
            self.ready_bytes = ready.bytes();
        }
        self.ready[place] = ready;
    }

    /// Reads from `from` and passes it through the chain; `None` if nothing can be sent now.
    async fn prepare(
        &mut self,
        number: PartitionId,
        from: Offset,
        until: Offset,
        room: usize,
    ) -> Result<Option<Ready>, Error> {
        // A chain may pass little of much.
        let bytes = if self.chain.is_some() { READ_BYTES } else { READ_BYTES.min(room.saturating_mul(2)) };
        let (view, asked) = self.view();
        let read = view.logs[usize::from(number.0)].read(from, bytes);
        let pieces = match view.during(asked, read).await? {
            Found::Pieces(pieces) => pieces,
            Found::End => return Ok(None),
            Found::Dropped(start) => {
                if let Some(lost) = self.rules.lost(number, start) {
                    lost::note(lost, &mut self.consumers, &mut self.untold);
                }
                return Ok(None);
            }
        };
        let (view, asked) = self.view();
        let Some(attached) = view.chain else { return Ok(Some(Ready::stored(from, pieces))) };
        let end = pieces.last().map_or(from, |piece| piece.end()).min(until);
        let sources = pieces.into_iter().map(Source::of).collect::<Result<Vec<_>, _>>()?;
        let input = Input { partition: number, offsets: from..end, sources: &sources };
        let mut filtered = view.during(asked, attached.chain.filter(input)).await;
        if let Some(paused) = filtered.progress.paused.take() {
            self.pause(paused.why, paused.retry_after);
        }
        let reached = filtered.progress.reached;
        let ready = Ready::filtered(from, number, filtered, &mut self.letters);
        Ok((reached > from).then_some(ready))
    }
}
