//! What happened to the catalogue, for those who follow it.

use std::sync::Arc;

use levada_protocol::ids::{PluginName, RouteId, SubscriptionId, TopicId};

use crate::rows::{RouteRecord, SubscriptionRecord, TopicRecord};

/// A change of the catalogue that is durable. Those who follow get events in the order in which they happened; one who
/// falls behind loses some, is told so, and looks at the catalogue itself.
#[derive(Debug, Clone)]
pub(crate) enum CatalogueEvent {
    TopicCreated(Arc<TopicRecord>),
    /// Its settings are others.
    TopicChanged(Arc<TopicRecord>),
    TopicDeleted(TopicId),
    SubscriptionCreated(Arc<SubscriptionRecord>),
    SubscriptionDeleted(SubscriptionId),
    RouteCreated(Arc<RouteRecord>),
    RouteDeleted(RouteId),
    /// A version was deployed or removed; the active one may be another.
    PluginChanged(PluginName),
    /// The catalogue was read again from the store, and may differ from what it was in any way.
    Reloaded,
}
