//! Server-sent events: what a client gets, and that it goes on where it was cut off.

use std::{collections::BTreeMap, time::Duration};

use levada_broker::Principal;
use levada_protocol::request::{PurgeTopic, Request};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Engine, SOON, against, with};

/// One event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Event {
    id: String,
    kind: String,
    data: String,
}

/// A client as browsers have it: it keeps the last id, and can be cut off anywhere.
struct Source {
    stream: TcpStream,
    raw: Vec<u8>,
    buffer: Vec<u8>,
    last_id: String,
}

impl Source {
    async fn open(engine: &Engine, query: &str, last_id: &str) -> Self {
        let mut stream = TcpStream::connect(engine.address).await.unwrap();
        let last = if last_id.is_empty() { String::new() } else { format!("last-event-id: {last_id}\r\n") };
        let request =
            format!("GET /v1/topics/orders/stream{query} HTTP/1.1\r\nhost: localhost\r\n{last}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut source = Self { stream, raw: Vec::new(), buffer: Vec::new(), last_id: last_id.to_owned() };
        while !source.raw.windows(4).any(|it| it == b"\r\n\r\n") {
            source.fill().await;
        }
        let head = String::from_utf8_lossy(&source.raw).into_owned();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        let len = head.find("\r\n\r\n").unwrap() + 4;
        source.raw.drain(..len);
        source
    }

    async fn fill(&mut self) -> usize {
        let mut bytes = vec![0; 16 * 1024];
        let len = timeout(SOON, self.stream.read(&mut bytes)).await.expect("more of the stream").unwrap();
        self.raw.extend_from_slice(&bytes[..len]);
        len
    }

    /// The next block of lines, comments included; `None` at the stream's end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|it| it == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Some(String::from_utf8(block).unwrap());
            }
            // One chunk of the transfer coding.
            while let Some(at) = self.raw.windows(2).position(|it| it == b"\r\n") {
                let len = usize::from_str_radix(std::str::from_utf8(&self.raw[..at]).unwrap(), 16).unwrap();
                if self.raw.len() < at + 2 + len + 2 {
                    break;
                }
                if len == 0 {
                    return None;
                }
                self.buffer.extend_from_slice(&self.raw[at + 2..at + 2 + len]);
                self.raw.drain(..at + 2 + len + 2);
            }
            if !self.buffer.windows(2).any(|it| it == b"\n\n") && self.fill().await == 0 {
                return None;
            }
        }
    }

    /// The next event that a program sees. Comments are none, and do not make it wait for ever.
    async fn event(&mut self) -> Option<Event> {
        timeout(SOON, self.next_event()).await.expect("an event, or the end")
    }

    async fn next_event(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let mut event = Event { id: self.last_id.clone(), ..Event::default() };
            let mut data = Vec::new();
            for line in block.lines() {
                match line.split_once(": ") {
                    Some(("id", id)) => id.clone_into(&mut event.id),
                    Some(("event", kind)) => kind.clone_into(&mut event.kind),
                    Some(("data", text)) => data.push(text),
                    _ => {}
                }
            }
            event.id.clone_into(&mut self.last_id);
            if !data.is_empty() {
                event.data = data.join("\n");
                return Some(event);
            }
        }
    }
}

impl Event {
    fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }

    fn number(&self) -> u64 {
        self.json()["data"].as_u64().unwrap_or_else(|| panic!("{self:?}"))
    }
}

