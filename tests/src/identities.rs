//! Identities under load, by the client library: what one principal loses, another does not notice.

use levada_client::{
    ChangePrincipal, Client, CreatePrincipal, ErrorCode, Event, NewToken, Permission, PublisherOptions,
    Quotas, SubscribeOptions, SubscriptionOptions, TopicSettings,
};

use crate::support::{engine::Engine, within};

/// A client with a token of a principal of this name, who may do this. The first one that is made must be an administrator.
async fn principal(engine: &Engine, by: &Client, name: &str, permissions: &[&str]) -> (Client, String) {
    let new = CreatePrincipal {
        name: name.parse().unwrap(),
        permissions: permissions.iter().map(|line| line.parse().unwrap()).collect(),
        certificates: Vec::new(),
        token: Some(NewToken::default()),
        quotas: Quotas::default(),
    };
    let (_, issued) = by.create_principal(new).await.unwrap();
    let issued = issued.unwrap();
    let config = engine.client_config().token(issued.token);
    let client = within("a connection", Client::connect(config)).await.unwrap();
    (client, issued.info.id.to_string())
}

#[tokio::test]
async fn a_revoked_token_ends_its_publisher_and_subscriber_under_load_and_no_others() {
    let engine = Engine::start().await;
    let local = engine.connect().await;
    let (boss, _) = principal(&engine, &local, "boss", &["admin"]).await;
    boss.create_topic("orders", TopicSettings::default()).await.unwrap();
    let lines = ["publish orders", "subscribe orders"];
    let (shop, token) = principal(&engine, &boss, "shop", &lines).await;
    let (other, _) = principal(&engine, &boss, "other", &lines).await;

    let going = other.publisher("orders", PublisherOptions::default()).await.unwrap();
    let ending = shop.publisher("orders", PublisherOptions::default()).await.unwrap();
    let options = Some(SubscriptionOptions::default());
    let wanted = SubscribeOptions { options, ..SubscribeOptions::new("orders", "of-shop") };
    let mut consumer = shop.subscribe(wanted).await.unwrap();
    let publishing = async {
        let mut acknowledged = 0_u64;
        loop {
            let sent = async { ending.publish(Event::new("x")).await?.await };
            match sent.await {
                Ok(_) => acknowledged += 1,
                Err(error) => break (acknowledged, error),
            }
            if acknowledged == 100 {
                boss.revoke_token(token.parse().unwrap()).await.unwrap();
            }
        }
    };
    let consuming = async {
        loop {
            match consumer.next().await {
                Ok(Some(event)) => event.ack(),
                Ok(None) => panic!("it ends with an error"),
                Err(error) => break error,
            }
        }
    };
    let ended = Box::pin(within("the end of both", async { tokio::join!(publishing, consuming) })).await;
    let ((acknowledged, refused), consumed) = ended;
    assert!(acknowledged >= 100);
    assert_eq!((refused.code(), consumed.code()), (ErrorCode::Unauthenticated, ErrorCode::Unauthenticated));
    for _ in 0..100 {
        going.publish(Event::new("y")).await.unwrap().await.unwrap();
    }
    assert_eq!(shop.info().await.unwrap_err().code(), ErrorCode::Unauthenticated);
}

#[tokio::test]
async fn a_permission_that_is_taken_back_ends_the_publisher_and_one_that_comes_again_lets_another_begin() {
    let engine = Engine::start().await;
    let local = engine.connect().await;
    let (boss, _) = principal(&engine, &local, "boss", &["admin"]).await;
    boss.create_topic("orders", TopicSettings::default()).await.unwrap();
    let (shop, _) = principal(&engine, &boss, "shop", &["publish orders"]).await;
    let publisher = shop.publisher("orders", PublisherOptions::default()).await.unwrap();
    publisher.publish(Event::new("x")).await.unwrap().await.unwrap();
    let line: Permission = "publish orders".parse().unwrap();
    let change = |grant: &[&Permission], revoke: &[&Permission]| ChangePrincipal {
        grant: grant.iter().map(|line| (*line).clone()).collect(),
        revoke: revoke.iter().map(|line| (*line).clone()).collect(),
        ..ChangePrincipal::new("shop".parse().unwrap())
    };
    boss.change_principal(change(&[], &[&line])).await.unwrap();
    let refused = within("the refusal", async {
        loop {
            if let Err(error) = async { publisher.publish(Event::new("x")).await?.await }.await {
                break error;
            }
        }
    })
    .await;
    assert!([ErrorCode::TopicNotFound, ErrorCode::PermissionDenied].contains(&refused.code()), "{refused}");
    boss.change_principal(change(&[&line], &[])).await.unwrap();
    let publisher = shop.publisher("orders", PublisherOptions::default()).await.unwrap();
    publisher.publish(Event::new("x")).await.unwrap().await.unwrap();
}
