//! All pushes: one task each, which follow what the catalogue says.

use std::{collections::HashMap, path::PathBuf};

use levada_broker::{Broker, PushChanges, PushTarget, Pushing};
use levada_protocol::ids::SubscriptionId;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{connect::Connector, networks::Allowed, sender::Sender, trust, worker::Worker};

/// How pushes are sent.
#[derive(Debug, Clone, Default)]
pub struct PushConfig {
    /// Networks that deliveries may be pushed to although they are not public. Default: none.
    pub allow: Allowed,
    /// A PEM file of authorities whose certificates receivers may have beside those that the system trusts. Default: none.
    pub ca: Option<PathBuf>,
}

/// How requests get to receivers.
#[derive(Clone)]
pub struct Transport {
    sender: Sender,
}

impl Transport {
    /// As the settings say.
    ///
    /// # Errors
    /// If the authorities that receivers' certificates may be of cannot be read.
    pub fn new(config: PushConfig) -> Result<Self, String> {
        let tls = trust::client_config(config.ca.as_deref())?;
        Ok(Self { sender: Sender::new(Connector::new(config.allow, tls)) })
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

/// Pushes deliveries.
pub struct Pushers {
    pushing: Pushing,
    changes: PushChanges,
    sender: Sender,
    running: HashMap<SubscriptionId, Running>,
    tasks: JoinSet<SubscriptionId>,
}

/// A push that runs.
struct Running {
    target: watch::Sender<PushTarget>,
    stop: CancellationToken,
}

impl Pushers {
    /// Everything but the pushes themselves.
    #[must_use]
    pub fn new(broker: Broker, transport: Transport) -> Self {
        let sender = transport.sender;
        let pushing = Pushing::new(broker);
        let changes = pushing.follow();
        Self { pushing, changes, sender, running: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Pushes until it is told to stop; then waits a few seconds for what is under way.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            self.match_targets();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                more = self.changes.next() => if !more {
                    break;
                },
                Some(ended) = self.tasks.join_next() => self.ended(ended),
            }
        }
        self.running.values().for_each(|running| running.stop.cancel());
        while self.tasks.join_next().await.is_some() {}
    }

    /// Starts, changes and stops pushes, so that they are what the catalogue says.
    fn match_targets(&mut self) {
        let targets: HashMap<SubscriptionId, PushTarget> =
            self.pushing.targets().into_iter().map(|target| (target.id, target)).collect();
        for (id, running) in &mut self.running {
            match targets.get(id) {
                Some(target) => {
                    running.target.send_if_modified(|before| {
                        let is_other = before.rules != target.rules;
                        before.clone_from(target);
                        is_other
                    });
                }
                None => {
                    running.stop.cancel();
                }
            }
        }
        for (id, target) in targets {
            if self.running.contains_key(&id) {
                // One that is ending is begun again once it has ended.
                continue;
            }
            let (sender, receiver) = watch::channel(target);
            let stop = CancellationToken::new();
            let worker = Worker {
                pushing: self.pushing.clone(),
                sender: self.sender.clone(),
                target: receiver,
                stop: stop.clone(),
                paused: None,
            };
            self.tasks.spawn(async move {
                worker.run().await;
                id
            });
            self.running.insert(id, Running { target: sender, stop });
        }
    }

    fn ended(&mut self, ended: Result<SubscriptionId, JoinError>) {
        match ended {
            Ok(id) => drop(self.running.remove(&id)),
            Err(error) => {
                tracing::error!(%error, "a push ended by a fault of its own");
                // Which one it was is not known: those that do not run any more begin again.
                self.running.retain(|_, running| running.target.receiver_count() > 0);
            }
        }
    }
}

impl std::fmt::Debug for Pushers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pushers").field("running", &self.running.len()).finish_non_exhaustive()
    }
}
