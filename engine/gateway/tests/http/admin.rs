//! Administration: what is shown, made, changed and deleted, and who may do it.

use levada_broker::Principal;
use levada_protocol::request::{Request, Response};
use serde_json::{Value, json};

use crate::{
    office::Office,
    support::{Answer, Engine, against},
};

const JSON: (&str, &str) = ("content-type", "application/json");
const SUBSCRIPTION: &str = "/v1/topics/orders/subscriptions/payment";

impl Engine {
    /// Sends JSON; nothing for null.
    async fn json(&self, line: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(line, &[JSON], body.as_bytes()).await
    }

    /// Sends JSON and expects a status; returns the body.
    async fn done(&self, status: u16, line: &str, body: &Value) -> Value {
        let answer = self.json(line, body).await;
        assert_eq!(answer.status, status, "{line} {body}: {answer:?}");
        answer.json()
    }

    async fn refused(&self, line: &str, body: &Value) -> (u16, String) {
        let answer = self.json(line, body).await;
        (answer.status, answer.code())
    }
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_topic_is_made_once_then_changed_and_shown_as_the_engine_describes_it() {
    against(2, async |engine| {
        let settings = json!({"partitions": 3, "retain_for_ms": 60_000});
        let made = engine.done(201, "PUT /v1/topics/bills", &settings).await;
        assert_eq!((&made["name"], &made["created"]), (&json!("bills"), &json!(true)));
        assert_eq!(made["settings"]["partitions"], 3);
        let again = engine.done(200, "PUT /v1/topics/bills", &settings).await;
        assert_eq!((&again["created"], &again["settings"]), (&json!(false), &made["settings"]));
        let changed = engine
            .done(200, "PUT /v1/topics/bills", &json!({"max_bytes": 9_000_000, "retain": "time_and_size"}))
            .await;
        assert_eq!(changed["settings"]["retain_for_ms"], 60_000, "what is not given stays");
        assert_eq!(changed["settings"]["max_bytes"], 9_000_000);
        assert_eq!(engine.refused("PUT /v1/topics/bills", &json!({"partitions": 4})).await.0, 400);
        let shown = engine.done(200, "GET /v1/topics/bills", &Value::Null).await;
        let request = Request::DescribeTopic { name: "bills".parse().unwrap() };
        let Response::Topic(described) =
            engine.broker.request(&Principal::Local, request, None).await.unwrap()
        else {
            panic!("no topic")
        };
        assert_eq!(shown, serde_json::to_value(&described).unwrap());
        let list = engine.done(200, "GET /v1/topics", &Value::Null).await;
        assert!(names(&list).contains(&"bills") && names(&list).contains(&"orders"), "{list}");
        let gone = engine.done(200, "DELETE /v1/topics/bills", &Value::Null).await;
        assert_eq!((&gone["deleted"], &gone["topics"]), (&json!("bills"), &json!(["bills"])));
        for line in ["GET /v1/topics/bills", "DELETE /v1/topics/bills"] {
            assert_eq!(engine.refused(line, &Value::Null).await, refusal(404, "TOPIC_NOT_FOUND"), "{line}");
        }
        assert_eq!(engine.refused("PUT /v1/topics/dlq.a.b", &json!({})).await.0, 400, "the engine's own");
    })
    .await;
}

#[tokio::test]
async fn lists_come_in_pages_that_hold_everything_once() {
    against(1, async |engine| {
        for name in ["a", "b", "c"] {
            engine.done(201, &format!("PUT /v1/topics/{name}"), &json!({})).await;
            engine.done(201, &format!("PUT /v1/topics/orders/subscriptions/{name}"), &json!({})).await;
        }
        for (path, expected) in [
            ("/v1/topics", &["a", "b", "c", "orders"][..]),
            ("/v1/topics/orders/subscriptions", &["a", "b", "c"]),
        ] {
            let (mut found, mut after) = (Vec::new(), String::new());
            loop {
                let page = engine.get(&format!("{path}?limit=2{after}")).await;
                assert_eq!(page.status, 200, "{page:?}");
                assert!(page.json().as_array().unwrap().len() <= 2);
                found.extend(names(&page.json()).iter().map(ToString::to_string));
                match page.header("levada-next") {
                    Some(next) => after = format!("&after={}", next.replace('/', "%2F")),
                    None => break,
                }
            }
            let own: Vec<&String> = found.iter().filter(|name| !name.starts_with('_')).collect();
            assert_eq!(own, expected, "{path}");
        }
        assert_eq!(engine.get("/v1/topics?limit=x").await.code(), "INVALID_ARGUMENT");
        assert_eq!(engine.get("/v1/topics?page=2").await.code(), "INVALID_ARGUMENT");
    })
    .await;
}

#[tokio::test]
async fn a_subscription_is_made_changed_paused_moved_and_deleted() {
    against(1, async |engine| {
        let line = "{\"payload\":1}\n".repeat(3);
        assert_eq!(engine.publish(&[("content-type", "application/x-ndjson")], line).await.status, 200);
        let put = format!("PUT {SUBSCRIPTION}?from=earliest");
        let made = engine.done(201, &put, &json!({"max_attempts": 5})).await;
        assert_eq!(
            (&made["created"], &made["lag"], &made["options"]["max_attempts"]),
            (&json!(true), &json!(3), &json!(5))
        );
        let again = engine.done(200, &put, &json!({"max_attempts": 5})).await;
        assert_eq!((&again["created"], &again["options"]), (&json!(false), &made["options"]));
        let changed = engine.done(200, &put, &json!({"rate": 100})).await;
        assert_eq!(
            (&changed["options"]["rate"], &changed["options"]["max_attempts"]),
            (&json!(100), &json!(5))
        );
        let state =
            async || engine.done(200, &format!("GET {SUBSCRIPTION}"), &Value::Null).await["state"].clone();
        for _ in 0..2 {
            assert_eq!(engine.json(&format!("POST {SUBSCRIPTION}/pause"), &Value::Null).await.status, 204);
            assert_eq!(state().await["kind"], "paused");
        }
        let pull = format!("POST {SUBSCRIPTION}/pull");
        assert_eq!(engine.done(200, &pull, &json!({"wait": "100ms"})).await, json!([]));
        assert_eq!(engine.json(&format!("POST {SUBSCRIPTION}/resume"), &Value::Null).await.status, 204);
        let pulled = engine.done(200, &pull, &json!({"wait": "5s"})).await;
        assert_eq!(pulled.as_array().unwrap().len(), 3);
        let delete = format!("DELETE {SUBSCRIPTION}");
        assert_eq!(
            engine.refused(&delete, &Value::Null).await,
            refusal(409, "SUBSCRIPTION_IN_USE"),
            "a pull is out"
        );
        let seek = format!("POST {SUBSCRIPTION}/seek");
        let moved = engine.done(200, &seek, &json!({"to": "2", "partitions": [0]})).await;
        assert_eq!(moved["positions"], json!([{"partition": 0, "offset": 2}]));
        let tokens = json!({"tokens": [pulled[0]["token"]]});
        let late = engine.done(200, &format!("POST {SUBSCRIPTION}/ack"), &tokens).await;
        assert_eq!(late[0]["code"], "DELIVERY_EXPIRED", "the move has taken it back");
        assert_eq!(engine.done(200, &seek, &json!({"to": "earliest"})).await["lag"], 3);
        let gone = engine.done(200, &format!("{delete}?force=true"), &Value::Null).await;
        assert_eq!(
            (&gone["deleted"], &gone["subscriptions"]),
            (&json!("orders/payment"), &json!(["orders/payment"]))
        );
        for (line, body) in [
            (delete.as_str(), Value::Null),
            (&format!("GET {SUBSCRIPTION}"), Value::Null),
            (&format!("POST {SUBSCRIPTION}/pause"), Value::Null),
            (&format!("POST {SUBSCRIPTION}/resume"), Value::Null),
            (&seek, json!({"to": "latest"})),
            (&pull, json!({})),
        ] {
            assert_eq!(engine.refused(line, &body).await, refusal(404, "SUBSCRIPTION_NOT_FOUND"), "{line}");
        }
    })
    .await;
}

#[tokio::test]
async fn dead_letters_go_back_to_their_subscription() {
    against(1, async |engine| {
        engine.done(201, &format!("PUT {SUBSCRIPTION}"), &json!({})).await;
        let redrive = format!("POST {SUBSCRIPTION}/dead-letters/redrive");
        assert_eq!(engine.publish(&[], "one").await.status, 200);
        let pull = format!("POST {SUBSCRIPTION}/pull");
        let pulled = engine.done(200, &pull, &json!({"wait": "5s"})).await;
        let reject = json!({"tokens": [pulled[0]["token"]]});
        assert_eq!(
            engine.done(200, &format!("POST {SUBSCRIPTION}/reject"), &reject).await[0]["outcome"],
            "done"
        );
        let all = json!({"select": {"kind": "all"}});
        let redriven = engine.done(200, &redrive, &all).await;
        assert_eq!(
            (&redriven["outcomes"][0]["kind"], &redriven["stretch"]["next"]),
            (&json!("redriven"), &Value::Null)
        );
        let named = json!({"select": {"kind": "offsets", "offsets": [0, 7]}, "topic": "dlq.orders.payment"});
        let again = engine.done(200, &redrive, &named).await;
        assert_eq!(again["outcomes"][0]["kind"], "already_redriven");
        assert!(!again["outcomes"][1]["refusal"]["code"].is_null(), "{again}");
        let back = engine.done(200, &pull, &json!({"wait": "5s"})).await;
        assert_eq!((&back[0]["event"]["payload_text"], &back[0]["offset"]), (&json!("one"), &json!(0)));
        let ack = json!({"tokens": [back[0]["token"]]});
        assert_eq!(engine.done(200, &format!("POST {SUBSCRIPTION}/ack"), &ack).await[0]["outcome"], "done");
        for body in [
            json!({}),
            json!({"select": {"kind": "all"}, "topic": "dlq.orders.others"}),
            json!({"select": {"kind": "where", "condition": "(("}}),
            json!({"select": {"kind": "all"}, "all": true}),
        ] {
            assert_eq!(engine.refused(&redrive, &body).await.0, 400, "{body}");
        }
        let some = json!({"select": {"kind": "some"}});
        assert_eq!(engine.refused(&redrive, &some).await, refusal(404, "UNSUPPORTED"));
    })
    .await;
}

#[tokio::test]
async fn a_route_is_made_once_and_another_of_its_name_is_refused() {
    against(1, async |engine| {
        engine.done(201, "PUT /v1/topics/copies", &json!({})).await;
        let spec = json!({"from": "orders", "to": ["copies"]});
        let made = engine.done(201, "PUT /v1/routes/copy", &spec).await;
        assert_eq!((&made["spec"]["name"], &made["created"]), (&json!("copy"), &json!(true)));
        let named = json!({"name": "copy", "from": "orders", "to": ["copies"], "start": {"at": "earliest"}});
        assert_eq!(engine.done(200, "PUT /v1/routes/copy", &named).await["created"], false);
        let other = json!({"from": "copies", "to": ["orders"]});
        assert_eq!(engine.refused("PUT /v1/routes/copy", &other).await, refusal(409, "ROUTE_EXISTS"));
        assert_eq!(engine.refused("PUT /v1/routes/other", &named).await, refusal(400, "INVALID_ARGUMENT"));
        let typo =
            json!({"from": "orders", "to": ["copies"], "chain": [{"plugin": "p", "configuration": "{}"}]});
        let refused = engine.json("PUT /v1/routes/typo", &typo).await;
        assert!(refused.json()["detail"].as_str().unwrap().contains("chain.0.configuration"), "{refused:?}");
        let list = engine.done(200, "GET /v1/routes", &Value::Null).await;
        assert_eq!(list[0]["spec"]["name"], "copy");
        assert_eq!(engine.done(200, "GET /v1/routes/copy", &Value::Null).await["spec"], made["spec"]);
        assert_eq!(engine.done(200, "DELETE /v1/routes/copy", &Value::Null).await["routes"], json!(["copy"]));
        for line in ["GET /v1/routes/copy", "DELETE /v1/routes/copy"] {
            assert_eq!(engine.refused(line, &Value::Null).await, refusal(404, "ROUTE_NOT_FOUND"), "{line}");
        }
    })
    .await;
}

#[tokio::test]
async fn plugins_are_deployed_and_removed_as_the_engine_says() {
    against(1, async |engine| {
        let deployed = engine.send("POST /v1/plugins?name=echo", &[], b"component").await;
        assert_eq!((deployed.status, &deployed.json()["deployed"]), (201, &json!(true)), "{deployed:?}");
        assert_eq!((&deployed.json()["name"], &deployed.json()["version"]), (&json!("echo"), &json!(1)));
        let again = engine.send("POST /v1/plugins?name=echo", &[], b"component").await;
        assert_eq!((again.status, &again.json()["deployed"]), (200, &json!(false)));
        let next = engine.send("POST /v1/plugins?name=echo", &[], b"another").await;
        assert_eq!((next.status, &next.json()["version"]), (201, &json!(2)));
        assert_eq!(engine.send("POST /v1/plugins?name=echo2", &[], b"third").await.status, 201);
        assert_eq!(names(&engine.done(200, "GET /v1/plugins", &Value::Null).await), ["echo", "echo", "echo2"]);
        assert_eq!(names(&engine.done(200, "GET /v1/plugins/echo", &Value::Null).await), ["echo", "echo"]);
        let gone = engine.done(200, "DELETE /v1/plugins/echo?version=1", &Value::Null).await;
        assert_eq!((&gone["deleted"], &gone["plugins"]), (&json!("echo@1"), &json!(["echo@1"])));
        assert_eq!(engine.done(200, "DELETE /v1/plugins/echo", &Value::Null).await["plugins"], json!(["echo@2"]));
        for line in ["GET /v1/plugins/echo", "DELETE /v1/plugins/echo"] {
            assert_eq!(engine.refused(line, &Value::Null).await, refusal(404, "PLUGIN_NOT_FOUND"), "{line}");
        }
        let broken = engine.send("POST /v1/plugins?name=broken", &[], b"broken").await;
        assert_eq!((broken.status, broken.code().as_str()), (400, "PLUGIN_INVALID"));
        assert_eq!(engine.send("POST /v1/plugins", &[], b"x").await.code(), "INVALID_ARGUMENT");
        assert_eq!(engine.send("POST /v1/plugins?name=No%20Name", &[], b"x").await.code(), "INVALID_NAME");
        let head = "POST /v1/plugins?name=large HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 67108865\r\n\r\n";
        let large = engine.raw(head.as_bytes()).await;
        assert_eq!((large.status, large.code().as_str()), (413, "PLUGIN_TOO_LARGE"));
    })
    .await;
}

#[tokio::test]
async fn bad_bodies_are_refused_and_change_nothing() {
    against(1, async |engine| {
        engine.done(201, &format!("PUT {SUBSCRIPTION}"), &json!({})).await;
        let seek = format!("POST {SUBSCRIPTION}/seek");
        let put = format!("PUT {SUBSCRIPTION}");
        for (line, body, expected) in [
            ("PUT /v1/topics/new", json!({"partition": 1}), "INVALID_ARGUMENT"),
            ("PUT /v1/topics/new", json!({"partitions": "many"}), "INVALID_ARGUMENT"),
            ("PUT /v1/topics/new", json!({"partitions": 0}), "INVALID_ARGUMENT"),
            ("PUT /v1/topics/new", json!([]), "INVALID_ARGUMENT"),
            ("PUT /v1/topics/No%20Name", json!({}), "INVALID_NAME"),
            (&put, json!({"order": "sideways"}), "INVALID_ARGUMENT"),
            (&put, json!({"ack_timeout": "5s"}), "INVALID_ARGUMENT"),
            (&put, json!({"ack_timeout_ms": 1}), "INVALID_ARGUMENT"),
            ("PUT /v1/topics/orders/subscriptions/new?from=0:1", json!({}), "INVALID_ARGUMENT"),
            ("PUT /v1/topics/orders/subscriptions/new?form=earliest", json!({}), "INVALID_ARGUMENT"),
            (&seek, json!({}), "INVALID_ARGUMENT"),
            (&seek, json!({"to": "yesterday"}), "INVALID_ARGUMENT"),
            (&seek, json!({"to": 5}), "INVALID_ARGUMENT"),
            (&seek, json!({"to": "earliest", "partitions": [70_000]}), "INVALID_ARGUMENT"),
            ("PUT /v1/routes/new", json!({"from": "orders"}), "INVALID_ARGUMENT"),
        ] {
            assert_eq!(engine.refused(line, &body).await, refusal(400, expected), "{line} {body}");
        }
        for line in ["PUT /v1/topics/new", "PUT /v1/routes/new", &seek] {
            let cut = engine.send(line, &[JSON], b"{\"to\":").await;
            assert_eq!((cut.status, cut.code().as_str()), (400, "MALFORMED"), "{line}");
            let text = engine.send(line, &[("content-type", "text/plain")], b"{}").await;
            assert_eq!(text.status, 415, "{line}");
        }
        assert_eq!(engine.refused("GET /v1/topics/new", &Value::Null).await.0, 404);
        assert_eq!(
            engine.refused("PUT /v1/topics/absent/subscriptions/s", &json!({})).await,
            refusal(404, "TOPIC_NOT_FOUND")
        );
    })
    .await;
}

/// Each endpoint of administration, in an order in which a principal who may do everything can call all.
fn calls() -> Vec<(&'static str, Value)> {
    vec![
        ("PUT /v1/topics/bills", json!({})),
        ("GET /v1/topics", Value::Null),
        ("GET /v1/topics/bills", Value::Null),
        ("PUT /v1/topics/bills/subscriptions/books", json!({})),
        ("GET /v1/topics/bills/subscriptions", Value::Null),
        ("GET /v1/topics/bills/subscriptions/books", Value::Null),
        ("POST /v1/topics/bills/subscriptions/books/pause", Value::Null),
        ("POST /v1/topics/bills/subscriptions/books/resume", Value::Null),
        ("POST /v1/topics/bills/subscriptions/books/seek", json!({"to": "latest"})),
        (
            "POST /v1/topics/orders/subscriptions/payment/dead-letters/redrive",
            json!({"select": {"kind": "all"}}),
        ),
        ("POST /v1/topics/bills/subscriptions/books/pull", json!({"wait": "0s"})),
        ("PUT /v1/routes/copy", json!({"from": "orders", "to": ["bills"]})),
        ("GET /v1/routes", Value::Null),
        ("GET /v1/routes/copy", Value::Null),
        ("POST /v1/plugins?name=echo", json!("component")),
        ("GET /v1/plugins", Value::Null),
        ("GET /v1/plugins/echo", Value::Null),
        ("DELETE /v1/plugins/echo", Value::Null),
        ("DELETE /v1/routes/copy", Value::Null),
        ("DELETE /v1/topics/bills/subscriptions/books", Value::Null),
        ("DELETE /v1/topics/bills", Value::Null),
    ]
}

#[tokio::test]
async fn each_permission_allows_its_endpoints_and_no_others() {
    against(1, async |engine| {
        // Something to redrive.
        engine.done(201, &format!("PUT {SUBSCRIPTION}"), &json!({})).await;
        assert_eq!(engine.publish(&[], "one").await.status, 200);
        let pulled = engine.done(200, &format!("POST {SUBSCRIPTION}/pull"), &json!({"wait": "5s"})).await;
        let reject = json!({"tokens": [pulled[0]["token"]]});
        engine.done(200, &format!("POST {SUBSCRIPTION}/reject"), &reject).await;
        let office = Office::open(&engine).await;
        let boss = office.token("owner", &["admin"]).await;
        // What each may do beside the lists, which show what may be browsed.
        let lists = ["GET /v1/topics", "GET /v1/routes", "GET /v1/plugins"];
        let all = ["browse **", "subscribe **", "deploy **", "redrive **", "manage **"];
        let mut tokens = Vec::new();
        for (at, permission) in all.into_iter().enumerate() {
            tokens.push((office.token(&format!("p{at}"), &[permission]).await, permission));
        }
        let maker = office.token("maker", &["manage **", "read orders", "publish bills"]).await;
        for (line, body) in calls() {
            let needed = match line {
                _ if lists.contains(&line) => None,
                _ if line.contains("/pull") => Some("subscribe **"),
                _ if line.contains("redrive") => Some("redrive **"),
                _ if line.starts_with("PUT /v1/routes") => Some("manage, read and publish"),
                _ if line.starts_with("GET") => Some("browse **"),
                _ if line.contains("/plugins") => Some("deploy **"),
                _ => Some("manage **"),
            };
            for (token, permission) in &tokens {
                let is_needed = Some(*permission) == needed;
                // Who may do something with a thing knows that it is there.
                let knows = match line {
                    _ if !line.starts_with("GET") => false,
                    _ if line.contains("/plugins") => *permission != "subscribe **",
                    _ if line.contains("/routes") => !matches!(*permission, "subscribe **" | "deploy **"),
                    _ => *permission != "deploy **",
                };
                if needed.is_some() && (is_needed || knows) {
                    continue;
                }
                let answer = office.send(line, token, &body).await;
                match needed {
                    None => assert_eq!(answer.status, 200, "{line} with {permission}"),
                    Some(_) => {
                        assert!(matches!(answer.status, 403 | 404), "{line} with {permission}: {answer:?}")
                    }
                }
            }
            let token = needed.and_then(|needed| tokens.iter().find(|(_, permission)| *permission == needed));
            // A route moves events for its maker, who must be allowed to do so by hand.
            let other = if needed == Some("manage, read and publish") { &maker } else { &boss };
            let answer = office.send(line, token.map_or(other, |(token, _)| token), &body).await;
            assert!(matches!(answer.status, 200 | 201 | 204), "{line}: {answer:?}");
        }
    })
    .await;
}
