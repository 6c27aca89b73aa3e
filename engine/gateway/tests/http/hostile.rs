//! Requests that nobody should send: each is answered or cut off, and others are served.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Engine, SOON, against, with};

async fn still_serves(engine: &Engine) {
    assert_eq!(engine.publish(&[], "x").await.status, 200);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_before_it_is_read() {
    against(1, async |engine| {
        let head = "POST /v1/topics/orders/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 1048577\r\n\r\n";
        let answer = engine.raw(head.as_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), (413, "EVENT_TOO_LARGE"));
        let over = engine.publish(&[], vec![b'x'; 1024 * 1024]).await;
        assert_eq!((over.status, over.code().as_str()), (413, "EVENT_TOO_LARGE"), "with what an event adds to it");
        still_serves(&engine).await;
    })
    .await;
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    against(1, async |engine| {
        let mut stream = TcpStream::connect(engine.address).await.unwrap();
        let head =
            "POST /v1/topics/orders/events HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
        let mut sent = 0;
        while sent < 200 && matches!(timeout(SOON, stream.write_all(&chunk)).await, Ok(Ok(()))) {
            sent += 1;
        }
        let mut answer = vec![0; 4096];
        let read = timeout(SOON, stream.read(&mut answer)).await.expect("an end");
        assert!(sent < 200 || read.is_ok(), "{sent}");
        if let Ok(len) = read
            && len > 0
        {
            assert!(answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer[..len]));
        }
        still_serves(&engine).await;
    })
    .await;
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_given_up() {
    with(
        1,
        |config| config.body_timeout = Duration::from_millis(50),
        async |engine| {
            let mut stream = TcpStream::connect(engine.address).await.unwrap();
            let head =
                "POST /v1/topics/orders/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf";
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = vec![0; 4096];
            let len = timeout(SOON, stream.read(&mut answer)).await.unwrap().unwrap();
            assert!(
                answer[..len].starts_with(b"HTTP/1.1 408"),
                "{}",
                String::from_utf8_lossy(&answer[..len])
            );
            still_serves(&engine).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_flood_of_headers_is_refused() {
    against(1, async |engine| {
        let many: String = (0..5_000).map(|number| format!("x-{number}: 1\r\n")).collect();
        let long = format!("x-long: {}\r\n", "x".repeat(1024 * 1024));
        for headers in [many, long] {
            let request = format!("POST /v1/topics/orders/events HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: 0\r\n\r\n");
            let answer = engine.raw(request.as_bytes()).await;
            assert_eq!(answer.status, 431, "{}", answer.head);
        }
        still_serves(&engine).await;
    })
    .await;
}

#[tokio::test]
async fn more_headers_than_an_event_may_have_are_refused() {
    against(1, async |engine| {
        let names: Vec<String> = (0..70).map(|number| format!("levada-header-h{number}")).collect();
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        let answer = engine.publish(&headers, "x").await;
        assert_eq!((answer.status, answer.code().as_str()), (413, "EVENT_TOO_LARGE"));
    })
    .await;
}

#[tokio::test]
async fn two_lengths_are_no_second_request() {
    against(1, async |engine| {
        let both = "POST /v1/topics/orders/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\ncontent-length: 60\r\n\r\nabcd";
        assert_eq!(engine.raw(both.as_bytes()).await.status, 400);
        still_serves(&engine).await;
    })
    .await;
}

/// All that comes back until the connection ends, or nothing more does: a request behind a smuggled one is waited for then.
async fn all_of(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut some = [0; 4096];
    while let Ok(Ok(len)) = timeout(SOON, stream.read(&mut some)).await
        && len > 0
    {
        all.extend_from_slice(&some[..len]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn no_request_hides_in_the_body_of_another_however_its_length_is_told() {
    against(1, async |engine| {
        let hidden = "POST /v1/topics/orders/events HTTP/1.1\r\nhost: localhost\r\nlevada-key: hidden\r\ncontent-length: 1\r\n\r\nh";
        let chunked = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
        let length = hidden.len();
        // Each is taken by some servers as a body of one length, and by others as one of another.
        for (headers, body) in [
            (format!("content-length: 0\r\ncontent-length: {length}"), hidden),
            (format!("content-length: 0, {length}"), hidden),
            (format!("content-length: {length}\r\ntransfer-encoding: chunked"), "0\r\n\r\n"),
            ("transfer-encoding: chunked\r\ncontent-length: 0".to_owned(), chunked.as_str()),
            ("transfer-encoding: xchunked".to_owned(), chunked.as_str()),
            ("transfer-encoding: chunked, identity".to_owned(), chunked.as_str()),
            ("transfer-encoding: identity".to_owned(), hidden),
            ("transfer-encoding : chunked\r\ncontent-length: 0".to_owned(), chunked.as_str()),
            ("transfer-encoding:\x0bchunked\r\ncontent-length: 0".to_owned(), chunked.as_str()),
            (" transfer-encoding: chunked\r\ncontent-length: 0".to_owned(), chunked.as_str()),
            ("x: y\n\rtransfer-encoding: chunked\r\ncontent-length: 0".to_owned(), chunked.as_str()),
            (format!("content-length: +{length}"), hidden),
            (format!("content-length: -1\r\nx: {length}"), hidden),
            (format!("content-length: 0x{length:x}"), hidden),
            ("transfer-encoding: chunked".to_owned(), "-1\r\n"),
            ("transfer-encoding: chunked".to_owned(), "ffffffffffffffffff\r\n"),
            ("transfer-encoding: chunked".to_owned(), "0;\n\r\n"),
        ] {
            let head = format!("POST /v1/topics/orders/events HTTP/1.1\r\nhost: localhost\r\nlevada-key: outer\r\n{headers}\r\n\r\n");
            let mut stream = TcpStream::connect(engine.address).await.unwrap();
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let answered = all_of(&mut stream).await;
            let statuses: Vec<&str> = answered.matches("HTTP/1.1 ").collect();
            assert!(statuses.len() <= 1, "{headers:?}: {answered}");
            let stored = engine.get("/v1/topics/orders/events").await;
            assert!(!String::from_utf8_lossy(&stored.body).contains("\"hidden\""), "{headers:?}: {answered}");
        }
        still_serves(&engine).await;
    })
    .await;
}

#[tokio::test]
async fn deep_json_is_stored_as_it_is_and_deep_nonsense_refused() {
    against(1, async |engine| {
        let deep = "[".repeat(200_000) + &"]".repeat(200_000);
        let event = format!(
            "{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\",\"data\":{deep}}}"
        );
        let content = ("content-type", "application/cloudevents+json");
        assert_eq!(engine.publish(&[content], &event).await.status, 200);
        assert_eq!(engine.publish(&[content], "{\"a\":".repeat(100_000)).await.status, 400);
        assert_eq!(
            engine.publish(&[("content-type", "application/x-ndjson")], "[".repeat(100_000)).await.status,
            400
        );
    })
    .await;
}
