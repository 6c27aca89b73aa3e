//! Reading back what was published.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Answer, Engine, against};

const CLOUD_EVENTS: (&str, &str) = ("accept", "application/cloudevents-batch+json");

async fn events(engine: &Engine, query: &str) -> (Vec<Value>, Answer) {
    let answer = engine.get(&format!("/v1/topics/orders/events{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    let lines = answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    (lines.map(|line| serde_json::from_slice(line).unwrap()).collect(), answer)
}

async fn payloads(engine: &Engine, query: &str) -> Vec<Value> {
    events(engine, query).await.0.into_iter().map(|event| event["payload"].clone()).collect()
}

async fn numbers(engine: &Engine, numbers: std::ops::Range<u64>) {
    let lines: String =
        numbers.map(|number| format!("{{\"key\":\"{number}\",\"payload\":{number}}}\n")).collect();
    let answer = engine.publish(&[("content-type", "application/x-ndjson")], lines).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_cloud_event_in_any_mode_is_read_back_as_it_was_published() {
    against(1, async |engine| {
        let published = [
            json!({"specversion": "1.0", "id": "1", "source": "/s€", "type": "t", "time": "2026-01-31T13:00:00.123456+01:00",
                   "subject": "say \"Euro € 😀\" 100%25", "partitionkey": "k %", "datacontenttype": "application/json",
                   "data": {"a": ["€", null]}, "traceparent": "00-1-2-01", "custom": "x"}),
            json!({"specversion": "1.0", "id": "2", "source": "/s", "type": "t", "time": "2026-01-31T12:00:00Z"}),
            json!({"specversion": "1.0", "id": "3", "source": "/s", "type": "t", "time": "2026-01-31T12:00:00Z", "data": null}),
            json!({"specversion": "1.0", "id": "4", "source": "/s", "type": "t", "time": "2026-01-31T12:00:00Z",
                   "datacontenttype": "application/octet-stream", "data_base64": "AP8="}),
            json!({"specversion": "1.0", "id": "5", "source": "/s", "type": "t", "time": "2026-01-31T12:00:00Z",
                   "datacontenttype": "text/plain", "data": "Euro € 😀"}),
        ];
        let batch = ("content-type", "application/cloudevents-batch+json");
        assert_eq!(engine.publish(&[batch], json!(published).to_string()).await.status, 200);
        let coded = "say%20%22Euro%20%E2%82%AC%20%F0%9F%98%80%22";
        let binary = [
            ("ce-specversion", "1.0"), ("ce-id", "6"), ("ce-source", "/s"), ("ce-type", "t"), ("ce-subject", coded),
            ("ce-time", "2026-01-31T12:00:00Z"), ("content-type", "text/plain"),
        ];
        assert_eq!(engine.publish(&binary, "data").await.status, 200);
        let answer = engine.send("GET /v1/topics/orders/events", &[CLOUD_EVENTS], b"").await;
        assert_eq!(answer.header("content-type"), Some("application/cloudevents-batch+json"));
        let mut read: Vec<Value> = answer.json().as_array().unwrap().clone();
        for (offset, event) in read.iter_mut().enumerate() {
            let event = event.as_object_mut().unwrap();
            assert_eq!(event.remove("sequence"), Some(json!(format!("{offset:020}"))));
            assert!(event.remove("recordedtime").is_some());
        }
        let last = json!({"specversion": "1.0", "id": "6", "source": "/s", "type": "t", "time": "2026-01-31T12:00:00Z",
                          "subject": "say \"Euro € 😀\"", "datacontenttype": "text/plain", "data": "data"});
        let expected: Vec<Value> = published.into_iter().chain([last]).collect();
        assert_eq!(read, expected);
    })
    .await;
}

#[tokio::test]
async fn any_body_is_read_back_with_its_headers() {
    against(1, async |engine| {
        let headers = [
            ("levada-key", "k%C3%A9"), ("levada-id", "7"), ("levada-time", "2026-01-31T12:00:00Z"), ("levada-ttl", "1h"),
            ("levada-header-region", "eu%20west"), ("content-type", "text/csv"), ("traceparent", "00-1-2-01"),
        ];
        assert_eq!(engine.publish(&headers, "a,b").await.status, 200);
        let (events, _) = events(&engine, "").await;
        let expected = json!({
            "topic": "orders", "partition": 0, "offset": 0, "key": "ké", "id": "7", "time": "2026-01-31T12:00:00Z",
            "ttl_ms": 3_600_000, "payload_text": "a,b",
            "headers": events[0]["headers"],
        });
        assert_eq!(events, [expected]);
        let headers = &events[0]["headers"];
        assert_eq!((&headers["region"], &headers["content-type"]), (&json!("eu west"), &json!("text/csv")));
        assert_eq!(headers["traceparent"], "00-1-2-01");
    })
    .await;
}

#[tokio::test]
async fn pages_go_on_where_the_one_before_ended_over_all_partitions() {
    against(3, async |engine| {
        numbers(&engine, 0..50).await;
        let (mut read, mut from) = (Vec::new(), "earliest".to_owned());
        for _ in 0..20 {
            let (page, answer) = events(&engine, &format!("?max=7&from={from}")).await;
            assert!(page.len() <= 7, "{}", page.len());
            answer.header("levada-next").unwrap().clone_into(&mut from);
            read.extend(page.iter().map(|event| event["payload"].as_u64().unwrap()));
            let complete = answer.header("levada-complete") == Some("true");
            if complete {
                break;
            }
        }
        read.sort_unstable();
        assert_eq!(read, (0..50).collect::<Vec<_>>(), "no gap, no double");
        numbers(&engine, 50..52).await;
        let mut more = payloads(&engine, &format!("?from={from}")).await;
        more.sort_by_key(Value::as_u64);
        assert_eq!(more, [json!(50), json!(51)]);
    })
    .await;
}

#[tokio::test]
async fn from_is_a_place_an_offset_or_a_time() {
    against(1, async |engine| {
        numbers(&engine, 0..5).await;
        assert_eq!(payloads(&engine, "?from=3").await, [json!(3), json!(4)]);
        assert_eq!(payloads(&engine, "?from=0:4").await, [json!(4)]);
        assert_eq!(payloads(&engine, "?from=latest").await, [] as [Value; 0]);
        assert_eq!(payloads(&engine, "?from=2026-01-01T00:00:00Z&max=1").await, [json!(0)]);
        let found = "{\"payload\":{\"n\":3}}\n{\"payload\":{\"n\":4}}\n";
        engine.publish(&[("content-type", "application/x-ndjson")], found).await;
        assert_eq!(payloads(&engine, "?partition=0&where=n%20%3E%203").await, [json!({"n": 4})]);
    })
    .await;
}

#[tokio::test]
async fn a_read_that_waits_returns_as_soon_as_there_is_an_event() {
    against(1, async |engine| {
        let waiting = engine.get("/v1/topics/orders/events?wait=8s");
        let began = Instant::now();
        let (answer, ()) = tokio::join!(waiting, numbers(&engine, 0..1));
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        assert_eq!((answer.json()["payload"].clone(), answer.header("levada-next")), (json!(0), Some("0:1")));
        let empty = engine.get("/v1/topics/orders/events?from=latest&wait=10ms").await;
        assert_eq!((empty.status, empty.body.len(), empty.header("levada-next")), (200, 0, Some("0:1")));
    })
    .await;
}

#[tokio::test]
async fn a_large_backlog_is_read_in_bounded_pages() {
    against(1, async |engine| {
        for _ in 0..4 {
            assert_eq!(engine.publish(&[], vec![b'x'; 700_000]).await.status, 200);
        }
        let (page, answer) = events(&engine, "").await;
        assert!((1..4).contains(&page.len()), "{}", page.len());
        assert_eq!(answer.header("levada-complete"), Some("false"));
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    against(1, async |engine| {
        numbers(&engine, 0..1).await;
        for (query, status, code) in [
            ("?from=noon", 400, "INVALID_ARGUMENT"),
            ("?from=-1", 400, "INVALID_ARGUMENT"),
            ("?from=9", 416, "OFFSET_OUT_OF_RANGE"),
            ("?from=7:0", 400, "INVALID_ARGUMENT"),
            ("?max=0", 400, "INVALID_ARGUMENT"),
            ("?max=10001", 400, "INVALID_ARGUMENT"),
            ("?max=many", 400, "INVALID_ARGUMENT"),
            ("?wait=1h", 400, "INVALID_ARGUMENT"),
            ("?wait=long", 400, "INVALID_ARGUMENT"),
            ("?partition=9", 404, "PARTITION_NOT_FOUND"),
            ("?partition=x", 400, "INVALID_ARGUMENT"),
            ("?where=%28", 400, "INVALID_ARGUMENT"),
            ("?form=1", 400, "INVALID_ARGUMENT"),
        ] {
            let answer = engine.get(&format!("/v1/topics/orders/events{query}")).await;
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{query}: {}", answer.json());
        }
        let answer = engine.get("/v1/topics/absent/events").await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "TOPIC_NOT_FOUND"));
        let answer = engine.send("GET /v1/topics/orders/events", &[("accept", "text/html")], b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (406, "INVALID_ARGUMENT"));
    })
    .await;
}
