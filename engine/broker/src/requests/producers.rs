//! Taking a producer's name over.

use levada_protocol::{
    ids::{ProducerName, TopicName},
    request::Response,
};

use crate::{broker::Broker, error::Error, identity};

/// Lets a new owner take a name over.
pub(super) async fn open(broker: &Broker, topic: &TopicName, name: ProducerName) -> Result<Response, Error> {
    let topic = broker.publishable(topic)?;
    let fresh = identity::new_producer_id()?;
    let opened = broker.inner.shard.open_producer(topic, name, fresh).await?;
    Ok(Response::Producer(Box::new(opened)))
}