async fn numbers(engine: &Engine, numbers: std::ops::Range<u64>) {
    let lines: String =
        numbers.map(|number| format!("{{\"key\":\"{}\",\"payload\":{number}}}\n", number % 7)).collect();
    let answer = engine.publish(&[("content-type", "application/x-ndjson")], lines).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn events_come_as_cloud_events_with_all_positions() {
    against(2, async |engine| {
        let mut source = Source::open(&engine, "", "").await;
        assert_eq!(source.block().await.as_deref(), Some("retry: 2000\n\n"));
        let event = json!({"specversion": "1.0", "id": "a", "source": "/s", "type": "order.placed",
                           "time": "2026-01-31T12:00:00Z", "partitionkey": "k", "datacontenttype": "application/json"});
        let text = event.to_string();
        // Data with a line end: it is kept, and the client's event has it, too.
        let text = format!("{},\"data\":{{\"a\":\n1}}}}", text.strip_suffix('}').unwrap());
        engine.publish(&[("content-type", "application/cloudevents+json")], text).await;
        let came = source.event().await.unwrap();
        assert_eq!((came.id.as_str(), came.kind.as_str()), ("0:0,1:1", "order.placed"));
        let mut got = came.json();
        assert_eq!(got["data"], json!({"a": 1}));
        got.as_object_mut().unwrap().retain(|name, _| !matches!(name.as_str(), "data" | "sequence" | "recordedtime"));
        assert_eq!(got, event);
        engine.publish(&[("levada-key", "k")], "7").await;
        let came = source.event().await.unwrap();
        assert_eq!((came.id.as_str(), came.kind.as_str(), came.number()), ("0:0,1:2", "levada.event", 7));
    })
    .await;
}

#[tokio::test]
async fn a_client_that_is_cut_off_again_and_again_gets_every_event_once() {
    const EVENTS: u64 = 500;
    const CUTS: u64 = 50;
    against(3, async |engine| {
        let publishing = async {
            for batch in 0..EVENTS / 10 {
                numbers(&engine, batch * 10..(batch + 1) * 10).await;
            }
        };
        let reading = async {
            let (mut got, mut last_id) = (BTreeMap::<u64, u32>::new(), String::new());
            let mut connections = 0;
            while (got.len() as u64) < EVENTS {
                // As a header and as a parameter in turn.
                let query = match connections % 2 {
                    0 if connections > 0 => format!("?last-event-id={last_id}"),
                    _ => "?from=earliest".to_owned(),
                };
                let header = if connections % 2 == 0 { "" } else { last_id.as_str() };
                let mut source = Source::open(&engine, &query, header).await;
                for _ in 0..=(EVENTS / CUTS).min(EVENTS - got.len() as u64 - 1) {
                    let event = source.event().await.unwrap();
                    *got.entry(event.number()).or_default() += 1;
                    event.id.clone_into(&mut last_id);
                }
                connections += 1;
            }
            (got, connections)
        };
        let ((), (got, connections)) = tokio::join!(publishing, reading);
        assert!(connections >= 40, "{connections}");
        let once: BTreeMap<u64, u32> = (0..EVENTS).map(|number| (number, 1)).collect();
        assert_eq!(got, once, "no gap, no double");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_is_cut_off_before_its_first_event_misses_nothing() {
    against(2, async |engine| {
        numbers(&engine, 0..1).await;
        let mut source = Source::open(&engine, "", "").await;
        assert_eq!(source.block().await.as_deref(), Some("retry: 2000\n\n"));
        let block = source.block().await.unwrap();
        let id = block.strip_prefix("id: ").and_then(|id| id.strip_suffix("\n\n")).unwrap().to_owned();
        drop(source);
        numbers(&engine, 1..3).await;
        let mut source = Source::open(&engine, "", &id).await;
        let mut got = [source.event().await.unwrap().number(), source.event().await.unwrap().number()];
        got.sort_unstable();
        assert_eq!(got, [1, 2]);
    })
    .await;
}

#[tokio::test]
async fn what_retention_dropped_is_told_before_the_stream_goes_on() {
    against(1, async |engine| {
        numbers(&engine, 0..5).await;
        let mut source = Source::open(&engine, "?from=earliest", "").await;
        let first = source.event().await.unwrap();
        assert_eq!((first.number(), first.id.as_str()), (0, "0:1"));
        drop(source);
        let topic = "orders".parse().unwrap();
        let request =
            Request::PurgeTopic(PurgeTopic { topic, until: Vec::new(), before_ms: None, force: false });
        engine.broker.request(&Principal::Local, request, None).await.unwrap();
        numbers(&engine, 5..7).await;
        let mut source = Source::open(&engine, "", "0:1").await;
        let lost = source.event().await.unwrap();
        assert_eq!(
            (lost.kind.as_str(), lost.json()),
            ("events_lost", json!({"partition": 0, "first": 1, "last": 4, "count": 4}))
        );
        assert_eq!(source.event().await.unwrap().number(), 5);
    })
    .await;
}

#[tokio::test]
async fn a_search_streams_what_matches_and_moves_the_id_behind_what_does_not() {
    with(
        1,
        |config| config.comment_interval = Duration::from_millis(20),
        async |engine| {
            let mut source = Source::open(&engine, "?from=earliest&where=n%20%3E%203", "").await;
            let lines: String =
                (0..6).map(|number| format!("{{\"payload\":{{\"n\":{number}}}}}\n")).collect();
            engine.publish(&[("content-type", "application/x-ndjson")], lines).await;
            for number in [4, 5] {
                assert_eq!(source.event().await.unwrap().json()["data"], json!({"n": number}));
            }
            loop {
                let block = source.block().await.unwrap();
                if block.starts_with(":\n") {
                    break;
                }
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_up_nobody_and_gets_everything_later() {
    against(1, async |engine| {
        let mut slow = Source::open(&engine, "?from=earliest", "").await;
        let event = json!({"payload": "x".repeat(100_000)}).to_string();
        let lines = format!("{event}\n").repeat(8);
        for _ in 0..20 {
            assert_eq!(engine.publish(&[("content-type", "application/x-ndjson")], &lines).await.status, 200);
        }
        for offset in 0..160 {
            assert_eq!(slow.event().await.unwrap().id, format!("0:{}", offset + 1));
        }
    })
    .await;
}

#[tokio::test]
async fn streams_end_when_the_engine_is_about_to_and_other_requests_are_still_served() {
    against(1, async |engine| {
        let mut source = Source::open(&engine, "", "").await;
        engine.ending.cancel();
        assert_eq!(source.event().await, None);
        assert_eq!(Source::open(&engine, "", "").await.event().await, None, "a new one ends at once");
        assert_eq!(engine.publish(&[], "x").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_with_its_topic() {
    against(1, async |engine| {
        let mut source = Source::open(&engine, "", "").await;
        let request =
            Request::DeleteTopic { name: "orders".parse().unwrap(), force: true, with_dead_letters: false };
        engine.broker.request(&Principal::Local, request, None).await.unwrap();
        assert_eq!(source.event().await, None);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_streamed_is_refused_before_it_begins() {
    against(1, async |engine| {
        for (query, last_id, status, code) in [
            ("?from=noon", "", 400, "INVALID_ARGUMENT"),
            ("?from=3", "", 416, "OFFSET_OUT_OF_RANGE"),
            ("", "17", 400, "INVALID_ARGUMENT"),
            ("", "0:9", 416, "OFFSET_OUT_OF_RANGE"),
            ("?last-event-id=x", "", 400, "INVALID_ARGUMENT"),
            ("?where=%28", "", 400, "INVALID_ARGUMENT"),
            ("?partition=4", "", 404, "PARTITION_NOT_FOUND"),
            ("?unknown=1", "", 400, "INVALID_ARGUMENT"),
        ] {
            let headers: Vec<_> =
                Some(("last-event-id", last_id)).filter(|_| !last_id.is_empty()).into_iter().collect();
            let answer = engine.send(&format!("GET /v1/topics/orders/stream{query}"), &headers, b"").await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (status, code),
                "{query} {last_id}: {}",
                answer.json()
            );
        }
    })
    .await;
}
