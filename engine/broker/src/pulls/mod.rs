//! Pulls: consumers without a stream, for callers that ask for events in one request and settle them in others.
//!
//! Each pull is a consumer of its own. It gets what one request asks for and nothing more, and stays attached until none of
//! that is in flight: until it is settled, given back, or its acknowledgement timeout is over. So the events of a key are with
//! one pull at a time, and one consumer's limits hold for each pull. What keeps a pull meanwhile is a task (`keeper.rs`), which
//! ends with it, with its subscription's owner, or when its principal may not subscribe any more.

mod attached;
mod event;
mod keeper;
mod places;

pub use self::event::{Pull, PullId, Pulled, PulledEvent};
pub(crate) use self::{attached::Attached, keeper::Keeper, places::Pulls};
