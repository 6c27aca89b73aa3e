//! How much each principal may do: rates and bounds of its record, over all that it has open.
//!
//! A call over a quota waits, which holds up its stream and with it whoever sends; what would wait for more than a second is refused.
//! A local caller has no quotas.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use levada_protocol::{ids::PrincipalId, request::Quotas};

use crate::{
    access::Principal,
    clock::Clock,
    error::Error,
    quotas::{Connected, InFlight, Meter},
    shard::ShardHandle,
};

/// The meters of all principals that have done something.
#[derive(Debug)]
pub(crate) struct Meters {
    shard: ShardHandle,
    clock: Clock,
    meters: Mutex<HashMap<PrincipalId, Arc<Meter>>>,
}

impl Meters {
    pub(crate) fn new(shard: ShardHandle, clock: Clock) -> Arc<Self> {
        Arc::new(Self { shard, clock, meters: Mutex::default() })
    }

    /// The quotas of a principal; `None` for one without.
    pub(crate) fn of(self: &Arc<Self>, principal: &Principal) -> Option<Metered> {
        let id = principal.id()?;
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        let meter = meters.get(&id).cloned().unwrap_or_else(|| {
            // Those of principals that are gone would stay for ever.
            let catalogue = self.shard.view().catalogue();
            if meters.len() > 2 * catalogue.identities.principals() {
                meters.retain(|id, _| catalogue.identities.by_id(*id).is_some());
            }
            let meter = Arc::new(Meter::default());
            meters.insert(id, Arc::clone(&meter));
            meter
        });
        drop(meters);
        Some(Metered { id, meter, meters: Arc::clone(self) })
    }
}

/// A principal's quotas.
#[derive(Debug, Clone)]
pub(crate) struct Metered {
    id: PrincipalId,
    meter: Arc<Meter>,
    meters: Arc<Meters>,
}

impl Metered {
    /// As the principal's record says now; a principal that is gone is refused elsewhere.
    fn quotas(&self) -> Quotas {
        let catalogue = self.meters.shard.view().catalogue();
        catalogue.identities.by_id(self.id).map_or_else(Quotas::default, |record| record.quotas)
    }

    /// Takes a request, once there is room for one.
    ///
    /// # Errors
    /// `QUOTA` with `retry_after`.
    pub(crate) async fn request(&self) -> Result<(), Error> {
        self.meter.request(self.quotas(), &self.meters.clock).await
    }

    /// Takes a batch, once there is room for one. Cancel safe: it is taken or it is not.
    ///
    /// # Errors
    /// `QUOTA` with `retry_after`.
    pub(crate) async fn publish(&self, events: u32, bytes: usize) -> Result<InFlight, Error> {
        self.meter.publish(self.quotas(), (events.into(), bytes as u64), &self.meters.clock).await
    }

    /// Takes a connection, until what is returned is dropped.
    ///
    /// # Errors
    /// `QUOTA` with `retry_after`.
    pub(crate) fn connect(&self) -> Result<Connected, Error> {
        self.meter.connect(self.quotas())
    }
}
