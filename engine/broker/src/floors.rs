//! How far a subscription or route has come: set by its owner, read by retention and by descriptions.
//!
//! It must not know which of the two it is.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use levada_protocol::ids::Offset;

/// The durable floor of each partition of the topic: nothing below is needed any more.
#[derive(Debug)]
pub(crate) struct Floors {
    floors: Vec<AtomicU64>,
}

impl Floors {
    pub(crate) fn new(floors: impl IntoIterator<Item = Offset>) -> Arc<Self> {
        Arc::new(Self { floors: floors.into_iter().map(|floor| AtomicU64::new(floor.0)).collect() })
    }

    pub(crate) fn set(&self, partition: usize, floor: Offset) {
        self.floors[partition].store(floor.0, Ordering::Release);
    }

    pub(crate) fn floor(&self, partition: usize) -> Offset {
        Offset(self.floors[partition].load(Ordering::Acquire))
    }
}
