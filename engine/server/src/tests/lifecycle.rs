//! Start and shutdown: what is in the way, what clients hear, and that the next start finds everything.

use levada_protocol::{
    error::ErrorCode,
    frame::{self, FrameType},
    ids::TopicName,
    request::{Notice, Open, Opened, Read, Request, Subscribe, SubscriptionOptions},
};
use tokio::{sync::oneshot, time::Duration};

use super::{against, client, config, with};
use crate::{ServerConfig, run};

async fn refused(config: ServerConfig) -> crate::Error {
    run(config, None, async {}, |_| panic!("the server must not start")).await.unwrap_err()
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    against(config(&dir), async |server| {
        for config in [
            with(config(&other), |config| config.listen.address = server.quic),
            with(config(&other), |config| config.http.address = server.http),
        ] {
            let taken = if config.listen.address.port() == 0 { server.http } else { server.quic };
            let error = refused(config).await;
            assert_eq!(error.code(), ErrorCode::AddressInUse);
            assert!(error.to_string().contains(&taken.to_string()), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_data_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |_| {
        assert_eq!(refused(config(&dir)).await.code(), ErrorCode::StorageInUse);
    })
    .await;
}

#[tokio::test]
async fn an_address_for_others_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| config.listen.address = ([0, 0, 0, 0], 0).into());
    assert_eq!(refused(config).await.code(), ErrorCode::ConfigInvalid);
}

#[tokio::test]
async fn a_connection_too_many_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| config.listen.connections_max = 1);
    against(config, async |server| {
        let (first, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let second = client::connect(server.quic, &server.ca_pem_path).await;
        assert!(matches!(second, Err(quinn::ConnectionError::ConnectionClosed(_))), "{second:?}");
        // There is room again once the server has noticed that the first is gone.
        first.close(0_u32.into(), b"");
        while client::connect(server.quic, &server.ca_pem_path).await.is_err() {}
    })
    .await;
}

#[tokio::test]
async fn a_client_of_another_ca_does_not_connect() {
    let (dir, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let foreign_ca = against(config(&foreign), async |server| server.ca_pem_path).await;
    against(config(&dir), async |server| {
        let connected = client::connect(server.quic, &foreign_ca).await;
        assert!(matches!(connected, Err(quinn::ConnectionError::TransportError(_))), "{connected:?}");
    })
    .await;
}

#[tokio::test]
async fn sessions_are_told_before_they_are_ended() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| config.listen.shutdown_grace = Duration::from_millis(500));
    let (connection, mut control) =
        against(config, async |server| client::greet(server.quic, &server.ca_pem_path).await).await;
    let (kind, payload) = control.frame().await.unwrap();
    assert_eq!(kind, FrameType::Notice);
    assert!(matches!(frame::read_message(&payload), Ok(Notice::GoAway { .. })));
    assert_eq!(client::closed_with(&connection).await, ErrorCode::ShuttingDown);
}

#[tokio::test]
async fn idle_clients_are_told_and_closed_without_the_grace() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| config.listen.shutdown_grace = Duration::from_secs(60));
    let streams = async |server: crate::Started| {
        let (connection, control) = client::greet(server.quic, &server.ca_pem_path).await;
        let settings = levada_protocol::request::TopicSettings::default();
        client::request(&connection, Request::CreateTopic { name: "orders".parse().unwrap(), settings })
            .await;
        let topic: TopicName = "orders".parse().unwrap();
        let subscribe = Subscribe {
            options: Some(SubscriptionOptions::default()),
            ..Subscribe::new(topic.clone(), "payment".parse().unwrap())
        };
        let read = Read { follow: true, ..Read::new(topic.clone()) };
        let mut streams = Vec::new();
        for open in [Open::Publish { topic, trace: None }, Open::Subscribe(subscribe), Open::Read(read)] {
            let mut stream = client::ClientStream::open(&connection, &open).await;
            stream.answer().await.unwrap();
            streams.push(stream);
        }
        (connection, control, streams)
    };
    let stopping = std::time::Instant::now();
    let (connection, mut control, open) = against(config, streams).await;
    assert!(stopping.elapsed() < Duration::from_secs(30));
    for mut stream in open {
        assert_eq!(stream.answer().await.unwrap_err().code, ErrorCode::ShuttingDown);
    }
    assert_eq!(control.frame().await.unwrap().0, FrameType::Notice);
    assert_eq!(client::closed_with(&connection).await, ErrorCode::ShuttingDown);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_notices_is_served_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| config.listen.shutdown_grace = Duration::from_secs(60));
    let (stop, stopped) = oneshot::channel();
    let (start, started) = oneshot::channel();
    let server = run(config, None, async { stopped.await.unwrap() }, |reached| start.send(reached).unwrap());
    let test = async {
        let server = started.await.unwrap();
        // Less than the notice that the engine goes away: it is never written whole.
        let (connection, control) = client::greet_with_window(server.quic, &server.ca_pem_path, 32).await;
        let (other, mut heard) = client::greet(server.quic, &server.ca_pem_path).await;
        stop.send(()).unwrap();
        assert_eq!(heard.frame().await.unwrap().0, FrameType::Notice);
        for _ in 0..3 {
            let open = Open::Publish { topic: "orders".parse().unwrap(), trace: None };
            let mut stream = client::ClientStream::open(&connection, &open).await;
            assert_eq!(stream.answer().await.unwrap_err().code, ErrorCode::ShuttingDown);
        }
        drop(control);
        [connection, other].iter().for_each(|connection| connection.close(0_u32.into(), b""));
    };
    tokio::join!(Box::pin(server), test).0.unwrap();
}

#[tokio::test]
async fn a_restart_is_the_same_engine_under_another_start() {
    let dir = tempfile::tempdir().unwrap();
    let ids = async || {
        against(config(&dir), async |server| {
            let connection = client::connect(server.quic, &server.ca_pem_path).await.unwrap();
            let mut control = client::ClientStream::open(&connection, &client::hello()).await;
            let Ok(Opened::Hello(answer)) = control.answer().await else { panic!("expected the answer") };
            (answer.engine_id, answer.start_id)
        })
        .await
    };
    let (first, second) = (ids().await, ids().await);
    assert_eq!(first.0, second.0);
    assert_ne!(first.1, second.1);
}
