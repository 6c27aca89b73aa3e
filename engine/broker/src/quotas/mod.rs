//! What is left to each principal of how much it may do.
//!
//! A call over a quota waits, which holds up its stream and with it whoever sends; what would wait for more than a second is refused.

mod bucket;
mod meter;

use tokio::sync::OwnedSemaphorePermit;

pub(crate) use self::meter::{Connected, InFlight, Meter};

/// A connection of a principal, as long as this is kept.
#[derive(Debug)]
pub struct Connection {
    pub(crate) _connected: Option<Connected>,
}

/// A share of the bytes that may wait for their commit, of those of the engine and of those of a principal; given back when it is
/// dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) _of_engine: OwnedSemaphorePermit,
    pub(crate) of_principal: Option<InFlight>,
}

impl Admitted {
    /// Has a batch that was not stored count for no rate of its principal.
    pub(crate) fn put_back(&self) {
        if let Some(in_flight) = &self.of_principal {
            in_flight.put_back();
        }
    }
}
