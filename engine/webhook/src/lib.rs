//! Webhooks: a subscription's deliveries, sent by the engine to a URL as CloudEvents, signed by Standard Webhooks.
//!
//! [`Pushers`] runs a task for each push of the catalogue, which is a consumer of its subscription: what the receiver takes is
//! acknowledged, what it does not take comes again by the subscription's own rules. [`UrlRules`] says where deliveries may go:
//! to addresses of the public internet, unless the engine's settings name others. It must not know QUIC or axum.

mod connect;
mod held;
mod lanes;
mod networks;
mod pushers;
mod sender;
mod sign;
mod trust;
mod url;
mod verdict;
mod worker;

pub use networks::{Allowed, InvalidNetwork, Network, is_public};
pub use pushers::{PushConfig, Pushers, Transport};
pub use url::UrlRules;
