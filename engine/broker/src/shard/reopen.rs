//! How the writer takes up its work again after a full disk, or without file descriptors: the store is opened anew, and what was decided ahead of it
//! is thrown away.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use levada_protocol::{error::ErrorCode, ids::TopicId};
use levada_store::commit::Term;

use super::{load, syncer::ToSyncer, writer::Writer};
use crate::{error::Error, topic::Topic};

/// Opening a store again is slow and holds reads up: no more often than this.
const REOPEN_INTERVAL: Duration = Duration::from_millis(500);

impl Writer {
    /// True if writes are taken; after what heals, opens the store again as soon as it can be. That it can is no
    /// sign of room, so the guard looks whether more may be published.
    pub(super) fn is_open(&mut self) -> bool {
        let Some(closed) = (**self.shown.closed.load()).clone() else { return true };
        let tried = self.reopened.is_some_and(|tried| tried.elapsed() < REOPEN_INTERVAL);
        if !closed.heals() || tried {
            return false;
        }
        let (reply, reached) = std_mpsc::sync_channel(1);
        if self.groups.send(ToSyncer::Barrier(reply)).is_err() || reached.recv().is_err() {
            return false;
        }
        let present = self.present_topics();
        let reopened = self
            .store
            .reopen()
            .map_err(Error::from)
            .and_then(|()| load::load(self.store.as_ref(), &self.budget, Some(&present)));
        self.reopened = Some(Instant::now());
        match reopened {
            Ok(state) => {
                self.shown.catalogue.store(Arc::new(state.catalogue.clone()));
                for topic in present.values() {
                    if !state.topics.contains_key(&topic.id) {
                        topic.deleted.cancel();
                    }
                    topic.changes.note_all();
                    topic.wake();
                }
                // What was decided and is not there any more must not share term and index with what comes now.
                self.term = Term(self.term.max(state.last.term).0 + 1);
                self.state = state;
                if closed.code == ErrorCode::StorageFull {
                    self.guard.met_the_end();
                }
                self.shown.closed.store(Arc::new(None));
                tracing::info!("the store is open again, writes are taken");
                true
            }
            Err(error) => {
                let reason = error.to_string();
                if reason != closed.reason {
                    tracing::warn!(%error, "the store could not be opened again");
                }
                // Not everything gets better by itself.
                self.shown.close(error.code(), reason);
                false
            }
        }
    }

    /// The topics that somebody may hold: those decided on, and those of the last durable catalogue, which a decision
    /// that is void now may have deleted.
    fn present_topics(&self) -> HashMap<TopicId, Arc<Topic>> {
        let mut present = self.state.topics.clone();
        let durable = self.shown.catalogue.load();
        present.extend(durable.topics.values().map(|topic| (topic.id, Arc::clone(topic))));
        present
    }
}
