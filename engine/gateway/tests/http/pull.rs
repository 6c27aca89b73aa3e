//! Pulling and settling: what comes, how often, to whom, and what is said of a token.

use std::{sync::Arc, time::Duration};

use levada_broker::Principal;
use levada_protocol::request::{
    Order, Request, Response, Start, SubscriptionInfo, SubscriptionOptions, TopicSettings,
};
use levada_store::MemoryStore;
use serde_json::{Value, json};
use tokio::{
    task::yield_now,
    time::{Instant, timeout},
};

use crate::{
    office::Office,
    support::{Answer, Engine, SOON, against, on},
};

const PATH: &str = "/v1/topics/orders/subscriptions/payment";

fn options() -> SubscriptionOptions {
    SubscriptionOptions { backoff_ms: Some(Vec::new()), ..SubscriptionOptions::default() }
}

impl Engine {
    /// Makes the subscription `payment` of `orders`, from the earliest event on.
    async fn subscription(&self, options: SubscriptionOptions) {
        let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
        let request = Request::CreateSubscription { topic, name, options, from: Start::Earliest };
        self.broker.request(&Principal::Local, request, None).await.unwrap();
    }

    async fn described(&self) -> SubscriptionInfo {
        self.described_by(&Principal::Local).await
    }

    async fn described_by(&self, principal: &Principal) -> SubscriptionInfo {
        let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
        let request = Request::DescribeSubscription { topic, name };
        match self.broker.request(principal, request, None).await.unwrap() {
            Response::Subscription(info) => *info,
            other => panic!("{other:?}"),
        }
    }

    async fn post(&self, verb: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.send(&format!("POST {PATH}/{verb}"), &json, body.to_string().as_bytes()).await
    }

