//! What can happen in the model's world.

use proptest::prelude::*;

use super::setting::{IN_FLIGHT_MAX, PARTITIONS};

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
    },
    Verb {
        delivery: usize,
        from: u64,
        len: u64,
        kind: u8,
        thief: bool,
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
    /// Another rate, and another limit of what is in flight.
    Set {
        rate: Option<u64>,
        max_in_flight: u64,
        dead_letter_expired: bool,
    },
}

/// Any of them, the frequent ones more often.
pub(super) fn op() -> impl Strategy<Value = Op> {
    let filter = prop_oneof![4 => Just(0), 2 => any::<u64>(), 1 => Just(u64::MAX)];
    let finish = (0..2usize, 1..20u64, filter, proptest::bool::weighted(0.2))
        .prop_map(|(read, take, filter, fail)| Op::Finish { read, take, filter, fail });
    let len = prop_oneof![1..20u64, 1..4u64];
    let verb = (0..4usize, 0..20u64, len, 0..8u8, proptest::bool::weighted(0.05))
        .prop_map(|(delivery, from, len, kind, thief)| Op::Verb { delivery, from, len, kind, thief });
    prop_oneof![
        1 => Just(Op::Attach),
        1 => (0..3usize).prop_map(Op::Detach),
        2 => (0..2usize).prop_map(Op::Replace),
        3 => (0..3usize, 1..40u64).prop_map(|(consumer, events)| Op::Grant { consumer, events }),
        2 => (0..PARTITIONS, 1..20u64).prop_map(|(partition, more)| Op::End { partition, more }),
        10 => Just(Op::Read),
        10 => finish,
        8 => verb,
        4 => prop_oneof![1..200u64, 500..1500u64].prop_map(Op::Time),
        4 => Just(Op::Submit),
        4 => proptest::bool::weighted(0.6).prop_map(Op::Settle),
        1 => (0..PARTITIONS, 1..12u64).prop_map(|(partition, more)| Op::Lost { partition, more }),
        1 => any::<bool>().prop_map(|applied| Op::Restart { applied }),
        1 => (proptest::option::of(1..200u64), 1..=IN_FLIGHT_MAX, any::<bool>()).prop_map(
            |(rate, max_in_flight, dead_letter_expired)| Op::Set { rate, max_in_flight, dead_letter_expired }
        ),
    ]
}
