//! The whole subscription against a naive model: one state per offset, random operations, everything checked after
//! each, and at the end every event must come to its end.

mod books;
mod credits;
mod disk;
mod drain;
mod events;
mod operations;
mod rules;
mod setting;
mod states;
mod tickets;
mod turns;
mod world;

use levada_protocol::request::Order;
use proptest::{collection::vec, prelude::*, test_runner::RngAlgorithm};

use self::{
    drain::Block,
    operations::{Op, op},
    rules::Rules,
    setting::KEYS,
    world::World,
};

/// At least so many worlds; more if the environment asks for them.
const CASES: u32 = 500;

/// Random numbers that cost little: there is a source of them for every operation that is thought of.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases.max(CASES), rng_algorithm: RngAlgorithm::XorShift, ..usual }
}

/// Two consumers with credit, and some events of both partitions.
fn begin(order: Order, rules: Rules) -> World {
    let mut world = World::new(order, rules);
    for consumer in 0..2 {
        world.run(Op::Attach);
        world.run(Op::Grant { consumer, events: 60 });
        world.run(Op::End { partition: consumer, more: 20 });
    }
    world
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_event_comes_to_its_end_once_and_in_bounds(
        order in prop_oneof![Just(Order::None), Just(Order::Partition), Just(Order::Key)],
        dead_letters_max in 1..=3u64,
        failed_runs_max in prop_oneof![Just(usize::MAX), Just(2), Just(6)],
        ops in vec(op(), 1..250),
    ) {
        let mut world = begin(order, Rules { dead_letters_max, failed_runs_max, ..Rules::default() });
        ops.into_iter().for_each(|op| world.run(op));
        drain::all(&mut world);
    }

    #[test]
    fn a_key_that_never_comes_to_its_end_keeps_no_other_from_it(
        key in 0..KEYS,
        block in prop_oneof![Just(Block::Extend), Just(Block::GiveBack)],
        ops in vec(op(), 1..120),
    ) {
        let mut world = begin(Order::Key, Rules { waiting_bytes_max: usize::MAX, ..Rules::default() });
        ops.into_iter().for_each(|op| world.run(op));
        drain::all_but(&mut world, key, block);
        drain::all(&mut world);
    }
}