    async fn pull(&self, body: Value) -> Vec<Value> {
        let answer = self.post("pull", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json().as_array().unwrap().clone()
    }

    /// Says something of tokens; returns the outcomes.
    async fn say(&self, verb: &str, body: Value) -> Vec<String> {
        let answer = self.post(verb, &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let word = |it: &Value| match &it["code"] {
            Value::String(code) => {
                assert_eq!(it["outcome"], "refused");
                assert!(it["detail"].is_string());
                code.clone()
            }
            _ => it["outcome"].as_str().unwrap().to_owned(),
        };
        answer.json().as_array().unwrap().iter().map(word).collect()
    }

    async fn ack(&self, pulled: &[Value]) -> Vec<String> {
        self.say("ack", json!({"tokens": tokens(pulled)})).await
    }

    /// Publishes events of these keys to `orders`, with their number as payload.
    async fn publish_keys(&self, keys: &[&str]) {
        let lines: String = keys
            .iter()
            .enumerate()
            .map(|(at, key)| format!("{{\"key\":\"{key}\",\"payload\":{at}}}\n"))
            .collect();
        let answer = self.publish(&[("content-type", "application/x-ndjson")], lines).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

fn tokens(pulled: &[Value]) -> Vec<&str> {
    pulled.iter().map(|it| it["token"].as_str().unwrap()).collect()
}

fn payloads(pulled: &[Value]) -> Vec<u64> {
    pulled.iter().map(|it| it["event"]["payload"].as_u64().unwrap()).collect()
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !is_so().await {
        assert!(Instant::now() < end, "{what}");
        yield_now().await;
    }
}

#[tokio::test]
async fn pulled_events_come_once_and_not_again_once_acknowledged() {
    against(2, async |engine| {
        engine.subscription(options()).await;
        assert_eq!(engine.pull(json!({"wait": "0s"})).await, Vec::<Value>::new());
        engine.publish_keys(&["a", "b", "c", "d"]).await;
        let mut pulled = engine.pull(json!({"max": 3})).await;
        assert_eq!(pulled.len(), 3);
        until("the fourth comes", async || {
            pulled.extend(engine.pull(json!({"wait": "0s"})).await);
            pulled.len() == 4
        })
        .await;
        let mut all = payloads(&pulled);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
        let first = &pulled[0];
        assert_eq!(first["attempt"], 1);
        assert_eq!(first["event"]["topic"], "orders");
        assert_eq!(first["event"]["partition"], first["partition"]);
        assert_eq!(first["event"]["offset"], first["offset"]);
        assert!(first["event"]["delivery"].is_null(), "{first}");
        assert_eq!(engine.ack(&pulled).await, ["done"; 4]);
        // The response came after the commit.
        let info = engine.described().await;
        assert_eq!((info.lag, info.in_flight), (0, 0));
        assert_eq!(engine.ack(&pulled).await, ["DELIVERY_EXPIRED"; 4], "they are settled");
        until("nobody is left", async || engine.described().await.consumers.is_empty()).await;
        assert!(engine.described().await.unattended_since_ms.is_some());
    })
    .await;
}

#[tokio::test]
async fn what_was_pulled_stays_out_without_a_connection_until_its_timeout_and_extending_prolongs_it() {
    against(1, async |engine| {
        let options = SubscriptionOptions { ack_timeout_ms: Some(1_500), ..options() };
        engine.subscription(options).await;
        engine.publish_keys(&["a"]).await;
        let begun = Instant::now();
        let pulled = engine.pull(json!({})).await;
        assert_eq!(engine.pull(json!({"wait": "900ms"})).await.len(), 0, "it is out");
        assert_eq!(engine.say("extend", json!({"tokens": tokens(&pulled)})).await, ["done"]);
        let mut again = Vec::new();
        until("it comes again", async || {
            again = engine.pull(json!({"wait": "500ms"})).await;
            !again.is_empty()
        })
        .await;
        assert!(begun.elapsed() >= Duration::from_millis(2_200), "{:?}", begun.elapsed());
        assert_eq!(again[0]["attempt"], 2);
        assert_eq!(engine.ack(&pulled).await, ["DELIVERY_EXPIRED"], "the first token is late");
        let both = json!({"tokens": [tokens(&pulled)[0], tokens(&again)[0], tokens(&again)[0]]});
        assert_eq!(
            engine.say("ack", both).await,
            ["DELIVERY_EXPIRED", "done", "done"],
            "one that is late does not matter to others, and one that is named twice counts once"
        );
        assert_eq!(engine.described().await.lag, 0);
    })
    .await;
}

#[tokio::test]
async fn what_is_given_back_comes_again_after_its_delay_and_what_is_rejected_does_not() {
    against(1, async |engine| {
        engine.subscription(options()).await;
        engine.publish_keys(&["a", "b"]).await;
        let pulled = engine.pull(json!({"max": 2})).await;
        assert_eq!(pulled.len(), 2);
        let reject = json!({"tokens": [pulled[1]["token"]], "reason": "no such customer"});
        assert_eq!(engine.say("reject", reject).await, ["done"]);
        let both = engine.say("extend", json!({"tokens": tokens(&pulled)})).await;
        assert_eq!(
            both,
            ["done", "DELIVERY_EXPIRED"],
            "one is settled, and the other of the same pull is out"
        );
        let begun = Instant::now();
        let nack = json!({"tokens": [pulled[0]["token"]], "delay": "600ms"});
        assert_eq!(engine.say("nack", nack).await, ["done"]);
        assert_eq!(engine.ack(&pulled).await, ["DELIVERY_EXPIRED"; 2]);
        let again = engine.pull(json!({"wait": "5s"})).await;
        assert!(begun.elapsed() >= Duration::from_millis(590), "{:?}", begun.elapsed());
        assert_eq!((payloads(&again), &again[0]["attempt"]), (vec![0], &json!(2)));
        assert_eq!(engine.say("nack", json!({"tokens": tokens(&again)})).await, ["done"]);
        let again = engine.pull(json!({"wait": "5s"})).await;
        assert_eq!((payloads(&again), &again[0]["attempt"]), (vec![0], &json!(3)), "without a delay at once");
        assert_eq!(engine.ack(&again).await, ["done"]);
        let info = engine.described().await;
        assert_eq!((info.lag, info.dead_lettered), (0, 1));
        let dead = engine.get("/v1/topics/dlq.orders.payment/events").await;
        assert!(String::from_utf8_lossy(&dead.body).contains("no such customer"), "{dead:?}");
    })
    .await;
}

#[tokio::test]
async fn a_pull_waits_for_events_and_two_pullers_share_them() {
    against(4, async |engine| {
        engine.subscription(SubscriptionOptions { order: Some(Order::None), ..options() }).await;
        let (pulled, ()) = tokio::join!(engine.pull(json!({"wait": "8s", "max": 1})), async {
            until("it waits", async || !engine.described().await.consumers.is_empty()).await;
            engine.publish_keys(&["first"]).await;
        });
        assert_eq!(payloads(&pulled), [0]);
        assert_eq!(engine.ack(&pulled).await, ["done"]);
        let keys: Vec<String> = (0..40).map(|at| format!("k{at}")).collect();
        engine.publish_keys(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let worker = async || {
            let mut got = Vec::new();
            loop {
                let pulled = engine.pull(json!({"max": 5, "wait": "300ms"})).await;
                if pulled.is_empty() {
                    return got;
                }
                assert!(pulled.len() <= 5, "{}", pulled.len());
                assert!(engine.ack(&pulled).await.iter().all(|outcome| outcome == "done"));
                got.extend(payloads(&pulled));
            }
        };
        let (one, other) = tokio::join!(worker(), worker());
        assert!(!one.is_empty() && !other.is_empty(), "{one:?} {other:?}");
        let mut all = [one, other].concat();
        all.sort_unstable();
        assert_eq!(all, (0..40).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn the_events_of_a_key_are_with_one_pull_at_a_time_and_in_order() {
    against(1, async |engine| {
        engine.subscription(options()).await;
        engine.publish_keys(&["a", "a", "b", "a", "b"]).await;
        let first = engine.pull(json!({"max": 1})).await;
        assert_eq!(payloads(&first), [0]);
        let others = engine.pull(json!({"max": 10, "wait": "3s"})).await;
        assert_eq!(payloads(&others), [2, 4], "those of a wait for the first of a");
        assert_eq!(engine.pull(json!({"wait": "200ms"})).await.len(), 0);
        assert_eq!(engine.ack(&first).await, ["done"]);
        let next = engine.pull(json!({"max": 10, "wait": "3s"})).await;
        assert_eq!(payloads(&next), [1, 3]);
        assert_eq!(engine.ack(&next).await, ["done"; 2]);
        assert_eq!(engine.ack(&others).await, ["done"; 2]);
    })
    .await;
}

#[tokio::test]
async fn max_and_max_bytes_hold_and_one_event_comes_however_large() {
    against(1, async |engine| {
        engine.subscription(SubscriptionOptions { order: Some(Order::None), ..options() }).await;
        for _ in 0..4 {
            assert_eq!(engine.publish(&[], "x".repeat(200_000)).await.status, 200);
        }
        let pulled = engine.pull(json!({"max_bytes": 1})).await;
        assert_eq!(pulled.len(), 1);
        let more = engine.pull(json!({"max_bytes": 200_001})).await;
        assert!((1..=2).contains(&more.len()), "{}", more.len());
        let mut rest = Vec::new();
        until("the rest comes", async || {
            rest.extend(engine.pull(json!({"max": 1_000, "format": "cloudevents"})).await);
            pulled.len() + more.len() + rest.len() == 4
        })
        .await;
        let event = &rest[0]["event"];
        assert_eq!(
            (&event["specversion"], &event["type"]),
            (&json!("1.0"), &json!("levada.event")),
            "{event}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_while_it_waits_takes_nothing_along() {
    against(1, async |engine| {
        engine.subscription(options()).await;
        let gone = timeout(Duration::from_millis(300), engine.pull(json!({"wait": "8s"}))).await;
        assert!(gone.is_err(), "it waits");
        until("it is gone", async || engine.described().await.consumers.is_empty()).await;
        engine.publish_keys(&["a"]).await;
        let pulled = engine.pull(json!({})).await;
        assert_eq!((payloads(&pulled), &pulled[0]["attempt"]), (vec![0], &json!(1)));
    })
    .await;
}

#[tokio::test]
async fn tokens_of_an_engine_before_its_restart_are_late_and_what_was_out_comes_again() {
    let (store, dir) = (Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap());
    let mut before = Vec::new();
    on(dir.path(), Arc::clone(&store), async |engine| {
        engine.topic("orders", TopicSettings::default()).await;
        engine.subscription(options()).await;
        engine.publish_keys(&["a", "b"]).await;
        before = engine.pull(json!({"max": 2})).await;
        assert_eq!(engine.ack(&before[..1]).await, ["done"]);
    })
    .await;
    store.crash();
    on(dir.path(), store, async |engine| {
        let again = engine.pull(json!({"wait": "5s"})).await;
        assert_eq!(payloads(&again), [1], "what was acknowledged does not come again");
        assert_eq!(engine.ack(&before).await, ["DELIVERY_EXPIRED"; 2]);
        assert_eq!(engine.ack(&again).await, ["done"]);
    })
    .await;
}

#[tokio::test]
async fn a_subscription_is_absent_for_who_may_not_subscribe_and_shared_among_who_may() {
    against(1, async |engine| {
        engine.subscription(options()).await;
        engine.publish_keys(&["a"]).await;
        let office = Office::open(&engine).await;
        let shop = office.token("shop", &["subscribe orders/payment"]).await;
        let other = office.token("other", &["subscribe orders/others", "publish orders"]).await;
        let viewer = office.token("viewer", &["browse **", "read orders", "manage orders/**"]).await;
        let mate = office.token("mate", &["subscribe orders/*"]).await;
        let pulled = office.send(&format!("POST {PATH}/pull"), &shop, &json!({})).await.json();
        let tokens = json!({"tokens": [pulled[0]["token"]]});
        for verb in ["pull", "ack", "nack", "reject", "extend"] {
            let body = if verb == "pull" { json!({}) } else { tokens.clone() };
            let absent = "/v1/topics/orders/subscriptions/absent";
            let denied = office.send(&format!("POST {PATH}/{verb}"), &other, &body).await;
            let none = office.send(&format!("POST {absent}/{verb}"), &other, &body).await;
            assert_eq!((denied.status, none.status), (404, 404), "{verb}");
            assert_eq!(denied.code(), none.code(), "{verb}");
            let detail =
                |answer: &Answer| answer.json()["detail"].as_str().unwrap().replace("absent", "payment");
            assert_eq!(detail(&denied), detail(&none), "{verb}");
            let seen = office.send(&format!("POST {PATH}/{verb}"), &viewer, &body).await;
            assert_eq!((seen.status, seen.code().as_str()), (403, "PERMISSION_DENIED"), "{verb}");
        }
        let done = office.send(&format!("POST {PATH}/ack"), &mate, &tokens).await;
        assert_eq!(
            (done.status, &done.json()[0]["outcome"]),
            (200, &json!("done")),
            "whoever may subscribe may settle"
        );
    })
    .await;
}

#[tokio::test]
async fn a_token_settles_nothing_of_another_subscription() {
    against(1, async |engine| {
        engine.subscription(options()).await;
        engine.publish_keys(&["a"]).await;
        let other = "/v1/topics/orders/subscriptions/other";
        assert_eq!(engine.send(&format!("PUT {other}?from=earliest"), &[], b"").await.status, 201);
        let pulled = engine.pull(json!({})).await;
        let tokens = json!({"tokens": tokens(&pulled)}).to_string();
        let json = [("content-type", "application/json")];
        let elsewhere = engine.send(&format!("POST {other}/ack"), &json, tokens.as_bytes()).await;
        assert_eq!(elsewhere.json()[0]["code"], "DELIVERY_EXPIRED");
        assert_eq!(engine.ack(&pulled).await, ["done"]);
    })
    .await;
}

#[tokio::test]
async fn a_revocation_ends_a_pull_that_waits_and_gives_back_what_was_pulled_within_a_second() {
    against(1, async |engine| {
        engine.subscription(options()).await;
        engine.publish_keys(&["a"]).await;
        let office = Office::open(&engine).await;
        let shop = office.token("shop", &["subscribe orders/*"]).await;
        let mate = office.token("mate", &["subscribe orders/*"]).await;
        let path = format!("POST {PATH}/pull");
        let pulled = office.send(&path, &shop, &json!({})).await.json();
        assert_eq!(pulled[0]["attempt"], 1);
        let waiting = json!({"wait": "8s"});
        let (refused, revoked) = tokio::join!(office.send(&path, &shop, &waiting), async {
            let waits = async || engine.described_by(&office.admin).await.consumers.len() == 2;
            until("it waits beside what was pulled", waits).await;
            office.revoke(&shop).await;
            Instant::now()
        });
        assert_eq!((refused.status, refused.code().as_str()), (401, "UNAUTHENTICATED"));
        let again = office.send(&path, &mate, &json!({"wait": "5s"})).await.json();
        assert!(revoked.elapsed() < Duration::from_secs(1), "{:?}", revoked.elapsed());
        assert_eq!(again[0]["event"]["payload"], 0, "{again}");
        let late =
            office.send(&format!("POST {PATH}/ack"), &mate, &json!({"tokens": [pulled[0]["token"]]})).await;
        assert_eq!(late.json()[0]["code"], "DELIVERY_EXPIRED");
    })
    .await;
}

#[tokio::test]
async fn bad_requests_are_refused_with_what_was_expected() {
    against(1, async |engine| {
        engine.subscription(options()).await;
        let json = [("content-type", "application/json")];
        let good = "AQAAAAAAAAABAAIAAAAAAAAAAwAAAAAAAAAE";
        let many = json!({"tokens": vec![good; 4_097]}).to_string();
        let long = json!({"tokens": [good], "reason": "x".repeat(1_025)}).to_string();
        for (verb, body, status, code) in [
            ("pull", "{", 400, "MALFORMED"),
            ("pull", "[]", 400, "INVALID_ARGUMENT"),
            ("pull", "{\"maximum\":1}", 400, "INVALID_ARGUMENT"),
            ("pull", "{\"max\":0}", 400, "INVALID_ARGUMENT"),
            ("pull", "{\"max\":1001}", 400, "INVALID_ARGUMENT"),
            ("pull", "{\"max\":-1}", 400, "INVALID_ARGUMENT"),
            ("pull", "{\"max_bytes\":0}", 400, "INVALID_ARGUMENT"),
            ("pull", "{\"max_bytes\":1048577}", 400, "INVALID_ARGUMENT"),
            ("pull", "{\"wait\":\"61s\"}", 400, "INVALID_ARGUMENT"),
            ("pull", "{\"wait\":\"soon\"}", 400, "INVALID_ARGUMENT"),
            ("pull", "{\"wait\":5}", 400, "INVALID_ARGUMENT"),
            ("pull", "{\"format\":\"xml\"}", 400, "INVALID_ARGUMENT"),
            ("pull", "{} {}", 400, "MALFORMED"),
            ("ack", "{}", 400, "INVALID_ARGUMENT"),
            ("ack", "", 400, "INVALID_ARGUMENT"),
            ("ack", "{\"tokens\":[]}", 400, "INVALID_ARGUMENT"),
            ("ack", "{\"tokens\":[\"x\"]}", 400, "INVALID_ARGUMENT"),
            ("ack", "{\"tokens\":[1]}", 400, "INVALID_ARGUMENT"),
            ("ack", &many, 400, "INVALID_ARGUMENT"),
            ("extend", "{\"tokens\":[\"\"],\"delay\":\"1s\"}", 400, "INVALID_ARGUMENT"),
            ("nack", &format!("{{\"tokens\":[\"{good}\"],\"delay\":\"later\"}}"), 400, "INVALID_ARGUMENT"),
            ("nack", &format!("{{\"tokens\":[\"{good}\"],\"delay\":\"50days\"}}"), 400, "INVALID_ARGUMENT"),
            ("reject", &long, 400, "INVALID_ARGUMENT"),
        ] {
            let answer = engine.send(&format!("POST {PATH}/{verb}"), &json, body.as_bytes()).await;
            let shown: String = body.chars().take(80).collect();
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (status, code),
                "{verb} {shown}: {}",
                answer.json()
            );
        }
        let answer = engine.post("ack", &json!({"tokens": [good, "wrong"]})).await;
        assert_eq!((answer.status, &answer.json()["index"]), (400, &json!(1)));
        assert_eq!(engine.say("ack", json!({"tokens": [good]})).await, ["DELIVERY_EXPIRED"], "of no pull");
        let form = engine.send(&format!("POST {PATH}/pull"), &[("content-type", "text/plain")], b"{}").await;
        assert_eq!((form.status, form.code().as_str()), (415, "INVALID_ARGUMENT"));
        let bad = engine.send("POST /v1/topics/orders/subscriptions/No%20Name/pull", &json, b"{}").await;
        assert_eq!((bad.status, bad.code().as_str()), (400, "INVALID_NAME"));
        assert_eq!(
            engine.send(&format!("POST {PATH}/pull"), &[], b"").await.status,
            200,
            "no body is no wish"
        );
    })
    .await;
}

#[tokio::test]
async fn so_many_pulls_of_a_subscription_may_be_out_and_no_more() {
    against(1, async |engine| {
        engine.subscription(SubscriptionOptions { order: Some(Order::None), ..options() }).await;
        let lines = "{\"payload\":1}\n".repeat(520);
        assert_eq!(engine.publish(&[("content-type", "application/x-ndjson")], lines).await.status, 200);
        let mut pulled = Vec::new();
        for _ in 0..512 {
            pulled.extend(engine.pull(json!({"max": 1})).await);
        }
        assert_eq!(pulled.len(), 512);
        let over = engine.post("pull", &json!({"max": 1})).await;
        assert_eq!((over.status, over.code().as_str()), (429, "LIMIT_EXCEEDED"));
        assert_eq!(over.header("retry-after"), Some("1"));
        assert!(engine.ack(&pulled).await.iter().all(|outcome| outcome == "done"));
        until("there is room again", async || engine.post("pull", &json!({"max": 1})).await.status == 200)
            .await;
    })
    .await;
}
