//! Durable subscriptions: one owner task each, reached through a handle.
//!
//! The rules of delivery are `levada_delivery`; the owner reads, runs the chain, sends, and commits progress.

mod owner;

mod commands;
mod commit;
mod consumers;
mod deliver;
mod describe;
mod lost;
mod open;
mod progress;
mod ready;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use levada_chain::Costs;
use levada_protocol::{
    ids::{Offset, PartitionId, TopicId},
    request::{Notice, Subscribed, SubscriptionInfo},
    verbs::{Credit, Verbs},
};
use levada_store::Store;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub(crate) use self::open::open;
use crate::{
    chains::Chains,
    clock::Clock,
    error::Error,
    floors::Floors,
    frames::OutFrame,
    metrics::Delivered,
    outbound::{Held, Window},
    rows::SubscriptionRecord,
    shard::ShardHandle,
};

/// Frames that may wait for a consumer's stream to take them.
const FRAMES_QUEUED_MAX: usize = 256;
/// Commands that may wait for the owner.
const COMMANDS_QUEUED_MAX: usize = 1_024;
/// Askers that may wait for the owner; more wait in turn.
const ASKED_QUEUED_MAX: usize = 16;

/// What a subscription's owner needs.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) shard: ShardHandle,
    pub(crate) chains: Chains,
    pub(crate) cancelled: CancellationToken,
    pub(crate) clock: Clock,
}

/// A running subscription, as others reach it.
#[derive(Debug, Clone)]
pub(crate) struct SubscriptionHandle {
    record: Arc<SubscriptionRecord>,
    commands: mpsc::Sender<Command>,
    asking: mpsc::Sender<oneshot::Sender<Described>>,
    floors: Arc<Floors>,
    costs: Arc<Costs>,
    stop: CancellationToken,
    /// Set when the newest version of a plugin of the chain is another.
    outdated: Arc<AtomicBool>,
    /// How many consumers there ever were: the number of the next one.
    consumers: Arc<AtomicU64>,
    left: Arc<Left>,
    /// How many consumers there are.
    attached: Arc<AtomicU64>,
    delivered: Delivered,
}

/// Consumers that left while the owner's queue was full; its notice wakes the owner for other reasons, too.
#[derive(Debug, Default)]
struct Left {
    consumers: Mutex<Vec<u64>>,
    notify: Notify,
}

impl Left {
    fn add(&self, consumer: u64) {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner).push(consumer);
        self.notify.notify_one();
    }

    fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.consumers.lock().unwrap_or_else(PoisonError::into_inner))
    }
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

    /// How many events its consumers were sent since the start.
    pub(crate) fn delivered(&self) -> &Delivered {
        &self.delivered
    }

    /// What its plugins have cost.
    pub(crate) fn costs(&self) -> &Costs {
        &self.costs
    }

    /// Ends the owner. Answers false, for use in `retain`.
    pub(crate) fn stop(&self) -> bool {
        self.stop.cancel();
        false
    }

    /// Attaches the chain anew, now if the place waits for its plugins: the newest version of one is another.
    pub(crate) fn rechain(&self) {
        self.outdated.store(true, Ordering::Release);
        self.left.notify.notify_one();
    }

    /// How many consumers are attached, or about to be.
    pub(crate) fn attached(&self) -> u64 {
        self.attached.load(Ordering::Relaxed)
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
    Attach {
        consumer: u64,
        name: String,
        created: bool,
        window: Arc<Window>,
        reply: oneshot::Sender<Attached>,
    },
    Detach {
        consumer: u64,
    },
    /// A consumer that waited for room has it.
    Room {
        consumer: u64,
        held: Held,
    },
    /// A consumer gets nothing more, and is told that the engine goes away once nothing of it is under way.
    Finish {
        consumer: u64,
    },
    Credit {
        consumer: u64,
        credit: Credit,
    },
    Verbs {
        consumer: u64,
        verbs: Verbs,
    },
    Resume,
}

