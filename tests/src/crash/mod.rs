//! `kill -9` of an engine under a mixed load at random moments, again and again, on one data directory.
//!
//! Each kind of work has a client of its own or two, a ledger of what it was told, and a checker that holds the ledger
//! against what is there after the restart. This file kills; the kinds are in the others.

mod consuming;
mod delays;
mod ids;
mod publishing;
mod transactions;

use std::{convert::Infallible, path::Path, time::Duration};

use levada_client::{Client, Error, ErrorCode};
use tempfile::TempDir;

use self::{
    consuming::Consuming, delays::Delays, ids::Ids, publishing::Publishing, transactions::Transactions,
};
use crate::support::{process::Process, rng::Rng};

const ROUNDS_DEFAULT: u64 = 30;

/// Everything that goes on in the engine while it is killed.
#[derive(Default)]
struct Load {
    publishing: Publishing,
    consuming: Consuming,
    delays: Delays,
    ids: Ids,
    transactions: Transactions,
}

/// What a client meets whose engine is killed is no failure, and nothing comes after it; everything else is one.
async fn gone(error: Error) -> Infallible {
    let is_over = matches!(error, Error::ConnectionLost { .. } | Error::ConnectFailed { .. })
        || error.code() == ErrorCode::ConnectionLost;
    assert!(is_over, "only the engine's end may interrupt: {error}");
    std::future::pending().await
}

/// The connections of one round.
struct Clients(Vec<Client>);

impl Clients {
    async fn of(engine: &Process, count: usize) -> Self {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(engine.connect().await);
        }
        Self(clients)
    }

    async fn close(self) {
        for client in self.0 {
            client.close().await;
        }
    }
}

impl Load {
    async fn prepare(&self, client: &Client) {
        publishing::prepare(client).await;
        consuming::prepare(client).await;
        delays::prepare(client).await;
        ids::prepare(client).await;
        transactions::prepare(client).await;
    }

    /// Works until a burst of publishes is out, and kills the engine while everything else goes on.
    async fn work_and_kill(&mut self, publisher: &Client, engine: Process, rng: &mut Rng) {
        let clients = Clients::of(&engine, 7).await;
        let [consumer, other_consumer, scheduler, one, two, producer, mover] = &clients.0[..] else {
            unreachable!("so many were made")
        };
        let (mut delaying, mut repeating, mut deciding) = (rng.fork(), rng.fork(), rng.fork());
        let killing = async {
            self.publishing.publish(publisher, rng).await;
            engine.kill().await;
        };
        tokio::select! {
            () = killing => {}
            never = Box::pin(self.consuming.work([consumer, other_consumer])) => match never {},
            never = Box::pin(self.delays.work(scheduler, &mut delaying)) => match never {},
            never = Box::pin(self.ids.work([one, two], &mut repeating)) => match never {},
            never = Box::pin(self.transactions.work(producer, mover, &mut deciding)) => match never {},
        }
        clients.close().await;
    }

    /// Kills the engine while it works, and starts it again; returns the new one.
    async fn round(&mut self, round: u64, engine: Process, dir: &Path, rng: &mut Rng) -> Process {
        let publisher = engine.connect().await;
        let survives = rng.within(0..2) == 0;
        let address = engine.quic.clone();
        self.work_and_kill(&publisher, engine, rng).await;
        if !survives {
            // The publisher dies with the engine: what it was not told is not known.
            publisher.close().await;
        }
        if rng.within(0..5) == 0 {
            // A crash while it recovers from the crash.
            Process::start_and_kill(dir, Duration::from_millis(rng.within(5..150))).await;
        }
        let engine = Process::start_at(dir, &address).await;
        self.publishing.learn(round, survives).await;
        let reader = engine.connect().await;
        self.publishing.check(round, &reader).await;
        self.consuming.check(round, &reader).await;
        self.delays.check(round, &reader).await;
        self.ids.check(round, &reader).await;
        self.transactions.check(round, &reader, || rng.within(0..2) == 0).await;
        publisher.close().await;
        reader.close().await;
        engine
    }

    /// Lets everything come to its end, and checks that nothing is missing.
    async fn finish(&mut self, engine: &Process) {
        let clients = Clients::of(engine, 3).await;
        let [client, one, two] = &clients.0[..] else { unreachable!("so many were made") };
        publishing::check_route(u64::MAX, client).await;
        self.consuming.finish(client, [one, two]).await;
        self.delays.finish(client).await;
        self.transactions.finish(client, one).await;
        self.publishing.tell();
        self.consuming.tell();
        self.delays.tell();
        self.ids.tell();
        self.transactions.tell();
        clients.close().await;
    }
}

#[tokio::test]
async fn a_killed_engine_keeps_its_promises() {
    let rounds = std::env::var("LEVADA_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let mut rng = Rng::for_test("a_killed_engine_keeps_its_promises");
    let dir = TempDir::new().unwrap();
    let mut load = Load::default();
    let mut engine = Process::start(dir.path()).await;
    let client = engine.connect().await;
    load.prepare(&client).await;
    client.close().await;
    for round in 0..rounds.unwrap_or(ROUNDS_DEFAULT) {
        engine = Box::pin(load.round(round, engine, dir.path(), &mut rng)).await;
        if round % 5 == 4 {
            let client = engine.connect().await;
            publishing::check_route(round, &client).await;
            client.close().await;
        }
    }
    Box::pin(load.finish(&engine)).await;
    // An ordered end changes nothing, and the data opens again.
    let client = engine.connect().await;
    let before = publishing::logs(&client).await;
    client.close().await;
    engine.stop().await;
    let engine = Process::start(dir.path()).await;
    let client = engine.connect().await;
    assert_eq!(publishing::logs(&client).await, before);
    client.close().await;
    engine.stop().await;
}
