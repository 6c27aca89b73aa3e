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

/// Acknowledgements in one frame: with the longest refusals still well below a frame's limit.
const ACKS_GATHERED_MAX: usize = 1_024;
/// Refusals of malformed batches that may wait to be written.
const REFUSALS_QUEUED_MAX: usize = 64;
/// An acknowledgement without text.
const ACK_BYTES: usize = 32;

/// Serves a publish stream until the client ends it and has every acknowledgement.
pub(super) async fn serve(
    broker: &Broker,
    principal: &Principal,
    topic: &TopicName,
    draining: &CancellationToken,
    stream: &mut Stream,
) -> Result<(), Failure> {
    let opened = broker.open_publish(principal, topic)?;
    let (partitions, durability) = (opened.partitions, opened.durability);
    stream.answer(&Opened::Publish { partitions, durability }).await?;
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
    let message = match error {
        BatchError::TooLarge { source, .. } => format!("{error}: {source}"),
        BatchError::HeaderReserved { source, .. } => format!("{error}: {source}"),
        other => other.to_string(),
    };
    let outcome = AckOutcome::Refused(Refusal::new(error.code(), message));
    Ack { correlation: header.correlation, partition: header.partition, outcome }
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
        if !gathered.is_empty() {
            send.write_chunk(ack_frame(&gathered)).await?;
            gathered.clear();
        }
    }
}

fn ack_frame(acks: &[Ack]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(FRAME_HEADER_BYTES + acks.len() * ACK_BYTES);
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
    use levada_protocol::{error::ErrorCode, ids::PartitionId, limits::REASON_BYTES_MAX};

    use super::*;

    #[test]
    fn the_longest_acknowledgement_frame_is_within_its_limit() {
        let refusal = Refusal::new(ErrorCode::BatchInvalid, "x".repeat(REASON_BYTES_MAX * 2));
        let ack = Ack { correlation: 1, partition: PartitionId(2), outcome: AckOutcome::Refused(refusal) };
        let frame = ack_frame(&vec![ack; ACKS_GATHERED_MAX]);
        let read = Ack::read_all(&frame[FRAME_HEADER_BYTES..]).unwrap();
        assert_eq!(read.len(), ACKS_GATHERED_MAX);
        assert!(frame.len() > ACKS_GATHERED_MAX * REASON_BYTES_MAX, "the texts are there, clipped");
    }
}
