//! A consumer as its session holds it.

use std::sync::Arc;

use levada_protocol::{
    limits::VERBS_MAX,
    request::Subscribed,
    verbs::{Credit, Verbs},
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    attached::Finish,
    command::{Attached, Command},
    handle::SubscriptionHandle,
    untold::LossNotice,
};
use crate::{error::Error, outbound::Window, outgoing::Outgoing};

/// A consumer, as its session holds it.
#[derive(Debug)]
pub struct Consumer {
    /// What the client is told.
    pub subscribed: Subscribed,
    /// Whole wire frames: deliveries and settled verbs. Ends when the subscription does, after an error.
    pub outgoing: mpsc::Receiver<Result<Outgoing, Error>>,
    /// What the client is to be told on its control stream: events that retention took before they were acknowledged,
    /// also those of which no consumer before it was told. Ends when the subscription does.
    pub notices: mpsc::Receiver<LossNotice>,
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

/// Verbs that a consumer may have unconfirmed, or refused and not told.
const UNCONFIRMED_MAX: usize = 16 * VERBS_MAX;

/// A consumer's way to its subscription's owner.
#[derive(Debug)]
pub struct ConsumerControl {
    consumer: u64,
    handle: SubscriptionHandle,
    /// Verbs that may still come before some are confirmed.
    unconfirmed: Arc<Semaphore>,
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
        self.handle.send(Command::Finish { consumer: self.consumer, finish: Finish::SentAway }).await
    }

    /// The consumer gets nothing more, and ends without an error as soon as nothing is in flight or unconfirmed. Cancel safe.
    ///
    /// # Errors
    /// If the subscription was deleted.
    pub(crate) async fn suffice(&self) -> Result<(), Error> {
        self.handle.send(Command::Finish { consumer: self.consumer, finish: Finish::Sufficed }).await
    }

    /// Says what became of deliveries. The answer comes as a `Settled` frame. Waits while the consumer
    /// would have more than 65,536 verbs of which it was not told what became of them. Cancel safe.
    ///
    /// # Errors
    /// If the subscription was deleted.
    pub async fn verbs(&self, verbs: Verbs) -> Result<(), Error> {
        let count = u32::try_from(verbs.verbs.len().min(UNCONFIRMED_MAX)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.unconfirmed).acquire_many_owned(count).await;
        let room = room.expect("it is never closed");
        self.handle.send(Command::Verbs { consumer: self.consumer, verbs, room }).await
    }
}

impl Drop for ConsumerControl {
    fn drop(&mut self) {
        self.handle.leave(self.consumer);
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
    let consumer = handle.enter().await?;
    // From here on it is detached wherever this is given up: an owner must not keep a consumer that nobody holds.
    let unconfirmed = Arc::new(Semaphore::new(UNCONFIRMED_MAX));
    let control = ConsumerControl { consumer, handle: handle.clone(), unconfirmed };
    let room = ConsumerRoom { consumer, window: Arc::clone(&window), commands: handle.commands().clone() };
    handle.send(Command::Attach { consumer, name, created, window, reply }).await?;
    let attached = answer.await.map_err(|_| handle.gone())?;
    let Attached { subscribed, outgoing, notices } = attached;
    Ok(Consumer { subscribed, outgoing, notices, control, room })
}
