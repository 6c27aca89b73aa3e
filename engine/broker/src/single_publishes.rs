//! Single publishes: for callers that publish in one request and wait for nothing but its acknowledgement.

use std::sync::Arc;

use levada_protocol::{
    access,
    batch::Batch,
    ids::TopicName,
    publish::{AckOutcome, PublishHeader},
};
use tokio::sync::oneshot;

use crate::{
    access::Principal,
    broker::Broker,
    error::Error,
    metered::Metered,
    publish::Way,
    shard::{AckDispatcher, Slot},
    topic::Topic,
};

/// Publishes of which each waits for its own acknowledgement, on the runtime that this was made in.
pub struct SinglePublishes {
    broker: Broker,
    acks: AckDispatcher,
}

impl SinglePublishes {
    /// Publishes to this broker.
    pub fn new(broker: Broker) -> Self {
        Self { broker, acks: AckDispatcher::start() }
    }

    /// Prepares one publish to a topic: as on a stream, with the acknowledgement as the call's result.
    ///
    /// # Errors
    /// As [`Broker::open_publish`].
    pub fn to(&self, principal: &Principal, topic: &TopicName) -> Result<PublishOnce<'_>, Error> {
        self.broker.check(principal, &[access::publishing(topic)])?;
        let topic = self.broker.publishable(topic)?;
        let quotas = self.broker.inner.authentication.metered(principal);
        Ok(PublishOnce { publishes: self, topic, quotas })
    }
}

/// One publish to a topic, whose acknowledgement is the result of the call.
pub struct PublishOnce<'a> {
    publishes: &'a SinglePublishes,
    topic: Arc<Topic>,
    quotas: Option<Metered>,
}

impl PublishOnce<'_> {
    /// The number of the topic's partitions.
    pub fn partitions(&self) -> u16 {
        u16::try_from(self.topic.partitions.len()).unwrap_or(u16::MAX)
    }

    /// Publishes a checked batch and waits for what becomes of it. Waits also while too many bytes are under way.
    ///
    /// A call that is given up may have published it.
    ///
    /// # Errors
    /// Only if the broker is shutting down or its writer has failed; a refusal is an outcome.
    pub async fn publish(self, header: PublishHeader, batch: Batch) -> Result<AckOutcome, Error> {
        let (caller, outcome) = oneshot::channel();
        let SinglePublishes { broker, acks } = self.publishes;
        let reply = Slot::Once(caller, acks.clone());
        let inner = &broker.inner;
        let way = Way {
            topic: &self.topic,
            shard: &inner.shard,
            admission: (&inner.admission, inner.config.publish_bytes_max),
            quotas: self.quotas.as_ref(),
        };
        way.append(reply, header, batch).await?;
        outcome.await.map_err(|_| Error::unanswered())
    }
}
