//! The broker when something goes wrong around it: callers that give up, syncs that hang or fail, disks that fill up,
//! threads that panic, clients that take nothing, events that are gone.
#![expect(clippy::unwrap_used, reason = "a test's helper fails the test by panicking")]

mod access;
mod alone;
mod audit;
mod backlog;
mod bounds;
mod clock;
mod commit_size;
mod compact;
mod dedup;
mod ends;
mod holes;
mod idle;
mod jumps;
mod masks;
mod metrics;
mod moves;
mod named;
mod options;
mod owners;
mod pressure;
mod principals;
mod purge;
mod quotas;
mod redrive;
mod refused_verbs;
mod removing;
mod retention;
mod schedule;
mod search;
mod slow_plugins;
mod support;
mod terms;
mod transactions;
mod trials;
mod ttl;
mod unattended;
mod unread;
