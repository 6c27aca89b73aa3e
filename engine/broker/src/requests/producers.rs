//! Taking a producer's name over.

use levada_protocol::{
    ids::{ProducerName, TopicName},
    request::Response,
};

use crate::{broker::Broker, error::Error, identity};

impl Broker {
    pub(super) async fn open_producer(
        &self,
        topic: &TopicName,
        name: ProducerName,
    ) -> Result<Response, Error> {
        let topic = self.publishable(topic)?;
        let fresh = identity::new_producer_id()?;
        self.inner.shard.open_producer(topic, name, fresh).await.map(Response::Producer)
    }
}
