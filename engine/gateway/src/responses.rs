//! Room for responses with events: they are whole in memory until their clients have taken them.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use levada_protocol::error::{ErrorCode, Refusal};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::problem::Problem;

/// What all of them together may take, in KiB.
const KIB_MAX: u32 = 64 * 1024;
/// What is written of an event takes about so many times what is stored of it.
const WRITTEN_PER_STORED: u64 = 2;
/// When a client that found no room may try again.
const RETRY_AFTER_MS: u32 = 1_000;

/// The room of all connections.
#[derive(Debug)]
pub(crate) struct Responses(Arc<Semaphore>);

/// Room that is held until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Room(Option<OwnedSemaphorePermit>);

/// A response with the room that it takes.
struct Held {
    bytes: Vec<u8>,
    _room: Room,
}

impl Default for Responses {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(KIB_MAX as usize)))
    }
}

impl Responses {
    /// Room for what is written of events of which so many bytes are stored; waits in turn while there is none, until `until`. Cancel
    /// safe.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED`: clients take what they have asked for too slowly.
    pub(crate) async fn room(&self, stored_bytes: u64, until: Instant) -> Result<Room, Problem> {
        let kib = (stored_bytes * WRITTEN_PER_STORED).div_ceil(1024).clamp(1, KIB_MAX.into());
        let kib = u32::try_from(kib).unwrap_or(KIB_MAX);
        match timeout_at(until, Arc::clone(&self.0).acquire_many_owned(kib)).await {
            Ok(Ok(permit)) => Ok(Room(Some(permit))),
            Ok(Err(_)) | Err(_) => {
                let message = format!(
                    "responses that their clients have not taken fill {} MiB; expected room for another, try again",
                    KIB_MAX / 1024
                );
                let refusal = Refusal::new(ErrorCode::LimitExceeded, message);
                Err(Problem::of(refusal.retry_after(RETRY_AFTER_MS)))
            }
        }
    }
}

impl Room {
    /// Holds both.
    pub(crate) fn add(&mut self, more: Self) {
        match (&mut self.0, more.0) {
            (Some(room), Some(more)) => room.merge(more),
            (room @ None, more) => *room = more,
            (Some(_), None) => {}
        }
    }

    /// A body that holds the room until it is taken.
    pub(crate) fn body(self, bytes: Vec<u8>) -> Body {
        Body::from(Bytes::from_owner(Held { bytes, _room: self }))
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_is_not_taken_leaves_no_room_for_more_until_it_is() {
        let responses = Responses::default();
        let in_time = || Instant::now() + Duration::from_secs(60);
        let half = u64::from(KIB_MAX) * 1024 / WRITTEN_PER_STORED / 2;
        let mut room = responses.room(half, in_time()).await.unwrap();
        room.add(responses.room(half, in_time()).await.unwrap());
        let body = room.body(b"events".to_vec());
        let problem = responses.room(1, Instant::now()).await.unwrap_err();
        assert!(format!("{problem:?}").contains("LimitExceeded"), "{problem:?}");
        let taking = async { assert_eq!(axum::body::to_bytes(body, 10).await.unwrap(), "events") };
        let (room, ()) = tokio::join!(responses.room(u64::MAX / 4, in_time()), taking);
        assert!(room.is_ok(), "more than all of it takes all of it");
    }
}
