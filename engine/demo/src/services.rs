//! The demo's services: the one that takes orders, and the three that subscribe.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use levada_client::{Client, Delivery, Event, PublisherOptions, Subscriber, Ticket};
use serde_json::Value;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::sleep,
};

use crate::{
    account::Account,
    model::{Order, SENT_HEADER, STEPS, Who, payment_event},
    setup,
};

/// Orders that are under way at the same time: their events interleave.
const UNDER_WAY: u32 = 50;
/// Inventory goes away after this share of the events, in percent.
const LEAVES_AT: u64 = 35;
/// Deliveries that payment has worked on and not acknowledged yet, at most.
const UNSETTLED_MAX: usize = 1_024;

/// The demo's clock and what its services have done so far.
#[derive(Debug)]
pub(crate) struct Floor {
    begun: Instant,
    orders: u32,
    published: AtomicU64,
    accounts: [Mutex<Account>; 3],
    /// Tells the order service that inventory is away.
    left: Notify,
    /// Inventory is away, or still has to catch up.
    inventory_behind: AtomicBool,
    /// When inventory had caught up, in microseconds; before, 0.
    caught_up_us: AtomicU64,
}

impl Floor {
    /// Nothing has happened; so many orders will.
    pub(crate) fn new(orders: u32) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            orders,
            published: AtomicU64::new(0),
            accounts: Who::ALL.map(|who| Mutex::new(Account::new(who, orders))),
            left: Notify::new(),
            inventory_behind: AtomicBool::new(false),
            caught_up_us: AtomicU64::new(0),
        })
    }

    /// Microseconds of the demo's clock.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Events that the order service has published.
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// The account of a subscriber.
    pub(crate) fn account(&self, who: Who) -> MutexGuard<'_, Account> {
        let index = Who::ALL.iter().position(|one| *one == who).expect("all subscribers are listed");
        self.accounts[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After so many events inventory goes away; the order service lets it go before it publishes more, so that it has
    /// something to catch up however fast the events come.
    pub(crate) fn inventory_leaves_after(&self) -> u64 {
        u64::from(self.orders) * STEPS.len() as u64 * LEAVES_AT / 100
    }

    /// Inventory goes away. What it gets from here on waited for it, and says nothing about how fast events go.
    pub(crate) fn inventory_leaves(&self) {
        self.inventory_behind.store(true, Ordering::Relaxed);
        self.left.notify_one();
    }

    /// Inventory is back and has what was published until then.
    pub(crate) fn inventory_has_caught_up(&self) {
        self.caught_up_us.store(self.now_us(), Ordering::Relaxed);
        self.inventory_behind.store(false, Ordering::Relaxed);
    }

    /// True for an event that waited for its subscriber.
    fn waited(&self, who: Who, sent_us: u64) -> bool {
        let behind = || self.inventory_behind.load(Ordering::Relaxed);
        who == Who::Inventory && (behind() || sent_us < self.caught_up_us.load(Ordering::Relaxed))
    }

    /// How many of the order service's first events a subscriber has to get.
    pub(crate) fn expected_of_first(&self, who: Who, events: u64) -> u64 {
        let mine = |(order, step): &(Order, u8)| who.expects(*order, *step);
        life(self.orders).zip(0..events).filter(|(event, _)| mine(event)).count() as u64
    }
}

/// All events of so many orders, in the order of their publishing.
fn life(orders: u32) -> impl Iterator<Item = (Order, u8)> {
    (0..orders).step_by(UNDER_WAY as usize).flat_map(move |first| {
        let steps = 1..=u8::try_from(STEPS.len()).expect("a life has few steps");
        let group = first..(first + UNDER_WAY).min(orders);
        steps.flat_map(move |step| group.clone().map(move |number| (Order(number), step)))
    })
}

