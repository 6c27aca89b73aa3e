//! Receivers that do not take what they get.

use std::{sync::Arc, time::Duration};

use levada_protocol::{
    error::ErrorCode,
    request::{
        PauseReason, PushState, Request, Response, RunState, SetPush, SubscriptionInfo, SubscriptionOptions,
        WaitingFor,
    },
};
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};

use crate::{
    receiver::{Receiver, Reply, status, with_header},
    support::{Engine, again_after, names, to},
};

fn one_attempt() -> SubscriptionOptions {
    SubscriptionOptions { max_attempts: Some(1), ..again_after(0) }
}

#[tokio::test]
async fn a_failure_comes_again_with_the_same_id_and_a_later_timestamp() {
    let engine = Engine::start(again_after(1_200)).await;
    let mut receiver =
        Receiver::start(|number, _| if number == 0 { status(500, "not now") } else { status(200, "") }).await;
    engine.push(receiver.url()).await;
    engine.publish(&[(Some("k"), 1)]).await;
    let (first, second) = (receiver.next().await, receiver.next().await);
    let ((id, time), (again, later)) = (first.id_and_time(), second.id_and_time());
    assert!(id == again && later > time, "{first:?} {second:?}");
    assert_ne!(first.header("webhook-signature"), second.header("webhook-signature"));
    assert_eq!(first.body, second.body);
    let info = engine.until_done().await;
    let push = info.push.unwrap();
    assert_eq!((push.delivered, push.failed, info.redelivered), (1, 1, 1));
    assert_eq!(push.last_failure.unwrap().message, "status 500: not now");
    engine.stop().await;
}

#[tokio::test]
async fn what_fails_in_every_attempt_becomes_a_dead_letter_with_status_and_body() {
    let options = SubscriptionOptions { max_attempts: Some(3), ..again_after(0) };
    let engine = Engine::start(options).await;
    let body = format!("no room\n{}", "x".repeat(500));
    let mut receiver = Receiver::start(move |_, _| status(507, &body)).await;
    engine.push(receiver.url()).await;
    engine.publish(&[(Some("k"), 1)]).await;
    receiver.take(3).await;
    let (reason, error, attempts) = engine.dead_letter().await;
    assert_eq!((reason.as_str(), attempts), ("push_failed", Some(3)));
    assert_eq!(error, format!("status 507: no room {}", "x".repeat(248)));
    engine.until_done().await;
    assert!(receiver.is_quiet());
    engine.stop().await;
}

#[tokio::test]
async fn one_that_is_gone_pauses_the_subscription_and_nothing_is_lost() {
    let options = SubscriptionOptions { max_attempts: Some(1), ..SubscriptionOptions::default() };
    let engine = Engine::start(options).await;
    let mut receiver =
        Receiver::start(|number, _| if number == 0 { status(410, "closed") } else { status(200, "") }).await;
    engine.push(receiver.url()).await;
    engine.publish(&[(Some("k"), 1), (Some("k"), 2)]).await;
    receiver.next().await;
    let message = "status 410: closed".to_owned();
    let paused = |info: &SubscriptionInfo| !info.state.is_running() && info.consumers.is_empty();
    let info = engine.until(paused).await;
    assert_eq!(info.state, RunState::Paused { reason: PauseReason::Push { message: message.clone() } });
    assert_eq!(info.waiting_for, WaitingFor::Resume { why: message.clone() });
    assert_eq!((info.lag, info.dead_lettered), (2, 0));
    // It is so after a restart, too.
    let engine = engine.restart().await;
    let info = engine.info().await;
    assert_eq!(info.state, RunState::Paused { reason: PauseReason::Push { message } });
    assert_eq!(info.push.unwrap().state, PushState::Idle);
    assert!(receiver.is_quiet());
    let (topic, name) = names();
    engine.ask(Request::ResumeSubscription { topic, name }).await;
    let numbers: Vec<u64> = receiver.take(2).await.iter().map(|got| got.number()).collect();
    assert_eq!(numbers, [1, 2]);
    let info = engine.until_done().await;
    assert_eq!((info.dead_lettered, info.state), (0, RunState::Running));
    engine.stop().await;
}

