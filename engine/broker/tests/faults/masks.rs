//! Masks: what one sees of events who may read them through plugins alone.

use std::sync::atomic::Ordering;

use levada_broker::{Content, Outgoing, Principal, Reader};
use levada_protocol::{
    deliver::Run,
    error::ErrorCode,
    event::Event,
    ids::PartitionId,
    limits::CHAIN_STAGES_MAX,
    permission::Permission,
    progress::Scanned,
    request::{
        ChangePrincipal, GroupDeadLetters, OnError, Read, Request, Response, RouteSpec, Search, StageSpec,
        Start, Subscribe, SubscriptionOptions, TopicSettings,
    },
    verbs::Credit,
};
use levada_stage::AttachmentPoint;
use tokio::time::timeout;

use crate::{
    access::{CLERK, Office, code},
    support::{EVEN, Engine, FAIL, HIDDEN, HIDE, PICK, PLENTY, SOON, WASTE},
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

fn shown(outgoing: &Outgoing) -> Shown {
    let mut shown = Shown::default();
    shown.add(outgoing.content());
    shown
}

/// The next that comes.
async fn next(reader: &mut Reader) -> Shown {
    shown(&timeout(SOON, reader.outgoing.recv()).await.unwrap().unwrap().unwrap())
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
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    engine.deploy(b"one").await;
    let events = (0..6).map(|number| Event::new(format!("{{\"card\": {number}}}")));
    engine.publish_events(&Principal::Local, ("orders", PartitionId(0)), events).await;
    let office = Office::open(&engine).await;
    let clerk = office.clerk(&[&via(&[HIDE])]).await;
    let search = async |principal: &Principal, condition: &str| {
        let search = Search { condition: Some(condition.to_owned()), ..Search::default() };
        let reading = Read { search: Some(search), ..orders() };
        to_the_end(engine.broker.read(principal, reading).await.unwrap()).await
    };
    let whole = search(&office.admin(), "card = 3").await;
    assert_eq!(whole.events, [(3, "{\"card\": 3}".to_owned())]);
    let masked = search(&clerk, "card = 3").await;
    assert_eq!((masked.events, masked.next), (Vec::new(), 6), "what is hidden is not to be found out");
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
async fn a_reader_goes_on_only_as_long_as_it_would_be_shown_the_same() {
    let engine = with_orders().await;
    let office = Office::open(&engine).await;
    let clerk = office.clerk(&[&via(&[HIDE])]).await;
    let follow = Read { follow: true, ..orders() };
    let hiding = engine.broker.read(&clerk, follow.clone()).await.unwrap();
    let holds = |reader: &Reader| code(engine.broker.check_conditions(&clerk, &reader.conditions));
    assert_eq!(holds(&hiding), None);
    let denied = engine.broker.until_denied(&clerk, &hiding.conditions);
    let (grant, revoke) = ([via(&[PICK])], [via(&[HIDE])]);
    let (_, error) = tokio::join!(change(&office, &grant, &revoke), denied);
    assert_eq!(error.code(), ErrorCode::ViewChanged, "{error}");
    assert!(ErrorCode::ViewChanged.is_retryable());
    let picking = engine.broker.read(&clerk, follow.clone()).await.unwrap();
    assert_eq!((holds(&hiding), holds(&picking)), (Some(ErrorCode::ViewChanged), None));
    change(&office, &["read orders".to_owned()], &[]).await;
    assert_eq!(holds(&picking), Some(ErrorCode::ViewChanged), "it may see more now");
    // A reader that shows everything needs that from its beginning to its end.
    let whole = engine.broker.read(&clerk, orders()).await.unwrap();
    assert_eq!(holds(&whole), None);
    change(&office, &[], &["read orders".to_owned()]).await;
    assert_eq!(holds(&whole), Some(ErrorCode::PermissionDenied));
    assert_eq!(holds(&picking), None);
    change(&office, &[], &[via(&[PICK])]).await;
    assert_eq!(holds(&picking), Some(ErrorCode::TopicNotFound));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn all_who_read_through_the_same_share_one_attachment_and_follow_its_version() {
    let engine = with_orders().await;
    let office = Office::open(&engine).await;
    let clerk = office.clerk(&[&via(&[HIDE])]).await;
    let attached = || {
        let points = engine.plugins.points.lock().unwrap();
        points.iter().filter(|point| **point == AttachmentPoint::Read).count()
    };
    let tried = attached();
    let follow = Read { follow: true, ..orders() };
    let mut first = engine.broker.read(&clerk, follow.clone()).await.unwrap();
    let _second = engine.broker.read(&clerk, follow).await.unwrap();
    assert_eq!(attached() - tried, 1);
    engine.try_deploy(&office.admin(), b"two").await.unwrap();
    first.credit.grant(PLENTY).await.unwrap();
    assert_eq!(next(&mut first).await.events, hidden(&[0, 1, 2, 3, 4, 5]));
    assert_eq!(engine.plugins.attached.load(Ordering::Acquire), 2, "the version that is active now");
    let calls = engine.metric("levada_plugin_seconds_total").await;
    assert!(calls.contains_key("keep@2 read"), "{calls:?}");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn withheld_events_are_told_with_what_comes_behind_them() {
    let engine = with_orders().await;
    let office = Office::open(&engine).await;
    let clerk = office.clerk(&[&via(&[PICK])]).await;
    let mut reader = engine.broker.read(&clerk, Read { follow: true, ..orders() }).await.unwrap();
    let mut next = async || timeout(SOON, reader.outgoing.recv()).await.unwrap().unwrap().unwrap();
    let one = Credit { events: 1, bytes: 1 << 20 };
    reader.credit.grant(one).await.unwrap();
    let outgoing = next().await;
    assert_eq!((outgoing.withheld(), shown(&outgoing).events), (0, stored(&[0])));
    reader.credit.grant(one).await.unwrap();
    let outgoing = next().await;
    assert_eq!((outgoing.withheld(), shown(&outgoing).events), (1, stored(&[3])), "of those before it");
    let outgoing = next().await;
    let scanned = shown(&outgoing).scanned.unwrap();
    assert_eq!(
        (outgoing.withheld(), scanned.withheld),
        (1, 2),
        "and the one behind it with the progress, which counts both"
    );
    assert_eq!(engine.metric("levada_withheld_events_total").await[""], 2.0);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn who_reads_page_by_page_is_told_of_each_withheld_event_once() {
    let engine = with_orders().await;
    let office = Office::open(&engine).await;
    engine.publish_by(&office.admin(), "orders", PartitionId(0), 9).await;
    let clerk = office.clerk(&[&via(&[EVEN])]).await;
    let (mut from, mut seen, mut told) = (0, Vec::new(), 0);
    while from < 15 {
        let reading = Read { from: Start::Offset(from), ..Read::new("orders".parse().unwrap()) };
        let mut reader = engine.broker.read(&clerk, reading).await.unwrap();
        reader.credit.grant(Credit { events: 1, bytes: 1 << 20 }).await.unwrap();
        let mut page = Vec::new();
        while page.is_empty() && from < 15 {
            let outgoing = timeout(SOON, reader.outgoing.recv()).await.unwrap().unwrap().unwrap();
            told += outgoing.withheld();
            page = shown(&outgoing).events;
            from = match outgoing.content() {
                Content::End(entries) => entries[0].next.0,
                _ => page.last().map_or(from, |(offset, _)| offset + 1),
            };
        }
        seen.extend(page.into_iter().map(|(offset, _)| offset));
    }
    assert_eq!(seen, [0, 2, 4, 6, 8, 10, 12, 14], "those of odd offsets are withheld");
    assert_eq!(told, 7);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_event_on_which_a_plugin_fails_is_not_shown_and_stops_nobody() {
    let engine = with_orders().await;
    let office = Office::open(&engine).await;
    let clerk = office.clerk(&[&via(&[FAIL])]).await;
    engine.publish_by(&office.admin(), "orders", PartitionId(0), 200).await;
    let shown = read(&engine, &clerk).await;
    assert_eq!((shown.events, shown.scanned.map(|it| it.withheld), shown.next), (Vec::new(), Some(206), 206));
    assert_eq!(engine.metric("levada_withheld_events_total").await[""], 206.0);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn plugins_that_waste_time_are_left_alone_for_a_while_by_all_readers() {
    let engine = with_orders().await;
    let office = Office::open(&engine).await;
    let clerk = office.clerk(&[&via(&[WASTE])]).await;
    let mut first = engine.broker.read(&clerk, orders()).await.unwrap();
    first.credit.grant(PLENTY).await.unwrap();
    let withheld = next(&mut first).await.scanned.unwrap().withheld;
    assert!(withheld < 6, "it waits: {withheld}");
    let mut second = engine.broker.read(&clerk, orders()).await.unwrap();
    second.credit.grant(PLENTY).await.unwrap();
    let withheld = next(&mut second).await.scanned.unwrap().withheld;
    assert!(withheld <= 1, "what one has found out holds for the other: {withheld}");
    drop(first);
    // It goes on by itself, an event at a time.
    let mut last = withheld;
    while last == withheld {
        last = next(&mut second).await.scanned.unwrap().withheld;
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_chain_of_all_masks_together_has_a_limit() {
    let engine = with_orders().await;
    let office = Office::open(&engine).await;
    let lines: Vec<String> =
        (0..=CHAIN_STAGES_MAX).map(|number| format!("read orders via keep:{number}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let clerk = office.clerk(&lines).await;
    let error = engine.broker.read(&clerk, orders()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PermissionDenied, "{error}");
    let clerk = office.clerk(&lines[1..]).await;
    assert_eq!(read(&engine, &clerk).await.events.len(), 6);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_a_plugin_says_is_for_those_who_may_see_the_events() {
    let engine = with_orders().await;
    let office = Office::open(&engine).await;
    let stage = StageSpec {
        plugin: "keep".to_owned(),
        config: FAIL.to_owned(),
        on_error: Some(OnError::Pause),
        ..StageSpec::default()
    };
    let (topic, name) = (|| "orders".parse().unwrap(), || "s".parse().unwrap());
    let options = SubscriptionOptions { chain: Some(vec![stage]), ..SubscriptionOptions::default() };
    let from = Start::Earliest;
    office.ask(Request::CreateSubscription { topic: topic(), name: name(), from, options }).await;
    let describe = async |principal: &Principal| {
        let described = Request::DescribeSubscription { topic: topic(), name: name() };
        match engine.broker.request(principal, described, None).await.unwrap() {
            Response::Subscription(info) => *info,
            other => panic!("{other:?}"),
        }
    };
    let admin = office.admin();
    let consuming = engine.broker.subscribe(&admin, Subscribe::new(topic(), name())).await.unwrap();
    consuming.control.credit(PLENTY).await.unwrap();
    let stopped = async {
        loop {
            let info = describe(&admin).await;
            if !info.state.is_running() {
                return info.state.to_string();
            }
            tokio::task::yield_now().await;
        }
    };
    let said = timeout(SOON, stopped).await.unwrap();
    assert!(said.contains("the test wants it so"), "{said}");
    for (line, sees) in [
        ("browse **", false),
        ("publish orders", false),
        ("subscribe orders/s", true),
        ("manage orders/s", true),
        ("read orders", true),
    ] {
        let lines =
            if line == "publish orders" { vec![line, "browse orders/s"] } else { vec![line, "browse **"] };
        let clerk = office.clerk(&lines).await;
        let info = describe(&clerk).await;
        assert!(!info.state.is_running(), "{line}");
        let words = format!("{info:?}").contains("the test wants it so");
        assert_eq!((info.state.to_string() == said, words), (sees, sees), "{line}: {info:?}");
        let listed = Request::ListSubscriptions { topic: None, limit: 0, after: None };
        let Response::Subscriptions { subscriptions, .. } =
            engine.broker.request(&clerk, listed, None).await.unwrap()
        else {
            panic!("a list was expected");
        };
        assert_eq!(subscriptions[0].state, info.state, "{line}");
        let plugins = Request::ListPlugins { limit: 0, after: None };
        let Response::Plugins { plugins, .. } = engine.broker.request(&clerk, plugins, None).await.unwrap()
        else {
            panic!("a list was expected");
        };
        assert!(plugins.iter().all(|plugin| plugin.last_error.is_none()), "{line}");
    }
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
    // A version that they could not read through is not deployed.
    *engine.plugins.refusing_at.lock().unwrap() = Some(AttachmentPoint::Read);
    let error = engine.try_deploy(&office.admin(), b"two").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PluginInitRefused, "{error}");
    assert!(error.to_string().contains("via keep"), "{error}");
    *engine.plugins.refusing_at.lock().unwrap() = None;
    engine.plugins.keeping_state.store(true, Ordering::Release);
    let error = engine.try_deploy(&office.admin(), b"two").await.unwrap_err();
    assert!(error.to_string().contains("keeps state"), "{error}");
    engine.plugins.keeping_state.store(false, Ordering::Release);
    let remove = || Request::RemovePlugin { name: "keep".parse().unwrap(), version: None };
    let error = office.try_ask(remove()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PluginInUse);
    assert!(error.to_string().contains("what 1 principal"), "{error}");
    change(&office, &[], &["read orders via keep".to_owned()]).await;
    office.ask(remove()).await;
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_refusal_names_what_its_caller_may_browse() {
    let engine = with_orders().await;
    engine.topic("copies", TopicSettings { backlog_max_events: 100, ..TopicSettings::default() }).await;
    let office = Office::open(&engine).await;
    let topic = |name: &str| name.parse().unwrap();
    let stage = StageSpec { plugin: "keep".to_owned(), ..StageSpec::default() };
    let options = SubscriptionOptions { chain: Some(vec![stage.clone()]), ..SubscriptionOptions::default() };
    for name in ["open", "hidden"] {
        let (topic, name, options) = (topic("copies"), name.parse().unwrap(), options.clone());
        office.ask(Request::CreateSubscription { topic, name, from: Start::Earliest, options }).await;
    }
    let route = RouteSpec::new("secret".parse().unwrap(), topic("orders"), [topic("copies")]);
    office.ask(Request::CreateRoute(RouteSpec { chain: vec![stage], ..route })).await;
    let lines = ["deploy keep", "manage copies", "manage copies/**", "browse copies/open"];
    let clerk = office.clerk(&lines).await;
    let refused =
        async |request: Request| engine.broker.request(&clerk, request, None).await.unwrap_err().to_string();
    let said = refused(Request::RemovePlugin { name: "keep".parse().unwrap(), version: None }).await;
    assert!(said.contains("copies/open") && !said.contains("secret"), "{said}");
    let said =
        refused(Request::DeleteTopic { name: topic("copies"), force: false, with_dead_letters: false }).await;
    assert!(said.contains("1 route that you may not browse would be blocked"), "{said}");
    assert!(said.contains("copies/open") && !said.contains("secret"), "{said}");
    let clerk = office.clerk(&["deploy keep", "browse orders"]).await;
    let removing = Request::RemovePlugin { name: "keep".parse().unwrap(), version: None };
    let said = engine.broker.request(&clerk, removing, None).await.unwrap_err().to_string();
    assert!(said.contains("3 attachments that you may not browse would be left without it"), "{said}");
    engine.broker.shutdown().await;
}
