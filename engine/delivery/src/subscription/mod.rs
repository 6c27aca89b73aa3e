//! A durable subscription: what goes to which consumer, what became of it, and what of that to commit.
//!
//! It must not know events, bytes of batches, chains, connections or a store: its owner reads what
//! [`Subscription::fetch`] asks for, sends what [`Subscription::assign`] gives to whom, commits what
//! [`Subscription::take_settling`] returns, and reports the outcomes. Every offset below a partition's end is in exactly
//! one state:
//!
//! ```text
//!            assigned                 verb: ack, reject              commit ok
//!   fresh ------------> in flight --------------------> settling ----------------> settled
//!                        |     ^     last attempt            |
//!       nack, timeout,   |     | assigned again              | commit failed
//!       consumer lost    v     |                             v
//!                       waiting              in flight again, or (filtered, lost, dead) settling again
//! ```
//!
//! Filtered offsets go from fresh to settling; those between the events of one delivery stay with it and settle along.
//! All bookkeeping is by runs of offsets: a whole delivery acknowledged costs a handful of map operations.
//!
//! Who holds which part of this:
//!
//! ```text
//!   Subscription ── Sharing        the policy: exclusive, keyed or free; chooses runs and consumers
//!                ├─ RetryPolicy    attempts, backoff, and when to give up
//!                └─ Ledger ── Partitions    states of offsets
//!                         ├─ Consumers      credit, whose turn it is
//!                         ├─ Deliveries     tokens, timers
//!                         └─ Settlement     the settle queue and the commit under way
//! ```

mod machine;

mod consumer;
mod consumers;
mod dead_letter;
mod deliveries;
mod effects;
mod fetch;
mod index_set;
mod ledger;
mod options;
mod partition;
mod partitions;
mod retry;
mod settlement;
mod sharing;
mod standstill;
mod stats;
#[cfg(test)]
mod tests;
mod waiting;

pub use self::{
    consumer::ConsumerId,
    consumers::CONSUMERS_MAX,
    dead_letter::{DeadLetter, Reason},
    effects::{Acked, Applied, CameBack, LostRange, Settling},
    fetch::{Assigned, Assignment, Chunk, EventKey, FETCH_BYTES_MAX, Failed, Fetch, Fetched, Wanted},
    machine::Subscription,
    options::{Bounds, Options},
    standstill::{Retry, WaitsFor},
    stats::{PartitionStats, Stats},
};
