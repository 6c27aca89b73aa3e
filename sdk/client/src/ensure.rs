//! Making what may be there already, as programs do when they start.

use std::fmt;

use levada_protocol::{
    error::{ErrorCode, Refusal},
    ids::TopicName,
    request::{
        OnError, Order, Retain, RouteInfo, RouteSpec, StageSpec, Start, SubscriptionInfo,
        SubscriptionOptions, TopicInfo, TopicSettings,
    },
};

use crate::{client::Client, error::Error};

/// What was to be there, and whether it was made now.
#[derive(Debug, Clone, PartialEq)]
pub struct Ensured<T> {
    /// As it is.
    pub found: T,
    /// False if it was there already.
    pub created: bool,
}

impl Client {
    /// Makes a topic unless one with these settings exists, so that it may be called at every start.
    ///
    /// Cancel safe in that it may be called again: a call that is given up may still make the topic, which the next one finds.
    ///
    /// # Errors
    /// `TOPIC_EXISTS` if a topic of this name has other settings, with the first that differs. Otherwise as
    /// [`Client::create_topic`].
    pub async fn ensure_topic(
        &self,
        name: &str,
        settings: TopicSettings,
    ) -> Result<Ensured<TopicInfo>, Error> {
        let exists = match self.create_topic(name, settings.clone()).await {
            Ok(found) => return Ok(Ensured { found, created: true }),
            Err(Error::Refused(refusal)) if refusal.code == ErrorCode::TopicExists => refusal,
            Err(error) => return Err(error),
        };
        let found = self.describe_topic(name).await?;
        match setting_that_differs(&found.settings, &settings) {
            None => Ok(Ensured { found, created: false }),
            Some(difference) => Err(refused(exists.code, format!("topic {name} exists with {difference}"))),
        }
    }

    /// Makes a subscription unless one with these options exists, so that it may be called at every start. Options that
    /// are not given are not compared, nor is where an existing one began: it goes on where it is.
    ///
    /// Cancel safe in that it may be called again: a call that is given up may still make the subscription, which the next one finds.
    ///
    /// # Errors
    /// `SUBSCRIPTION_EXISTS` if a subscription of this name has other options, with the first that differs. Otherwise
    /// as [`Client::create_subscription`].
    pub async fn ensure_subscription(
        &self,
        topic: &str,
        name: &str,
        options: SubscriptionOptions,
        from: Start,
    ) -> Result<Ensured<SubscriptionInfo>, Error> {
        let exists = match self.create_subscription(topic, name, options.clone(), from).await {
            Ok(found) => return Ok(Ensured { found, created: true }),
            Err(Error::Refused(refusal)) if refusal.code == ErrorCode::SubscriptionExists => refusal,
            Err(error) => return Err(error),
        };
        let found = self.describe_subscription(topic, name).await?;
        match option_that_differs(&found.options, &options) {
            None => Ok(Ensured { found, created: false }),
            Some(difference) => {
                Err(refused(exists.code, format!("subscription {topic}/{name} exists with {difference}")))
            }
        }
    }

    /// Makes a route unless this very route exists, so that it may be called at every start. Where an existing one
    /// began is not compared: it goes on where it is.
    ///
    /// Cancel safe in that it may be called again: a call that is given up may still make the route, which the next one finds.
    ///
    /// # Errors
    /// `ROUTE_EXISTS` if a route of this name is another one, with the first field that differs. Otherwise as
    /// [`Client::create_route`].
    pub async fn ensure_route(&self, spec: RouteSpec) -> Result<Ensured<RouteInfo>, Error> {
        let exists = match self.create_route(spec.clone()).await {
            Ok(found) => return Ok(Ensured { found, created: true }),
            Err(Error::Refused(refusal)) if refusal.code == ErrorCode::RouteExists => refusal,
            Err(error) => return Err(error),
        };
        let routes = self.list_routes().await?;
        let Some(found) = routes.into_iter().find(|route| route.spec.name == spec.name) else {
            return Err(Error::Refused(exists));
        };
        match part_that_differs(&found.spec, &spec) {
            None => Ok(Ensured { found, created: false }),
            Some(difference) => {
                Err(refused(exists.code, format!("route {} exists with {difference}", spec.name)))
            }
        }
    }
}

