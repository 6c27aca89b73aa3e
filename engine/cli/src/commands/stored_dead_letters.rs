//! How many dead letters of each subscription and route are stored, for the tables that show it.

use std::collections::HashMap;

use levada_client::{Client, DeadLettersOf};
use levada_terminal::output::{self, Output};

/// Counts by the topics that hold them.
#[derive(Default)]
pub(super) struct StoredDeadLetters(HashMap<String, u64>);

impl StoredDeadLetters {
    /// Those of all subscriptions of a topic and routes from it, or of all topics.
    pub(super) async fn of(client: &Client, topic: Option<&str>) -> Result<Self, levada_client::Error> {
        let found = client.list_dead_letters(topic).await?;
        Ok(Self(found.into_iter().map(|topic| (topic.name.to_string(), topic.count)).collect()))
    }

    /// The same for a table; nothing is asked for where none is printed.
    pub(super) async fn shown(
        output: &Output,
        client: &Client,
        topic: Option<&str>,
    ) -> Result<Self, levada_client::Error> {
        if output.is_json() { Ok(Self(HashMap::new())) } else { Self::of(client, topic).await }
    }

    /// How many there are of a subscription; of a route, the name is `route-` and its name.
    pub(super) fn count(&self, topic: &str, name: &str) -> u64 {
        let of = DeadLettersOf::new(topic, name).ok();
        of.and_then(|of| self.0.get(of.dead_letter_topic().as_str()).copied()).unwrap_or(0)
    }

    /// The same in words, with how many have become some since the engine started.
    pub(super) fn text(&self, topic: &str, name: &str, since_start: u64) -> String {
        let stored = output::count(self.count(topic, name));
        format!("{stored} stored, {} new since the engine's start", output::count(since_start))
    }
}
