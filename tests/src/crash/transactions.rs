//! Transactions: some at once, some prepared and decided by a table of the producer's own, and a consumer whose outputs and
//! acknowledgements are one.
//!
//! Each is in both of its topics or in none and never twice, a prepared one if and only if the table says so, and what is
//! consumed has one output each.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use levada_client::{Client, Error, Event, ProducerGroup};

use super::gone;
use crate::support::{
    events::{self, earliest, texts},
    rng::Rng,
    until,
};

const GROUP: &str = "bank";
const MOVER: &str = "mover";

#[derive(Default)]
pub(super) struct Transactions {
    sent: u64,
    /// Those that are committed at once, and whether the engine has said so.
    at_once: BTreeMap<String, bool>,
    /// The producer's own table: what it decided about those that it prepared.
    decided: BTreeMap<String, bool>,
    /// How many were left undecided by a crash, and settled by the table.
    settled: usize,
}

pub(super) async fn prepare(client: &Client) {
    for topic in ["debits", "credits", "moved"] {
        events::topic(client, topic).await;
    }
    let ask = earliest("debits", MOVER, Default::default());
    client.create_subscription("debits", MOVER, ask.options.unwrap(), ask.from).await.unwrap();
}

impl Transactions {
    pub(super) async fn work(&mut self, producer: &Client, mover: &Client, rng: &mut Rng) -> Infallible {
        let producing = async {
            let group = producer.producer_group(GROUP).unwrap();
            loop {
                if let Err(error) = self.step(&group, rng).await {
                    break gone(error).await;
                }
            }
        };
        tokio::join!(producing, move_on(mover)).0
    }

    async fn step(&mut self, group: &ProducerGroup, rng: &mut Rng) -> Result<(), Error> {
        self.sent += 1;
        let id = self.sent.to_string();
        let mut transaction = group.transaction(&id)?;
        transaction.publish("debits", Event::new(id.clone()))?;
        transaction.publish("credits", Event::new(id.clone()))?;
        if rng.within(0..3) == 0 {
            self.at_once.insert(id.clone(), false);
            transaction.commit().await?;
            self.at_once.insert(id, true);
            return Ok(());
        }
        let prepared = transaction.prepare().await?;
        let commits = rng.within(0..3) > 0;
        self.decided.insert(id, commits);
        if commits { prepared.commit().await.map(drop) } else { prepared.rollback().await }
    }

    /// Settles what a crash left undecided, some of it in a later round, and holds what is known against what is there.
    pub(super) async fn check(&mut self, round: u64, client: &Client, mut leave: impl FnMut() -> bool) {
        let group = client.producer_group(GROUP).unwrap();
        let (undecided, _) = client.list_transactions(Some(GROUP), false, usize::MAX).await.unwrap();
        let mut open = BTreeSet::new();
        for info in undecided {
            let id = info.id.to_string();
            if leave() {
                open.insert(id);
                continue;
            }
            // What the producer did not decide before it died is given up.
            let decided = match *self.decided.entry(id.clone()).or_insert(false) {
                true => group.commit(&id).await,
                false => group.rollback(&id).await,
            };
            assert!(!decided.unwrap().repeat, "round {round}: {id} was listed as undecided");
            self.settled += 1;
        }
        let debits = log(client, "debits").await;
        assert_eq!(debits, log(client, "credits").await, "round {round}: each is in both, in one order");
        let there: BTreeSet<&String> = debits.iter().collect();
        assert_eq!(there.len(), debits.len(), "round {round}: none is twice");
        for id in &there {
            let may_be = self.at_once.contains_key(*id) || self.decided.get(*id) == Some(&true);
            assert!(may_be && !open.contains(*id), "round {round}: {id} is there, and nobody committed it");
        }
        let told = self.at_once.iter().filter(|(_, told)| **told).map(|(id, _)| id);
        let committed = self.decided.iter().filter(|(id, commits)| **commits && !open.contains(*id));
        for id in told.chain(committed.map(|(id, _)| id)) {
            assert!(there.contains(id), "round {round}: {id} was committed, and is not there");
        }
        let moved = log(client, "moved").await;
        let once: BTreeSet<&String> = moved.iter().collect();
        assert_eq!(once.len(), moved.len(), "round {round}: no output is there twice");
        assert!(once.is_subset(&there), "round {round}: each output has its input");
    }

    /// Settles and consumes everything.
    pub(super) async fn finish(&mut self, client: &Client, mover: &Client) {
        self.check(u64::MAX, client, || false).await;
        let finished = until("every output", async || {
            (client.describe_subscription("debits", MOVER).await.unwrap().lag == 0).then_some(())
        });
        tokio::select! {
            () = finished => {}
            never = move_on(mover) => match never {},
        }
        let (mut debits, mut moved) = (log(client, "debits").await, log(client, "moved").await);
        debits.sort_unstable();
        moved.sort_unstable();
        assert_eq!(debits, moved, "each input has one output");
    }

    pub(super) fn tell(&self) {
        let (at_once, prepared) = (self.at_once.len(), self.decided.len());
        eprintln!(
            "{at_once} transactions at once, {prepared} prepared, {} settled after a crash",
            self.settled
        );
        assert!(at_once > 0 && prepared > 0);
    }
}

async fn log(client: &Client, topic: &str) -> Vec<String> {
    texts(&events::read_all(client, topic).await, 0)
}

/// Consumes and publishes in one, until the engine is gone.
async fn move_on(client: &Client) -> Infallible {
    let moving = async {
        let mut subscriber = client.subscribe(earliest("debits", MOVER, Default::default())).await?;
        loop {
            let event = subscriber.next().await?.expect("the client is open");
            let mut transaction = client.transaction()?;
            transaction.publish("moved", Event::new(event.event().payload.clone().unwrap_or_default()))?;
            transaction.ack(event)?;
            transaction.commit().await?;
        }
    };
    let ended: Result<Infallible, Error> = moving.await;
    match ended {
        Ok(never) => match never {},
        Err(error) => gone(error).await,
    }
}
