//! Consuming by pulls.

use std::time::Duration;

use levada_client::{Delivery, Error, Pull, PullSubscriber, SubscribeOptions, protocol::verbs::Credit};

use crate::support::{Engine, streams::numbered};

/// Long enough that no pull of a test ends by it.
const LONG: Duration = Duration::from_secs(3_600);

async fn attach(engine: &Engine) -> PullSubscriber {
    engine.client().await.subscribe_pull(SubscribeOptions::new("orders", "payment")).await.unwrap()
}

fn pull(max: u64) -> Pull {
    Pull { max, wait: LONG, ..Pull::default() }
}

fn firsts(deliveries: &[Delivery]) -> Vec<(u64, u32)> {
    deliveries.iter().map(|delivery| (delivery.first().0, delivery.count())).collect()
}

fn granted(engine: &Engine) -> u64 {
    engine.inner.world().credits.iter().map(|credit| credit.events).sum()
}

#[tokio::test]
async fn a_pull_requests_what_it_wants_and_nothing_ahead() {
    let engine = Engine::start(1);
    engine
        .inner
        .change(|world| world.deliveries.extend([numbered(0, 3, 1), numbered(3, 2, 2), numbered(5, 4, 3)]));
    let mut subscriber = attach(&engine).await;
    let got = subscriber.pull(pull(5)).await.unwrap();
    assert_eq!((firsts(&got), granted(&engine)), (vec![(0, 3), (3, 2)], 5));
    got.iter().for_each(Delivery::ack);
    subscriber.confirmed().await.unwrap();
    assert_eq!(granted(&engine), 5, "acknowledgements request nothing");
    assert_eq!(firsts(&subscriber.pull(pull(4)).await.unwrap()), [(5, 4)]);
    assert_eq!(granted(&engine), 9);
}

#[tokio::test]
async fn a_pull_never_returns_more_than_it_may_and_the_rest_of_a_delivery_comes_next() {
    let engine = Engine::start(1);
    let mut subscriber = attach(&engine).await;
    {
        let mut pulling = Box::pin(subscriber.pull(pull(9)));
        assert!(poll_once(&mut pulling).await.is_none());
    }
    // It was requested by a pull that took more.
    let all = |credits: &[Credit]| credits.iter().map(|credit| credit.events).sum::<u64>() == 9;
    engine.inner.until(|world| all(&world.credits).then_some(())).await;
    engine.inner.change(|world| world.deliveries.push_back(numbered(0, 9, 1)));
    let head = subscriber.pull(pull(4)).await.unwrap();
    assert_eq!(firsts(&head), [(0, 4)]);
    let offsets: Vec<u64> = head[0].events().map(|(offset, ..)| offset.0).collect();
    assert_eq!(offsets, [0, 1, 2, 3]);
    head[0].ack();
    let next = subscriber.pull(pull(4)).await.unwrap();
    assert_eq!((firsts(&next), granted(&engine)), (vec![(4, 4)], 9), "no credit is needed for it");
    next[0].ack();
    engine.inner.change(|world| world.deliveries.extend([numbered(9, 2, 2), numbered(11, 5, 3)]));
    let got = subscriber.pull(pull(3)).await.unwrap();
    assert_eq!(firsts(&got), [(8, 1), (9, 2)], "whole deliveries follow the rest");
    subscriber.confirmed().await.unwrap();
    let acked: Vec<_> = engine.inner.world().verbs.iter().map(|verb| (verb.first.0, verb.last.0)).collect();
    assert_eq!(acked, [(0, 7)], "of one delivery the parts that were acknowledged, in one verb");
}

#[tokio::test]
async fn a_pull_returns_what_there_is_when_its_time_is_over_and_the_next_one_what_came_later() {
    let engine = Engine::start(1);
    engine.inner.change(|world| world.deliveries.push_back(numbered(0, 3, 1)));
    let mut subscriber = attach(&engine).await;
    let mut got = Vec::new();
    while got.is_empty() {
        let short = Pull { wait: Duration::from_millis(5), ..pull(10) };
        got = subscriber.pull(short).await.unwrap();
    }
    assert_eq!((firsts(&got), granted(&engine)), (vec![(0, 3)], 10), "it is requested once");
    engine.inner.change(|world| world.deliveries.push_back(numbered(3, 7, 2)));
    assert_eq!(firsts(&subscriber.pull(pull(7)).await.unwrap()), [(3, 7)]);
    assert_eq!(granted(&engine), 10, "it had been requested before");
}

#[tokio::test]
async fn bytes_end_a_pull_as_events_do_and_a_pull_that_is_given_up_loses_nothing() {
    let engine = Engine::start(1);
    let mut subscriber = attach(&engine).await;
    {
        let mut pulling = Box::pin(subscriber.pull(pull(2)));
        assert!(poll_once(&mut pulling).await.is_none());
    }
    engine.inner.change(|world| world.deliveries.extend([numbered(0, 1, 1), numbered(1, 1, 2)]));
    let first = Pull { max_bytes: 1, ..pull(2) };
    assert_eq!(firsts(&subscriber.pull(first).await.unwrap()), [(0, 1)]);
    assert_eq!(firsts(&subscriber.pull(pull(1)).await.unwrap()), [(1, 1)]);
}

#[tokio::test]
async fn a_pull_after_the_client_was_closed_says_so() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let mut subscriber = client.subscribe_pull(SubscribeOptions::new("orders", "payment")).await.unwrap();
    client.close().await;
    assert!(matches!(subscriber.pull(pull(1)).await, Err(Error::Closed)));
}

/// Polls a future once.
async fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    std::future::poll_fn(|context| match std::pin::Pin::new(&mut *future).poll(context) {
        std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}
