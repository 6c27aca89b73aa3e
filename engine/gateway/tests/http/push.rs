//! Where a subscription is pushed, set by HTTP.

use std::sync::Arc;

use levada_broker::{Principal, PushUrls};
use levada_protocol::request::{Request, Start, SubscriptionOptions};

use crate::support::{Engine, with_broker};

const PATH: &str = "/v1/topics/orders/subscriptions/payment/push";

/// Takes what begins with `https://`.
#[derive(Debug)]
struct Https;

impl PushUrls for Https {
    fn check(&self, url: &str) -> Result<(), String> {
        if url.starts_with("https://") { Ok(()) } else { Err("expected https".to_owned()) }
    }
}

async fn against_pushes(body: impl AsyncFnOnce(Engine)) {
    with_broker(
        |config| config.push_urls = Some(Arc::new(Https)),
        async |engine: Engine| {
            let request = Request::CreateSubscription {
                topic: "orders".parse().unwrap(),
                name: "payment".parse().unwrap(),
                options: SubscriptionOptions::default(),
                from: Start::Latest,
            };
            engine.broker.request(&Principal::Local, request, None).await.unwrap();
            body(engine).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_push_is_set_described_changed_and_removed_and_its_secret_shown_once() {
    against_pushes(async |engine| {
        let put = async |body: &str| engine.send(&format!("PUT {PATH}"), &[], body.as_bytes()).await;
        let set = put(r#"{"url":"https://shop.example/hooks","timeout":"5s"}"#).await;
        let first = set.json();
        assert_eq!(
            (set.status, &first["timeout_ms"], &first["max_in_flight"]),
            (200, &5_000.into(), &32.into())
        );
        let secret = first["secret"].as_str().unwrap();
        assert!(secret.starts_with("whsec_"), "{first}");
        let described = engine.get(PATH).await.json();
        assert_eq!(described["url"], "https://shop.example/hooks");
        assert!(described.get("secret").is_none() && described["state"] == "idle", "{described}");
        let rotated = put(r#"{"new_secret":true,"previous_for":"1h","max_in_flight":4}"#).await.json();
        assert!(rotated["secret"] != first["secret"] && rotated["previous_until_ms"].is_u64(), "{rotated}");
        assert_eq!((&rotated["max_in_flight"], &rotated["timeout_ms"]), (&4.into(), &5_000.into()));
        assert_eq!(set.header("cache-control"), Some("no-store"), "nobody keeps a secret");
        let early = put(r#"{"new_secret":true}"#).await;
        assert_eq!(
            (early.status, early.code().as_str()),
            (429, "LIMIT_EXCEEDED"),
            "the secret before still signs"
        );
        let given = put(&format!(r#"{{"secret":"{secret}","previous_for":"0s"}}"#)).await;
        let body = given.json();
        assert!(given.status == 200 && body.get("secret").is_none(), "{body}");
        assert!(body.get("previous_until_ms").is_none(), "{body}");
        let removed = engine.send(&format!("DELETE {PATH}"), &[], b"").await;
        assert_eq!((removed.status, removed.json()["removed"].as_bool()), (200, Some(true)));
        for answer in [engine.get(PATH).await, engine.send(&format!("DELETE {PATH}"), &[], b"").await] {
            assert_eq!((answer.status, answer.code().as_str()), (404, "PUSH_NOT_FOUND"));
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_push_is_said() {
    against_pushes(async |engine| {
        for (path, body, status, code) in [
            (PATH, r#"{"url":"http://shop.example/"}"#, 400, "PUSH_REFUSED"),
            (PATH, r#"{"timeout":"5s"}"#, 400, "INVALID_ARGUMENT"),
            (PATH, r#"{"url":"https://a","timeout":"1ms"}"#, 400, "INVALID_ARGUMENT"),
            (PATH, r#"{"url":"https://a","timeout":"soon"}"#, 400, "INVALID_ARGUMENT"),
            (PATH, r#"{"url":"https://a","secret":"whsec_QQ=="}"#, 400, "INVALID_ARGUMENT"),
            (PATH, r#"{"url":"https://a","urls":[]}"#, 400, "INVALID_ARGUMENT"),
            (PATH, "", 400, "INVALID_ARGUMENT"),
            (
                "/v1/topics/orders/subscriptions/absent/push",
                r#"{"url":"https://a"}"#,
                404,
                "SUBSCRIPTION_NOT_FOUND",
            ),
            (
                "/v1/topics/absent/subscriptions/payment/push",
                r#"{"url":"https://a"}"#,
                404,
                "TOPIC_NOT_FOUND",
            ),
            ("/v1/topics/orders/subscriptions/Big/push", r#"{"url":"https://a"}"#, 400, "INVALID_NAME"),
        ] {
            let answer = engine.send(&format!("PUT {path}"), &[], body.as_bytes()).await;
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path} {body}");
        }
        assert_eq!(engine.get(PATH).await.code(), "PUSH_NOT_FOUND");
    })
    .await;
}
