//! The whole subscription against a naive model: one state per offset, random operations, everything checked after
//! each, and at the end every event must come to its end.

mod books;
mod credits;
mod disk;
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
    operations::{Op, op},
    world::World,
};

/// At least so many worlds; more if the environment asks for them.
const CASES: u32 = 500;

/// Random numbers that cost little: there is a source of them for every operation that is thought of.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases.max(CASES), rng_algorithm: RngAlgorithm::XorShift, ..usual }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_event_comes_to_its_end_once_and_in_bounds(
        order in prop_oneof![Just(Order::None), Just(Order::Partition), Just(Order::Key)],
        ops in vec(op(), 1..250),
    ) {
        let mut world = World::new(order);
        for consumer in 0..2 {
            world.run(Op::Attach);
            world.run(Op::Grant { consumer, events: 60 });
            world.run(Op::End { partition: consumer, more: 20 });
        }
        ops.into_iter().for_each(|op| world.run(op));
        world.drain();
    }
}
