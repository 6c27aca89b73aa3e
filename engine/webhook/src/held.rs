//! What a push holds: the events that were delivered and are not settled, and the credit that comes back with each.

use std::collections::HashMap;

use bytes::Bytes;
use levada_broker::{Delivery, PushTarget};
use levada_cloudevents::{Stored, write_structured};
use levada_protocol::{
    deliver::{DELIVER_HEADER_BYTES, RUN_HEADER_BYTES},
    ids::{DeliveryToken, Offset, PartitionId},
    verbs::{Credit, Verb, VerbKind},
};

use crate::lanes::{Held, Lane, Lanes};

/// Bytes of deliveries that a push holds, unless one event is larger.
pub(crate) const CREDIT_BYTES: u64 = 2 * 1024 * 1024;

/// The events of one push.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    pub(crate) lanes: Lanes,
    /// By the number of each frame: its events that are held, and its bytes.
    frames: HashMap<u64, (u64, u64)>,
    next_frame: u64,
    /// Credit that is to be given.
    owed: Credit,
}

impl Holding {
    /// Takes a delivery.
    ///
    /// # Errors
    /// If its events cannot be read.
    pub(crate) fn take(&mut self, target: &PushTarget, delivery: &Delivery) -> Result<(), String> {
        let frame = self.next_frame;
        self.next_frame += 1;
        let header = &delivery.header;
        let runs: usize = delivery.runs.iter().map(|run| RUN_HEADER_BYTES + run.batches.len()).sum();
        let bytes = u64::try_from(DELIVER_HEADER_BYTES + runs).unwrap_or(u64::MAX);
        self.frames.insert(frame, (u64::from(header.count), bytes));
        for run in &delivery.runs {
            for batch in run.batches() {
                let (base, batch) = batch.map_err(|error| error.to_string())?;
                for event in batch.events() {
                    let offset = event.offset(base);
                    let stored = Stored {
                        topic: target.topic.as_str(),
                        topic_id: target.topic_id.0,
                        partition: header.partition,
                        offset,
                        appended: Some(run.append_time),
                    };
                    let mut body = Vec::new();
                    write_structured(&mut body, &stored, &event);
                    let held = Held {
                        partition: header.partition,
                        offset,
                        token: header.token,
                        attempt: header.attempt,
                        frame,
                        body: Bytes::from(body),
                    };
                    let lane = Lane::of(target.rules.order, header.partition, offset, event.key());
                    if let Some(gone) = self.lanes.add(lane, held) {
                        self.release(&gone);
                    }
                }
            }
        }
        Ok(())
    }

    /// An event is no longer held.
    pub(crate) fn release(&mut self, held: &Held) {
        self.owed.events += 1;
        if let Some((events, bytes)) = self.frames.get_mut(&held.frame) {
            *events = events.saturating_sub(1);
            if *events == 0 {
                self.owed.bytes += *bytes;
                self.frames.remove(&held.frame);
            }
        }
    }

    /// The credit that is to be given now, if there is any.
    pub(crate) fn owed(&mut self) -> Option<Credit> {
        let owed = std::mem::take(&mut self.owed);
        (owed.events > 0 || owed.bytes > 0).then_some(owed)
    }

    /// What says that everything that is held is still being worked on.
    pub(crate) fn in_progress(&self) -> Vec<Verb> {
        let mut held: Vec<(PartitionId, DeliveryToken, Offset)> =
            self.lanes.iter().map(|held| (held.partition, held.token, held.offset)).collect();
        held.sort_unstable();
        let mut verbs: Vec<Verb> = Vec::new();
        for (partition, token, offset) in held {
            match verbs.last_mut() {
                Some(last)
                    if last.partition == partition && last.token == token && last.last.0 + 1 == offset.0 =>
                {
                    last.last = offset;
                }
                _ => verbs.push(Verb {
                    kind: VerbKind::InProgress,
                    partition,
                    token,
                    first: offset,
                    last: offset,
                }),
            }
        }
        verbs
    }
}

/// What became of an event.
pub(crate) fn verb(held: &Held, kind: VerbKind) -> Verb {
    Verb { kind, partition: held.partition, token: held.token, first: held.offset, last: held.offset }
}
