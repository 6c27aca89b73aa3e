//! Durable subscriptions: one owner task each, reached through a handle.
//!
//! The rules of delivery are `levada_delivery`; the owner reads, runs the chain, sends, and commits progress.

mod commit;
mod consumers;
mod owner;
mod progress;
mod ready;

use std::sync::{Arc, Mutex, PoisonError};

use levada_protocol::{
    ids::TopicId,
    request::{Subscribed, SubscriptionInfo},
    verbs::{Credit, Verbs},
};
use levada_store::Store;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub(crate) use self::owner::open;
use crate::{
    catalogue::SubscriptionRecord, chains::Chains, error::Error, frames::OutFrame, places::Floors,
    shard::ShardHandle, stage::Figures,
};

/// Frames that may wait for a consumer's stream to take them.
const FRAMES_QUEUED_MAX: usize = 256;
/// Commands that may wait for the owner.
const COMMANDS_QUEUED_MAX: usize = 1_024;

/// What a subscription's owner needs.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) shard: ShardHandle,
    pub(crate) chains: Chains,
    pub(crate) cancelled: CancellationToken,
}

/// A running subscription, as others reach it.
#[derive(Debug, Clone)]
pub(crate) struct SubscriptionHandle {
    record: Arc<SubscriptionRecord>,
    commands: mpsc::Sender<Command>,
    floors: Arc<Floors>,
    figures: Arc<Mutex<Vec<(u64, Figures)>>>,
    stop: CancellationToken,
}

impl SubscriptionHandle {
    pub(crate) fn record(&self) -> &Arc<SubscriptionRecord> {
        &self.record
    }

    pub(crate) fn topic_id(&self) -> TopicId {
        TopicId(self.record.topic_id)
    }

    pub(crate) fn floors(&self) -> &Arc<Floors> {
        &self.floors
    }

    /// Each stage's plugin version id and figures.
    pub(crate) fn figures(&self) -> Vec<(u64, Figures)> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the owner. Answers false, for use in `retain`.
    pub(crate) fn stop(&self) -> bool {
        self.stop.cancel();
        false
    }

    /// Attaches the chain anew: a plugin has a newer version.
    pub(crate) fn rechain(&self) {
        // A full queue means that the owner is busy; it looks for newer versions when it attaches anyway.
        if self.commands.try_send(Command::Rechain).is_err() {
            tracing::debug!("a busy subscription takes a plugin's newer version when it attaches next");
        }
    }

    async fn send(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| self.gone())
    }

    fn gone(&self) -> Error {
        let message = format!("subscription {}/{} was deleted", self.record.topic, self.record.name);
        Error::refused(levada_protocol::error::ErrorCode::SubscriptionNotFound, message)
    }
}

/// The closed list of what can happen to a subscription from outside.
#[derive(Debug)]
pub(crate) enum Command {
    Attach { name: String, created: bool, reply: oneshot::Sender<Attached> },
    Detach { consumer: u64 },
    Credit { consumer: u64, credit: Credit },
    Verbs { consumer: u64, verbs: Verbs },
    Describe { reply: oneshot::Sender<SubscriptionInfo> },
    Resume,
    Rechain,
}

/// The owner's answer to an attach.
#[derive(Debug)]
pub(crate) struct Attached {
    consumer: u64,
    subscribed: Subscribed,
    frames: mpsc::Receiver<Result<OutFrame, Error>>,
}

/// A consumer, as its session holds it.
#[derive(Debug)]
pub struct Consumer {
    /// What the client is told.
    pub subscribed: Subscribed,
    /// Whole wire frames: deliveries and settled verbs. Ends when the subscription does, after an error.
    pub frames: mpsc::Receiver<Result<OutFrame, Error>>,
    /// The way to the owner; dropping it detaches the consumer.
    pub control: ConsumerControl,
}

/// A consumer's way to its subscription's owner.
#[derive(Debug)]
pub struct ConsumerControl {
    consumer: u64,
    handle: SubscriptionHandle,
}

impl ConsumerControl {
    /// Adds to what may be delivered. Cancel safe.
    ///
    /// # Errors
    /// If the subscription was deleted.
    pub async fn credit(&self, credit: Credit) -> Result<(), Error> {
        self.handle.send(Command::Credit { consumer: self.consumer, credit }).await
    }

    /// Says what became of deliveries. The answer comes as a `Settled` frame. Cancel safe.
    ///
    /// # Errors
    /// If the subscription was deleted.
    pub async fn verbs(&self, verbs: Verbs) -> Result<(), Error> {
        self.handle.send(Command::Verbs { consumer: self.consumer, verbs }).await
    }
}

impl Drop for ConsumerControl {
    fn drop(&mut self) {
        let command = Command::Detach { consumer: self.consumer };
        // If the queue is full, the owner notices by the closed frames channel when it sends next.
        if let Err(mpsc::error::TrySendError::Full(command)) = self.handle.commands.try_send(command) {
            let commands = self.handle.commands.clone();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { commands.send(command).await });
            }
        }
    }
}

/// Attaches a consumer.
pub(crate) async fn attach(
    handle: &SubscriptionHandle,
    name: String,
    created: bool,
) -> Result<Consumer, Error> {
    let (reply, answer) = oneshot::channel();
    handle.send(Command::Attach { name, created, reply }).await?;
    let attached = answer.await.map_err(|_| handle.gone())?;
    let control = ConsumerControl { consumer: attached.consumer, handle: handle.clone() };
    Ok(Consumer { subscribed: attached.subscribed, frames: attached.frames, control })
}

/// The subscription as the wire describes it.
pub(crate) async fn describe(handle: &SubscriptionHandle) -> Result<SubscriptionInfo, Error> {
    let (reply, answer) = oneshot::channel();
    handle.send(Command::Describe { reply }).await?;
    answer.await.map_err(|_| handle.gone())
}

/// Lets a paused subscription go on.
pub(crate) async fn resume(handle: &SubscriptionHandle) -> Result<(), Error> {
    handle.send(Command::Resume).await
}