/// The owner's answer to an attach.
#[derive(Debug)]
pub(crate) struct Attached {
    subscribed: Subscribed,
    frames: mpsc::Receiver<Result<OutFrame, Error>>,
    notices: mpsc::Receiver<Notice>,
}

/// A consumer, as its session holds it.
#[derive(Debug)]
pub struct Consumer {
    /// What the client is told.
    pub subscribed: Subscribed,
    /// Whole wire frames: deliveries and settled verbs. Ends when the subscription does, after an error.
    pub frames: mpsc::Receiver<Result<OutFrame, Error>>,
    /// What the client is to be told on its control stream: events that retention took before they were acknowledged,
    /// also those that went while no consumer was attached. Ends when the subscription does.
    pub notices: mpsc::Receiver<Notice>,
    /// The way to the owner; dropping it detaches the consumer.
    pub control: ConsumerControl,
    /// To be run beside the others.
    pub room: ConsumerRoom,
}

/// Waits for room on behalf of a consumer whose stream had none left.
#[derive(Debug)]
pub struct ConsumerRoom {
    consumer: u64,
    window: Arc<Window>,
    commands: mpsc::Sender<Command>,
}

impl ConsumerRoom {
    /// Tells the owner whenever there is room that it waited for. Never ends.
    pub async fn run(self) -> std::convert::Infallible {
        loop {
            let held = self.window.awaited().await;
            // An owner that has ended says so in its last frame.
            let _ = self.commands.send(Command::Room { consumer: self.consumer, held }).await;
        }
    }
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

    /// Ends the consumer, with `SHUTTING_DOWN`, as soon as nothing is in flight or unconfirmed. Cancel safe.
    ///
    /// # Errors
    /// If the subscription was deleted.
    pub async fn finish(&self) -> Result<(), Error> {
        self.handle.send(Command::Finish { consumer: self.consumer }).await
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
        self.handle.attached.fetch_sub(1, Ordering::Relaxed);
        let command = Command::Detach { consumer: self.consumer };
        if let Err(mpsc::error::TrySendError::Full(_)) = self.handle.commands.try_send(command) {
            self.handle.left.add(self.consumer);
        }
    }
}

/// Attaches a consumer.
pub(crate) async fn attach(
    handle: &SubscriptionHandle,
    name: String,
    created: bool,
    window: Arc<Window>,
) -> Result<Consumer, Error> {
    let (reply, answer) = oneshot::channel();
    let consumer = handle.consumers.fetch_add(1, Ordering::Relaxed);
    // From here on it is detached wherever this is given up: an owner must not keep a consumer that nobody holds.
    handle.attached.fetch_add(1, Ordering::Relaxed);
    let control = ConsumerControl { consumer, handle: handle.clone() };
    let room = ConsumerRoom { consumer, window: Arc::clone(&window), commands: handle.commands.clone() };
    handle.send(Command::Attach { consumer, name, created, window, reply }).await?;
    let attached = answer.await.map_err(|_| handle.gone())?;
    let Attached { subscribed, frames, notices } = attached;
    Ok(Consumer { subscribed, frames, notices, control, room })
}

/// What the owner knows about the subscription.
#[derive(Debug)]
pub(crate) struct Described {
    /// As the wire describes it, but for the age of the oldest unacknowledged event.
    pub(crate) info: SubscriptionInfo,
    /// The oldest unacknowledged offset of every partition that has one.
    pub(crate) oldest: Vec<(PartitionId, Offset)>,
}

/// What the owner knows about the subscription. It answers whatever it is about.
pub(crate) async fn describe(handle: &SubscriptionHandle) -> Result<Described, Error> {
    let (reply, answer) = oneshot::channel();
    handle.asking.send(reply).await.map_err(|_| handle.gone())?;
    answer.await.map_err(|_| handle.gone())
}

/// Lets a paused subscription go on.
pub(crate) async fn resume(handle: &SubscriptionHandle) -> Result<(), Error> {
    handle.send(Command::Resume).await
}