fn refused(code: ErrorCode, message: String) -> Error {
    Error::Refused(Refusal::new(code, message))
}

fn setting_that_differs(has: &TopicSettings, wanted: &TopicSettings) -> Option<String> {
    let TopicSettings {
        partitions,
        durability,
        retain,
        retain_for_ms,
        max_bytes,
        dedup_window_ms,
        dedup_header,
        backlog_max_events,
        backlog_max_bytes,
        backlog_max_age_ms,
        on_full,
    } = wanted;
    differs("partitions", has.partitions, *partitions)
        .or_else(|| differs("durability", has.durability, *durability))
        .or_else(|| differs("retain", has.retain.as_str(), retain.as_str()))
        // Compaction keeps the last event of each key however old it is.
        .or_else(|| {
            differs("retain_for_ms", has.retain_for_ms, *retain_for_ms).filter(|_| *retain != Retain::Compact)
        })
        .or_else(|| differs("max_bytes", has.max_bytes, *max_bytes))
        .or_else(|| differs("dedup_window_ms", has.dedup_window_ms, *dedup_window_ms))
        .or_else(|| differs("dedup_header", &has.dedup_header, dedup_header))
        .or_else(|| differs("backlog_max_events", has.backlog_max_events, *backlog_max_events))
        .or_else(|| differs("backlog_max_bytes", has.backlog_max_bytes, *backlog_max_bytes))
        .or_else(|| differs("backlog_max_age_ms", has.backlog_max_age_ms, *backlog_max_age_ms))
        .or_else(|| differs("on_full", has.on_full, *on_full))
}

fn part_that_differs(has: &RouteSpec, wanted: &RouteSpec) -> Option<String> {
    differs("from", &has.from, &wanted.from)
        .or_else(|| differs("to", joined(&has.to), joined(&wanted.to)))
        .or_else(|| chain_that_differs(&has.chain, &wanted.chain))
}

fn joined(topics: &[TopicName]) -> String {
    topics.iter().map(TopicName::as_str).collect::<Vec<_>>().join(", ")
}

fn option_that_differs(has: &SubscriptionOptions, wanted: &SubscriptionOptions) -> Option<String> {
    let word = |order: Order| match order {
        Order::Key => "key",
        Order::Partition => "partition",
        Order::None => "none",
    };
    given_differs("order", word(has.order()), wanted.order.map(word))
        .or_else(|| given_differs("ack_timeout_ms", has.ack_timeout_ms(), wanted.ack_timeout_ms))
        .or_else(|| given_differs("max_attempts", has.max_attempts(), wanted.max_attempts))
        .or_else(|| given_differs("max_in_flight", has.max_in_flight(), wanted.max_in_flight))
        .or_else(|| {
            let listed = |waits: &[u32]| format!("{waits:?}");
            given_differs("backoff_ms", listed(has.backoff_ms()), wanted.backoff_ms.as_deref().map(listed))
        })
        .or_else(|| given_differs("rate", has.rate.unwrap_or(0), wanted.rate))
        .or_else(|| {
            given_differs("dead_letter_expired", has.dead_letter_expired(), wanted.dead_letter_expired)
        })
        .or_else(|| {
            given_differs("expire_after_ms", has.expire_after_ms.unwrap_or(0), wanted.expire_after_ms)
        })
        .or_else(|| chain_that_differs(has.chain(), wanted.chain.as_deref()?))
}

fn chain_that_differs(has: &[StageSpec], wanted: &[StageSpec]) -> Option<String> {
    let plugins = |chain: &[StageSpec]| {
        let names: Vec<&str> = chain.iter().map(|stage| stage.plugin.as_str()).collect();
        format!("[{}]", names.join(", "))
    };
    let stages = || {
        has.iter()
            .zip(wanted)
            .enumerate()
            .find_map(|(index, (has, wanted))| stage_that_differs(&format!("chain[{index}]"), has, wanted))
    };
    differs("chain", plugins(has), plugins(wanted)).or_else(stages)
}

