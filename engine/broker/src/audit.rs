//! What the topic `_audit` says about a change: who made it, with which proof, and what is different after it.
//!
//! Pure: from a change and the catalogues before and after it to an event. The shard's writer appends the event in the commit of
//! the change.

use levada_protocol::{
    event::Event,
    ids::{PluginName, PrincipalId, RouteId, SubscriptionId, TokenId, TopicId},
};
use serde::Serialize;
use serde_json::{Value, value::to_value};

use crate::{
    actor::Actor,
    catalogue::{Catalogue, CatalogueEvent, Change, Decided, IdentityChange, Root},
    noted::Noted,
    rows::{PluginRecord, PushRecord, TokenRecord},
};

/// The topic. It is made with the first event, and has one partition.
pub(crate) const TOPIC: &str = "_audit";
/// An event that would be longer names what has changed without what it was and is.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// What an event adds to a commit at most.
pub(crate) const EVENT_LEN_MAX: usize = PAYLOAD_BYTES_MAX + 4 * 1024;
/// So many things are named then; of more there is the count alone.
const NAMED_MAX: usize = 100;

/// A thing before and after a change.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Thing {
    kind: &'static str,
    name: String,
    /// Its record; `null` if there was none.
    before: Value,
    after: Value,
}

impl Thing {
    /// Without members that nobody is told of.
    fn without(mut self, members: &[&str]) -> Self {
        for value in [&mut self.before, &mut self.after] {
            if let Some(object) = value.as_object_mut() {
                object.retain(|name, _| !members.contains(&name.as_str()));
            }
        }
        self
    }
}

/// The payload of an event.
#[derive(Debug, Serialize)]
struct Report<'a> {
    action: &'a str,
    #[serde(flatten)]
    by: &'a Actor,
    changed: &'a [Thing],
    /// How many more have changed than are named.
    #[serde(skip_serializing_if = "is_zero")]
    more: usize,
    #[serde(skip_serializing_if = "Value::is_null")]
    detail: &'a Value,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The event about a change that was decided; `None` if nobody is to hear of it, which without principals is always so.
pub(crate) fn event(change: &Change, by: &Actor, before: &Catalogue, decided: &Decided) -> Option<Event> {
    let after = &decided.next;
    if before.identities.is_empty() && after.identities.is_empty() {
        return None;
    }
    let (action, mut things) = match change {
        Change::Identity(IdentityChange::UseToken(_)) => return None,
        Change::Noted(what) => return noted(what, by, before),
        Change::Identity(change) => (action_of(change), identities(change, before, after)),
        _ => (name_of(change), things(&decided.events, before, after)),
    };
    // A change to what is so already is none.
    things.retain(|thing| thing.before != thing.after);
    (!things.is_empty()).then(|| written(action, by, things, &Value::Null))
}

/// The event about something that is no change of the catalogue; `None` without principals.
pub(crate) fn noted(noted: &Noted, by: &Actor, catalogue: &Catalogue) -> Option<Event> {
    let Noted { action, kind, name, detail } = noted;
    let thing = Thing { kind, name: name.clone(), before: Value::Null, after: Value::Null };
    (!catalogue.identities.is_empty()).then(|| written(action, by, vec![thing], detail))
}

fn written(action: &str, by: &Actor, mut things: Vec<Thing>, detail: &Value) -> Event {
    let whole = payload(&Report { action, by, changed: &things, more: 0, detail });
    let payload = if whole.len() <= PAYLOAD_BYTES_MAX {
        whole
    } else {
        let more = things.len().saturating_sub(NAMED_MAX);
        things.truncate(NAMED_MAX);
        things.iter_mut().for_each(|thing| (thing.before, thing.after) = (Value::Null, Value::Null));
        payload(&Report { action, by, changed: &things, more, detail: &Value::Null })
    };
    let key = things.first().map_or_else(String::new, |thing| format!("{} {}", thing.kind, thing.name));
    Event::new(payload)
        .with_key(key)
        .with_header("content-type", "application/json")
        .with_header("ce-type", format!("levada.audit.{action}"))
        .with_header("ce-source", format!("/principals/{}", by.principal))
}

fn payload(report: &Report<'_>) -> Vec<u8> {
    serde_json::to_vec(report).unwrap_or_default()
}

