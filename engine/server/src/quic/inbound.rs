//! Budgets for frames that have not arrived whole, or wait to be served: bytes for each connection, and over all.
//!
//! It must not know frames.

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{self, Duration},
};

/// How long a stream waits for room, and how long one that holds some may bring nothing while there is none.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Less than this is left: there is no room.
const SHORT: usize = 2 * 1024 * 1024;

/// The budgets that the streams of one connection draw on. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Inbound {
    connection: Arc<Semaphore>,
    engine: Arc<Semaphore>,
    connection_max: usize,
}

/// Room for bytes, held until this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    connection: OwnedSemaphorePermit,
    engine: OwnedSemaphorePermit,
}

impl Room {
    /// How many bytes it is for.
    pub(super) fn bytes(&self) -> usize {
        self.engine.num_permits()
    }
}

impl Inbound {
    /// The engine's budget, with a first connection.
    pub(super) fn new(engine_max: usize, connection_max: usize) -> Self {
        let connection_max = connection_max.min(engine_max);
        let engine = Arc::new(Semaphore::new(engine_max));
        Self { connection: Arc::new(Semaphore::new(connection_max)), engine, connection_max }
    }

    /// A budget for another connection.
    pub(super) fn connection(&self) -> Self {
        Self { connection: Arc::new(Semaphore::new(self.connection_max)), ..self.clone() }
    }

    /// True if little is left for this connection or for the engine.
    pub(super) fn is_short(&self) -> bool {
        let short = SHORT.min(self.connection_max / 2);
        self.connection.available_permits() < short || self.engine.available_permits() < short
    }

    /// Grows `room` to at least `bytes`; false if there was none within the stall timeout. Cancel safe.
    pub(super) async fn admit(&self, room: &mut Option<Room>, bytes: usize) -> bool {
        let bytes = bytes.min(self.connection_max);
        let have = room.as_ref().map_or(0, |room| room.engine.num_permits());
        let Some(more) = bytes.checked_sub(have).filter(|more| *more > 0) else { return true };
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let acquired = time::timeout(STALL_TIMEOUT, async {
            let connection = Arc::clone(&self.connection).acquire_many_owned(more).await;
            let engine = Arc::clone(&self.engine).acquire_many_owned(more).await;
            connection.and_then(|connection| Ok(Room { connection, engine: engine? }))
        });
        let Ok(Ok(more)) = acquired.await else { return false };
        match room {
            Some(room) => {
                room.connection.merge(more.connection);
                room.engine.merge(more.engine);
            }
            None => *room = Some(more),
        }
        true
    }
}
