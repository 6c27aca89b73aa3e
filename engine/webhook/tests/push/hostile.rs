//! Receivers that would take an engine's memory or time.

use levada_protocol::request::{SetPush, SubscriptionOptions};

use crate::{
    receiver::{Receiver, Reply, status},
    support::{Engine, again_after, to},
};

async fn against(hostile: Reply, timeout_ms: u32) -> String {
    let engine = Engine::start(SubscriptionOptions { max_attempts: Some(1), ..again_after(0) }).await;
    let mut receiver =
        Receiver::start(move |number, _| if number == 0 { hostile.clone() } else { status(200, "") }).await;
    engine.set(SetPush { timeout_ms: Some(timeout_ms), ..to(Some(receiver.url())) }).await;
    engine.publish(&[(None, 1)]).await;
    receiver.next().await;
    let (reason, error, _) = engine.dead_letter().await;
    assert_eq!(reason, "push_failed");
    // The next event is none the worse for it, over another connection.
    engine.publish(&[(None, 2)]).await;
    let next = receiver.next().await;
    assert_eq!((next.number(), next.connection), (2, 1));
    engine.until_done().await;
    engine.stop().await;
    error
}

#[tokio::test]
async fn a_body_without_end_is_read_as_far_as_it_is_kept() {
    let head = b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let piece = format!("1000\r\n{}\r\n", "y".repeat(0x1000)).into_bytes();
    let error = against(Reply::Endless(head, piece), 15_000).await;
    assert_eq!(error, format!("status 500: {}", "y".repeat(256)));
}

#[tokio::test]
async fn headers_without_end_are_cut_off() {
    let head = b"HTTP/1.1 200 OK\r\n".to_vec();
    let error = against(Reply::Endless(head, b"x-more: and more\r\n".to_vec()), 15_000).await;
    assert!(error.contains("the connection broke before a response"), "{error}");
}

#[tokio::test]
async fn one_header_without_end_is_cut_off() {
    let error = against(Reply::Endless(b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 4_096]), 15_000).await;
    assert!(error.contains("the connection broke before a response"), "{error}");
}

#[tokio::test]
async fn a_head_that_does_not_end_is_waited_for_no_longer_than_the_timeout() {
    let error = against(Reply::Bytes(b"HTTP/1.1 200 OK\r\nx-a: b\r\n".to_vec()), 200).await;
    assert_eq!(error, "no response within 200 ms");
}

#[tokio::test]
async fn what_is_no_http_is_a_failure() {
    let error = against(Reply::Bytes(b"220 mail.example ESMTP\r\n".to_vec()), 15_000).await;
    assert!(error.contains("the connection broke before a response"), "{error}");
}

#[tokio::test]
async fn a_success_whose_body_never_comes_is_a_success() {
    let engine = Engine::start(again_after(0)).await;
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n".to_vec();
    let mut receiver = Receiver::start(move |_, _| Reply::Bytes(head.clone())).await;
    engine.set(SetPush { timeout_ms: Some(200), ..to(Some(receiver.url())) }).await;
    engine.publish(&[(None, 1)]).await;
    receiver.next().await;
    let push = engine.until_done().await.push.unwrap();
    assert_eq!((push.delivered, push.failed), (1, 0));
    engine.stop().await;
}
