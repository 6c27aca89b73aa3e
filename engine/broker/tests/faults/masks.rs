//! Masks: what one sees of events who may read them through plugins alone.

use levada_broker::{Content, Principal, Reader};
use levada_protocol::{
    deliver::Run,
    error::ErrorCode,
    ids::PartitionId,
    permission::Permission,
    progress::Scanned,
    request::{ChangePrincipal, GroupDeadLetters, Read, Request, RouteSpec, Search, Start, TopicSettings},
};
use tokio::time::timeout;

use crate::{
    access::{CLERK, Office, code},
    support::{Engine, FAIL, HIDDEN, HIDE, PICK, PLENTY, SOON},
};

/// What a reader was shown, up to its end.
#[derive(Debug, Default, PartialEq)]
struct Shown {
    /// Offset and payload of each event.
    events: Vec<(u64, String)>,
    scanned: Option<Scanned>,
    /// The next offset of the partition.
    next: u64,
}

impl Shown {
    fn add(&mut self, content: &Content) {
        match content {
            Content::Delivery(delivery) => {
                for (base, batch) in delivery.runs.iter().flat_map(Run::batches).map(Result::unwrap) {
                    let payload =
                        |payload: Option<&[u8]>| String::from_utf8(payload.unwrap().to_vec()).unwrap();
                    let events = batch.events().map(|event| (event.offset(base).0, payload(event.payload())));
                    self.events.extend(events);
                }
            }
            Content::Progress(progress) => self.scanned = Some(progress.scanned),
            Content::End(entries) => self.next = entries[0].next.0,
            Content::Settled(_) => unreachable!("a reader has no verbs"),
        }
    }
}

async fn to_the_end(mut reader: Reader) -> Shown {
    reader.credit.grant(PLENTY).await.unwrap();
    let mut shown = Shown::default();
    while let Some(outgoing) = timeout(SOON, reader.outgoing.recv()).await.unwrap() {
        shown.add(outgoing.unwrap().content());
    }
    shown
}

fn orders() -> Read {
    Read { from: Start::Earliest, ..Read::new("orders".parse().unwrap()) }
}

async fn read(engine: &Engine, principal: &Principal) -> Shown {
    to_the_end(engine.broker.read(principal, orders()).await.unwrap()).await
}

/// Permission to read `orders` through the plugin with these configurations, one after another.
fn via(configs: &[&str]) -> String {
    let stages: String = configs.iter().map(|config| format!(" via keep:{config}")).collect();
    format!("read orders{stages}")
}

/// A topic with six events, whose payloads are their offsets, and a plugin.
async fn with_orders() -> Engine {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    engine.publish("orders", 6).await;
    engine.deploy(b"one").await;
    engine
}

/// Events with these offsets, as they are stored.
fn stored(offsets: &[u64]) -> Vec<(u64, String)> {
    offsets.iter().map(|offset| (*offset, offset.to_string())).collect()
}

fn hidden(offsets: &[u64]) -> Vec<(u64, String)> {
    offsets.iter().map(|offset| (*offset, HIDDEN.to_owned())).collect()
}

async fn change(office: &Office<'_>, grant: &[String], revoke: &[String]) {
    let lines = |lines: &[String]| lines.iter().map(|line| line.parse::<Permission>().unwrap()).collect();
    let (grant, revoke) = (lines(grant), lines(revoke));
    office
        .ask(Request::ChangePrincipal(ChangePrincipal {
            grant,
            revoke,
            ..ChangePrincipal::new(CLERK.parse().unwrap())
        }))
        .await;
}