#[tokio::test]
async fn a_pause_that_the_receiver_asks_for_is_kept_and_counts_no_attempt() {
    for code in [429, 503] {
        let engine = Engine::start(one_attempt()).await;
        let mut receiver = Receiver::start(move |number, _| match number {
            0 => with_header(code, "retry-after: 1", "busy"),
            _ => status(200, ""),
        })
        .await;
        engine.push(receiver.url()).await;
        engine.publish(&[(Some("k"), 1)]).await;
        receiver.next().await;
        let asked = Instant::now();
        let push =
            engine.until(|info| info.push.as_ref().is_some_and(|push| push.failed == 1)).await.push.unwrap();
        assert_eq!(push.state, PushState::Throttled);
        assert!(push.last_failure.unwrap().message.contains("asked for a pause of 1 s"));
        // What comes meanwhile waits, too.
        engine.publish(&[(Some("other"), 2)]).await;
        let both = receiver.take(2).await;
        assert!(asked.elapsed() >= Duration::from_millis(900), "{:?}", asked.elapsed());
        let mut numbers: Vec<u64> = both.iter().map(|got| got.number()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2]);
        let info = engine.until_done().await;
        assert_eq!((info.dead_lettered, info.redelivered), (0, 0), "it was one attempt");
        engine.stop().await;
    }
}

#[tokio::test]
async fn a_pause_longer_than_the_timeout_of_acknowledgements_keeps_the_delivery() {
    let options = SubscriptionOptions { ack_timeout_ms: Some(150), ..one_attempt() };
    let engine = Engine::start(options).await;
    let mut receiver = Receiver::start(|number, _| match number {
        0 => with_header(429, "retry-after: 1", ""),
        _ => status(200, ""),
    })
    .await;
    engine.push(receiver.url()).await;
    engine.publish(&[(None, 1)]).await;
    receiver.take(2).await;
    let info = engine.until_done().await;
    assert_eq!((info.dead_lettered, info.redelivered), (0, 0));
    assert!(receiver.is_quiet());
    engine.stop().await;
}

#[tokio::test]
async fn a_pause_holds_for_the_consumer_that_comes_after_another_setting() {
    let engine = Engine::start(one_attempt()).await;
    let mut receiver = Receiver::start(|_, _| with_header(429, "retry-after: 3600", "")).await;
    engine.push(receiver.url()).await;
    engine.publish(&[(Some("a"), 1)]).await;
    receiver.next().await;
    engine.until(|info| info.push.as_ref().is_some_and(|push| push.state == PushState::Throttled)).await;
    // For another bound a consumer begins anew, and gets what is there.
    engine.set(SetPush { max_in_flight: Some(7), ..to(None) }).await;
    engine.publish(&[(Some("b"), 2)]).await;
    let info = engine.until(|info| info.in_flight == 2 && info.consumers.len() == 1).await;
    assert_eq!(info.push.unwrap().max_in_flight, 7);
    assert!(receiver.is_quiet(), "it asked for an hour");
    engine.stop().await;
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let engine = Engine::start(one_attempt()).await;
    let mut elsewhere = Receiver::start(|_, _| status(200, "")).await;
    let location = format!("location: {}", elsewhere.url());
    let mut receiver = Receiver::start(move |_, _| with_header(307, &location, "")).await;
    engine.push(receiver.url()).await;
    engine.publish(&[(None, 1)]).await;
    receiver.next().await;
    let (reason, error, _) = engine.dead_letter().await;
    assert_eq!(reason, "push_failed");
    assert!(error.starts_with("status 307") && error.contains("not followed"), "{error}");
    assert!(elsewhere.is_quiet());
    engine.stop().await;
}

#[tokio::test]
async fn one_that_does_not_respond_in_time_has_failed() {
    let engine = Engine::start(one_attempt()).await;
    let mut receiver = Receiver::start(|_, _| Reply::Nothing).await;
    engine.set(SetPush { timeout_ms: Some(150), ..to(Some(receiver.url())) }).await;
    engine.publish(&[(None, 1)]).await;
    receiver.next().await;
    let (reason, error, _) = engine.dead_letter().await;
    assert_eq!((reason.as_str(), error.as_str()), ("push_failed", "no response within 150 ms"));
    engine.stop().await;
}

#[tokio::test]
async fn one_that_is_not_there_or_hangs_up_has_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let engine = Engine::start(one_attempt()).await;
    engine.push(nobody).await;
    engine.publish(&[(None, 1)]).await;
    let (reason, error, _) = engine.dead_letter().await;
    assert!(reason == "push_failed" && error.contains("no connection to 127.0.0.1:"), "{error}");
    engine.stop().await;

    let engine = Engine::start(one_attempt()).await;
    let receiver = Receiver::start(|_, _| Reply::HangUp).await;
    engine.push(receiver.url()).await;
    engine.publish(&[(None, 1)]).await;
    let (reason, error, _) = engine.dead_letter().await;
    assert!(reason == "push_failed" && error.contains("the connection broke"), "{error}");
    engine.stop().await;
}

