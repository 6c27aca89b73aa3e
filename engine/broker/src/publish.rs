//! A publish stream: batches in, acknowledgements out, with a bound on what may be under way.

use std::sync::Arc;

use levada_protocol::{
    batch::Batch,
    publish::{Ack, Durability, PublishHeader},
};
use tokio::sync::{Semaphore, mpsc};

use crate::{
    error::Error,
    metered::Metered,
    quotas::Admitted,
    shard::{AckPermit, Append, ShardHandle, Slot},
    topic::Topic,
};

/// One client's stream of publishes to one topic.
#[derive(Debug)]
pub struct PublishStream {
    /// The number of the topic's partitions.
    pub partitions: u16,
    /// What an acknowledgement means unless a publish asks for more.
    pub durability: Durability,
    /// The limits of the topic's backlog in events and bytes, as they are now; 0 for none.
    pub backlog_max_events: u64,
    /// See `backlog_max_events`.
    pub backlog_max_bytes: u64,
    /// The acknowledgements, in the order in which the publishes were decided.
    pub acks: mpsc::Receiver<Ack>,
    submitter: Submitter,
}

/// The sending half of a publish stream.
#[derive(Debug, Clone)]
pub struct Submitter {
    topic: Arc<Topic>,
    shard: ShardHandle,
    acks: mpsc::Sender<Ack>,
    admission: Arc<Semaphore>,
    admission_max: usize,
    quotas: Option<Metered>,
}

impl PublishStream {
    pub(crate) fn new(
        topic: Arc<Topic>,
        shard: ShardHandle,
        (admission, admission_max): (Arc<Semaphore>, usize),
        quotas: Option<Metered>,
        in_flight_max: usize,
    ) -> Self {
        let (sender, acks) = mpsc::channel(in_flight_max);
        let partitions = u16::try_from(topic.partitions.len()).unwrap_or(u16::MAX);
        let settings = topic.settings();
        let submitter = Submitter { topic, shard, acks: sender, admission, admission_max, quotas };
        Self {
            partitions,
            durability: settings.durability,
            backlog_max_events: settings.backlog_max_events,
            backlog_max_bytes: settings.backlog_max_bytes,
            acks,
            submitter,
        }
    }

    /// A handle that submits batches; it may be cloned and moved to another task.
    pub fn submitter(&self) -> Submitter {
        self.submitter.clone()
    }

    /// The acknowledgements and the submitter, apart. `acks` ends once every submitter is gone.
    pub fn split(self) -> (Submitter, mpsc::Receiver<Ack>) {
        (self.submitter, self.acks)
    }
}

impl Submitter {
    /// Queues a checked batch. Waits while too many bytes or acknowledgements are under way.
    ///
    /// Every batch gets exactly one acknowledgement on the stream's `acks`, refusals included.
    /// Cancel safe: a batch is queued or it is not; a given-up call may have queued it.
    ///
    /// # Errors
    /// Only if the broker is shutting down, its writer has failed, or the stream's receiver is gone.
    pub async fn submit(&self, header: PublishHeader, batch: Batch) -> Result<(), Error> {
        let reply = self.acks.clone().reserve_owned().await.map_err(|_| Error::ShuttingDown)?;
        let reply = Slot::Stream(reply);
        let way = Way {
            topic: &self.topic,
            shard: &self.shard,
            admission: (&self.admission, self.admission_max),
            quotas: self.quotas.as_ref(),
        };
        way.append(reply, header, batch).await
    }
}

/// What a batch passes on its way to the writer.
pub(crate) struct Way<'a> {
    pub(crate) topic: &'a Arc<Topic>,
    pub(crate) shard: &'a ShardHandle,
    /// The room for bytes under way, and how much of it there is.
    pub(crate) admission: (&'a Arc<Semaphore>, usize),
    pub(crate) quotas: Option<&'a Metered>,
}

impl Way<'_> {
    /// Queues a checked batch; what is refused is told by the reply. A call that is given up before that has sent nothing.
    pub(crate) async fn append(self, reply: Slot, header: PublishHeader, batch: Batch) -> Result<(), Error> {
        let refuse = |reply: Slot, error: &Error| AckPermit::new(reply, &header).refuse(error);
        if let Err(error) = self.topic.check_publishable(&header, &batch) {
            refuse(reply, &error);
            return Ok(());
        }
        let of_principal = match self.quotas {
            None => None,
            Some(quotas) => match quotas.publish(batch.count(), batch.bytes().len()).await {
                Ok(in_flight) => Some(in_flight),
                Err(error) => {
                    refuse(reply, &error);
                    return Ok(());
                }
            },
        };
        let (admission, admission_max) = self.admission;
        let bytes = u32::try_from(batch.bytes().len().min(admission_max)).unwrap_or(u32::MAX);
        let admitted = Arc::clone(admission).acquire_many_owned(bytes).await;
        let Ok(of_engine) = admitted else {
            refuse(reply, &Error::ShuttingDown);
            return Err(Error::ShuttingDown);
        };
        let admitted = Admitted { _of_engine: of_engine, of_principal };
        let durability = header.durability.max(Some(self.topic.durability()));
        let ack_written = durability == Some(Durability::Os);
        let (topic, reply) = (Arc::clone(self.topic), AckPermit::new(reply, &header));
        self.shard.append(Append { topic, reply, header, batch, ack_written, admitted }).await
    }
}
