//! A pull's consumer: what it is given, and the confirmation of what is said of that.

use std::{convert::Infallible, pin::Pin};

use levada_protocol::verbs::{Credit, RefusedVerb, Verb, Verbs};
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, timeout_at},
};

use crate::{
    error::Error,
    outgoing::{Content, Delivery, Outgoing, Unwritten},
    subscription::{Consumer, ConsumerControl},
};

/// What it takes to look for events at least, however short the caller wants to wait.
const WAIT_MIN: Duration = Duration::from_millis(50);
/// How long nothing more has to come until what has come is all.
const LINGER: Duration = Duration::from_millis(5);

/// The consumer of a pull. Dropped, it is detached, and what it has in flight is given back.
pub(crate) struct Attached {
    outgoing: mpsc::Receiver<Result<Outgoing, Error>>,
    control: ConsumerControl,
    room: Pin<Box<dyn Future<Output = Infallible> + Send>>,
    /// The last of its verbs frames.
    sequence: u64,
}

/// What has come so far.
#[derive(Default)]
struct Taken {
    deliveries: Vec<Delivery>,
    unwritten: Vec<Unwritten>,
    events: u64,
    bytes: u64,
}

impl Taken {
    fn add(&mut self, outgoing: Outgoing) {
        let (content, unwritten) = outgoing.into_parts();
        let Content::Delivery(delivery) = content else { return };
        self.events += u64::from(delivery.header.count);
        self.bytes += delivery.runs.iter().map(|run| run.batches.len() as u64).sum::<u64>();
        self.deliveries.push(delivery);
        self.unwritten.push(unwritten);
    }
}

impl Attached {
    /// That of a consumer. Nobody is to be told of its losses: they are told to another.
    pub(crate) fn new(consumer: Consumer) -> Self {
        let Consumer { subscribed: _, outgoing, notices: _, control, room } = consumer;
        Self { outgoing, control, room: Box::pin(room.run()), sequence: 0 }
    }

    /// Takes events, the first of which is waited for so long; none if there are none in time. It gets nothing more afterwards.
    /// What was taken has counted an attempt only if this comes to its end.
    ///
    /// # Errors
    /// If the subscription ends.
    pub(crate) async fn collect(&mut self, credit: Credit, wait: Duration) -> Result<Vec<Delivery>, Error> {
        let first_until = Instant::now() + wait.max(WAIT_MIN);
        self.control.credit(credit).await?;
        let mut taken = Taken::default();
        while taken.events < credit.events && taken.bytes < credit.bytes {
            let until = if taken.events == 0 { first_until } else { Instant::now() + LINGER };
            let Ok(received) = timeout_at(until, self.next()).await else { break };
            taken.add(received.ok_or(Error::ShuttingDown)??);
        }
        if taken.events == 0 {
            return Ok(Vec::new());
        }
        self.control.suffice().await?;
        // What was sent before that comes before this is confirmed.
        let sequence = self.say(Vec::new()).await?;
        while let Some(outgoing) = self.next().await.transpose()? {
            if matches!(outgoing.content(), Content::Settled(settled) if settled.sequence >= sequence) {
                break;
            }
            taken.add(outgoing);
        }
        taken.unwritten.into_iter().for_each(Unwritten::written);
        Ok(taken.deliveries)
    }

    /// Says what became of deliveries, and waits until that is durable. Returns the verbs that were refused; `None` if the
    /// consumer had ended before, as it has nothing in flight.
    ///
    /// # Errors
    /// If the subscription ends meanwhile: what took effect is unknown.
    pub(crate) async fn settle(&mut self, verbs: Vec<Verb>) -> Result<Option<Vec<RefusedVerb>>, Error> {
        // An owner that takes none has ended, and took everything back.
        let Ok(sequence) = self.say(verbs).await else { return Ok(None) };
        let mut refused = Vec::new();
        while let Some(outgoing) = self.next().await.transpose()? {
            let Content::Settled(settled) = outgoing.content() else { continue };
            refused.extend_from_slice(&settled.refused);
            if settled.sequence >= sequence {
                return Ok(Some(refused));
            }
        }
        Ok(None)
    }

    /// Waits until the consumer has ended. Cancel safe.
    pub(crate) async fn ended(&mut self) {
        while let Some(Ok(_)) = self.next().await {}
    }

    /// Sends verbs; returns their sequence.
    async fn say(&mut self, verbs: Vec<Verb>) -> Result<u64, Error> {
        self.sequence += 1;
        self.control.verbs(Verbs { sequence: self.sequence, verbs }).await?;
        Ok(self.sequence)
    }

    /// What comes next; `None` at the end. Cancel safe.
    async fn next(&mut self) -> Option<Result<Outgoing, Error>> {
        tokio::select! {
            received = self.outgoing.recv() => received,
            never = &mut self.room => match never {},
        }
    }
}
