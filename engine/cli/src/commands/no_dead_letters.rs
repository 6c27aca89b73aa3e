//! Subscriptions and routes without dead letters: that nothing failed is no failure of a command.

use levada_client::{Client, DeadLettersOf, Error, ErrorCode};
use levada_terminal::output::Output;

use crate::failure;

/// A dead-letter topic is made by its first dead letter: that a subscription or route has none is no failure.
pub(super) async fn or_none(
    output: &Output,
    client: &Client,
    of: &DeadLettersOf,
    done: anyhow::Result<()>,
) -> anyhow::Result<()> {
    match done {
        Err(error) if is_none(client, of, &error).await? => {
            output.remark(&format!("{of} has no dead letters"));
            Ok(())
        }
        done => done,
    }
}

/// True if something was not found because a subscription or route that exists has no dead letters.
pub(super) async fn is_none(
    client: &Client,
    of: &DeadLettersOf,
    error: &anyhow::Error,
) -> Result<bool, Error> {
    if failure::code(error) != Some(ErrorCode::TopicNotFound) || !exists(client, of).await? {
        return Ok(false);
    }
    match client.describe_topic(of.dead_letter_topic().as_str()).await {
        Err(error) if error.code() == ErrorCode::TopicNotFound => Ok(true),
        described => described.map(|_| false),
    }
}

/// True if there is such a subscription or route.
async fn exists(client: &Client, of: &DeadLettersOf) -> Result<bool, Error> {
    if let Some(route) = of.route() {
        let routes = client.list_routes().await?;
        return Ok(routes
            .iter()
            .any(|it| it.spec.name.as_str() == route && it.spec.from.as_str() == of.topic()));
    }
    match client.describe_subscription(of.topic(), of.name()).await {
        Ok(_) => Ok(true),
        Err(error) if [ErrorCode::SubscriptionNotFound, ErrorCode::TopicNotFound].contains(&error.code()) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
