//! Events of the catalogue, for those who follow it.

use std::sync::Arc;

use levada_protocol::ids::{PartitionId, PluginName, RouteId, SubscriptionId, TopicId};

use crate::rows::{RouteRecord, SubscriptionRecord, TopicRecord};

/// A change of the catalogue that is durable. Followers get events in the order in which they happened; one that
/// falls behind loses some, gets an error, and reads the catalogue itself.
#[derive(Debug, Clone)]
pub(crate) enum CatalogueEvent {
    TopicCreated(Arc<TopicRecord>),
    /// Its settings have changed.
    TopicChanged(Arc<TopicRecord>),
    TopicDeleted(TopicId),
    SubscriptionCreated(Arc<SubscriptionRecord>),
    /// Its options have changed, or it was paused or resumed.
    SubscriptionChanged(Arc<SubscriptionRecord>),
    /// These partitions of it begin again, where its record says.
    SubscriptionMoved(Arc<SubscriptionRecord>, Vec<PartitionId>),
    SubscriptionDeleted(SubscriptionId),
    /// Where the deliveries of a subscription are pushed, how, or whether they are, is another.
    PushChanged(SubscriptionId),
    RouteCreated(Arc<RouteRecord>),
    RouteDeleted(RouteId),
    /// A version was deployed or removed; the active one may have changed.
    PluginChanged(PluginName),
    /// Principals, what they may do or their tokens have changed.
    IdentitiesChanged,
    /// The catalogue was read again from the store, and may differ from what it was in any way.
    Reloaded,
}
