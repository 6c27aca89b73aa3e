//! Making progress durable: one proposal at a time, with the dead letters that it ends.

use levada_delivery::subscription::{DeadLetter, Reason as DeliveryReason};
use levada_protocol::{
    error::ErrorCode,
    event::Event,
    ids::{Offset, SubscriptionId},
    verbs::RefusedVerb,
};
use tokio::{sync::oneshot, time::Instant};

use super::owner::{OwnerTask, RETRY, UnderWay, deleted, replaced};
use crate::{
    dead_letters::{Letters, Origin, Reason},
    error::Error,
    frames::Batches,
    log::{Found, Log},
    shard::{AppendRequest, Condition, Proposal, ProposalRefused, StateChange},
};

impl OwnerTask {
    /// Submits everything that is to settle; false if there is nothing.
    pub(super) async fn submit(&mut self) -> Result<bool, Error> {
        let Some(settling) = self.rules.take_settling() else { return Ok(false) };
        let id = SubscriptionId(self.record.id);
        let rows = settling.rows.into_iter();
        let changes =
            rows.map(|(partition, rows)| StateChange::Progress { subscription: id, partition, rows });
        let changes = changes.collect();
        let (reply, outcome) = oneshot::channel();
        self.commit = Some(UnderWay { id: settling.id, outcome });
        let appends = match self.dead_letters(settling.dead_letters).await {
            Ok(appends) => appends,
            Err(error) => {
                let _ = reply.send(Err(ProposalRefused::Failed(error)));
                return Ok(true);
            }
        };
        let owner = Condition::Owner { subscription: id, generation: self.generation };
        let urgent = !appends.is_empty();
        let proposal = Proposal { conditions: vec![owner], changes, appends, reply };
        if urgent {
            let (view, asked) = self.view();
            view.during(asked, view.context.shard.propose(proposal)).await?;
        } else {
            self.context.shard.propose_with_next_commit(proposal);
        }
        Ok(true)
    }

    /// Ends the commit under way.
    pub(super) fn committed(&mut self, outcome: Result<(), ProposalRefused>) -> Result<(), Error> {
        let Some(under_way) = self.commit.take() else { return Ok(()) };
        let now = self.context.clock.moment();
        let ok = outcome.is_ok();
        for back in self.rules.settled(under_way.id, ok, now) {
            if let Some(consumer) = self.consumers.get_mut(&back.consumer.0) {
                let code = ErrorCode::OutcomeUnknown;
                let (partition, first, last) = (back.partition, back.first, back.last);
                consumer.refuse(RefusedVerb { partition, first, last, code });
            }
        }
        match outcome {
            Ok(()) => {
                self.commit_failing = false;
                for (place, floor) in self.rules.floors().enumerate() {
                    self.floors.set(place, floor);
                }
                let floors = &self.floors;
                self.letters.retain(|(number, offset), _| *offset >= floors.floor(usize::from(number.0)));
                Ok(())
            }
            Err(ProposalRefused::Gone) => Err(deleted()),
            Err(ProposalRefused::Stale { .. }) => Err(replaced()),
            Err(error) => {
                // Once: a store that takes no writes says so itself, and may stay that way.
                if !std::mem::replace(&mut self.commit_failing, true) {
                    tracing::warn!(%error, "progress could not be committed; it is tried again");
                }
                self.commit_after = Some(Instant::now() + RETRY);
                Ok(())
            }
        }
    }

    /// The events that end as dead letters, each with why.
    async fn dead_letters(&mut self, letters: Vec<DeadLetter>) -> Result<Vec<AppendRequest>, Error> {
        let mut dead = Letters::new(self.dead_letters.clone());
        for letter in letters {
            for offset in (letter.first.0..=letter.last.0).map(Offset) {
                let failed = self.letters.remove(&(letter.partition, offset));
                let mut why = reason(&letter);
                let event = match failed {
                    Some(failed) => {
                        why.plugin = failed.plugin;
                        Some(failed.event)
                    }
                    None => {
                        let (view, asked) = self.view();
                        let read = read_event(&view.logs[usize::from(letter.partition.0)], offset);
                        view.during(asked, read).await?
                    }
                };
                let Some(event) = event else {
                    tracing::warn!(%offset, "retention took an event before it became a dead letter");
                    continue;
                };
                let origin = Origin {
                    topic: &self.topic.name,
                    partition: letter.partition,
                    place: self.record.name.as_str(),
                };
                dead.push(&origin, offset, event, &why);
            }
        }
        Ok(dead.into_appends())
    }
}

/// The event at an offset, if it is still stored.
async fn read_event(log: &Log, offset: Offset) -> Result<Option<Event>, Error> {
    let Found::Pieces(pieces) = log.read(offset, 1).await? else { return Ok(None) };
    for piece in &pieces {
        for batch in Batches::new(&piece.run, false) {
            let (base, batch) = batch?;
            if let Some(event) = batch.events().find(|event| event.offset(base) == offset) {
                return Ok(Some(event.to_event(&batch)));
            }
        }
    }
    Ok(None)
}

fn reason(letter: &DeadLetter) -> Reason {
    let (error, plugin) = match &letter.reason {
        DeliveryReason::MaxAttempts => (format!("{} deliveries failed", letter.attempts), None),
        DeliveryReason::Rejected { reason } => (reason.clone(), None),
        DeliveryReason::ConsumerLost => {
            ("the consumer was lost with the event, again and again".to_owned(), None)
        }
        DeliveryReason::PluginError { plugin, error } => (error.clone(), Some(plugin.clone())),
    };
    Reason {
        word: letter.reason.as_str(),
        error,
        plugin,
        attempts: u32::from(letter.attempts),
        first_failure: letter.first_failure,
        last_failure: letter.last_failure,
    }
}
