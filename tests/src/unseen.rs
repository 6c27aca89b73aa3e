//! A power cut between a commit and its sync: nobody has seen or was told what the cut took back, whichever way events come
//! into a log.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use levada_broker::{Clock, Consumer, Content};
use levada_client::{Durability, Offset, PartitionId, Start, Timestamp};
use levada_protocol::{
    batch::Batch,
    ids::DeliveryToken,
    publish::PublishHeader,
    request::{
        DeadLetterSelection, DecideTransaction, Prepare, Redrive, Request, Subscribe, SubscriptionOptions,
        Transact,
    },
    schedule::Due,
    verbs::{Credit, Verb, VerbKind, Verbs},
};

use crate::support::{
    events::numbered,
    machine::{ME, Machine, Powered, Reading},
    raw, until, within,
};

const NOW: u64 = 1_767_225_600_000;
const HOUR: u64 = 3_600_000;
const GROUP: &str = "shop";
const DEAD_LETTERS: &str = "dlq.orders.s";
/// The topics that are watched.
const TOPICS: [&str; 3] = ["orders", "payments", DEAD_LETTERS];

/// A way into a log.
#[derive(Debug, Clone, Copy)]
enum Way {
    Publish,
    Transaction,
    Decision,
    Due,
    DeadLetter,
    Redrive,
}

impl Way {
    /// How many events each topic has more then.
    fn adds(self) -> [u64; 3] {
        match self {
            Self::Publish | Self::Due => [1, 0, 0],
            Self::Transaction => [1, 1, 0],
            Self::Decision | Self::Redrive => [0, 1, 0],
            Self::DeadLetter => [0, 0, 1],
        }
    }
}

fn event(number: u64) -> Batch {
    raw::batch(0, 0, 0, &[numbered(number)])
}

/// A reader and a consumer of each topic.
type Watchers = [[Reading; 3]; 2];

/// A machine whose time of day is what it is told, a consumer of `orders/s`, and watchers of every topic. A dead letter, a
/// prepared transaction, a delayed event and one in the consumer's hands are there, all of them durable.
struct Scene {
    machine: Machine,
    now: Arc<AtomicU64>,
    powered: Powered,
    consumer: Consumer,
    token: DeliveryToken,
    watchers: Watchers,
    ends: [u64; 3],
}

fn start(machine: &Machine, now: &Arc<AtomicU64>) -> Powered {
    let now = Arc::clone(now);
    machine.start_with(Clock::of(move || Timestamp(now.load(Ordering::SeqCst))))
}

/// A consumer's next delivery.
async fn delivered(consumer: &mut Consumer) -> DeliveryToken {
    loop {
        let next = within("a delivery", consumer.outgoing.recv()).await.unwrap().unwrap();
        if let Content::Delivery(delivery) = next.content() {
            return delivery.header.token;
        }
    }
}

/// Rejects an event, and waits until that is confirmed.
async fn reject(consumer: &mut Consumer, token: DeliveryToken, offset: u64) {
    let (partition, first) = (PartitionId(0), Offset(offset));
    let kind = VerbKind::reject("no stock");
    let verb = Verb { kind, partition, token, first, last: first };
    consumer.control.verbs(Verbs { sequence: offset + 1, verbs: vec![verb] }).await.unwrap();
    while let Some(Ok(next)) = consumer.outgoing.recv().await {
        if matches!(next.content(), Content::Settled(_)) {
            return;
        }
    }
    std::future::pending().await
}

/// A transaction that publishes one event to each of these topics.
async fn transact(powered: &Powered, id: &str, topics: &[&str], prepare: Option<Prepare>) {
    let batches = (0..).zip(topics).map(|(correlation, _)| {
        let (partition, due) = (PartitionId(0), None);
        let header = PublishHeader { correlation, partition, durability: None, expect_offset: None, due };
        (header, event(7))
    });
    let batches: Vec<_> = batches.collect();
    let asked = Transact {
        group: GROUP.parse().unwrap(),
        id: id.parse().unwrap(),
        topics: topics.iter().map(|topic| topic.parse().unwrap()).collect(),
        partitions: Vec::new(),
        batches: u32::try_from(batches.len()).unwrap(),
        bytes: 0,
        prepare,
        acks: None,
    };
    powered.broker.transact(&ME, asked, batches).await.unwrap();
}

async fn ends(powered: &Powered) -> [u64; 3] {
    let mut ends = [0; 3];
    for (end, topic) in ends.iter_mut().zip(TOPICS) {
        *end = powered.end(topic).await;
    }
    ends
}

/// How many events of each topic its reader and its consumer have seen.
fn seen(watchers: &mut Watchers) -> [[u64; 3]; 2] {
    let seen = |watcher: &mut Reading| {
        watcher.look();
        watcher.seen.len() as u64
    };
    watchers.each_mut().map(|of_all| of_all.each_mut().map(seen))
}

