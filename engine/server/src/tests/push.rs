//! Pushes as a part of the whole engine: they begin with it, follow what is set, are counted, and end with it.

use levada_protocol::{
    error::ErrorCode,
    request::{Request, Response, SetPush, Start, SubscriptionOptions, TopicSettings},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Duration, timeout},
};

use super::{against, client, config, with};
use crate::run;

const SOON: Duration = Duration::from_secs(20);

/// Sends a request and reads the whole response.
async fn http(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn publish(address: std::net::SocketAddr, body: &str) {
    let length = body.len();
    let request = format!(
        "POST /v1/topics/orders/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let answer = http(address, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Takes one request, and returns it.
async fn receive(receiver: &TcpListener) -> String {
    let taking = async {
        let (mut stream, _) = receiver.accept().await.unwrap();
        let mut request = Vec::new();
        // The event's last member is its data, and the body ends with it.
        while !request.ends_with(b"\"}") {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0, "{request:?}");
        }
        let response = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
        stream.write_all(response).await.unwrap();
        String::from_utf8(request).unwrap()
    };
    timeout(SOON, taking).await.expect("an event is pushed")
}

#[tokio::test]
async fn an_engine_pushes_what_was_set_counts_it_and_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks", receiver.local_addr().unwrap());
    let config = || {
        with(config(&dir), |config| {
            config.push.allow = vec!["127.0.0.0/8".to_owned()];
            config.listen.shutdown_grace = SOON;
        })
    };
    against(config(), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let (topic, name) = (|| "orders".parse().unwrap(), || "payment".parse().unwrap());
        let settings = TopicSettings::default();
        client::request(&connection, Request::CreateTopic { name: topic(), settings }).await;
        let options = SubscriptionOptions::default();
        let create =
            Request::CreateSubscription { topic: topic(), name: name(), options, from: Start::Earliest };
        client::request(&connection, create).await;
        let private = SetPush::new(topic(), name(), Some("https://10.0.0.1/".to_owned()));
        match client::request(&connection, Request::SetPush(private)).await {
            Response::Refused(refusal) => assert_eq!(refusal.code, ErrorCode::PushRefused),
            other => panic!("{other:?}"),
        }
        let set =
            client::request(&connection, Request::SetPush(SetPush::new(topic(), name(), Some(url)))).await;
        assert!(matches!(set, Response::Push(ref issued) if issued.secret.is_some()), "{set:?}");
        publish(server.http, "first").await;
        let request = receive(&receiver).await;
        assert!(
            request.starts_with("POST /hooks HTTP/1.1\r\n") && request.ends_with("\"first\"}"),
            "{request}"
        );
        let counted = "levada_push_requests_total{subscription=\"orders/payment\",outcome=\"delivered\"} 1";
        let page =
            || http(server.http, "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let counting = async {
            while !page().await.contains(counted) {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, counting).await.expect("it is counted");
        connection.close(0_u32.into(), b"");
    })
    .await;
    against(config(), async |server| {
        publish(server.http, "second").await;
        let request = receive(&receiver).await;
        assert!(request.ends_with("\"second\"}"), "the first does not come again: {request}");
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_the_settings_of_pushes_keeps_an_engine_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let refused = async |config| {
        let refused = run(config, None, async {}, |_| panic!("the server must not start")).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::ConfigInvalid);
        refused.to_string()
    };
    let said = refused(with(config(&dir), |config| config.push.allow = vec!["intranet".to_owned()])).await;
    assert!(said.starts_with("push.allow is intranet, expected networks such as 10.0.0.0/8"), "{said}");
    let absent = dir.path().join("absent.pem");
    let said = refused(with(config(&dir), |config| config.push.ca = Some(absent))).await;
    assert!(said.starts_with("push.ca ") && said.contains("cannot be read"), "{said}");
}
