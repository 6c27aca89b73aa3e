//! Making what may be there already, as programs do when they start.

use std::fmt;

use levada_protocol::{
    error::{ErrorCode, Refusal},
    request::{Retain, RouteInfo, RouteSpec, StageSpec, TopicInfo, TopicSettings},
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

    /// Makes a route unless this very route exists, so that it may be called at every start. Where an existing one
    /// began is not compared: it goes on where it is.
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
    let TopicSettings { partitions, durability, retain, retain_for_ms, max_bytes } = wanted;
    differs("partitions", has.partitions, *partitions)
        .or_else(|| differs("durability", &has.durability, durability))
        .or_else(|| differs("retain", word(has.retain), word(*retain)))
        .or_else(|| differs("retain_for_ms", has.retain_for_ms, *retain_for_ms))
        .or_else(|| differs("max_bytes", has.max_bytes, *max_bytes))
}

fn word(retain: Retain) -> &'static str {
    match retain {
        Retain::TimeAndAcked => "time_and_acked",
        Retain::TimeAndSize => "time_and_size",
        Retain::UntilAcked => "until_acked",
    }
}

fn part_that_differs(has: &RouteSpec, wanted: &RouteSpec) -> Option<String> {
    differs("from", &has.from, &wanted.from)
        .or_else(|| differs("to", has.to.join(", "), wanted.to.join(", ")))
        .or_else(|| differs("chain", chain(has), chain(wanted)))
}

/// The stages with all that holds for them, one behind the other.
fn chain(spec: &RouteSpec) -> String {
    let stage = |stage: &StageSpec| {
        let StageSpec { plugin, config, .. } = stage;
        let (retries, deadline, memory) = (stage.retries(), stage.deadline_ms(), stage.memory_bytes_max());
        let on_error = stage.on_error();
        format!("{plugin}:{config} ({on_error:?}, {retries} retries, {deadline} ms, {memory} bytes)")
    };
    spec.chain.iter().map(stage).collect::<Vec<_>>().join(" | ")
}

fn differs<T: PartialEq + fmt::Display>(field: &str, has: T, wanted: T) -> Option<String> {
    (has != wanted).then(|| format!("{field} {has}, expected {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_setting_that_differs_is_named_with_both_values() {
        let has = TopicSettings { partitions: 4, max_bytes: 7, ..TopicSettings::default() };
        assert_eq!(setting_that_differs(&has, &has.clone()), None);
        let differing = setting_that_differs(&has, &TopicSettings::default());
        assert_eq!(differing.as_deref(), Some("partitions 4, expected 1"));
        let wanted = TopicSettings { durability: "os".to_owned(), ..has.clone() };
        assert_eq!(setting_that_differs(&has, &wanted).as_deref(), Some("durability sync, expected os"));
    }

    #[test]
    fn a_route_is_the_same_wherever_it_began_and_whether_defaults_are_spelt_out() {
        let stage = StageSpec { plugin: "p".to_owned(), ..StageSpec::default() };
        let wanted = RouteSpec {
            from: "a".to_owned(),
            to: vec!["c".to_owned()],
            chain: vec![stage.clone()],
            ..RouteSpec::default()
        };
        let has = RouteSpec {
            chain: vec![stage.with_defaults()],
            start: levada_protocol::request::Start::Earliest,
            ..wanted.clone()
        };
        assert_eq!(part_that_differs(&has, &wanted), None);
        let other = RouteSpec { to: vec!["b".to_owned()], ..wanted };
        assert_eq!(part_that_differs(&has, &other).as_deref(), Some("to c, expected b"));
    }
}
