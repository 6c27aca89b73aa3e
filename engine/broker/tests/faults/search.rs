//! Searches: what they find, where they end, and what they are refused for.

use levada_broker::{Content, Principal, Reader};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    deliver::{EndEntry, Run},
    error::ErrorCode,
    event::Event,
    ids::PartitionId,
    progress::{Progress, SearchState},
    publish::PublishHeader,
    request::{Position, Read, Search, SearchKey, Start, TopicSettings},
};
use tokio::time::timeout;

use crate::support::{Engine, PLENTY, SOON, publish_bytes};

/// What a search has answered, up to its end.
#[derive(Debug, Default)]
struct Answer {
    /// Partition and offset of each event.
    events: Vec<(u16, u64)>,
    progress: Vec<Progress>,
    end: Vec<EndEntry>,
}

impl Answer {
    fn last(&self) -> &Progress {
        self.progress.last().expect("progress comes before the end")
    }
}

fn add(answer: &mut Answer, content: &Content) {
    match content {
        Content::Delivery(delivery) => {
            for (base, batch) in delivery.runs.iter().flat_map(Run::batches).map(Result::unwrap) {
                let partition = delivery.header.partition.0;
                answer.events.extend(batch.events().map(|event| (partition, event.offset(base).0)));
            }
        }
        Content::Progress(progress) => answer.progress.push(progress.clone()),
        Content::End(entries) => answer.end.clone_from(entries),
        Content::Settled(_) => unreachable!("a reader has no verbs"),
    }
}

async fn to_the_end(mut reader: Reader) -> Answer {
    reader.credit.grant(PLENTY).await.unwrap();
    let mut answer = Answer::default();
    while let Some(outgoing) = timeout(SOON, reader.outgoing.recv()).await.unwrap() {
        add(&mut answer, outgoing.unwrap().content());
    }
    answer
}

fn wanted(search: Search) -> Read {
    Read { from: Start::Earliest, search: Some(search), ..Read::new("orders".parse().unwrap()) }
}

fn large() -> Search {
    Search { condition: Some("n >= 90".to_owned()), ..Search::default() }
}

async fn refusal(engine: &Engine, read: Read) -> levada_broker::Error {
    engine.broker.read(&Principal::Local, read).await.unwrap_err()
}

/// An engine whose topic has 3 partitions, each of 10 batches of events `{"n":0}` to `{"n":99}`, with a payload that is
/// no JSON behind each batch.
async fn filled(scan_bytes_max: u64) -> Engine {
    let engine = Engine::with(|config| config.scan_bytes_max = scan_bytes_max);
    engine.topic("orders", TopicSettings { partitions: 3, ..TopicSettings::default() }).await;
    let mut stream = engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    for (partition, _) in (0..3).flat_map(|partition| (0..10).map(move |batch| (partition, batch))) {
        let mut builder = BatchBuilder::new();
        for n in 0..100 {
            let event = Event::new(format!("{{\"n\":{n},\"rest\":\"{}\"}}", "x".repeat(500)));
            builder.push(&event.with_key(format!("key-{}", n % 50))).unwrap();
        }
        builder.push(&Event::new("no JSON")).unwrap();
        let (partition, durability, expect_offset) = (PartitionId(partition), None, None);
        let header = PublishHeader { correlation: 1, partition, durability, expect_offset, due: None };
        stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
        timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
    }
    engine
}

/// The events that `is_so` holds for, of those that [`filled`] publishes.
fn expected(is_so: impl Fn(u64) -> bool) -> Vec<(u16, u64)> {
    let offsets = (0..3u16).flat_map(|partition| (0..1_010u64).map(move |offset| (partition, offset)));
    offsets.filter(|(_, offset)| offset % 101 < 100 && is_so(offset % 101)).collect()
}

fn sorted(mut events: Vec<(u16, u64)>) -> Vec<(u16, u64)> {
    events.sort_unstable();
    events
}

