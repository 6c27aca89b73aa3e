//! The whole engine, tested from outside: real RocksDB in temporary directories, real QUIC on loopback, real
//! components, and the real binary where a process is what matters.
//!
//! `LEVADA_TEST_SEED` repeats a run of the random tests, `LEVADA_CRASH_ROUNDS` sets how often the crash test kills,
//! `LEVADA_DELAYS` how many delayed events wait.
#![expect(clippy::unwrap_used, reason = "tests, and what they stand on, say what they expect by failing")]

mod backlog;
mod bad_input;
mod cli;
mod compact;
mod connections;
mod consumers;
mod crash;
mod damage;
mod dead_letters;
mod dedup;
mod descriptors;
mod disk;
mod doc_examples;
mod examples;
mod format;
mod hosts;
mod http_page;
mod identities;
mod interop;
mod log_lines;
mod losses;
mod moves;
mod named;
mod pages;
mod plugins;
mod power;
mod prepared;
mod publish;
mod pull;
mod readme;
mod remote;
mod replay;
mod routes;
mod schedule;
mod search;
mod slow;
mod space;
mod subscribe;
mod support;
mod tidy;
mod tls;
mod transactions;
mod ttl;
mod unread;
mod unseen;
mod vectors;
mod walls;
