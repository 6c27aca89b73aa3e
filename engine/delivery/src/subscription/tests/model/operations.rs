//! What can happen in the model's world.

use proptest::prelude::*;

use super::{
    rules::Rules,
    setting::{IN_FLIGHT_MAX, PARTITIONS},
};

/// What happens to a subscription.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Attach,
    Detach(usize),
    /// Its connection ends, and another takes its place.
    Replace(usize),
    Grant {
        consumer: usize,
        events: u64,
    },
    End {
        partition: usize,
        more: u64,
    },
    Read,
    Finish {
        read: usize,
        take: u64,
        filter: u64,
        fail: bool,
        /// The delivery of this number cannot be sent.
        unsent: Option<usize>,
    },
    /// The read brings nothing.
    Abandon(usize),
    Verb {
        named: Named,
        kind: u8,
        thief: bool,
    },
    /// A part of one delivery or of several is acknowledged as a transaction. It may count its events wrongly.
    Together {
        parts: Vec<Named>,
        wrong: bool,
    },
    Time(u64),
    Submit,
    Settle(bool),
    Lost {
        partition: usize,
        more: u64,
    },
    Restart {
        applied: bool,
    },
    /// The log is to be read from another place on.
    Seek {
        to: u64,
        applied: bool,
    },
    /// Other options.
    Set(Rules),
}

/// A part of one of the last deliveries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    /// From the last one back.
    pub(super) delivery: usize,
    pub(super) from: u64,
    pub(super) len: u64,
}

fn named() -> impl Strategy<Value = Named> {
    let len = prop_oneof![1..20u64, 1..4u64];
    (0..4usize, 0..20u64, len).prop_map(|(delivery, from, len)| Named { delivery, from, len })
}

fn rules() -> impl Strategy<Value = Rules> {
    let rate = proptest::option::of(1..200u64);
    let backoff = prop_oneof![Just(vec![100, 500]), Just(vec![]), Just(vec![50])];
    let attempts = (0..5u16, prop_oneof![Just(300u64), Just(1_000), Just(2_000)], backoff);
    let in_flight = (1..=IN_FLIGHT_MAX, 1..=400u64);
    (rate, in_flight, any::<bool>(), attempts).prop_map(
        |(rate, in_flight, dead_letter_expired, (max_attempts, timeout_ms, backoff_ms))| Rules {
            timeout_ms,
            max_attempts,
            backoff_ms,
            rate,
            max_in_flight: in_flight.0,
            max_in_flight_bytes: in_flight.1,
            dead_letter_expired,
            ..Rules::default()
        },
    )
}

fn finish() -> impl Strategy<Value = Op> {
    let filter = prop_oneof![4 => Just(0), 2 => any::<u64>(), 1 => Just(u64::MAX)];
    let unsent = prop_oneof![12 => Just(None), 1 => (0..2usize).prop_map(Some)];
    (0..2usize, 1..20u64, filter, proptest::bool::weighted(0.2), unsent)
        .prop_map(|(read, take, filter, fail, unsent)| Op::Finish { read, take, filter, fail, unsent })
}

/// Any of them, the frequent ones more often.
pub(super) fn op() -> impl Strategy<Value = Op> {
    let verb = (named(), 0..8u8, proptest::bool::weighted(0.05)).prop_map(|(named, kind, thief)| Op::Verb {
        named,
        kind,
        thief,
    });
    let together = (proptest::collection::vec(named(), 1..3), proptest::bool::weighted(0.1))
        .prop_map(|(parts, wrong)| Op::Together { parts, wrong });
    prop_oneof![
        2 => Just(Op::Attach),
        2 => (0..3usize).prop_map(Op::Detach),
        4 => (0..2usize).prop_map(Op::Replace),
        6 => (0..3usize, 1..40u64).prop_map(|(consumer, events)| Op::Grant { consumer, events }),
        4 => (0..PARTITIONS, 1..20u64).prop_map(|(partition, more)| Op::End { partition, more }),
        20 => Just(Op::Read),
        20 => finish(),
        1 => (0..2usize).prop_map(Op::Abandon),
        16 => verb,
        4 => together,
        8 => prop_oneof![1..200u64, 500..1500u64].prop_map(Op::Time),
        8 => Just(Op::Submit),
        8 => proptest::bool::weighted(0.6).prop_map(Op::Settle),
        2 => (0..PARTITIONS, 1..12u64).prop_map(|(partition, more)| Op::Lost { partition, more }),
        2 => any::<bool>().prop_map(|applied| Op::Restart { applied }),
        1 => (any::<u64>(), any::<bool>()).prop_map(|(to, applied)| Op::Seek { to, applied }),
        2 => rules().prop_map(Op::Set),
    ]
}
