//! Frames of deliveries for consumers and readers: heads are written for each, stored bytes are shared unless they are
//! few.

use bytes::{Bytes, BytesMut};
use levada_broker::{Content, Delivery};
use levada_protocol::{
    deliver::{DELIVER_HEADER_BYTES, EndEntry, RUN_HEADER_BYTES, Run},
    frame::FRAME_HEADER_BYTES,
};

/// Batches of a run up to this size are copied; larger ones are shared with whoever else gets them.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// Appends a whole frame to `chunks`, to be written in order.
pub(super) fn encode(content: Content, chunks: &mut Vec<Bytes>) {
    match content {
        Content::Delivery(delivery) => encode_delivery(delivery, chunks),
        Content::Settled(settled) => chunks.push(settled.frame()),
        Content::End(entries) => chunks.push(EndEntry::frame(&entries)),
        Content::Progress(progress) => chunks.push(progress.frame()),
    }
}

/// A chunk for the batches of each run and one for what comes before them. Small batches are copied to the heads
/// around them: the transport looks at every chunk that waits to be sent for each of its packets.
fn encode_delivery(delivery: Delivery, chunks: &mut Vec<Bytes>) {
    let Delivery { header, runs } = delivery;
    let runs_len = runs.iter().map(|run| RUN_HEADER_BYTES + run.batches.len()).sum();
    let copied = |run: &Run| RUN_HEADER_BYTES + if is_copied(run) { run.batches.len() } else { 0 };
    let copied_len = FRAME_HEADER_BYTES + DELIVER_HEADER_BYTES + runs.iter().map(copied).sum::<usize>();
    let mut heads = BytesMut::with_capacity(copied_len);
    heads.extend_from_slice(&header.frame_prefix(runs_len));
    for run in runs {
        heads.extend_from_slice(&run.header().bytes());
        if is_copied(&run) {
            heads.extend_from_slice(&run.batches);
        } else {
            chunks.push(heads.split().freeze());
            chunks.push(run.batches);
        }
    }
    if !heads.is_empty() {
        chunks.push(heads.freeze());
    }
}

fn is_copied(run: &Run) -> bool {
    run.batches.len() <= COPIED_BYTES_MAX
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
    fn a_delivery_is_one_frame_that_shares_large_runs_and_copies_small_ones() {
        let run = |base, len| {
            let (append_time, batches) = (Timestamp(5), Bytes::from(vec![base as u8; len]));
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
        let (small, large) = (COPIED_BYTES_MAX, COPIED_BYTES_MAX + 1);
        for (lens, shared) in [
            (vec![large, large], vec![1, 3]),
            (vec![small, small], vec![]),
            (vec![small, large, 1], vec![1]),
            (vec![large, 0, small], vec![1]),
        ] {
            let runs: Vec<Run> = lens.iter().zip(10..).map(|(len, base)| run(base, *len)).collect();
            let chunks = encoded(Content::Delivery(Delivery { header, runs: runs.clone() }));
            let is_shared = |chunk: &Bytes| runs.iter().any(|run| run.batches.as_ptr() == chunk.as_ptr());
            let found: Vec<usize> = (0..chunks.len()).filter(|at| is_shared(&chunks[*at])).collect();
            assert_eq!(found, shared, "{lens:?}");
            let (kind, mut payload) = decoded(chunks);
            assert_eq!((kind, DeliverHeader::read(&mut payload)), (FrameType::Deliver, Ok(header)));
            assert_eq!(Runs::new(payload).collect::<Result<Vec<_>, _>>(), Ok(runs));
        }
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
        assert_eq!(chunks[0].len(), Settled::frame_len_of(settled.refused.len()));
        let (kind, payload) = decoded(chunks);
        assert_eq!((kind, Settled::read(&payload)), (FrameType::Settled, Ok(settled)));
        let entries = vec![EndEntry { partition: PartitionId(1), next: Offset(2) }];
        let (kind, payload) = decoded(encoded(Content::End(entries.clone())));
        assert_eq!((kind, EndEntry::read_all(&payload)), (FrameType::End, Ok(entries)));
    }
}