#[tokio::test]
async fn an_engine_that_starts_again_goes_on_where_it_was() {
    let engine = Engine::start(again_after(0)).await;
    let mut receiver = Receiver::start(|_, _| status(200, "")).await;
    engine.push(receiver.url()).await;
    engine.publish(&[(Some("k"), 1), (Some("k"), 2)]).await;
    receiver.take(2).await;
    let engine = engine.restart().await;
    engine.publish(&[(Some("k"), 3)]).await;
    let third = receiver.next().await;
    assert_eq!(third.number(), 3, "what was taken before does not come again");
    let push = engine.until_done().await.push.unwrap();
    assert_eq!((push.url, push.delivered), (receiver.url(), 1));
    engine.stop().await;
}

#[tokio::test]
async fn what_a_receiver_wants_does_not_hold_for_the_one_after_it() {
    for wants in [status(410, "gone"), with_header(429, "retry-after: 3600", "")] {
        let engine = Engine::start(again_after(0)).await;
        let gate = Arc::new(Semaphore::new(0));
        let (held, reply) = (Arc::clone(&gate), wants.clone());
        let mut first =
            Receiver::start(move |_, _| Reply::Held(Arc::clone(&held), Box::new(reply.clone()))).await;
        let mut second = Receiver::start(|_, _| status(200, "")).await;
        engine.push(first.url()).await;
        engine.publish(&[(Some("a"), 1)]).await;
        assert_eq!(first.next().await.number(), 1);
        engine.set(to(Some(second.url()))).await;
        engine.publish(&[(Some("b"), 2)]).await;
        assert_eq!(second.next().await.number(), 2, "the push goes elsewhere by now");
        gate.add_permits(1);
        assert_eq!(second.next().await.number(), 1, "{wants:?}");
        let info = engine.until_done().await;
        assert_eq!(info.state, RunState::Running, "{wants:?}");
        engine.stop().await;
    }
}

#[tokio::test]
async fn what_was_taken_beside_a_410_is_acknowledged() {
    let engine = Engine::start(again_after(0)).await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let mut receiver = Receiver::start(move |number, got| {
        let reply = if got.number() == 2 && number < 2 { status(410, "gone") } else { status(200, "") };
        if number < 2 { Reply::Held(Arc::clone(&held), Box::new(reply)) } else { reply }
    })
    .await;
    engine.push(receiver.url()).await;
    engine.publish(&[(Some("a"), 1), (Some("b"), 2)]).await;
    receiver.take(2).await;
    gate.add_permits(2);
    engine.until(|info| matches!(info.state, RunState::Paused { .. }) && info.consumers.is_empty()).await;
    let (topic, name) = names();
    engine.ask(Request::ResumeSubscription { topic, name }).await;
    assert_eq!(receiver.next().await.number(), 2);
    engine.until_done().await;
    assert!(receiver.is_quiet(), "what was taken does not come again");
    engine.stop().await;
}

#[tokio::test]
async fn a_push_goes_elsewhere_when_its_url_changes_and_ends_when_it_is_removed() {
    let engine = Engine::start(again_after(0)).await;
    let mut first = Receiver::start(|_, _| status(200, "")).await;
    let mut second = Receiver::start(|_, _| status(200, "")).await;
    engine.push(first.url()).await;
    engine.publish(&[(None, 1)]).await;
    first.next().await;
    engine.set(SetPush { max_in_flight: Some(1), ..to(Some(second.url())) }).await;
    engine.until(|info| info.push.as_ref().is_some_and(|push| push.max_in_flight == 1)).await;
    engine.publish(&[(None, 2)]).await;
    assert_eq!(second.next().await.number(), 2);
    engine.until_done().await;
    let (topic, name) = names();
    let remove = || Request::RemovePush { topic: topic.clone(), name: name.clone() };
    assert_eq!(engine.ask(remove()).await, Response::Done);
    engine.until(|info| info.push.is_none() && info.consumers.is_empty()).await;
    engine.publish(&[(None, 3)]).await;
    assert_eq!(engine.info().await.lag, 1);
    assert_eq!(engine.try_ask(remove()).await.unwrap_err().code(), ErrorCode::PushNotFound);
    assert!(first.is_quiet() && second.is_quiet());
    // It goes with its subscription.
    engine.push(second.url()).await;
    assert_eq!(second.next().await.number(), 3);
    let (force, with_dead_letters) = (true, false);
    let (topic, name) = names();
    engine
        .ask(Request::DeleteSubscription {
            topic: topic.clone(),
            name: name.clone(),
            force,
            with_dead_letters,
        })
        .await;
    engine
        .ask(Request::CreateSubscription {
            topic,
            name,
            options: SubscriptionOptions::default(),
            from: levada_protocol::request::Start::Earliest,
        })
        .await;
    assert_eq!(engine.info().await.push, None);
    engine.stop().await;
}
