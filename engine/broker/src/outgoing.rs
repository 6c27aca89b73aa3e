//! What consumers and readers are handed: typed, so that each kind of listener encodes it as it needs.
//!
//! Stored bytes are shared from the log to the listener. It must not know frames.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use levada_protocol::{
    deliver::{DeliverHeader, EndEntry, Run},
    progress::Progress,
    verbs::Settled,
};

use crate::{
    frames::LogSlice,
    outbound::{Held, Queued},
};

/// One thing for a consumer or reader, in order. Its bytes are counted as unread until it, or what
/// [`Outgoing::into_parts`] gives beside it, is dropped.
#[derive(Debug)]
pub struct Outgoing {
    content: Content,
    receipt: Option<Receipt>,
    counted: Option<Queued>,
    withheld: u64,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Events.
    Delivery(Delivery),
    /// Verbs of a consumer that are confirmed or refused.
    Settled(Settled),
    /// A reader that does not follow has got everything: the next offset of each partition.
    End(Vec<EndEntry>),
    /// How far a reader's search has come.
    Progress(Progress),
}

/// Events of one partition, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Partition, token, attempt, and how much there is.
    pub header: DeliverHeader,
    /// Batches with their offsets, as they are stored unless the header says that they were built.
    pub runs: Vec<Run>,
}

/// What is left to do for something that was handed out, once its listener has taken it.
#[derive(Debug)]
pub struct Unwritten {
    receipt: Option<Receipt>,
    /// Given back when this is dropped, written or not.
    _counted: Option<Queued>,
}

impl Unwritten {
    /// The listener has taken all of it.
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

impl Outgoing {
    /// Something that is not counted.
    pub(crate) fn new(content: Content) -> Self {
        Self { content, receipt: None, counted: None, withheld: 0 }
    }

    /// A delivery of these pieces; the header's count and flag are computed here.
    pub(crate) fn delivery(mut header: DeliverHeader, pieces: Vec<LogSlice>) -> Self {
        header.count = pieces.iter().map(|piece| piece.events).sum();
        header.built = pieces.iter().any(|piece| piece.built);
        let runs = pieces.into_iter().map(|piece| piece.run).collect();
        Self::new(Content::Delivery(Delivery { header, runs }))
    }

    /// The same with bytes that were set aside for it.
    pub(crate) fn counted(self, held: Held) -> Self {
        Self { counted: Some(held.queued()), ..self }
    }

    /// The same, with so many events withheld since the one before.
    pub(crate) fn with_withheld(self, withheld: u64) -> Self {
        Self { withheld, ..self }
    }

    /// The same, which gives this back once it is written.
    pub(crate) fn with_receipt(self, receipt: Receipt) -> Self {
        Self { receipt: Some(receipt), ..self }
    }

    /// What it is.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// How many events a reader does not get that came between the one before and this, because a plugin through which it reads failed
    /// on them.
    pub fn withheld(&self) -> u64 {
        self.withheld
    }

    /// Its content, and what is to be notified or dropped once that is taken.
    pub fn into_parts(self) -> (Content, Unwritten) {
        (self.content, Unwritten { receipt: self.receipt, _counted: self.counted })
    }
}
