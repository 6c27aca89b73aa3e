//! What goes together when a topic, subscription or route is deleted, and what would miss it.
//!
//! Pure: it reads a snapshot and changes nothing.

use std::collections::{BTreeSet, HashMap};

use levada_protocol::{
    access::Scope,
    error::ErrorCode,
    ids::{RouteName, SubscriptionName, TopicName},
};

use super::Catalogue;
use crate::{dead_letter_topics, error::Error, words::counted};

/// Most names of one kind that a refusal shows.
const SHOWN_MAX: usize = 20;

/// The root of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Root {
    Topic(TopicName),
    Subscription(TopicName, SubscriptionName),
    Route(RouteName),
}

/// Everything that goes with it, itself included.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Removal {
    pub(crate) topics: BTreeSet<TopicName>,
    pub(crate) subscriptions: BTreeSet<(TopicName, SubscriptionName)>,
    pub(crate) routes: BTreeSet<RouteName>,
}

impl Removal {
    /// A topic goes with its subscriptions and the routes from it; those go with their dead-letter topics if that is
    /// wished.
    ///
    /// # Errors
    /// If what is to be deleted does not exist.
    pub(crate) fn of(catalogue: &Catalogue, root: &Root, with_dead_letters: bool) -> Result<Self, Error> {
        match root {
            Root::Topic(name) => catalogue.topic(name).map(|_| ())?,
            Root::Subscription(topic, name) => catalogue.subscription(topic, name).map(|_| ())?,
            Root::Route(name) => catalogue.route(name).map(|_| ())?,
        }
        let readers = Readers::of(catalogue);
        let mut removal = Self::default();
        let mut open = vec![root.clone()];
        while let Some(next) = open.pop() {
            let dead_letters = match next {
                Root::Topic(name) => {
                    if removal.topics.insert(name.clone()) {
                        open.extend(readers.of_topic(&name));
                    }
                    continue;
                }
                Root::Subscription(topic, name) => {
                    let dead_letters = dead_letter_topics::of_subscription(topic.as_str(), name.as_str());
                    removal.subscriptions.insert((topic, name));
                    dead_letters
                }
                Root::Route(name) => {
                    let from = catalogue.route(&name)?.spec.from.clone();
                    let dead_letters = dead_letter_topics::of_route(from.as_str(), name.as_str());
                    removal.routes.insert(name);
                    dead_letters
                }
            };
            // Without a name that a topic can have there is no such topic.
            if let Ok(dead_letters) = dead_letters
                && with_dead_letters
                && catalogue.topics.contains(&dead_letters)
            {
                open.push(Root::Topic(dead_letters));
            }
        }
        Ok(removal)
    }

    /// The dead-letter topics of these subscriptions and routes of `before`, as far as they exist in `after`, and stay.
    pub(crate) fn dead_letters_kept(&self, before: &Catalogue, after: &Catalogue) -> Vec<TopicName> {
        let of_subscriptions = self.subscriptions.iter().filter_map(|(topic, name)| {
            dead_letter_topics::of_subscription(topic.as_str(), name.as_str()).ok()
        });
        let of_routes = self.routes.iter().filter_map(|name| {
            let record = before.routes.get(name)?;
            dead_letter_topics::of_route(record.spec.from.as_str(), name.as_str()).ok()
        });
        let all = of_subscriptions.chain(of_routes);
        all.filter(|name| after.topics.contains(name) && !self.topics.contains(name)).collect()
    }

