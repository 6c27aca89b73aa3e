//! Where an engine does not push to: refused when the push is set, as far as the URL says it, and always when a connection is made.

use levada_protocol::{
    error::ErrorCode,
    request::{Request, SetPush, SubscriptionOptions},
};

use crate::{
    receiver::{Receiver, status},
    support::{Engine, Setup, again_after, to},
};

/// No network is named.
fn nothing_named() -> Setup {
    Setup { allow: Vec::new(), ca: None }
}

#[tokio::test]
async fn a_url_that_names_a_private_address_cannot_be_set() {
    let engine = Engine::with(nothing_named(), SubscriptionOptions::default()).await;
    for url in [
        "http://shop.example/",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]:8443/",
        "https://[::ffff:10.0.0.1]/",
        "https://me@shop.example/",
        "shop.example",
    ] {
        let refused = engine.try_ask(Request::SetPush(to(Some(url.to_owned())))).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::PushRefused, "{url}");
        assert!(refused.to_string().contains("expected"), "{refused}");
    }
    assert_eq!(engine.info().await.push, None);
    for (set, what) in [
        (SetPush { timeout_ms: Some(1), ..to(Some("https://a.example".to_owned())) }, "timeout_ms is 1"),
        (
            SetPush { max_in_flight: Some(0), ..to(Some("https://a.example".to_owned())) },
            "max_in_flight is 0",
        ),
        (to(None), "expected its url"),
        (to(Some(format!("https://a.example/{}", "x".repeat(3_000)))), "at most 2048"),
    ] {
        let refused = engine.try_ask(Request::SetPush(set)).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidArgument, "{what}");
        assert!(refused.to_string().contains(what), "{refused}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_not_connected_to_and_costs_no_attempt() {
    let options = SubscriptionOptions { max_attempts: Some(1), ..again_after(0) };
    let engine = Engine::with(nothing_named(), options).await;
    let mut receiver = Receiver::start(|_, _| status(200, "")).await;
    // Numbers that a resolver takes for an address are names here.
    engine.push(format!("https://localhost:{}/", receiver.address.port())).await;
    engine.publish(&[(None, 1)]).await;
    let error = engine.failure().await;
    assert!(error.starts_with("PUSH_REFUSED: \"localhost\" is at "), "{error}");
    assert!(error.contains("is not an address of the public internet"), "{error}");
    assert!(receiver.is_quiet());
    let info = engine.info().await;
    assert_eq!(
        (info.in_flight, info.dead_lettered),
        (1, 0),
        "what is wrong with an address is no fault of an event"
    );
    engine.stop().await;
}

#[tokio::test]
async fn http_to_a_name_is_checked_when_it_is_connected_to() {
    // The name may be at ::1 as well, which is left out where it is not allowed.
    for allow in [vec!["127.0.0.0/8", "::1"], vec!["127.0.0.0/8"]] {
        let engine = Engine::with(Setup { allow, ca: None }, again_after(0)).await;
        let mut receiver = Receiver::start(|_, _| status(200, "")).await;
        engine.push(format!("http://localhost:{}/", receiver.address.port())).await;
        engine.publish(&[(None, 1)]).await;
        assert_eq!(receiver.next().await.number(), 1);
        engine.until_done().await;
        engine.stop().await;
    }
}
