//! Subscriptions and routes without dead letters: that nothing failed is no failure of a command, and is said in one way.

use std::fmt;

use levada_client::{Client, DeadLettersOf, Error, ErrorCode};
use levada_terminal::Failure;

use crate::failure;

/// That there are no dead letters, in a sentence: none at all, or none of those that were asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoDeadLetters<'a> {
    pub(super) of: &'a DeadLettersOf,
    /// A condition was given, which others may not fulfil.
    pub(super) matching: bool,
    /// The offset to begin at, if one was given.
    pub(super) from: Option<u64>,
    /// The offset to end before, if one was given.
    pub(super) until: Option<u64>,
}

impl<'a> NoDeadLetters<'a> {
    /// None at all.
    pub(super) fn at_all(of: &'a DeadLettersOf) -> Self {
        Self { of, matching: false, from: None, until: None }
    }

    /// That there is none at an offset that was named.
    pub(super) fn at_offset(of: &DeadLettersOf, offset: u64) -> Failure {
        let message = format!("{of} has no dead letter at offset {offset}");
        let hint = format!("`levada dlq show {of}` shows those that there are");
        Failure::new(ErrorCode::OffsetOutOfRange, message).hint(hint)
    }
}

impl fmt::Display for NoDeadLetters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has no dead letters", self.of)?;
        if self.matching {
            f.write_str(" that match")?;
        }
        if let Some(from) = self.from {
            write!(f, " from offset {from} on")?;
        }
        if let Some(until) = self.until {
            write!(f, " before offset {until}")?;
        }
        Ok(())
    }
}

/// What was done with dead letters, or `None` if a subscription or route that exists has none: a dead-letter topic is made by
/// its first dead letter. Of what does not exist the failure says so.
pub(super) async fn unless_none<T>(
    client: &Client,
    of: &DeadLettersOf,
    done: anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    match done {
        Err(error)
            if failure::code(&error) == Some(ErrorCode::TopicNotFound) && !have_topic(client, of).await? =>
        {
            exists(client, of).await.map(|()| None)
        }
        done => done.map(Some),
    }
}

async fn have_topic(client: &Client, of: &DeadLettersOf) -> Result<bool, Error> {
    match client.describe_topic(of.dead_letter_topic().as_str()).await {
        Err(error) if error.code() == ErrorCode::TopicNotFound => Ok(false),
        described => described.map(|_| true),
    }
}

/// Fails if there is no such subscription or route.
async fn exists(client: &Client, of: &DeadLettersOf) -> anyhow::Result<()> {
    let found = async {
        let Some(route) = of.route() else {
            client.describe_subscription(of.topic(), of.name()).await?;
            return Ok(());
        };
        client.describe_topic(of.topic()).await?;
        let routes = client.list_routes().await?;
        let is_it = |name: &str, from: &str| name == route && from == of.topic();
        if routes.iter().any(|it| is_it(it.spec.name.as_str(), it.spec.from.as_str())) {
            return Ok(());
        }
        let message = format!("there is no route {route} from topic {}", of.topic());
        Err(Failure::new(ErrorCode::RouteNotFound, message).into())
    };
    let hint = "`levada dlq list` shows whose dead letters there are";
    found.await.map_err(|error| failure::with_default_hint(&error, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_says_which_dead_letters_there_are_none_of() {
        let of = "orders/payment".parse().unwrap();
        let none = NoDeadLetters::at_all(&of);
        assert_eq!(none.to_string(), "orders/payment has no dead letters");
        let none = NoDeadLetters { matching: true, from: Some(7), ..none };
        assert_eq!(none.to_string(), "orders/payment has no dead letters that match from offset 7 on");
        let none = NoDeadLetters { matching: false, from: None, until: Some(9), ..none };
        assert_eq!(none.to_string(), "orders/payment has no dead letters before offset 9");
    }
}
