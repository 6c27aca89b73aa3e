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
    /// Takes a delivery, all of it or nothing; the credit of one that is not taken is owed at once.
    ///
    /// # Errors
    /// If its events cannot be read.
    pub(crate) fn take(&mut self, target: &PushTarget, delivery: &Delivery) -> Result<(), String> {
        let frame = self.next_frame;
        self.next_frame += 1;
        let header = &delivery.header;
        let runs: usize = delivery.runs.iter().map(|run| RUN_HEADER_BYTES + run.batches.len()).sum();
        let bytes = u64::try_from(DELIVER_HEADER_BYTES + runs).unwrap_or(u64::MAX);
        let batches =
            delivery.runs.iter().flat_map(|run| run.batches().map(|batch| (run.append_time, batch)));
        let batches = batches.map(|(appended, batch)| batch.map(|batch| (appended, batch)));
        let batches = batches.collect::<Result<Vec<_>, _>>().map_err(|error| {
            self.owed.events += u64::from(header.count);
            self.owed.bytes += bytes;
            error.to_string()
        })?;
        self.frames.insert(frame, (u64::from(header.count), bytes));
        for (appended, (base, batch)) in batches {
            for event in batch.events() {
                let offset = event.offset(base);
                let stored = Stored {
                    topic: target.topic.as_str(),
                    topic_id: target.topic_id.0,
                    partition: header.partition,
                    offset,
                    appended: Some(appended),
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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use levada_broker::PushRules;
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        deliver::{DeliverHeader, Run},
        event::Event,
        ids::{SubscriptionId, Timestamp, TopicId},
        push_secret::PushSecret,
        request::Order,
    };

    use super::*;

    fn target() -> PushTarget {
        let rules = PushRules {
            url: "https://shop.example/".to_owned(),
            secret: PushSecret::new(vec![7; 32]).unwrap(),
            previous: None,
            max_in_flight: 32,
            timeout: Duration::from_secs(1),
            order: Order::None,
            max_attempts: 5,
            ack_timeout: Duration::from_secs(30),
        };
        PushTarget {
            id: SubscriptionId(1),
            topic: "orders".parse().unwrap(),
            topic_id: TopicId(1),
            subscription: "payment".parse().unwrap(),
            rules,
            standing: Arc::default(),
        }
    }

    /// A delivery of two batches with two events each, of which the second batch is damaged if that is wanted.
    fn delivery(damaged: bool) -> Delivery {
        let mut builder = BatchBuilder::new();
        let mut batches = Vec::new();
        for _ in 0..2 {
            (0..2).for_each(|_| builder.push(&Event::new("x")).unwrap());
            batches.extend_from_slice(builder.finish(Stamp::ENGINE).bytes());
        }
        if damaged {
            batches.last_mut().into_iter().for_each(|byte| *byte ^= 1);
        }
        let run = Run { base: Offset(0), append_time: Timestamp(1), hops: 0, batches: batches.into() };
        let header = DeliverHeader {
            partition: PartitionId(0),
            built: false,
            attempt: 1,
            count: 4,
            token: DeliveryToken(7),
            span: 4,
        };
        Delivery { header, runs: vec![run] }
    }

    #[test]
    fn the_credit_of_what_is_damaged_comes_back_at_once_and_that_of_the_rest_with_each_event() {
        let target = target();
        let mut holding = Holding::default();
        holding.take(&target, &delivery(true)).unwrap_err();
        assert!(holding.lanes.iter().next().is_none(), "all of it or nothing");
        let owed = holding.owed().unwrap();
        assert_eq!(owed.events, 4);
        holding.take(&target, &delivery(false)).unwrap();
        assert!(holding.owed().is_none());
        let held: Vec<Held> = std::iter::from_fn(|| holding.lanes.next()).map(|(_, held)| held).collect();
        held.iter().for_each(|held| holding.release(held));
        assert_eq!(holding.owed().map(|credit| credit.events), Some(held.len() as u64));
        assert!(owed.bytes > 0);
    }
}
