//! Prepared events where the producer dies, the engine is killed, or both, at every point between the prepare and the
//! answer to the decision: they are there if and only if the producer's own database says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use levada_client::{Check, Client, Error, Event, Prepared, ProducerGroup};
use tempfile::TempDir;

use crate::support::{
    events::{self, texts},
    own_address,
    process::Process,
    within,
};

const GROUP: &str = "shop";
const TOPICS: [&str; 2] = ["orders", "invoices"];

/// Where it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    /// The prepare is on its way.
    Preparing,
    /// It was answered, and nothing is in the database.
    Prepared,
    /// The decision is in the database, and the engine was not told.
    Decided,
    /// The engine is being told.
    Telling,
    /// It has answered.
    Told,
}

const POINTS: [Point; 5] = [Point::Preparing, Point::Prepared, Point::Decided, Point::Telling, Point::Told];

/// Who dies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dies {
    Producer,
    Engine,
    Both,
}

/// An order and its events.
#[derive(Debug)]
struct Order {
    id: String,
    commits: bool,
    at: Point,
    dies: Dies,
}

/// Every order that there can be.
fn orders() -> impl Iterator<Item = Order> {
    let deaths = [Dies::Producer, Dies::Engine, Dies::Both].into_iter();
    let cases = deaths.flat_map(|dies| POINTS.into_iter().map(move |at| (dies, at)));
    cases.flat_map(|(dies, at)| {
        let order = move |commits| Order { id: format!("{at:?}-{dies:?}-{commits}"), commits, at, dies };
        [true, false].into_iter().map(order)
    })
}

impl Order {
    async fn prepare(&self, group: &ProducerGroup) -> Result<Prepared, Error> {
        let mut transaction = group.transaction(&self.id)?;
        for topic in TOPICS {
            transaction.publish(topic, Event::new(self.id.clone()))?;
        }
        transaction.prepare_and_check_after(Duration::from_millis(1)).await
    }

    async fn tell(&self, prepared: &Prepared) -> Result<(), Error> {
        if self.commits { prepared.commit().await.map(drop) } else { prepared.rollback().await }
    }
}

/// The producer's own database: what became of its orders.
#[derive(Default)]
struct Database(BTreeMap<String, bool>);

impl Database {
    /// Writes a decision, unless there is one: the first word is final. Returns the one that holds.
    fn write(&mut self, id: &str, commits: bool) -> bool {
        *self.0.entry(id.to_owned()).or_insert(commits)
    }

    /// What a member answers for a producer that is gone: an order without a word of it is given up.
    async fn answer(&mut self, check: Check) -> Result<(), Error> {
        let id = check.id().to_string();
        if self.write(&id, false) { check.commit().await.map(drop) } else { check.rollback().await.map(drop) }
    }
}

/// The engine, as often as it is killed, and the database.
struct Shop {
    dir: TempDir,
    address: String,
    engine: Option<Process>,
    database: Database,
}

impl Shop {
    async fn open() -> Self {
        let (dir, address) = (TempDir::new().unwrap(), own_address().to_string());
        let engine = Process::start_at(dir.path(), &address).await;
        let client = engine.connect().await;
        for topic in TOPICS {
            events::topic(&client, topic).await;
        }
        client.close().await;
        Self { dir, address, engine: Some(engine), database: Database::default() }
    }

    async fn connect(&self) -> Client {
        self.engine.as_ref().expect("it runs").connect().await
    }

    /// Kills the engine, if it is to die.
    async fn kill(&mut self, dies: Dies) {
        if dies != Dies::Producer
            && let Some(engine) = self.engine.take()
        {
            engine.kill().await;
        }
    }

    /// Lets a step begin, and whoever dies die meanwhile; returns what came of it, if anybody was told.
    async fn during<T>(&mut self, dies: Dies, step: impl Future<Output = Result<T, Error>>) -> Option<T> {
        let mut step = Box::pin(step);
        tokio::select! {
            biased;
            done = &mut step => return done.ok(),
            () = tokio::task::yield_now() => {}
        }
        let kill = Box::pin(self.kill(dies));
        tokio::select! {
            biased;
            () = kill => None,
            done = &mut step => done.ok(),
        }
    }

    /// The producer's work on an order until somebody dies, and, if it survives the engine, all of it.
    async fn place(&mut self, order: &Order) {
        let producer = self.connect().await;
        let group = producer.producer_group(GROUP).unwrap();
        let prepared = match order.at {
            Point::Preparing => self.during(order.dies, order.prepare(&group)).await,
            _ => Some(within("the prepare", order.prepare(&group)).await.unwrap()),
        };
        if matches!(order.at, Point::Decided | Point::Telling | Point::Told) {
            self.database.write(&order.id, order.commits);
        }
        match (order.at, &prepared) {
            (Point::Telling, Some(prepared)) => {
                self.during(order.dies, order.tell(prepared)).await;
            }
            (Point::Told, Some(prepared)) => within("the decision", order.tell(prepared)).await.unwrap(),
            _ => {}
        }
        self.kill(order.dies).await;
        if self.engine.is_none() {
            self.engine = Some(Process::start_at(self.dir.path(), &self.address).await);
        }
        if order.dies == Dies::Engine {
            let prepared = match prepared {
                Some(prepared) => prepared,
                None => within("the prepare again", order.prepare(&group)).await.unwrap(),
            };
            self.database.write(&order.id, order.commits);
            within("the decision", order.tell(&prepared)).await.unwrap();
        }
        producer.close().await;
    }

    /// Answers everything that a member of the group is asked; returns about what that was.
    async fn settle(&mut self) -> BTreeSet<String> {
        let client = self.connect().await;
        let mut checks = client.producer_group(GROUP).unwrap().check_backs().await.unwrap();
        let mut asked = BTreeSet::new();
        while !client.list_transactions(Some(GROUP), false, 1).await.unwrap().0.is_empty() {
            let check = within("a check", checks.next()).await.unwrap().expect("the client is open");
            assert!(asked.insert(check.id().to_string()), "{} was answered before", check.id());
            self.database.answer(check).await.unwrap();
        }
        client.close().await;
        asked
    }
}

#[tokio::test]
async fn prepared_events_are_there_if_and_only_if_the_database_says_so_whoever_dies_where() {
    let mut shop = Shop::open().await;
    for order in orders() {
        Box::pin(shop.place(&order)).await;
    }
    let asked = shop.settle().await;
    for order in orders() {
        let is_open = matches!(order.at, Point::Prepared | Point::Decided) && order.dies != Dies::Engine;
        assert!(!is_open || asked.contains(&order.id), "nobody was asked about {order:?}");
        let is_over = order.at == Point::Told || order.dies == Dies::Engine;
        assert!(!is_over || !asked.contains(&order.id), "asked about {order:?}, which was decided");
        let expected = (order.at != Point::Preparing || order.dies == Dies::Engine)
            .then_some(order.commits && (order.at != Point::Prepared || order.dies == Dies::Engine));
        if let Some(commits) = expected {
            assert_eq!(shop.database.0.get(&order.id), Some(&commits), "{order:?}");
        }
    }
    let client = shop.connect().await;
    let committed = shop.database.0.iter().filter(|(_, commits)| **commits);
    let committed: Vec<&String> = committed.map(|(id, _)| id).collect();
    for topic in TOPICS {
        let mut log = texts(&events::read_all(&client, topic).await, 0);
        log.sort_unstable();
        assert!(log.iter().eq(committed.iter().copied()), "{topic}: {log:?}, the database: {committed:?}");
    }
    client.close().await;
    shop.engine.take().expect("it runs").stop().await;
}
