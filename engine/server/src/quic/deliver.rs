//! Frames of deliveries for consumers and readers: heads are written for each, stored bytes are shared.

use bytes::{Bytes, BytesMut};
use levada_broker::{Content, Delivery};
use levada_protocol::{
    deliver::{DELIVER_HEADER_BYTES, EndEntry, RUN_HEADER_BYTES},
    frame::FRAME_HEADER_BYTES,
};

/// Appends a whole frame to `chunks`, to be written in order.
pub(super) fn encode(content: Content, chunks: &mut Vec<Bytes>) {
    match content {
        Content::Delivery(delivery) => encode_delivery(delivery, chunks),
        Content::Settled(settled) => chunks.push(settled.frame()),
        Content::End(entries) => chunks.push(EndEntry::frame(&entries)),
    }
}

/// Two chunks a run: its head, the first of which begins with the frame's, and its batches.
fn encode_delivery(delivery: Delivery, chunks: &mut Vec<Bytes>) {
    let Delivery { header, runs } = delivery;
    let runs_len = runs.iter().map(|run| RUN_HEADER_BYTES + run.batches.len()).sum();
    let heads_len = FRAME_HEADER_BYTES + DELIVER_HEADER_BYTES + runs.len() * RUN_HEADER_BYTES;
    let mut heads = BytesMut::with_capacity(heads_len);
    heads.extend_from_slice(&header.frame_prefix(runs_len));
    for run in runs {
        heads.extend_from_slice(&run.header().bytes());
        chunks.push(heads.split().freeze());
        chunks.push(run.batches);
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        deliver::{DeliverHeader, Run, Runs},
        error::ErrorCode,
        frame::{Buffering, FrameDecoder, FrameType},
        ids::{DeliveryToken, Offset, PartitionId, Timestamp},
        verbs::{RefusedVerb, Settled},
    };

    use super::*;

    /// The frame that the chunks are.
    fn decoded(chunks: Vec<Bytes>) -> (FrameType, Bytes) {
        let mut decoder = FrameDecoder::new(Buffering::BOUNDED);
        chunks.into_iter().for_each(|chunk| decoder.push(chunk));
        let frame = decoder.next_frame().unwrap().unwrap();
        assert_eq!((decoder.next_frame(), decoder.finish()), (Ok(None), Ok(())));
        (frame.kind, frame.payload)
    }

    fn encoded(content: Content) -> Vec<Bytes> {
        let mut chunks = Vec::new();
        encode(content, &mut chunks);
        chunks
    }

    #[test]
    fn a_delivery_is_one_frame_that_shares_the_stored_bytes() {
        let run = |base, batches: &'static [u8]| {
            let (append_time, batches) = (Timestamp(5), Bytes::from_static(batches));
            Run { base: Offset(base), append_time, hops: 1, batches }
        };
        let header = DeliverHeader {
            partition: PartitionId(3),
            built: true,
            attempt: 2,
            count: 7,
            token: DeliveryToken(9),
            span: 8,
        };
        let runs = vec![run(10, b"some batches"), run(15, b"more")];
        let chunks = encoded(Content::Delivery(Delivery { header, runs: runs.clone() }));
        assert_eq!(chunks.len(), 4);
        assert_eq!(chunks[1].as_ptr(), runs[0].batches.as_ptr(), "not copied");
        let (kind, mut payload) = decoded(chunks);
        assert_eq!((kind, DeliverHeader::read(&mut payload)), (FrameType::Deliver, Ok(header)));
        assert_eq!(Runs::new(payload).collect::<Result<Vec<_>, _>>(), Ok(runs));
    }

    #[test]
    fn what_is_settled_and_the_end_are_one_chunk_each_of_the_length_that_was_counted() {
        let refused = RefusedVerb {
            partition: PartitionId(1),
            first: Offset(2),
            last: Offset(3),
            code: ErrorCode::DeliveryExpired,
        };
        let settled = Settled { sequence: 4, refused: vec![refused] };
        let chunks = encoded(Content::Settled(settled.clone()));
        assert_eq!(chunks[0].len(), settled.frame_len());
        let (kind, payload) = decoded(chunks);
        assert_eq!((kind, Settled::read(&payload)), (FrameType::Settled, Ok(settled)));
        let entries = vec![EndEntry { partition: PartitionId(1), next: Offset(2) }];
        let (kind, payload) = decoded(encoded(Content::End(entries.clone())));
        assert_eq!((kind, EndEntry::read_all(&payload)), (FrameType::End, Ok(entries)));
    }
}
