//! Delivery frames as lists of shared byte chunks: stored bytes go out without being copied.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
pub(crate) use levada_chain::{LogSlice as Piece, SliceBatches as Batches};
use levada_protocol::{
    deliver::{DELIVER_HEADER_BYTES, DeliverHeader, RUN_HEADER_BYTES},
    ids::Offset,
};
use levada_store::record::Record;

use crate::{
    error::Error,
    outbound::{Held, Queued},
};

/// Payload bytes after which a delivery frame takes no further run.
pub(crate) const DELIVER_BYTES_TARGET: usize = 256 * 1024;

/// A whole wire frame in chunks, to be written in order. Its bytes are counted as unread until it is dropped.
#[derive(Debug)]
pub struct OutFrame {
    /// The bytes.
    pub chunks: Vec<Bytes>,
    receipt: Option<Receipt>,
    counted: Option<Queued>,
}

/// What a frame leaves to be done by whoever has written its chunks.
#[derive(Debug)]
pub struct Unwritten {
    receipt: Option<Receipt>,
    /// Given back when this is dropped, written or not.
    _counted: Option<Queued>,
}

impl Unwritten {
    /// The stream has taken the whole frame.
    pub fn written(self) {
        if let Some(receipt) = self.receipt {
            receipt.give();
        }
    }
}

/// Proof that a consumer's stream has taken a delivery: without it, the delivery counts no attempt when it times out.
#[derive(Debug, Clone)]
pub(crate) struct Receipt(Arc<AtomicU64>);

impl Receipt {
    /// A receipt that adds to `taken`.
    pub(crate) fn new(taken: &Arc<AtomicU64>) -> Self {
        Self(Arc::clone(taken))
    }

    fn give(self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl OutFrame {
    /// A frame in one chunk, too small to be counted.
    pub(crate) fn small(chunk: Bytes) -> Self {
        Self { chunks: vec![chunk], receipt: None, counted: None }
    }

    /// The same frame with bytes that were set aside for it.
    pub(crate) fn counted(self, held: Held) -> Self {
        Self { counted: Some(held.queued()), ..self }
    }

    /// The same frame, which gives this back once it is written.
    pub(crate) fn with_receipt(self, receipt: Receipt) -> Self {
        Self { receipt: Some(receipt), ..self }
    }

    /// The chunks to be written, and what is to be told or dropped once they are.
    pub fn into_parts(self) -> (Vec<Bytes>, Unwritten) {
        (self.chunks, Unwritten { receipt: self.receipt, _counted: self.counted })
    }
}

/// A stored record; its batches' checksums are compared.
pub(crate) fn slice_of(record: &Record) -> Result<Piece, Error> {
    Ok(Piece { span: record.span, ..Piece::of(record.run(), true)? })
}

/// Puts pieces behind a header; the header's count and flag are computed here.
pub(crate) fn deliver_frame(mut header: DeliverHeader, pieces: &[Piece]) -> OutFrame {
    header.count = pieces.iter().map(|piece| piece.events).sum();
    header.built = pieces.iter().any(|piece| piece.built);
    let runs_len: usize = pieces.iter().map(|piece| RUN_HEADER_BYTES + piece.run.batches.len()).sum();
    let mut chunks = Vec::with_capacity(1 + pieces.len() * 2);
    let mut heads = BytesMut::with_capacity(8 + DELIVER_HEADER_BYTES + pieces.len() * RUN_HEADER_BYTES);
    heads.extend_from_slice(&header.frame_prefix(runs_len));
    for piece in pieces {
        heads.extend_from_slice(&piece.run.header().bytes());
        chunks.push(heads.split().freeze());
        chunks.push(piece.run.batches.clone());
    }
    OutFrame { chunks, receipt: None, counted: None }
}

/// Bytes of a delivery frame's payload around these pieces.
pub(crate) fn payload_len(pieces: &[Piece]) -> usize {
    DELIVER_HEADER_BYTES
        + pieces.iter().map(|piece| RUN_HEADER_BYTES + piece.run.batches.len()).sum::<usize>()
}

/// Takes pieces from the front of `queue` for one frame: events in `offsets`, at most `events_max`, and no further
/// piece beyond `bytes_max`. A piece that is not used up stays in front.
pub(crate) fn take(
    queue: &mut VecDeque<Piece>,
    offsets: Range<Offset>,
    events_max: u64,
    bytes_max: usize,
) -> Result<Vec<Piece>, Error> {
    let Range { start: mut from, end: until } = offsets;
    let (mut taken, mut left, mut bytes) = (Vec::new(), events_max, 0);
    while let Some(front) = queue.front() {
        if front.end() <= from {
            queue.pop_front();
            continue;
        }
        let over = bytes > 0 && bytes + front.run.batches.len() > bytes_max;
        if left == 0 || over || front.run.base >= until {
            break;
        }
        let end = front.end();
        for part in front.cut(&(from..until), left)? {
            left -= u64::from(part.events);
            bytes += part.run.batches.len();
            from = part.end();
            taken.push(part);
        }
        if from < end {
            break;
        }
        queue.pop_front();
    }
    Ok(taken)
}