/// Names follow the protocol's requests.
fn name_of(change: &Change) -> &'static str {
    match change {
        Change::CreateTopic { .. } => "create_topic",
        Change::SetTopic { .. } => "set_topic",
        Change::Delete { root: Root::Topic(_), .. } => "delete_topic",
        Change::Delete { root: Root::Subscription(..), .. } => "delete_subscription",
        Change::Delete { root: Root::Route(_), .. } => "delete_route",
        Change::CreateSubscription { .. } => "create_subscription",
        Change::SetSubscription { .. } => "set_subscription",
        Change::PauseSubscription { paused: true, .. } => "pause_subscription",
        Change::PauseSubscription { paused: false, .. } => "resume_subscription",
        Change::MoveSubscription { .. } => "seek_subscription",
        Change::SetPush(_) => "set_push",
        Change::RemovePush { .. } => "remove_push",
        Change::DeployPlugin { .. } => "deploy_plugin",
        Change::RemovePlugin { .. } => "remove_plugin",
        Change::CreateRoute { .. } => "create_route",
        Change::Identity(change) => action_of(change),
        Change::Noted(_) => "noted",
    }
}

fn action_of(change: &IdentityChange) -> &'static str {
    match change {
        IdentityChange::CreatePrincipal { .. } => "create_principal",
        IdentityChange::ChangePrincipal(_) => "change_principal",
        IdentityChange::DeletePrincipal(_) => "delete_principal",
        IdentityChange::CreateToken { .. } => "create_token",
        IdentityChange::RevokeToken(_) => "revoke_token",
        IdentityChange::UseToken(_) => "use_token",
    }
}

/// What the events of a change name, as it was and as it is.
fn things(events: &[CatalogueEvent], before: &Catalogue, after: &Catalogue) -> Vec<Thing> {
    let mut things = Vec::new();
    for event in events {
        match event {
            CatalogueEvent::TopicCreated(record) | CatalogueEvent::TopicChanged(record) => {
                things.extend(topic(record.id(), before, after));
            }
            CatalogueEvent::TopicDeleted(id) => things.extend(topic(*id, before, after)),
            CatalogueEvent::SubscriptionCreated(record)
            | CatalogueEvent::SubscriptionChanged(record)
            | CatalogueEvent::SubscriptionMoved(record, _) => {
                things.extend(subscription(SubscriptionId(record.id), before, after));
            }
            CatalogueEvent::SubscriptionDeleted(id) => things.extend(subscription(*id, before, after)),
            CatalogueEvent::PushChanged(id) => things.extend(push(*id, before, after)),
            CatalogueEvent::RouteCreated(record) => things.extend(route(RouteId(record.id), before, after)),
            CatalogueEvent::RouteDeleted(id) => things.extend(route(*id, before, after)),
            CatalogueEvent::PluginChanged(name) => things.extend(plugins(name, before, after)),
            CatalogueEvent::IdentitiesChanged | CatalogueEvent::Reloaded => {}
        }
    }
    things
}

/// A record before and after, if there is one of either.
fn thing<R: Serialize>(
    kind: &'static str,
    [before, after]: [Option<&R>; 2],
    name: impl FnOnce(&R) -> String,
) -> Option<Thing> {
    let name = name(after.or(before)?);
    let value = |record: Option<&R>| record.and_then(|record| to_value(record).ok()).unwrap_or(Value::Null);
    Some(Thing { kind, name, before: value(before), after: value(after) })
}

fn topic(id: TopicId, before: &Catalogue, after: &Catalogue) -> Option<Thing> {
    let records = [before, after].map(|catalogue| catalogue.topics.by_id(id).map(AsRef::as_ref));
    thing("topic", records, |record| record.name.to_string())
}

fn subscription(id: SubscriptionId, before: &Catalogue, after: &Catalogue) -> Option<Thing> {
    let records = [before, after].map(|catalogue| catalogue.subscriptions.by_id(id).map(AsRef::as_ref));
    thing("subscription", records, |record| format!("{}/{}", record.topic, record.name))
}

/// A push without its secrets.
fn push(id: SubscriptionId, before: &Catalogue, after: &Catalogue) -> Option<Thing> {
    let of = [after, before].into_iter().find_map(|catalogue| catalogue.subscriptions.by_id(id))?;
    let records = [before, after].map(|catalogue| catalogue.pushes.get(&id).map(AsRef::as_ref));
    let thing = thing("push", records, |_: &PushRecord| format!("{}/{}", of.topic, of.name))?;
    Some(thing.without(&["secret", "previous"]))
}

