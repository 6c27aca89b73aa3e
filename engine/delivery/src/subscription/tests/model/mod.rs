//! The whole subscription against a naive model: one state per offset, random operations, everything checked after
//! each, and at the end every event must come to its end.

mod books;
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
use proptest::{collection::vec, prelude::*};

use self::{
    operations::{Op, op},
    world::World,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1_000)))]

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