fn stage_that_differs(name: &str, has: &StageSpec, wanted: &StageSpec) -> Option<String> {
    let policy = |stage: &StageSpec| match stage.on_error() {
        OnError::DeadLetter => "dead_letter",
        OnError::Skip => "skip",
        OnError::Pause => "pause",
        OnError::Pass => "pass",
    };
    // How a configuration is written means nothing.
    let meaning = |stage: &StageSpec| serde_json::from_str::<serde_json::Value>(&stage.config).ok();
    let config = (meaning(has).is_none() || meaning(has) != meaning(wanted))
        .then(|| differs(&format!("{name}.config"), &has.config, &wanted.config));
    config
        .flatten()
        .or_else(|| differs(&format!("{name}.on_error"), policy(has), policy(wanted)))
        .or_else(|| differs(&format!("{name}.retries"), has.retries(), wanted.retries()))
        .or_else(|| differs(&format!("{name}.deadline_ms"), has.deadline_ms(), wanted.deadline_ms()))
        .or_else(|| {
            differs(&format!("{name}.memory_bytes_max"), has.memory_bytes_max(), wanted.memory_bytes_max())
        })
}

fn given_differs<T: PartialEq + fmt::Display>(field: &str, has: T, wanted: Option<T>) -> Option<String> {
    differs(field, has, wanted?)
}

fn differs<T: PartialEq + fmt::Display>(field: &str, has: T, wanted: T) -> Option<String> {
    (has != wanted).then(|| format!("{field} {has}, expected {wanted}"))
}

#[cfg(test)]
mod tests {
    use levada_protocol::publish::Durability;

    use super::*;

    #[test]
    fn the_first_setting_that_differs_is_named_with_both_values() {
        let has = TopicSettings { partitions: 4, max_bytes: 7, ..TopicSettings::default() };
        assert_eq!(setting_that_differs(&has, &has.clone()), None);
        let differing = setting_that_differs(&has, &TopicSettings::default());
        assert_eq!(differing.as_deref(), Some("partitions 4, expected 1"));
        let wanted = TopicSettings { durability: Durability::Os, ..has.clone() };
        assert_eq!(setting_that_differs(&has, &wanted).as_deref(), Some("durability sync, expected os"));
    }

    #[test]
    fn options_that_are_not_given_differ_from_nothing() {
        let stage = StageSpec { plugin: "p".to_owned(), ..StageSpec::default() };
        let has = SubscriptionOptions {
            max_attempts: Some(3),
            chain: Some(vec![stage]),
            ..SubscriptionOptions::default()
        };
        assert_eq!(option_that_differs(&has, &SubscriptionOptions::default()), None);
        let wanted = SubscriptionOptions { max_attempts: Some(16), ..SubscriptionOptions::default() };
        assert_eq!(option_that_differs(&has, &wanted).as_deref(), Some("max_attempts 3, expected 16"));
        let wanted = SubscriptionOptions { chain: Some(Vec::new()), ..SubscriptionOptions::default() };
        assert_eq!(option_that_differs(&has, &wanted).as_deref(), Some("chain [p], expected []"));
    }

    #[test]
    fn a_route_is_the_same_wherever_it_began_and_whether_defaults_are_spelt_out() {
        let stage = StageSpec { plugin: "p".to_owned(), ..StageSpec::default() };
        let topic = |name: &str| name.parse::<TopicName>().unwrap();
        let route = RouteSpec::new("r".parse().unwrap(), topic("a"), [topic("c")]);
        let wanted = RouteSpec { chain: vec![stage.clone()], ..route };
        let has = RouteSpec { chain: vec![stage.with_defaults()], start: Start::Earliest, ..wanted.clone() };
        assert_eq!(part_that_differs(&has, &wanted), None);
        let config = |text: &str| {
            let stage = StageSpec { config: text.to_owned(), ..wanted.chain[0].clone() };
            RouteSpec { chain: vec![stage], ..wanted.clone() }
        };
        let (one, other) = (config(r#"{"a":1,"b":"EUR"}"#), config(r#"{ "b": "EUR", "a": 1 }"#));
        assert_eq!(part_that_differs(&one, &other), None, "blanks and the order of keys mean nothing");
        let lower = config(r#"{"a":1,"b":"eur"}"#);
        let said = part_that_differs(&one, &lower).unwrap();
        assert!(said.starts_with(r#"chain[0].config {"a":1,"b":"EUR"}, expected "#), "{said}");
        let other = RouteSpec { to: vec![topic("b")], ..wanted };
        assert_eq!(part_that_differs(&has, &other).as_deref(), Some("to c, expected b"));
    }
}