fn route(id: RouteId, before: &Catalogue, after: &Catalogue) -> Option<Thing> {
    let records = [before, after].map(|catalogue| catalogue.routes.by_id(id).map(AsRef::as_ref));
    thing("route", records, |record| record.spec.name.to_string())
}

/// The versions that are there only before or only after.
fn plugins(name: &PluginName, before: &Catalogue, after: &Catalogue) -> Vec<Thing> {
    let named = |record: &PluginRecord| format!("{}@{}", record.name, record.version);
    let gone = before.plugins.versions(name).filter(|record| after.plugins.by_id(record.id).is_none());
    let new = after.plugins.versions(name).filter(|record| before.plugins.by_id(record.id).is_none());
    let gone = gone.filter_map(|record| thing("plugin", [Some(record.as_ref()), None], named));
    gone.chain(new.filter_map(|record| thing("plugin", [None, Some(record.as_ref())], named))).collect()
}

fn identities(change: &IdentityChange, before: &Catalogue, after: &Catalogue) -> Vec<Thing> {
    let (old, new) = (&before.identities, &after.identities);
    let principal = |name| {
        let records = [old, new].map(|identities| identities.principal(name).ok().map(AsRef::as_ref));
        thing("principal", records, |record| record.name.to_string())
    };
    let token = |id| token(id, before, after);
    match change {
        IdentityChange::CreatePrincipal { name, token: made, .. } => {
            principal(name).into_iter().chain(made.as_ref().and_then(|made| token(made.id))).collect()
        }
        IdentityChange::ChangePrincipal(change) => principal(&change.name).into_iter().collect(),
        IdentityChange::DeletePrincipal(name) => {
            let id = old.principal(name).ok().map(|record| PrincipalId(record.id));
            let tokens = id.into_iter().flat_map(|id| old.tokens_of(id));
            principal(name).into_iter().chain(tokens.filter_map(|record| token(TokenId(record.id)))).collect()
        }
        IdentityChange::CreateToken { token: made, .. } => token(made.id).into_iter().collect(),
        IdentityChange::RevokeToken(id) | IdentityChange::UseToken(id) => token(*id).into_iter().collect(),
    }
}

