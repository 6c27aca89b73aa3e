//! The HTTP gateway: publish, read, stream, pull and administrate by HTTP, on any broker.
//!
//! [`router()`] makes the routes; who serves them owns the sockets. Bodies, answers and waits are limited here; connections
//! are by who serves them. It must not know QUIC.
//!
//! To add an endpoint: a handler with its OpenAPI description in a file of its own, named once in `router.rs`. Every
//! handler takes its principal from the `Caller`, and returns a `Problem` for
//! what is refused.

mod admin;
mod bodies;
mod body;
mod dead_letters;
mod entry;
mod events;
mod grammar;
mod host;
mod incoming;
mod json_body;
mod openapi;
mod outcome;
mod params;
mod peer;
mod place;
mod plugins;
mod positions;
mod principal;
mod problem;
mod problems;
mod publish;
mod pull;
mod pulled_token;
mod push;
mod read;
mod responses;
mod router;
mod routes;
mod schema;
mod settle;
mod sse;
mod state;
mod stream;
mod subscriptions;
mod topics;

pub use entry::refusal_to_browse_all;
pub use peer::Peer;
pub use router::router;
pub use state::{Gateway, GatewayConfig};
