//! Connecting, trusting, asking.

use std::time::Duration;

use bytes::Bytes;
use levada_client::{
    Client, ClientConfig, Error, ErrorCode, Notice, Refusal, Request, StageSpec, Start, SubscribeOptions,
    SubscriptionOptions, TopicSettings,
};

use crate::support::{Authority, ENGINE_CLOCK_MS, Engine, Reaction};

#[tokio::test]
async fn asks_and_is_answered_by_name_and_by_address() {
    let engine = Engine::start(1);
    for host in ["127.0.0.1", "localhost"] {
        let config =
            ClientConfig::new(format!("{host}:{}", engine.addr.port())).ca_pem(engine.ca_pem.as_str());
        let client = Client::connect(config).await.unwrap();
        let topic = client.create_topic("orders", TopicSettings::default()).await.unwrap();
        assert_eq!(topic.name, "orders");
        client.close().await;
        assert!(matches!(client.list_topics().await, Err(Error::Closed)));
    }
}

#[tokio::test]
async fn the_engine_s_time_goes_on_from_that_of_its_hello() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let first = client.engine_time().await.unwrap().0;
    let later = client.engine_time().await.unwrap().0;
    assert!(
        (ENGINE_CLOCK_MS..=later).contains(&first) && later < ENGINE_CLOCK_MS + 3_600_000,
        "{first} {later}"
    );
}

#[tokio::test]
async fn an_engine_of_another_ca_is_not_trusted() {
    let engine = Engine::start(1);
    let config = engine.config().ca_pem(Authority::new().pem());
    let error = Client::connect(config).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TlsFailed);
    assert!(error.to_string().contains("ca.pem"), "{error}");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn a_ca_out_of_its_time_is_not_trusted_although_it_has_signed() {
    let authority = Authority::new();
    let engine = Engine::start_at(1, &authority, "127.0.0.1:0".parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("old-ca.pem");
    for (from, until, said) in [
        (2001, 2002, "\" expired on 2002-01-01 00:00 UTC"),
        (3001, 3002, "\" is not valid before 3001-01-01 00:00 UTC"),
    ] {
        std::fs::write(&file, authority.pem_valid(from, until)).unwrap();
        let error = Client::connect(engine.config().ca_file(&file)).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::TlsFailed, "{error}");
        assert!(!error.is_retryable() && error.has_no_side_effects());
        let text = error.to_string();
        for part in [said, "CN=fake CA", "old-ca.pem", "DATA_DIR/tls/ca.pem"] {
            assert!(text.contains(part), "{part:?} is missing in {text:?}");
        }
    }
    assert_eq!(engine.inner.world().connections, 0, "the engine has heard nothing of it");
}

#[tokio::test]
async fn an_expired_ca_beside_a_good_one_is_left_out() {
    let authority = Authority::new();
    let engine = Engine::start_at(1, &authority, "127.0.0.1:0".parse().unwrap());
    let expired = authority.pem_valid(2001, 2002);
    for both in [[expired.clone(), authority.pem()], [authority.pem(), expired.clone()]] {
        Client::connect(engine.config().ca_pem(both.concat())).await.unwrap();
    }
    // The good one is another engine's: what would have fitted is named all the same.
    let config = engine.config().ca_pem([expired, Authority::new().pem()].concat());
    let error = Client::connect(config).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TlsFailed);
    assert!(error.to_string().contains("expired on 2002-01-01"), "{error}");
}

#[tokio::test]
async fn a_ca_file_that_is_replaced_is_in_force_from_the_next_connection_on() {
    let (first, second) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, first.pem()).unwrap();
    let engine = Engine::start_at(1, &first, "127.0.0.1:0".parse().unwrap());
    let addr = engine.addr;
    let client = Client::connect(engine.config().ca_file(&file)).await.unwrap();
    engine.shut_down().await;
    std::fs::write(&file, second.pem()).unwrap();
    let engine = Engine::start_at(1, &second, addr);
    client.list_topics().await.unwrap();
    // A file that is gone leaves a client with what it has read at first.
    engine.shut_down().await;
    std::fs::remove_file(&file).unwrap();
    let _engine = Engine::start_at(1, &first, addr);
    client.list_topics().await.unwrap();
}

#[tokio::test]
async fn a_request_too_large_for_a_frame_is_refused_before_anything_is_sent() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let stage = StageSpec { config: "x".repeat(64 * 1024), ..StageSpec::default() };
    let options = SubscriptionOptions { chain: Some(vec![stage; 8]), ..SubscriptionOptions::default() };
    let subscribe =
        SubscribeOptions { options: Some(options.clone()), ..SubscribeOptions::new("orders", "s") };
    let made = client.create_subscription("orders", "s", options, Start::Latest).await;
    for error in [made.unwrap_err(), client.subscribe(subscribe).await.unwrap_err()] {
        assert_eq!(error.code(), ErrorCode::FrameTooLarge);
        assert!(error.has_no_side_effects() && !error.is_retryable());
        assert!(error.to_string().contains("262144"), "{error}");
    }
    client.list_topics().await.unwrap();
    let world = engine.inner.world();
    assert_eq!((world.requests.len(), world.subscribes.len(), world.connections), (1, 0, 1));
}

