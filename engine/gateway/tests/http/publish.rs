//! Publishing: every form of a body, where events go, and what is refused.

use levada_protocol::request::{OnFull, Retain, TopicSettings};
use serde_json::json;

use crate::support::{Engine, against};

const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json");
const BATCH: (&str, &str) = ("content-type", "application/cloudevents-batch+json");
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

fn event(id: &str, key: &str) -> serde_json::Value {
    json!({"specversion": "1.0", "id": id, "source": "/web", "type": "t", "partitionkey": key, "data": {"a": id}})
}

async fn refused(engine: &Engine, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> (u16, String, String) {
    let answer = engine.publish(headers, body).await;
    let code = answer.code();
    (answer.status, code, answer.json()["detail"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn every_form_of_a_body_is_stored_and_answered_with_its_offset() {
    against(1, async |engine| {
        let lines = "{\"key\":\"k\",\"payload\":1}\n\n{\"payload_text\":\"x\"}\r\n";
        let binary = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
        let batch = json!([event("1", "a"), event("2", "b")]).to_string();
        for (headers, body, offsets) in [
            (vec![("levada-key", "k")], "anything", 0..1),
            (vec![], "", 1..2),
            (vec![STRUCTURED], &event("1", "a").to_string(), 2..3),
            (vec![BATCH], &batch, 3..5),
            (vec![LINES], lines, 5..7),
            (binary.to_vec(), "data", 7..8),
            (vec![("content-type", "application/json")], "{", 8..9),
            (vec![BATCH], "[]", 9..9),
        ] {
            let answer = engine.publish(&headers, body).await;
            let expected: Vec<_> = offsets
                .map(|offset| json!({"partition": 0, "offset": offset, "outcome": "stored"}))
                .collect();
            assert_eq!((answer.status, answer.json()), (200, json!(expected)), "{headers:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn events_of_several_partitions_are_answered_in_their_order() {
    against(4, async |engine| {
        let keys = ["a", "b", "c", "d", "e", "f", "a"];
        let batch: Vec<_> = keys.iter().map(|key| event(key, key)).collect();
        let answer = engine.publish(&[BATCH], json!(batch).to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let published = answer.json();
        let published = published.as_array().unwrap();
        assert_eq!(published.len(), keys.len());
        let mut ends = [0_u64; 4];
        for (key, placed) in keys.iter().zip(published) {
            let partition = levada_protocol::partition::partition_of(key.as_bytes(), 4).0;
            let end = &mut ends[usize::from(partition)];
            assert_eq!(
                placed,
                &json!({"partition": partition, "offset": *end, "outcome": "stored"}),
                "{key}"
            );
            *end += 1;
        }
        assert!(ends.iter().filter(|end| **end > 0).count() > 1, "several partitions: {ends:?}");
    })
    .await;
}

#[tokio::test]
async fn events_without_a_key_go_to_all_partitions_in_turn() {
    for partitions in 2..=4 {
        against(partitions, async |engine| {
            let mut got = std::collections::BTreeSet::new();
            for turn in 0..partitions {
                // Neither requests that name their id, nor events that go by a key, take a turn.
                let id = [("x-request-id", "mine")];
                let headers = if turn % 2 == 0 { &id[..] } else { &[] };
                got.insert(engine.publish(headers, "x").await.json()[0]["partition"].as_u64().unwrap());
                assert_eq!(engine.publish(&[("levada-key", "k")], "x").await.status, 200);
            }
            assert_eq!(got.len(), usize::from(partitions), "{got:?}");
            let answer = engine.send("POST /v1/topics/orders/events?partition=1", &[], b"x").await;
            assert_eq!(answer.json()[0]["partition"], 1);
        })
        .await;
    }
}

#[tokio::test]
async fn a_batch_with_one_bad_event_stores_nothing_and_names_it() {
    against(1, async |engine| {
        let mut bad = event("2", "b");
        bad["time"] = json!("noon");
        let answer = engine.publish(&[BATCH], json!([event("1", "a"), bad]).to_string()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "INVALID_ARGUMENT"));
        assert_eq!((&answer.json()["index"], &answer.json()["happened"]), (&json!(1), &json!("nothing")));
        let answer = engine.publish(&[LINES], "{\"payload\":1}\n{\"payloda\":1}\n").await;
        assert_eq!((answer.status, answer.json()["index"].as_u64()), (400, Some(1)));
        let large = json!({"payload": 1, "key": "k".repeat(5_000)});
        let answer = engine.publish(&[LINES], format!("{{\"payload\":1}}\n{large}")).await;
        assert_eq!(
            (answer.status, answer.code().as_str(), answer.json()["index"].as_u64()),
            (413, "EVENT_TOO_LARGE", Some(1))
        );
        assert_eq!(engine.publish(&[], "first").await.json()[0]["offset"], 0, "nothing was stored");
    })
    .await;
}

#[tokio::test]
async fn what_claims_to_be_a_cloud_event_and_is_none_is_refused_with_what_was_expected() {
    against(1, async |engine| {
        let ce = |name: &'static str, value: &'static str| {
            let mut least =
                vec![("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
            least.retain(|(it, _)| *it != name);
            least.push((name, value));
            least.retain(|(_, value)| !value.is_empty());
            least
        };
        for (headers, body, detail) in [
            (ce("ce-type", ""), "", "expected the attribute `type`, which every CloudEvent has, got none"),
            (ce("ce-specversion", ""), "", "expected the attribute `specversion`"),
            (ce("ce-specversion", "0.3"), "", "expected 1.0 as the attribute `specversion`, got \"0.3\""),
            (ce("ce-time", "noon"), "", "as the attribute `time`, got \"noon\""),
            (ce("ce-trace_id", "x"), "", "expected a name of 1 to 20 lower case letters and digits"),
            (ce("ce-subject", "100%"), "", "percent-coded UTF-8"),
            (vec![STRUCTURED], "{\"specversion\":\"1.0\"}", "expected the attribute `source`"),
            (vec![STRUCTURED], "[]", "expected a CloudEvent as a JSON object, got the array []"),
            (vec![STRUCTURED], "{", "no valid JSON"),
            (vec![BATCH], "{}", "expected an array of CloudEvents"),
            (ce("levada-key", "k"), "", "expected levada-key only with a body that is no CloudEvent"),
        ] {
            let (status, code, got) = refused(&engine, &headers, body).await;
            assert_eq!((status, code.as_str()), (400, "INVALID_ARGUMENT"), "{headers:?}");
            assert!(got.contains(detail), "{got}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_wrong_content_type_coding_or_value_is_refused() {
    against(1, async |engine| {
        for (headers, status) in [
            (vec![("content-type", "application/cloudevents+xml")], 415),
            (vec![("content-type", "application/cloudevents+json; charset=latin1")], 415),
            (vec![("content-encoding", "gzip")], 415),
            (vec![("levada-time", "noon")], 400),
            (vec![("levada-key", "100%")], 400),
            (vec![("levada-key", "a"), ("levada-key", "b")], 400),
            (vec![("levada-delay", "soon")], 400),
            (vec![("levada-ttl", "100y")], 400),
            (vec![("levada-tombstone", "true")], 400),
            (vec![("levada-header-lv-x", "1")], 400),
        ] {
            let (got, code, detail) = refused(&engine, &headers, "x").await;
            assert_eq!(got, status, "{headers:?}: {code} {detail}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_append_at_an_expected_offset_happens_there_or_not_at_all() {
    against(2, async |engine| {
        let post = async |query: &str, key: Option<&str>| {
            let line = format!("POST /v1/topics/orders/events?{query}");
            let headers: Vec<_> = key.map(|key| ("levada-key", key)).into_iter().collect();
            engine.send(&line, &headers, b"x").await
        };
        assert_eq!(post("expect_offset=0", Some("k")).await.status, 200);
        let late = post("expect_offset=0", Some("k")).await;
        assert_eq!((late.status, late.code().as_str()), (409, "OFFSET_MISMATCH"));
        assert_eq!(
            post("expect_offset=0&partition=0", None).await.status,
            200,
            "the key is in the other one"
        );
        assert_eq!(post("expect_offset=0", None).await.status, 400, "which partition?");
        assert_eq!(post("expect_offset=x", Some("k")).await.code(), "INVALID_ARGUMENT");
        assert_eq!(post("expected_offset=1", Some("k")).await.code(), "INVALID_ARGUMENT");
        assert_eq!(post("partition=2", None).await.code(), "PARTITION_NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn events_whose_times_are_years_apart_are_stored_in_their_order_all_or_none() {
    against(2, async |engine| {
        let times = [2000, 2026, 1971, 2026].map(|year| format!("{year}-01-31T12:00:00Z"));
        let event = |index: usize| {
            json!({"specversion": "1.0", "id": index.to_string(), "source": "/s", "type": "t", "time": times[index],
                   "partitionkey": "k"})
        };
        let batch: Vec<_> = (0..times.len()).map(event).collect();
        let body = json!(batch).to_string();
        let post = async |query: &str, headers: &[(&str, &str)]| {
            let line = format!("POST /v1/topics/orders/events{query}");
            engine.send(&line, &[&[BATCH], headers].concat(), body.as_bytes()).await
        };
        let late = post("?expect_offset=1", &[]).await;
        assert_eq!((late.status, late.code().as_str()), (409, "OFFSET_MISMATCH"));
        let stored = post("?expect_offset=0", &[]).await.json();
        let offsets: Vec<_> = stored.as_array().unwrap().iter().map(|it| it["offset"].as_u64()).collect();
        assert_eq!(offsets, [0, 1, 2, 3].map(Some), "{stored}");
        let lines = engine.get("/v1/topics/orders/events").await.body;
        let lines = String::from_utf8(lines).unwrap();
        let read: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let read: Vec<_> = read.iter().map(|event| event["time"].as_str().unwrap()).collect();
        assert_eq!(read, times, "{lines}");
        assert_eq!(post("", &[("levada-delay", "1h")]).await.code(), "INVALID_ARGUMENT");
    })
    .await;
}

#[tokio::test]
async fn duplicates_and_delays_are_told_apart_from_what_is_stored() {
    against(1, async |engine| {
        engine.topic("once", TopicSettings { dedup_window_ms: 60_000, ..TopicSettings::default() }).await;
        let post = async |id: &str| {
            engine.send("POST /v1/topics/once/events", &[("levada-id", id)], b"x").await.json()
        };
        assert_eq!(post("a").await, json!([{"partition": 0, "offset": 0, "outcome": "stored"}]));
        assert_eq!(post("b").await, json!([{"partition": 0, "offset": 1, "outcome": "stored"}]));
        assert_eq!(post("a").await, json!([{"partition": 0, "offset": 0, "outcome": "duplicate"}]));
        let delayed = engine.publish(&[("levada-delay", "1h")], "x").await.json();
        assert_eq!((&delayed[0]["outcome"], &delayed[0]["offset"]), (&json!("scheduled"), &json!(null)));
        assert!(delayed[0]["schedule_id"].is_u64(), "{delayed}");
    })
    .await;
}

#[tokio::test]
async fn duplicates_within_a_batch_of_several_partitions_are_told() {
    against(1, async |engine| {
        let settings = TopicSettings { partitions: 3, dedup_window_ms: 60_000, ..TopicSettings::default() };
        engine.topic("once", settings).await;
        let ids = ["a", "b", "c", "a", "d", "b"];
        let lines: String = ids.iter().map(|id| format!("{{\"id\":\"{id}\",\"payload\":1}}\n")).collect();
        let answer = engine.send("POST /v1/topics/once/events", &[LINES], lines.as_bytes()).await.json();
        let outcomes: Vec<_> =
            answer.as_array().unwrap().iter().map(|it| it["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["stored", "stored", "stored", "duplicate", "stored", "duplicate"]);
        assert_eq!(
            (&answer[3]["partition"], &answer[3]["offset"]),
            (&answer[0]["partition"], &answer[0]["offset"])
        );
    })
    .await;
}

#[tokio::test]
async fn a_full_backlog_says_when_to_try_again() {
    against(1, async |engine| {
        let settings =
            TopicSettings { backlog_max_events: 1, on_full: OnFull::Reject, ..TopicSettings::default() };
        engine.topic("small", settings).await;
        let topic: levada_protocol::ids::TopicName = "small".parse().unwrap();
        let request = levada_protocol::request::Request::CreateSubscription {
            topic,
            name: "s".parse().unwrap(),
            options: levada_protocol::request::SubscriptionOptions::default(),
            from: levada_protocol::request::Start::Earliest,
        };
        engine.broker.request(&levada_broker::Principal::Local, request, None).await.unwrap();
        assert_eq!(engine.send("POST /v1/topics/small/events", &[], b"x").await.status, 200);
        let full = engine.send("POST /v1/topics/small/events", &[], b"x").await;
        assert_eq!((full.status, full.code().as_str()), (429, "BACKLOG_FULL"));
        assert_eq!(full.json()["retry"], true);
        assert_eq!(full.header("retry-after").is_some(), full.json()["retry_after_ms"].is_u64(), "{full:?}");
    })
    .await;
}

#[tokio::test]
async fn a_topic_that_keeps_the_last_event_of_each_key_takes_tombstones_and_no_event_without_a_key() {
    against(1, async |engine| {
        engine.topic("state", TopicSettings { retain: Retain::Compact, ..TopicSettings::default() }).await;
        let post = async |headers: &[(&str, &str)], body: &[u8]| {
            engine.send("POST /v1/topics/state/events", headers, body).await
        };
        assert_eq!(post(&[("levada-key", "k"), ("levada-tombstone", "true")], b"").await.status, 200);
        assert_eq!(post(&[], b"x").await.code(), "INVALID_ARGUMENT");
    })
    .await;
}

#[tokio::test]
async fn topics_that_are_not_there_or_not_for_users_are_refused() {
    against(1, async |engine| {
        for (topic, status, code) in [
            ("absent", 404, "TOPIC_NOT_FOUND"),
            ("Orders", 400, "INVALID_NAME"),
            ("_audit", 400, "INVALID_ARGUMENT"),
            ("%2e%2e", 400, "INVALID_NAME"),
            ("a%2fb", 400, "INVALID_NAME"),
            ("%ff", 400, "INVALID_NAME"),
            ("a%00b", 400, "INVALID_NAME"),
            ("ord%65rs%0d%0ax:y", 400, "INVALID_NAME"),
        ] {
            let answer = engine.send(&format!("POST /v1/topics/{topic}/events"), &[], b"x").await;
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{topic}");
        }
        let coded = engine.send("POST /v1/topics/ord%65rs/events", &[], b"x").await;
        assert_eq!(coded.status, 200, "one round of percent-decoding: {coded:?}");
    })
    .await;
}