/// Takes orders through their lives, at so many events a second; 0 for as fast as it goes.
pub(crate) async fn order_service(floor: Arc<Floor>, client: Client, rate: u32) -> anyhow::Result<()> {
    let publisher = client.publisher(setup::ORDERS, PublisherOptions::default()).await?;
    let begun = Instant::now();
    for (number, (order, step)) in (0_u32..).zip(life(floor.orders)) {
        if u64::from(number) == floor.inventory_leaves_after() {
            floor.left.notified().await;
        }
        if rate > 0 {
            let due = Duration::from_secs_f64(f64::from(number) / f64::from(rate));
            // A timer's tick is a millisecond: what falls into one goes out together.
            if let Some(early) = due.checked_sub(begun.elapsed()).filter(|early| !early.is_zero()) {
                sleep(early).await;
            }
        }
        let event = Event::new(serde_json::to_vec(&order.event(step))?)
            .with_key(order.id())
            .with_header(SENT_HEADER, floor.now_us().to_string());
        // Its failure would come again from flush.
        drop(publisher.publish(event).await?);
        floor.published.fetch_add(1, Ordering::Relaxed);
    }
    publisher.flush().await?;
    client.close().await;
    Ok(())
}

/// Consumes a subscription until it is stopped; what it was given is processed and confirmed before it ends.
pub(crate) async fn subscriber(
    floor: Arc<Floor>,
    client: Client,
    who: Who,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut subscriber = client.subscribe(setup::subscription(who)).await?;
    while let Some(delivery) = next(&mut subscriber, &mut stop).await? {
        // Inventory packs and logistics ships: here they only keep account.
        for (_, event) in delivery.to_events() {
            enter(&floor, who, &event);
        }
        delivery.ack();
    }
    subscriber.confirmed().await?;
    client.close().await;
    Ok(())
}

/// Payment: as [`subscriber`], but it publishes an event of its own for every step it is given.
pub(crate) async fn payment(
    floor: Arc<Floor>,
    client: Client,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut subscriber = client.subscribe(setup::subscription(Who::Payment)).await?;
    let payments = client.publisher(setup::PAYMENTS, PublisherOptions::default()).await?;
    let (published, settling) = mpsc::channel(UNSETTLED_MAX);
    let mut settled = JoinSet::new();
    settled.spawn(settle(settling));
    while let Some(delivery) = next(&mut subscriber, &mut stop).await? {
        let mut tickets = Vec::new();
        for (_, event) in delivery.to_events() {
            let Some((seen, step)) = enter(&floor, Who::Payment, &event) else { continue };
            let payload = serde_json::to_vec(&payment_event(&seen, step))?;
            // Key, time and headers stay the order's.
            tickets.push(payments.publish(Event { payload: Some(payload.into()), ..event }).await?);
        }
        if published.send((delivery, tickets)).await.is_err() {
            break;
        }
    }
    drop(published);
    settled.join_next().await.context("one task was spawned")???;
    subscriber.confirmed().await?;
    client.close().await;
    Ok(())
}

/// Acknowledges what came once all that it led to is stored.
async fn settle(mut published: mpsc::Receiver<(Delivery, Vec<Ticket>)>) -> anyhow::Result<()> {
    while let Some((delivery, tickets)) = published.recv().await {
        for ticket in tickets {
            ticket.await?;
        }
        delivery.ack();
    }
    Ok(())
}

async fn next(
    subscriber: &mut Subscriber,
    stop: &mut watch::Receiver<bool>,
) -> anyhow::Result<Option<Delivery>> {
    tokio::select! {
        biased;
        _stopped = stop.wait_for(|stop| *stop) => Ok(None),
        delivery = subscriber.next_delivery() => Ok(delivery?),
    }
}

/// Enters an event into a subscriber's account; returns what it saw and the order's step.
fn enter(floor: &Floor, who: Who, event: &Event) -> Option<(Value, u8)> {
    let seen: Value =
        serde_json::from_slice(event.payload.as_deref().unwrap_or_default()).unwrap_or_default();
    let now = floor.now_us();
    let mut account = floor.account(who);
    let entered = account.enter(&seen, now);
    if let Some(sent) = sent_us(event).filter(|sent| !floor.waited(who, *sent)) {
        account.latencies.record(now.saturating_sub(sent) * 1_000);
    }
    drop(account);
    entered.map(|(_, step)| (seen, step))
}

fn sent_us(event: &Event) -> Option<u64> {
    let header: &Bytes =
        event.headers.iter().find(|(name, _)| name == SENT_HEADER).map(|(_, value)| value)?;
    std::str::from_utf8(header).ok()?.parse().ok()
}
