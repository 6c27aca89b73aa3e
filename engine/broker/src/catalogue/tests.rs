//! Deciding changes, as tables of cases.

use levada_protocol::{
    ids::{Offset, Timestamp, TokenId},
    limits::TOPIC_NAME_BYTES_MAX,
    permission::Permission,
    request::{NewToken, OnFull, Retain, RouteSpec, SubscriptionOptions, TopicChanges, TopicSettings},
};

use super::*;

fn decide(catalogue: &Catalogue, change: &Change) -> Result<Catalogue, Error> {
    let decided = change.decide(catalogue, Timestamp(1), 100)?;
    Ok(decided.next)
}

#[test]
fn a_subscription_whose_dead_letters_could_have_no_topic_is_refused_and_others_can_go() {
    let owner = || "somebody".to_owned();
    let longest = "t".repeat(TOPIC_NAME_BYTES_MAX);
    let source = TopicName::parse_any(&format!("dlq.{longest}.{}", "s".repeat(63))).unwrap();
    let topic =
        Change::CreateTopic { name: source.clone(), settings: TopicSettings::default(), owner: owner() };
    let catalogue = decide(&Catalogue::default(), &topic).unwrap();
    let subscription = |name: &str| Change::CreateSubscription {
        topic: source.clone(),
        name: name.parse().unwrap(),
        options: SubscriptionOptions::default(),
        positions: vec![Offset(0)],
        owner: owner(),
    };
    let refused = decide(&catalogue, &subscription(&"s".repeat(63))).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidName);
    assert!(refused.to_string().contains("choose a shorter name"), "{refused}");
    let route = Change::CreateRoute {
        spec: RouteSpec::new("r".repeat(63).parse().unwrap(), source.clone(), []),
        name: "r".repeat(63).parse().unwrap(),
        positions: vec![Offset(0)],
        owner: owner(),
    };
    assert_eq!(decide(&catalogue, &route).unwrap_err().code(), ErrorCode::InvalidName);
    let with_short = decide(&catalogue, &subscription("s")).unwrap();
    let delete = Change::Delete { root: Root::Topic(source.clone()), force: true, with_dead_letters: true };
    assert_eq!(decide(&with_short, &delete).unwrap().topics.len(), 0);
}

#[test]
fn the_last_record_that_there_is_room_for_is_made_and_no_other() {
    let owner = || "somebody".to_owned();
    let topic = |name: &str| {
        let settings = TopicSettings::default();
        Change::CreateTopic { name: name.parse().unwrap(), settings, owner: owner() }
    };
    let subscription = Change::CreateSubscription {
        topic: "a".parse().unwrap(),
        name: "s".parse().unwrap(),
        options: SubscriptionOptions::default(),
        positions: vec![Offset(0)],
        owner: owner(),
    };
    let plugin = Change::DeployPlugin {
        name: "p".parse().unwrap(),
        sha256: "0".repeat(64),
        size: 1,
        interface: "batch".to_owned(),
        owner: owner(),
    };
    let route = Change::CreateRoute {
        spec: RouteSpec::new("r".parse().unwrap(), "a".parse().unwrap(), ["b".parse().unwrap()]),
        name: "r".parse().unwrap(),
        positions: vec![Offset(0)],
        owner: owner(),
    };
    let two = decide(&decide(&Catalogue::default(), &topic("a")).unwrap(), &topic("b")).unwrap();
    for change in [topic("c"), subscription, plugin, route] {
        let with_room = |records_max| change.decide(&two, Timestamp(1), records_max);
        assert_eq!(with_room(3).unwrap().next.len(), 3, "{change:?}");
        let refused = with_room(2).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::LimitExceeded, "{change:?}");
        assert!(refused.to_string().contains("the catalogue holds 2 records, the most it may"), "{refused}");
    }
    let delete =
        Change::Delete { root: Root::Topic("b".parse().unwrap()), force: false, with_dead_letters: false };
    assert_eq!(delete.decide(&two, Timestamp(1), 2).unwrap().next.len(), 1, "what takes no room needs none");
}