#[tokio::test]
async fn a_hello_too_large_for_a_frame_is_refused() {
    let engine = Engine::start(1);
    let error = Client::connect(engine.config().client_name("x".repeat(300_000))).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FrameTooLarge);
}

#[tokio::test]
async fn nobody_there_is_a_failure_to_connect() {
    let engine = Engine::start(1);
    let config = engine.config().connect_timeout(Duration::from_millis(50));
    // A socket that never answers holds the port.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = ClientConfig { addr: silent.local_addr().unwrap().to_string(), ..config };
    let error = Client::connect(config).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ConnectFailed);
    assert!(error.is_retryable() && error.has_no_side_effects());
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused() {
    let engine = Engine::start(1);
    for config in [
        ClientConfig::new("localhost"),
        ClientConfig::new("localhost:port").ca_pem(engine.ca_pem.as_str()),
        engine.config().ca_pem("no certificate"),
        engine.config().ca_file("/does/not/exist.pem"),
    ] {
        let error = Client::connect(config).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::ConfigInvalid, "{error}");
    }
}

#[tokio::test]
async fn a_refusal_reaches_the_caller_with_its_code() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let refusal = Refusal::new(ErrorCode::TopicExists, "topic orders exists");
    engine.inner.change(|world| world.refuse_open.push_back(refusal));
    let error = client.create_topic("orders", TopicSettings::default()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TopicExists);
    assert!(error.has_no_side_effects());
}

#[tokio::test]
async fn an_artefact_travels_in_parts_of_a_mebibyte() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let artefact = Bytes::from(vec![7; 2_500_000]);
    let plugin = client.deploy_plugin("filter", artefact.clone(), None).await.unwrap();
    assert_eq!((plugin.name.as_str(), plugin.version), ("filter", 1));
    let parts = engine.inner.world().artefacts.pop().unwrap();
    assert_eq!(parts.iter().map(Bytes::len).collect::<Vec<_>>(), [1 << 20, 1 << 20, 2_500_000 - (2 << 20)]);
    assert_eq!(parts.concat(), artefact);
}

#[tokio::test]
async fn comes_back_after_the_engine_has_said_goodbye() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let mut notices = client.notices();
    let goodbye = Notice::GoAway { reason: "restart".to_owned() };
    engine.inner.change(|world| world.notices.push_back(goodbye.clone()));
    assert_eq!(notices.recv().await.unwrap(), goodbye);
    client.list_topics().await.unwrap();
    assert_eq!(engine.inner.world().connections, 2);
}

#[tokio::test]
async fn finds_an_engine_that_was_restarted() {
    let authority = Authority::new();
    let engine = Engine::start_at(1, &authority, "127.0.0.1:0".parse().unwrap());
    let addr = engine.addr;
    let client = engine.client().await;
    client.list_topics().await.unwrap();
    engine.shut_down().await;
    let engine = Engine::start_at(1, &authority, addr);
    client.list_topics().await.unwrap();
    assert_eq!(engine.inner.world().requests, [Request::ListTopics { limit: 0, after: None }]);
}

#[tokio::test]
async fn a_publish_and_a_request_share_one_connection() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    engine.inner.change(|world| world.reactions.push_back(Reaction::Append));
    let publisher = client.publisher("orders", Default::default()).await.unwrap();
    publisher.publish(levada_client::Event::new("one")).await.unwrap().await.unwrap();
    client.list_topics().await.unwrap();
    assert_eq!(engine.inner.world().connections, 1);
}

/// Every future can be spawned; checked when this compiles.
#[test]
fn futures_can_move_between_threads() {
    fn sendable<T: Send>(_: impl Fn(&'static Client) -> T) {}
    sendable(|client| async {
        let publisher = client.publisher("orders", Default::default()).await?;
        publisher.publish(levada_client::Event::new("")).await?.await?;
        publisher.flush().await?;
        let mut subscriber = client.subscribe(SubscribeOptions::default()).await?;
        let delivery = subscriber.next().await?;
        subscriber.confirmed().await?;
        let mut reader = client.read(levada_client::ReadOptions::default()).await?;
        drop((delivery, reader.next().await?));
        client.info().await?;
        client.close().await;
        Ok::<(), Error>(())
    });
}

#[tokio::test]
async fn a_port_on_which_nothing_listens_is_told_at_once() {
    let engine = Engine::start(1);
    let config = engine.config().connect_timeout(Duration::from_secs(600));
    engine.shut_down().await;
    let connected = tokio::time::timeout(Duration::from_secs(20), Client::connect(config)).await;
    let error = connected.expect("it does not wait for an answer").unwrap_err();
    assert_eq!(error.code(), ErrorCode::ConnectFailed);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("nothing listens there"), "{cause}");
}

#[tokio::test]
async fn more_streams_than_one_connection_may_have_open_further_connections() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    // This engine allows 100 streams a connection.
    let opened = (0..120).map(|_| client.subscribe(SubscribeOptions::new("orders", "s")));
    let mut subscribers = Vec::new();
    for opened in opened {
        subscribers.push(opened.await.unwrap());
    }
    assert_eq!(engine.inner.world().connections, 2);
    client.list_topics().await.unwrap();
    assert_eq!(engine.inner.world().connections, 2);
    drop(subscribers);
    client.close().await;
    assert!(matches!(client.list_topics().await, Err(Error::Closed)));
}