    /// Refuses what takes something along that was not named, or what something else would miss.
    ///
    /// # Errors
    /// `TOPIC_IN_USE`, which names both: of what would miss it, that which `sees` is true for.
    pub(crate) fn check(
        &self,
        catalogue: &Catalogue,
        root: &Root,
        sees: impl Fn(&Scope) -> bool,
    ) -> Result<(), Error> {
        let along = self.along(root);
        let blocked: Vec<Scope> = catalogue
            .routes
            .iter()
            .filter(|(name, route)| {
                !self.routes.contains(*name) && route.spec.to.iter().any(|to| self.topics.contains(to))
            })
            .map(|(name, _)| Scope::Route(name.clone()))
            .collect();
        let refilled = self.topics.iter().find_map(|topic| {
            let source = catalogue.dead_letters_from(topic).filter(|source| !self.takes(source))?;
            Some((topic, source))
        });
        let mut reasons = Vec::new();
        if let Some(along) = along {
            reasons.push(format!("{along} would be deleted with it"));
        }
        if !blocked.is_empty() {
            let routes = listed_to("route", &blocked, sees, |scope| match scope {
                Scope::Route(name) => name.to_string(),
                other => other.to_string(),
            });
            reasons.push(format!("{routes} would be blocked, as it is a target"));
        }
        if let Some((topic, source)) = refilled {
            let taker =
                if Root::Topic(topic.clone()) == *root { "it".to_owned() } else { format!("topic {topic}") };
            reasons.push(format!(
                "{taker} takes the dead letters of {source}, of which the next would create the topic again"
            ));
        }
        if reasons.is_empty() {
            return Ok(());
        }
        let kept = self.dead_letters_kept(catalogue, catalogue).into_iter().map(|name| name.to_string());
        let kept = match kept.collect::<Vec<_>>() {
            kept if kept.is_empty() => String::new(),
            kept => format!("; {} would stay", listed("dead-letter topic", kept)),
        };
        let message =
            format!("{root} is in use: {}{kept}; delete what needs it first, or force", reasons.join("; "));
        Err(Error::refused(ErrorCode::TopicInUse, message))
    }

    fn takes(&self, root: &Root) -> bool {
        match root {
            Root::Topic(name) => self.topics.contains(name),
            Root::Subscription(topic, name) => self.subscriptions.contains(&(topic.clone(), name.clone())),
            Root::Route(name) => self.routes.contains(name),
        }
    }

    /// The subscriptions and routes that would be deleted without being named, as a list for people.
    fn along(&self, root: &Root) -> Option<String> {
        let subscriptions = self
            .subscriptions
            .iter()
            .filter(|(topic, name)| Root::Subscription(topic.clone(), name.clone()) != *root)
            .map(|(topic, name)| format!("{topic}/{name}"))
            .collect::<Vec<_>>();
        let routes = self.routes.iter().filter(|name| Root::Route((*name).clone()) != *root);
        let routes = routes.map(ToString::to_string).collect::<Vec<_>>();
        let lists = [("subscription", subscriptions), ("route", routes)];
        let lists = lists.into_iter().filter(|(_, names)| !names.is_empty());
        let lists: Vec<String> = lists.map(|(kind, names)| listed(kind, names)).collect();
        (!lists.is_empty()).then(|| lists.join(" and "))
    }
}

impl std::fmt::Display for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Subscription(topic, name) => write!(f, "subscription {topic}/{name}"),
            Self::Route(name) => write!(f, "route {name}"),
        }
    }
}

/// Which subscriptions and routes read each topic.
struct Readers<'a>(HashMap<&'a str, Vec<Root>>);

impl<'a> Readers<'a> {
    fn of(catalogue: &'a Catalogue) -> Self {
        let mut readers: HashMap<&str, Vec<Root>> = HashMap::new();
        for ((topic, name), _) in catalogue.subscriptions.iter() {
            readers.entry(topic.as_str()).or_default().push(Root::Subscription(topic.clone(), name.clone()));
        }
        for (name, route) in catalogue.routes.iter() {
            readers.entry(route.spec.from.as_str()).or_default().push(Root::Route(name.clone()));
        }
        Self(readers)
    }

    fn of_topic(&self, topic: &TopicName) -> Vec<Root> {
        self.0.get(topic.as_str()).cloned().unwrap_or_default()
    }
}

/// Names for one who sees some of them: `attachments a, b and 2 that you may not browse`.
pub(crate) fn listed_to(
    kind: &str,
    all: &[Scope],
    sees: impl Fn(&Scope) -> bool,
    name: impl Fn(&Scope) -> String,
) -> String {
    let seen: Vec<String> = all.iter().filter(|scope| sees(scope)).map(name).collect();
    let unseen = all.len() - seen.len();
    match (seen.is_empty(), unseen) {
        (false, 0) => listed(kind, seen),
        (false, _) => format!("{} and {unseen} that you may not browse", listed(kind, seen)),
        (true, _) => format!("{} that you may not browse", counted(unseen as u64, kind)),
    }
}

/// Names for people: `subscriptions a, b and 7 more`.
fn listed(kind: &str, mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(SHOWN_MAX);
    let plural = if names.len() == 1 { "" } else { "s" };
    names.truncate(SHOWN_MAX);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{kind}{plural} {}{more}", names.join(", "))
}
