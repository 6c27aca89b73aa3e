//! Deciding changes, as tables of cases.

use levada_protocol::{
    ids::{Offset, Timestamp},
    limits::TOPIC_NAME_BYTES_MAX,
    request::{RouteSpec, SubscriptionOptions, TopicSettings},
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
