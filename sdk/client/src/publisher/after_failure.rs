//! What a publisher does once an event was not stored.

/// What a publisher does with the events behind one that fails: the engine refused it for good, or its time ran out.
///
/// ```no_run
/// # async fn example(client: levada_client::Client, lines: Vec<String>) -> Result<(), levada_client::Error> {
/// use levada_client::{AfterFailure, Event, PublisherOptions};
///
/// // What is stored of a partition's lines is a beginning of them, whatever happens.
/// let options = PublisherOptions { after_failure: AfterFailure::Stop, ..PublisherOptions::default() };
/// let publisher = client.publisher("imported", options).await?;
/// for line in lines {
///     drop(publisher.publish(Event::new(line)).await?);
/// }
/// publisher.flush().await
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AfterFailure {
    /// They go on without it, in their order: each event for itself.
    #[default]
    GoOn,
    /// Of its partition, none of them is stored. Of other partitions, those that were on their way may be, as their tickets
    /// say; no others are. All tickets of what is not stored fail, most with the same error, and so do every later
    /// [`Publisher::publish`](super::Publisher::publish) and [`Publisher::flush`](super::Publisher::flush): make another
    /// publisher to go on. An append at another offset than the expected one fails alone.
    Stop,
}
