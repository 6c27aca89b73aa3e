//! What a receiver gets, and that it can verify it with another implementation of Standard Webhooks.

use levada_protocol::request::{PushState, SetPush, SubscriptionOptions};
use standardwebhooks::Webhook;

use crate::{
    receiver::{Got, Receiver, status},
    support::{Engine, SECRET, to},
};

fn is_signed(got: &Got, secret: &str) -> bool {
    Webhook::new(secret).unwrap().verify(&got.body, &got.headers).is_ok()
}

#[tokio::test]
async fn an_event_is_pushed_as_a_signed_cloud_event_and_2xx_acknowledges_it_once() {
    let engine = Engine::start(SubscriptionOptions::default()).await;
    let mut receiver = Receiver::start(|_, _| status(202, "taken")).await;
    engine.push(receiver.url()).await;
    engine.publish(&[(Some("k"), 7), (None, 8)]).await;
    let mut both = receiver.take(2).await;
    both.sort_by_key(Got::number);
    let got = &both[0];
    assert_eq!(got.line, "POST /hooks?for=test HTTP/1.1");
    assert_eq!(got.header("content-type"), "application/cloudevents+json; charset=utf-8");
    assert_eq!(got.header("host"), receiver.address.to_string());
    assert!(got.header("user-agent").starts_with("levada/"), "{got:?}");
    let event = got.event();
    assert_eq!((&event["specversion"], &event["source"]), (&"1.0".into(), &"/topics/orders".into()));
    assert_eq!((&event["partitionkey"], &event["data"]), (&"k".into(), &7.into()));
    let id = got.id_and_time().0;
    assert!(id.starts_with("lv_") && id.ends_with("_0_0") && !id.contains('.'), "{id}");
    for got in &both {
        assert!(is_signed(got, SECRET), "{got:?}");
        assert!(!is_signed(got, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), "{got:?}");
    }
    let mut changed = got.clone();
    changed.body.push(b' ');
    assert!(!is_signed(&changed, SECRET), "the body is signed");
    let info = engine.until_done().await;
    let push = info.push.unwrap();
    assert_eq!((push.delivered, push.failed, push.state), (2, 0, PushState::Active));
    assert_eq!((info.redelivered, info.consumers), (0, vec!["push".to_owned()]));
    assert!(receiver.is_quiet(), "each came once");
    engine.stop().await;
}

#[tokio::test]
async fn while_a_secret_is_changed_both_sign_and_then_the_new_one_alone() {
    let engine = Engine::start(SubscriptionOptions::default()).await;
    let mut receiver = Receiver::start(|_, _| status(200, "")).await;
    let first = engine.set(to(Some(receiver.url()))).await.secret.expect("a secret was drawn").reveal();
    engine.publish(&[(None, 1)]).await;
    let got = receiver.next().await;
    assert!(is_signed(&got, &first) && !got.header("webhook-signature").contains(' '), "{got:?}");

    let rotated = engine.set(SetPush { new_secret: true, ..to(None) }).await;
    let second = rotated.secret.expect("another was drawn").reveal();
    assert!(rotated.push.previous_until_ms.is_some() && first != second);
    engine.publish(&[(None, 2)]).await;
    let got = receiver.next().await;
    assert!(is_signed(&got, &first) && is_signed(&got, &second), "{got:?}");
    assert_eq!(got.header("webhook-signature").split(' ').count(), 2);

    let given = SetPush { secret: Some(SECRET.parse().unwrap()), previous_for_ms: Some(0), ..to(None) };
    let given = engine.set(given).await;
    assert_eq!((given.secret, given.push.previous_until_ms), (None, None), "one that was given is not shown");
    engine.publish(&[(None, 3)]).await;
    let got = receiver.next().await;
    assert!(is_signed(&got, SECRET) && !is_signed(&got, &second), "{got:?}");
    engine.until_done().await;
    engine.stop().await;
}

#[tokio::test]
async fn connections_are_used_again() {
    let engine = Engine::start(SubscriptionOptions::default()).await;
    let mut receiver = Receiver::start(|_, _| status(200, "ok")).await;
    engine.push(receiver.url()).await;
    for number in 0..5 {
        engine.publish(&[(None, number)]).await;
        assert_eq!(receiver.next().await.connection, 0);
        engine.until_done().await;
    }
    engine.stop().await;
}