#[test]
fn settings_that_contradict_each_other_are_refused_however_they_come_together() {
    let name: TopicName = "orders".parse().unwrap();
    let create =
        |settings| Change::CreateTopic { name: name.clone(), settings, owner: "somebody".to_owned() };
    let set = |changes| Change::SetTopic { name: name.clone(), changes };
    let plain = TopicSettings::default;
    let drops = TopicSettings { on_full: OnFull::DropOldest, ..plain() };
    let bounded = TopicSettings { backlog_max_events: 3, ..drops.clone() };
    let compact = TopicSettings { retain: Retain::Compact, ..plain() };
    let header = TopicSettings { dedup_header: "source".to_owned(), ..plain() };
    let windowed = TopicSettings { dedup_window_ms: 1_000, ..header.clone() };
    let none = TopicChanges::default;
    let on_full = |on_full| TopicChanges { on_full: Some(on_full), ..none() };
    let refused = |catalogue: &Catalogue, change: &Change, both: [&str; 2]| {
        let error = decide(catalogue, change).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert!(both.iter().all(|one| error.to_string().contains(one)), "{error}");
    };
    let empty = Catalogue::default();
    refused(&empty, &create(drops), ["on_full", "backlog_max_events"]);
    refused(&empty, &create(header), ["dedup_header", "dedup_window_ms"]);
    let source = || Some("source".to_owned());
    for (has, changes, both) in [
        (plain(), on_full(OnFull::DropOldest), ["on_full", "backlog_max_events"]),
        (compact, on_full(OnFull::DropOldest), ["on_full", "retain compact"]),
        (
            bounded.clone(),
            TopicChanges { backlog_max_events: Some(0), ..on_full(OnFull::DropOldest) },
            ["on_full", "backlog_max_events"],
        ),
        (
            bounded.clone(),
            TopicChanges { retain: Some(Retain::Compact), ..none() },
            ["on_full", "retain compact"],
        ),
        (plain(), TopicChanges { dedup_header: source(), ..none() }, ["dedup_header", "dedup_window_ms"]),
        (
            windowed.clone(),
            TopicChanges { dedup_window_ms: Some(0), dedup_header: source(), ..none() },
            ["dedup_header", "dedup_window_ms"],
        ),
    ] {
        refused(&decide(&empty, &create(has)).unwrap(), &set(changes), both);
    }
    // What is not given goes with what it belongs to.
    for (has, changes) in [
        (bounded, TopicChanges { backlog_max_events: Some(0), ..none() }),
        (windowed, TopicChanges { dedup_window_ms: Some(0), ..none() }),
    ] {
        let set = decide(&decide(&empty, &create(has)).unwrap(), &set(changes)).unwrap();
        assert_eq!(set.topic(&name).unwrap().settings, plain());
    }
}

#[test]
fn the_last_principal_cannot_go_even_when_the_time_of_its_token_is_over() {
    let name = || "boss".parse().unwrap();
    let token = DrawnToken {
        id: TokenId(1),
        secret_sha256: String::new(),
        new: NewToken { expires_in_ms: Some(1), ..NewToken::default() },
    };
    let create = Change::Identity(IdentityChange::CreatePrincipal {
        name: name(),
        permissions: vec![Permission::admin()],
        certificates: Vec::new(),
        quotas: levada_protocol::request::Quotas::default(),
        token: Some(token),
        owner: "local".to_owned(),
    });
    let catalogue = decide(&Catalogue::default(), &create).unwrap();
    let delete = Change::Identity(IdentityChange::DeletePrincipal(name()));
    for now in [Timestamp(1), Timestamp(u64::MAX)] {
        let refused = delete.decide(&catalogue, now, 100).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::LastAdministrator);
    }
}

#[test]
fn a_full_catalogue_keeps_no_administrator_out() {
    let token = |id| DrawnToken { id: TokenId(id), secret_sha256: String::new(), new: NewToken::default() };
    let create = Change::Identity(IdentityChange::CreatePrincipal {
        name: "boss".parse().unwrap(),
        permissions: vec![Permission::admin()],
        certificates: Vec::new(),
        quotas: levada_protocol::request::Quotas::default(),
        token: Some(token(1)),
        owner: "local".to_owned(),
    });
    let decided = create.decide(&Catalogue::default(), Timestamp(1), 0).unwrap();
    let issue = IdentityChange::CreateToken {
        principal: "boss".parse().unwrap(),
        token: token(2),
        owner: "boss".to_owned(),
    };
    assert!(Change::Identity(issue).decide(&decided.next, Timestamp(1), 0).is_ok());
}
