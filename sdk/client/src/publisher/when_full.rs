//! What a publisher does while the topic's backlog is full.

/// What a publisher does with events that the engine refuses with `BACKLOG_FULL`, as the topic's slowest subscription is too
/// far behind for its quota.
///
/// ```no_run
/// # async fn example(client: levada_client::Client) -> Result<(), levada_client::Error> {
/// use levada_client::{ErrorCode, Event, PublisherOptions, WhenFull};
///
/// let options = PublisherOptions { when_full: WhenFull::Fail, ..PublisherOptions::default() };
/// let publisher = client.publisher("requests", options).await?;
/// match publisher.publish(Event::new("one for me")).await?.await {
///     Err(error) if error.code() == ErrorCode::BacklogFull => println!("come back later"),
///     other => println!("accepted at {:?}", other?.offset),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// They are tried again in order, after the time that the engine says, until `delivery_timeout`; meanwhile
    /// [`Publisher::publish`](super::Publisher::publish) waits once the buffer is full, and may be cancelled as ever. [`Publisher::refusal`](super::Publisher::refusal) says why
    /// nothing moves.
    #[default]
    Wait,
    /// The tickets of their batch fail at once with the refusal, whose code is `BACKLOG_FULL` and which is retryable: nothing
    /// of the batch was stored, and what was published behind it goes on without it, unless [`super::AfterFailure`] says
    /// otherwise. Events share a batch as ever, and its
    /// fate. A batch that was on its way when a connection was lost is tried again all the same, as it may have been stored.
    Fail,
}