/// A token without what is stored of its secret.
fn token(id: TokenId, before: &Catalogue, after: &Catalogue) -> Option<Thing> {
    let records = [before, after].map(|catalogue| catalogue.identities.token(id).map(AsRef::as_ref));
    let thing = thing("token", records, |record: &TokenRecord| TokenId(record.id).to_string())?;
    Some(thing.without(&["secret_sha256"]))
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        ids::Timestamp,
        push_secret::PushSecret,
        request::{SetPush, TopicSettings},
    };

    use super::*;
    use crate::actor::Origin;
    use crate::catalogue::{DrawnToken, PushChange};

    const NOW: Timestamp = Timestamp(5);

    fn me() -> Actor {
        let (principal, proof) = ("me".to_owned(), Some("token 7".to_owned()));
        let origin = Origin { peer: Some(([192, 0, 2, 7], 50_000).into()), request: Some("r-1".to_owned()) };
        Actor { principal, proof, origin }
    }

    fn decide(change: &Change, before: &Catalogue) -> Decided {
        change.decide(before, NOW, usize::MAX).unwrap()
    }

    fn with_principal() -> (Change, Catalogue) {
        let token = DrawnToken {
            id: TokenId(9),
            secret_sha256: "5ec2e7".to_owned(),
            new: levada_protocol::request::NewToken::default(),
        };
        let change = Change::Identity(IdentityChange::CreatePrincipal {
            name: "me".parse().unwrap(),
            permissions: vec!["admin".parse().unwrap()],
            certificates: Vec::new(),
            quotas: levada_protocol::request::Quotas::default(),
            token: Some(token),
            owner: "local".to_owned(),
        });
        let next = decide(&change, &Catalogue::default()).next;
        (change, next)
    }

    fn create(name: &str) -> Change {
        Change::CreateTopic {
            name: name.parse().unwrap(),
            settings: TopicSettings::default(),
            owner: "me".to_owned(),
        }
    }

    fn subscribe() -> Change {
        Change::CreateSubscription {
            topic: "orders".parse().unwrap(),
            name: "payment".parse().unwrap(),
            options: levada_protocol::request::SubscriptionOptions::default(),
            positions: vec![levada_protocol::ids::Offset(0)],
            owner: "me".to_owned(),
        }
    }

    fn json(event: &Event) -> Value {
        serde_json::from_slice(event.payload.as_deref().unwrap()).unwrap()
    }

    #[test]
    fn without_principals_there_is_nothing_to_tell_and_the_first_is_told() {
        let empty = Catalogue::default();
        let change = create("orders");
        assert_eq!(event(&change, &me(), &empty, &decide(&change, &empty)), None);
        let (change, _) = with_principal();
        let told = json(&event(&change, &me(), &empty, &decide(&change, &empty)).unwrap());
        assert_eq!(told["action"], "create_principal");
        let by = ["principal", "proof", "peer", "request"].map(|member| told[member].as_str().unwrap());
        assert_eq!(by, ["me", "token 7", "192.0.2.7:50000", "r-1"]);
        let kinds: Vec<_> = told["changed"].as_array().unwrap().iter().map(|it| it["kind"].clone()).collect();
        assert_eq!(kinds, ["principal", "token"]);
        assert_eq!(told["changed"][0]["before"], Value::Null);
        assert_eq!(told["changed"][0]["after"]["permissions"][0], "admin");
        assert!(!told.to_string().contains("5ec2e7"), "nothing of a secret is told");
    }

    #[test]
    fn a_deletion_tells_all_that_goes_along_as_it_was() {
        let (_, mut catalogue) = with_principal();
        for change in [create("orders"), subscribe()] {
            catalogue = decide(&change, &catalogue).next;
        }
        let root = Root::Topic("orders".parse().unwrap());
        let change = Change::Delete { root, force: true, with_dead_letters: false };
        let event = event(&change, &me(), &catalogue, &decide(&change, &catalogue)).unwrap();
        let told = json(&event);
        assert_eq!(told["action"], "delete_topic");
        let changed = told["changed"].as_array().unwrap();
        assert_eq!(
            (&changed[0]["kind"], &changed[0]["name"]),
            (&"subscription".into(), &"orders/payment".into())
        );
        assert_eq!((&changed[1]["kind"], &changed[1]["name"]), (&"topic".into(), &"orders".into()));
        assert!(changed.iter().all(|it| it["before"].is_object() && it["after"].is_null()));
        assert_eq!(event.key.as_deref(), Some(&b"subscription orders/payment"[..]));
    }

    #[test]
    fn a_push_is_told_without_its_secrets() {
        let (_, mut catalogue) = with_principal();
        for change in [create("orders"), subscribe()] {
            catalogue = decide(&change, &catalogue).next;
        }
        let secret = |byte| PushSecret::new(vec![byte; 32]).unwrap();
        let push = |url: &str, byte| {
            let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
            let set =
                SetPush { secret: Some(secret(byte)), ..SetPush::new(topic, name, Some(url.to_owned())) };
            Change::SetPush(PushChange { set, drawn: secret(0), owner: "me".to_owned() })
        };
        let catalogue = decide(&push("https://a.example/", 1), &catalogue).next;
        let change = push("https://b.example/", 2);
        let told = json(&event(&change, &me(), &catalogue, &decide(&change, &catalogue)).unwrap());
        assert_eq!(
            (&told["action"], &told["changed"][0]["name"]),
            (&"set_push".into(), &"orders/payment".into())
        );
        assert_eq!(told["changed"][0]["before"]["url"], "https://a.example/");
        assert_eq!(told["changed"][0]["after"]["url"], "https://b.example/");
        let text = told.to_string();
        assert!(!text.contains("secret") && !text.contains("whsec") && !text.contains("previous"), "{text}");
    }

    #[test]
    fn what_is_too_long_is_named_without_its_records_and_of_very_many_there_is_a_count() {
        let thing = |number| Thing {
            kind: "topic",
            name: format!("t{number}"),
            before: Value::from("x".repeat(1_000)),
            after: Value::Null,
        };
        let told = |count: usize| {
            json(&written("delete_topic", &me(), (0..count).map(thing).collect(), &Value::Null))
        };
        let short = told(10);
        assert!(short["changed"][9]["before"].is_string() && short["more"].is_null());
        let long = told(1_000);
        assert_eq!(long["changed"].as_array().unwrap().len(), NAMED_MAX);
        assert_eq!((&long["changed"][0]["before"], &long["more"]), (&Value::Null, &Value::from(900)));
    }

    #[test]
    fn the_use_of_a_token_is_no_change() {
        let (_, catalogue) = with_principal();
        let change = Change::Identity(IdentityChange::UseToken(TokenId(9)));
        assert_eq!(event(&change, &me(), &catalogue, &decide(&change, &catalogue)), None);
    }
}