impl Scene {
    async fn new() -> Self {
        let (machine, now) = (Machine::new(), Arc::new(AtomicU64::new(NOW)));
        let powered = start(&machine, &now);
        for topic in &TOPICS[..2] {
            powered.create(topic, Durability::Sync).await;
        }
        let subscribe = Subscribe {
            options: Some(SubscriptionOptions::default()),
            from: Start::Earliest,
            ..Subscribe::new("orders".parse().unwrap(), "s".parse().unwrap())
        };
        let mut consumer = powered.broker.subscribe(&ME, subscribe).await.unwrap();
        consumer.control.credit(Credit { events: 1 << 40, bytes: 1 << 40 }).await.unwrap();
        let mut publishing = powered.publisher("orders");
        publishing.publish(&event(0)).await;
        let token = delivered(&mut consumer).await;
        within("the dead letter", reject(&mut consumer, token, 0)).await;
        publishing.publish(&event(1)).await;
        let token = delivered(&mut consumer).await;
        publishing.schedule(Due::After(HOUR), &event(2)).await;
        transact(&powered, "prepared", &["payments"], Some(Prepare::default())).await;
        let [first, second, third] = TOPICS;
        let readers = async |topic| powered.reader(topic, true).await;
        let consumers = async |topic| powered.consumer(topic).await;
        let mut watchers = [
            [readers(first).await, readers(second).await, readers(third).await],
            [consumers(first).await, consumers(second).await, consumers(third).await],
        ];
        let ends = ends(&powered).await;
        assert_eq!(ends, [2, 0, 1]);
        for (watcher, end) in watchers.iter_mut().flat_map(|of_all| of_all.iter_mut().zip(ends)) {
            while (watcher.seen.len() as u64) < end {
                assert!(within("what is there", watcher.next()).await);
            }
        }
        Self { machine, now, powered, consumer, token, watchers, ends }
    }

    /// Lets events come into a log; returns once whoever asked for it was told.
    async fn take(powered: &Powered, now: &AtomicU64, consumer: (&mut Consumer, DeliveryToken), way: Way) {
        match way {
            Way::Publish => drop(powered.publisher("orders").publish(&event(3)).await),
            Way::Transaction => transact(powered, "at-once", &TOPICS[..2], None).await,
            Way::Decision => {
                let (group, id) = (GROUP.parse().unwrap(), "prepared".parse().unwrap());
                let decide = DecideTransaction { group, id, commit: true };
                powered.ask(Request::DecideTransaction(decide)).await;
            }
            Way::Due => {
                now.fetch_add(HOUR, Ordering::SeqCst);
                powered.broker.move_due().await.unwrap();
            }
            Way::DeadLetter => reject(consumer.0, consumer.1, 1).await,
            Way::Redrive => {
                let (topic, to) = (DEAD_LETTERS.parse().unwrap(), Some("payments".parse().unwrap()));
                let select = DeadLetterSelection::All;
                let redrive = Redrive { topic, to, select, from: 0, until: None, force: false };
                powered.ask(Request::Redrive(redrive)).await;
            }
        }
    }

    /// Takes events that way up to their sync, where nobody sees them; and on, or to the power cut.
    async fn run(mut self, way: Way, is_cut: bool) {
        let (powered, before) = (&self.powered, self.ends);
        powered.store.hold_syncs(true);
        let mut taking = Box::pin(Self::take(powered, &self.now, (&mut self.consumer, self.token), way));
        let watching = async {
            until("the sync's begin", async || powered.store.is_syncing().then_some(())).await;
            for _ in 0..20 {
                assert_eq!(ends(powered).await, before, "{way:?}: described before it is durable");
            }
        };
        tokio::select! {
            biased;
            () = &mut taking => panic!("{way:?}: told before it is durable"),
            () = watching => {}
        }
        if is_cut {
            drop(taking);
        } else {
            powered.store.hold_syncs(false);
            within("the answer", taking).await;
            let after = std::array::from_fn(|at| before[at] + way.adds()[at]);
            Box::pin(until("what is durable to be described", async || {
                (ends(powered).await == after).then_some(())
            }))
            .await;
            until("what is durable to be seen", async || {
                (seen(&mut self.watchers) == [after; 2]).then_some(())
            })
            .await;
            within("the shutdown", self.powered.broker.shutdown()).await;
            return;
        }
        assert_eq!(seen(&mut self.watchers), [before; 2], "{way:?}: seen before it is durable");
        let Self { machine, now, powered, mut watchers, .. } = self;
        powered.cut().await;
        assert_eq!(seen(&mut watchers), [before; 2], "{way:?}: seen after the cut");
        // Before the delayed event is due again.
        now.store(NOW, Ordering::SeqCst);
        let powered = start(&machine, &now);
        assert_eq!(ends(&powered).await, before, "{way:?}: the cut took it back");
        within("the shutdown", powered.broker.shutdown()).await;
    }
}

#[tokio::test]
async fn nobody_has_seen_or_was_told_what_a_power_cut_took_back_whichever_way_it_came() {
    for way in [Way::Publish, Way::Transaction, Way::Decision, Way::Due, Way::DeadLetter, Way::Redrive] {
        for is_cut in [true, false] {
            Box::pin(Scene::new().await.run(way, is_cut)).await;
        }
    }
}