#[tokio::test]
async fn events_are_shown_as_the_mask_leaves_them_and_to_others_as_they_are_stored() {
    let engine = with_orders().await;
    let office = Office::open(&engine).await;
    let all = [0, 1, 2, 3, 4, 5];
    let clerk = office.clerk(&[&via(&[HIDE])]).await;
    let shown = read(&engine, &clerk).await;
    assert_eq!((shown.events, shown.next), (hidden(&all), 6));
    assert_eq!(read(&engine, &office.admin()).await.events, stored(&all));
    let clerk = office.clerk(&[&via(&[HIDE]), "read ord*"]).await;
    assert_eq!(read(&engine, &clerk).await.events, stored(&all), "a line without a mask allows more");
    // What is dropped is not there; what is rejected is withheld, and counted.
    let clerk = office.clerk(&[&via(&[PICK, HIDE])]).await;
    let shown = read(&engine, &clerk).await;
    assert_eq!((shown.events, shown.next), (hidden(&[0, 3]), 6));
    assert_eq!(shown.scanned.map(|scanned| (scanned.withheld, scanned.events)), Some((2, 0)));
    let clerk = office.clerk(&[&via(&[PICK]), &via(&[HIDE])]).await;
    assert_eq!(read(&engine, &clerk).await.events, hidden(&[0, 3]), "all masks apply");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_search_tests_what_the_mask_shows() {
    let engine = with_orders().await;
    let office = Office::open(&engine).await;
    let clerk = office.clerk(&[&via(&[HIDE])]).await;
    let search = async |principal: &Principal, condition: &str| {
        let search = Search { condition: Some(condition.to_owned()), ..Search::default() };
        let reading = Read { search: Some(search), ..orders() };
        to_the_end(engine.broker.read(principal, reading).await.unwrap()).await
    };
    let exact = "payload = 3";
    let whole = search(&office.admin(), exact).await;
    let masked = search(&clerk, exact).await;
    assert_eq!(
        (masked.events, masked.next),
        (Vec::new(), 6),
        "the payload is not to be found out: {whole:?}"
    );
    let scanned = masked.scanned.unwrap();
    assert_eq!((scanned.matched, scanned.withheld), (0, 0));
    assert_eq!(scanned.bytes, whole.scanned.unwrap().bytes, "what is read counts, not what is shown");
    let bounded = Search { events_max: 2, ..Search::default() };
    let reader = engine.broker.read(&clerk, Read { search: Some(bounded), ..orders() }).await.unwrap();
    assert_eq!(to_the_end(reader).await.events, hidden(&[0, 1]));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_shows_more_than_the_mask_is_refused() {
    let engine = with_orders().await;
    engine.topic("copies", TopicSettings::default()).await;
    let office = Office::open(&engine).await;
    let clerk = office.clerk(&[&via(&[HIDE]), "manage route:copy", "publish copies"]).await;
    let topic = || "orders".parse().unwrap();
    for request in [
        Request::CreateRoute(RouteSpec::new("copy".parse().unwrap(), topic(), ["copies".parse().unwrap()])),
        Request::ListScheduled { topic: topic(), limit: 0, after: None },
        Request::DescribeScheduled { topic: topic(), id: 1 },
        Request::GroupDeadLetters(GroupDeadLetters::new(topic())),
        Request::ListRedrives { topic: topic(), from: 0, until: None },
    ] {
        let asked = format!("{request:?}");
        let error = engine.broker.request(&clerk, request, None).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::PermissionDenied, "{asked}");
        assert!(error.to_string().contains("through plugins alone"), "{asked}: {error}");
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn another_mask_is_in_force_with_the_next_read_of_an_open_reader() {
    let engine = with_orders().await;
    let office = Office::open(&engine).await;
    let clerk = office.clerk(&[&via(&[HIDE])]).await;
    let mut reader = engine.broker.read(&clerk, Read { follow: true, ..orders() }).await.unwrap();
    reader.credit.grant(PLENTY).await.unwrap();
    let mut next = async || {
        let mut shown = Shown::default();
        let outgoing = timeout(SOON, reader.outgoing.recv()).await.unwrap().unwrap();
        shown.add(outgoing.unwrap().content());
        shown.events
    };
    assert_eq!(next().await, hidden(&[0, 1, 2, 3, 4, 5]));
    change(&office, &[via(&[PICK])], &[via(&[HIDE])]).await;
    engine.publish_by(&office.admin(), "orders", PartitionId(0), 3).await;
    assert_eq!(next().await, [(6, "0".to_owned())]);
    change(&office, &["read orders".to_owned()], &[]).await;
    engine.publish_by(&office.admin(), "orders", PartitionId(0), 1).await;
    assert_eq!(next().await, [(9, "0".to_owned())]);
    // A reader that shows everything needs that from its beginning to its end.
    let whole = engine.broker.read(&clerk, orders()).await.unwrap();
    assert!(engine.broker.check(&clerk, &whole.required).is_ok());
    change(&office, &[], &["read orders".to_owned()]).await;
    assert_eq!(code(engine.broker.check(&clerk, &whole.required)), Some(ErrorCode::PermissionDenied));
    assert!(engine.broker.check(&clerk, &reader.required).is_ok(), "one behind a mask goes on");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_plugin_that_fails_shows_nothing_and_is_left_alone_after_a_while() {
    let engine = with_orders().await;
    let office = Office::open(&engine).await;
    let clerk = office.clerk(&[&via(&[FAIL])]).await;
    let shown = read(&engine, &clerk).await;
    assert_eq!((shown.events, shown.scanned.map(|it| it.withheld)), (Vec::new(), Some(6)));
    let admin = office.admin();
    for _ in 0..200 {
        engine.publish_by(&admin, "orders", PartitionId(0), 1).await;
    }
    let mut reader = engine.broker.read(&clerk, orders()).await.unwrap();
    reader.credit.grant(PLENTY).await.unwrap();
    let mut next = 0;
    let error = loop {
        match timeout(SOON, reader.outgoing.recv()).await.unwrap().expect("it does not end well") {
            Ok(outgoing) => match outgoing.content() {
                Content::Progress(progress) => next = progress.positions[0].next.0,
                other => panic!("{other:?}"),
            },
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), ErrorCode::PluginFailed, "{error}");
    assert!(next > 0, "whoever reads again goes on behind what was withheld");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_mask_is_granted_with_plugins_that_are_there_and_take_it_and_they_stay() {
    let engine = with_orders().await;
    let office = Office::open(&engine).await;
    office.clerk(&[]).await;
    let grant = |line: &str| {
        let grant = vec![line.parse().unwrap()];
        Request::ChangePrincipal(ChangePrincipal { grant, ..ChangePrincipal::new(CLERK.parse().unwrap()) })
    };
    for (line, refused) in [
        ("read orders via other", ErrorCode::PluginNotFound),
        ("read orders via keep@7", ErrorCode::PluginNotFound),
        (r#"read orders via keep:{"state": true}"#, ErrorCode::PluginInitRefused),
    ] {
        assert_eq!(code(office.try_ask(grant(line)).await), Some(refused), "{line}");
    }
    office.ask(grant("read orders via keep")).await;
    let remove = || Request::RemovePlugin { name: "keep".parse().unwrap(), version: None };
    let error = office.try_ask(remove()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PluginInUse);
    assert!(error.to_string().contains("what 1 principal"), "{error}");
    change(&office, &[], &["read orders via keep".to_owned()]).await;
    office.ask(remove()).await;
    engine.broker.shutdown().await;
}
