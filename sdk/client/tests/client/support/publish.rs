//! The publish side of the fake engine.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use levada_client::protocol::{
    batch::Batch,
    error::{ErrorCode, Refusal},
    frame::{self, FrameType},
    ids::Offset,
    publish::{Ack, AckOutcome, Durability, PublishHeader},
    request::Opened,
};

use super::{Reaction, Seen, World, streams::Stream};

/// What the engine remembers of a producer and partition.
#[derive(Default)]
pub(crate) struct Producer {
    next: u64,
    stored: HashMap<u64, (u64, u32)>,
}

pub(crate) async fn serve(mut stream: Stream) {
    let partitions = stream.inner.world().partitions;
    let durability = Durability::Sync;
    let opened = Opened::Publish { partitions, durability, backlog_max_events: 0, backlog_max_bytes: 0 };
    stream.send(frame::message(FrameType::Opened, &opened)).await;
    let mut held = Vec::new();
    loop {
        let inner = stream.inner.clone();
        let next = tokio::select! {
            biased;
            next = stream.frame() => next,
            () = inner.until(|world| (world.held > 0 && world.release).then_some(())), if !held.is_empty() => {
                inner.change(|world| (world.held, world.release) = (0, false));
                held.reverse();
                for ack in held.drain(..) {
                    stream.send(ack_frame(&ack)).await;
                }
                continue;
            }
        };
        let Some((FrameType::Publish, mut payload)) = next else { return };
        let header = PublishHeader::read(&mut payload).unwrap();
        let batch = Batch::check(payload).unwrap();
        let (reaction, outcome) = stream.inner.change(|world| react(world, &header, batch));
        let ack = Ack { correlation: header.correlation, partition: header.partition, outcome };
        match reaction {
            Reaction::AppendAndCut | Reaction::AppendAndTakeOver | Reaction::Cut => return stream.cut(),
            Reaction::Hold => {
                held.push(ack);
                stream.inner.change(|world| world.held = held.len());
            }
            Reaction::Append | Reaction::Refuse(_) | Reaction::Forget => stream.send(ack_frame(&ack)).await,
        }
    }
}

fn ack_frame(ack: &Ack) -> Bytes {
    let mut payload = BytesMut::new();
    ack.write(&mut payload);
    frame::frame(FrameType::Ack, &payload)
}

fn react(world: &mut World, header: &PublishHeader, batch: Batch) -> (Reaction, AckOutcome) {
    world.seen.push(Seen {
        producer: batch.header().producer_id,
        epoch: batch.header().epoch,
        partition: header.partition.0,
        first_sequence: batch.header().first_sequence,
        count: batch.count(),
        bytes: batch.bytes().len(),
    });
    let reaction = world.reactions.pop_front().unwrap_or(Reaction::Append);
    let outcome = match &reaction {
        Reaction::Cut => AckOutcome::Refused(Refusal::new(ErrorCode::Internal, "never sent")),
        Reaction::Refuse(refusal) => {
            if !refusal.code.is_retryable() {
                let producer =
                    world.producers.entry((batch.header().producer_id, header.partition.0)).or_default();
                producer.next += u64::from(batch.count());
            }
            AckOutcome::Refused(refusal.clone())
        }
        Reaction::Forget => {
            world.producers.clear();
            append(world, header, batch)
        }
        Reaction::AppendAndTakeOver => {
            let outcome = append(world, header, batch);
            world.openings += 1;
            outcome
        }
        Reaction::Append | Reaction::AppendAndCut | Reaction::Hold => append(world, header, batch),
    };
    (reaction, outcome)
}

/// The engine's rules for sequences.
fn append(world: &mut World, header: &PublishHeader, batch: Batch) -> AckOutcome {
    let partition = header.partition.0;
    if (1..world.openings).contains(&batch.header().epoch) {
        return AckOutcome::Refused(Refusal::new(ErrorCode::ProducerFenced, "taken over"));
    }
    let first = batch.header().first_sequence;
    let key = (batch.header().producer_id, partition);
    if !world.producers.contains_key(&key) && first > 0 {
        return AckOutcome::Refused(Refusal::new(ErrorCode::ProducerUnknown, "never heard of it"));
    }
    let producer = world.producers.entry(key).or_default();
    if let Some(&(base, count)) = producer.stored.get(&first) {
        return AckOutcome::Appended { base: Some(Offset(base)), count, duplicate: true, duplicates: None };
    }
    if first != producer.next {
        let what = format!("expected {}, got {first}", producer.next);
        return AckOutcome::Refused(Refusal::new(ErrorCode::SequenceGap, what));
    }
    let log = world.log.entry(partition).or_default();
    let base = log.last().map_or(0, |(base, batch)| base + u64::from(batch.count()));
    if header.expect_offset.is_some_and(|expected| expected.0 != base) {
        return AckOutcome::OffsetMismatch { next: Offset(base), message: "another one".to_owned() };
    }
    let count = batch.count();
    producer.next = first + u64::from(count);
    producer.stored.insert(first, (base, count));
    log.push((base, batch));
    AckOutcome::Appended { base: Some(Offset(base)), count, duplicate: false, duplicates: None }
}