#[tokio::test]
async fn a_search_finds_every_event_that_matches_and_accounts_for_the_others() {
    let engine = filled(1 << 30).await;
    let answer = to_the_end(engine.broker.read(&Principal::Local, wanted(large())).await.unwrap()).await;
    assert_eq!(sorted(answer.events.clone()), expected(|n| n >= 90));
    let last = answer.last();
    assert_eq!((last.state, &last.positions), (SearchState::Complete, &answer.end));
    assert!(answer.end.iter().all(|entry| entry.next.0 == 1_010));
    let scanned = last.scanned;
    assert_eq!((scanned.events, scanned.matched, scanned.undecodable), (3_030, 300, 30));
    let key = Search { key: Some(SearchKey(b"key-7"[..].into())), ..large() };
    let answer = to_the_end(engine.broker.read(&Principal::Local, wanted(key.clone())).await.unwrap()).await;
    assert_eq!(answer.events, [], "both are to hold");
    let key = Search { condition: None, ..key };
    let answer = to_the_end(engine.broker.read(&Principal::Local, wanted(key)).await.unwrap()).await;
    assert_eq!(sorted(answer.events.clone()), expected(|n| n % 50 == 7));
    assert_eq!(answer.last().scanned.undecodable, 0, "nobody asked for a payload");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn searches_that_go_on_from_cursor_to_cursor_find_everything_once() {
    let engine = filled(1 << 30).await;
    for (scan_bytes_max, events_max) in [(1, 0), (200_000, 0), (0, 1), (0, 7), (150_000, 30)] {
        let (mut events, mut positions, mut parts) = (Vec::new(), Vec::new(), 0);
        loop {
            let search = Search { scan_bytes_max, events_max, ..large() };
            let read = Read { positions, ..wanted(search) };
            let answer = to_the_end(engine.broker.read(&Principal::Local, read).await.unwrap()).await;
            assert!(events_max == 0 || answer.events.len() as u64 <= events_max);
            assert_eq!(answer.last().positions, answer.end);
            events.extend(answer.events.iter().copied());
            parts += 1;
            assert!(parts <= 400, "it comes to an end");
            if answer.last().state == SearchState::Complete {
                break;
            }
            let position = |entry: &EndEntry| Position { partition: entry.partition.0, offset: entry.next.0 };
            positions = answer.end.iter().map(position).collect();
        }
        assert!(parts > 1, "{scan_bytes_max} bytes, {events_max} events");
        assert_eq!(sorted(events), expected(|n| n >= 90), "{scan_bytes_max} bytes, {events_max} events");
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn credit_that_comes_event_by_event_loses_and_repeats_nothing() {
    let engine = filled(1 << 30).await;
    let mut reader = engine.broker.read(&Principal::Local, wanted(large())).await.unwrap();
    let mut answer = Answer::default();
    while answer.events.len() < 300 {
        let one = levada_protocol::verbs::Credit { events: 1, bytes: 1 << 20 };
        reader.credit.grant(one).await.unwrap();
        let before = answer.events.len();
        while answer.events.len() == before {
            let outgoing = timeout(SOON, reader.outgoing.recv()).await.unwrap().unwrap().unwrap();
            add(&mut answer, outgoing.content());
        }
        assert_eq!(answer.events.len(), before + 1);
    }
    assert_eq!(sorted(answer.events), expected(|n| n >= 90));
    drop(reader);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_before_anything_is_read() {
    let engine = filled(1_000_000).await;
    let search = |change: fn(&mut Search)| {
        let mut search = large();
        change(&mut search);
        wanted(search)
    };
    let cases = [
        (search(|it| it.condition = Some("n >".to_owned())), "where: column 4: expected a field"),
        (
            search(|it| it.scan_bytes_max = 1_000_001),
            "at most 1000000 bytes, the engine's subscribe.scan_bytes_max",
        ),
        (Read { follow: true, ..search(|it| it.scan_bytes_max = 1) }, "no scan_bytes_max beside follow"),
        (search(|it| it.key = Some(SearchKey(vec![0; 4_097].into()))), "a key of at most 4096 bytes"),
        (Read { positions: vec![Position { partition: 3, offset: 0 }], ..search(|_| {}) }, "partition 3"),
        (Read { positions: vec![Position::default(); 2], ..search(|_| {}) }, "more than once"),
    ];
    for (read, expected) in cases {
        let error = refusal(&engine, read).await;
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let behind = Read { positions: vec![Position { partition: 0, offset: 1_011 }], ..search(|_| {}) };
    assert_eq!(refusal(&engine, behind).await.code(), ErrorCode::OffsetOutOfRange);
    for allowed in [
        search(|it| it.scan_bytes_max = 1_000_000),
        search(|it| it.key = Some(SearchKey(vec![0; 4_096].into()))),
    ] {
        to_the_end(engine.broker.read(&Principal::Local, allowed).await.unwrap()).await;
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_search_without_a_bound_ends_at_the_limit_of_the_engine() {
    let engine = filled(500_000).await;
    let answer = to_the_end(engine.broker.read(&Principal::Local, wanted(large())).await.unwrap()).await;
    assert_eq!(answer.last().state, SearchState::Limited);
    let bytes = answer.last().scanned.bytes;
    assert!((500_000..600_000).contains(&bytes), "{bytes} bytes are the limit and at most one record");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_search_that_follows_finds_what_comes_and_ends_with_its_client() {
    let engine = filled(1).await;
    let read = Read { follow: true, from: Start::Latest, ..wanted(Search { condition: None, ..large() }) };
    let mut reader = engine.broker.read(&Principal::Local, read).await.unwrap();
    reader.credit.grant(PLENTY).await.unwrap();
    publish_bytes(&engine, 3, 10).await;
    let mut answer = Answer::default();
    while answer.events.len() < 3 {
        add(&mut answer, timeout(SOON, reader.outgoing.recv()).await.unwrap().unwrap().unwrap().content());
    }
    assert_eq!(answer.events, [(0, 1_010), (0, 1_011), (0, 1_012)]);
    let credit = reader.credit;
    drop(reader.outgoing);
    publish_bytes(&engine, 1, 10).await;
    // Grants fail once the task is gone.
    let gone = async {
        while credit.grant(PLENTY).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone).await.unwrap();
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn progress_is_paced_by_what_was_scanned() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    publish_bytes(&engine, 40, 500_000).await;
    let nothing = Search { condition: Some("header.region = \"eu\"".to_owned()), ..Search::default() };
    let answer = to_the_end(engine.broker.read(&Principal::Local, wanted(nothing)).await.unwrap()).await;
    let scanned: Vec<u64> = answer.progress.iter().map(|progress| progress.scanned.bytes).collect();
    assert_eq!(scanned.len(), 3, "20 MB, after every 8 MiB and at the end: {scanned:?}");
    assert!(scanned.is_sorted() && scanned[2] > 40 * 500_000);
    assert_eq!(answer.events, []);
    engine.broker.shutdown().await;
}
