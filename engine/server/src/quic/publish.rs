//! A publish stream: batches up, acknowledgements down.
//!
//! It owns the check of what arrives. Back-pressure is not reading on: the submitter waits for room, and QUIC's flow
//! control makes the client wait.

use bytes::{Bytes, BytesMut};
use levada_broker::{Broker, Principal, Submitter};
use levada_protocol::{
    batch::{Batch, BatchError},
    error::Refusal,
    frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType},
    ids::TopicName,
    limits::FRAME_BYTES_MAX,
    publish::{Ack, AckOutcome, PublishHeader},
    request::Opened,
};
use quinn::SendStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    frames::FrameReader,
    stream::{Failure, Stream, both},
};

/// Acknowledgements in one frame at most, unless they are too long for it.
const ACKS_GATHERED_MAX: usize = 1_024;
/// Refusals of malformed batches that may wait to be written.
const REFUSALS_QUEUED_MAX: usize = 64;

/// Serves a publish stream until the client ends it and has every acknowledgement.
pub(super) async fn serve(
    broker: &Broker,
    principal: &Principal,
    topic: &TopicName,
    draining: &CancellationToken,
    stream: &mut Stream,
) -> Result<(), Failure> {
    let opened = broker.open_publish(principal, topic)?;
    broker.begin_request(principal).await?;
    let answer = Opened::Publish {
        partitions: opened.partitions,
        durability: opened.durability,
        backlog_max_events: opened.backlog_max_events,
        backlog_max_bytes: opened.backlog_max_bytes,
    };
    stream.answer(&answer).await?;
    let (submitter, acks) = opened.split();
    let (refusals, refused) = mpsc::channel(REFUSALS_QUEUED_MAX);
    both(
        submit_all(&mut stream.frames, submitter, refusals, draining),
        acknowledge_all(&mut stream.send, acks, refused),
    )
    .await
}

/// Checks and submits every batch. A bad one is refused by its number, and the stream goes on.
async fn submit_all(
    frames: &mut FrameReader,
    submitter: Submitter,
    refusals: mpsc::Sender<Ack>,
    draining: &CancellationToken,
) -> Result<(), Failure> {
    loop {
        let frame = tokio::select! {
            biased;
            // What has arrived is taken; a client that sends nothing any more is asked to leave.
            frame = frames.next() => frame?,
            () = draining.cancelled() => return Err(levada_broker::Error::ShuttingDown.into()),
        };
        let Some(frame) = frame else { return Ok(()) };
        if frame.kind != FrameType::Publish {
            return Err(Failure::unexpected(frame.kind, "a publish frame"));
        }
        // Counted as unfinished until it is submitted, or refused.
        let _room = frame.room;
        let mut payload = frame.payload;
        let header = PublishHeader::read(&mut payload)?;
        match Batch::check(payload) {
            Ok(batch) => submitter.submit(header, batch).await?,
            // Fails only if the other half has ended, and then so does this one.
            Err(error) => refusals.send(refused(header, &error)).await.map_err(|_| Failure::Gone)?,
        }
    }
}

fn refused(header: PublishHeader, error: &BatchError) -> Ack {
    let outcome = AckOutcome::Refused(refusal(error));
    Ack { correlation: header.correlation, partition: header.partition, outcome }
}

/// What is said of a batch that is not sound.
pub(super) fn refusal(error: &BatchError) -> Refusal {
    let message = match error {
        BatchError::TooLarge { source, .. } => format!("{error}: {source}"),
        BatchError::HeaderReserved { source, .. } => format!("{error}: {source}"),
        other => other.to_string(),
    };
    Refusal::new(error.code(), message)
}

/// Writes acknowledgements, as many in one frame as there are.
async fn acknowledge_all(
    send: &mut SendStream,
    mut acks: mpsc::Receiver<Ack>,
    mut refused: mpsc::Receiver<Ack>,
) -> Result<(), Failure> {
    let mut gathered = Vec::new();
    let mut submitting = true;
    loop {
        tokio::select! {
            biased;
            count = acks.recv_many(&mut gathered, ACKS_GATHERED_MAX), if submitting => submitting = count > 0,
            Some(refusal) = refused.recv() => gathered.push(refusal),
            else => return Ok(()),
        }
        while gathered.len() < ACKS_GATHERED_MAX
            && let Ok(refusal) = refused.try_recv()
        {
            gathered.push(refusal);
        }
        let mut rest = &gathered[..];
        while let Some(fitting) = cut_off_frame(&mut rest) {
            send.write_chunk(ack_frame(fitting)).await?;
        }
        gathered.clear();
    }
}

/// Cuts off as many acknowledgements as fit into a frame; `None` if there are none left.
fn cut_off_frame<'a>(acks: &mut &'a [Ack]) -> Option<&'a [Ack]> {
    let mut len = 0;
    let fits = |ack: &&Ack| {
        len += ack.encoded_len_max();
        len <= FRAME_BYTES_MAX
    };
    let count = acks.iter().take_while(fits).count();
    let (fitting, rest) = acks.split_at(count);
    *acks = rest;
    (count > 0).then_some(fitting)
}

fn ack_frame(acks: &[Ack]) -> Bytes {
    let len = acks.iter().map(Ack::encoded_len_max).sum::<usize>();
    let mut bytes = BytesMut::with_capacity(FRAME_HEADER_BYTES + len);
    bytes.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    for ack in acks {
        ack.write(&mut bytes);
    }
    let header = FrameHeader::bytes(FrameType::Ack, bytes.len() - FRAME_HEADER_BYTES);
    bytes[..FRAME_HEADER_BYTES].copy_from_slice(&header);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use levada_protocol::{
        duplicates::Duplicates,
        error::ErrorCode,
        ids::{Offset, PartitionId},
        limits::{BATCH_EVENTS_MAX, REASON_BYTES_MAX},
    };

    use super::*;

    fn framed(acks: &[Ack]) -> usize {
        let (mut rest, mut frames, mut read) = (acks, 0, Vec::new());
        while let Some(fitting) = cut_off_frame(&mut rest) {
            let frame = ack_frame(fitting);
            assert!(frame.len() - FRAME_HEADER_BYTES <= FRAME_BYTES_MAX, "{}", frame.len());
            read.extend(Ack::read_all(&frame[FRAME_HEADER_BYTES..]).unwrap());
            frames += 1;
        }
        assert_eq!(read.len(), acks.len());
        frames
    }

    #[test]
    fn the_longest_refusals_fit_one_frame_and_the_longest_duplicates_a_few() {
        let refusal = Refusal::new(ErrorCode::BatchInvalid, "x".repeat(REASON_BYTES_MAX * 2));
        let ack = Ack { correlation: 1, partition: PartitionId(2), outcome: AckOutcome::Refused(refusal) };
        assert!(ack.encoded_len_max() > REASON_BYTES_MAX, "the text is there, clipped");
        assert_eq!(framed(&vec![ack; ACKS_GATHERED_MAX]), 1);
        let mut found = None;
        let last = u32::try_from(BATCH_EVENTS_MAX).unwrap();
        (0..last).for_each(|at| Duplicates::note(&mut found, at, Offset(u64::from(at) * 2)));
        let duplicates = found.map(Arc::new);
        let outcome = AckOutcome::Appended { base: None, count: 0, duplicate: false, duplicates };
        let ack = Ack { correlation: 1, partition: PartitionId(2), outcome };
        assert_eq!(framed(&vec![ack; ACKS_GATHERED_MAX]), 3);
        assert_eq!(framed(&[]), 0);
    }
}
