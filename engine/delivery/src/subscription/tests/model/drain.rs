//! The end of a world: consumers acknowledge what they get, and every event must come to its end.

use super::{
    super::{lag, waiting},
    operations::{Named, Op},
    rules::Rules,
    setting::{IN_FLIGHT_MAX, LOG, key_of},
    states::{At, Sent},
    world::World,
};

/// Rounds after which it is certain that something never comes to its end.
const ROUNDS_MAX: usize = 2_000;

/// How consumers keep the events of one key from their end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Block {
    /// They need more and more time for them.
    Extend,
    /// They give them back for a time that does not pass.
    GiveBack,
}

impl Block {
    /// What they say of such an event.
    fn kind(self) -> u8 {
        match self {
            Self::Extend => 6,
            Self::GiveBack => 8,
        }
    }
}

/// Every event comes to its end.
pub(super) fn all(world: &mut World) {
    let mut all_ended = || {
        round(world, None);
        let all = world.events.iter().all(|event| event.at == At::Done);
        let waits = waiting(&world.it) > 0 || world.rate.is_some();
        if let Some(at) = world.it.next_deadline(world.now()).filter(|_| waits && !all) {
            world.run(Op::Time(at.saturating_sub(world.now().mono_ms)));
        }
        all
    };
    let ended = (0..ROUNDS_MAX).any(|_| all_ended());
    assert!(ended, "{ROUNDS_MAX} rounds did not bring every event to its end: {:?}", world.events);
    assert_eq!((lag(&world.it), world.it.take_settling()), (0, None));
    assert!(world.tickets.are_confirmed());
    assert!(world.it.ledger.deliveries.is_empty() && world.it.ledger.settlement.is_empty());
}

/// Every event comes to its end but those of one key of the log, for which consumers never do what is needed.
pub(super) fn all_but(world: &mut World, blocked: u64, block: Block) {
    let rate = world.rate.map(|(rate, ..)| rate);
    world.run(Op::Set(Rules { rate, max_in_flight: IN_FLIGHT_MAX, max_attempts: 9, ..Rules::default() }));
    // One that has nothing yet, and another.
    world.run(Op::Replace(0));
    world.run(Op::Attach);
    world.run(Op::Attach);
    let others =
        |partition: usize, offset: u64| (partition, key_of(partition, offset)) != (LOG, Some(blocked));
    let mut others_ended = || {
        round(world, Some((blocked, block)));
        let all = world.events.all_done(others);
        if !all {
            let at = world.it.next_deadline(world.now()).unwrap_or(0);
            // Before any time is over that was extended in this round.
            let step = at.saturating_sub(world.now().mono_ms).min(Rules::default().timeout_ms / 2);
            world.run(Op::Time(step));
        }
        all
    };
    let ended = (0..ROUNDS_MAX).any(|_| others_ended());
    assert!(ended, "an event of another key than {blocked} did not come to its end: {:?}", world.events);
}

/// Consumers have credit, get what there is for them, and acknowledge it unless its key is blocked.
fn round(world: &mut World, blocked: Option<(u64, Block)>) {
    if world.consumers.is_empty() {
        world.run(Op::Attach);
    }
    for consumer in world.consumers.clone() {
        world.grant(consumer, 50, 5_000);
    }
    world.run(Op::Read);
    while !world.fetches.is_empty() {
        world.run(Op::Finish { read: 0, take: 30, filter: 0, fail: false, unsent: None });
    }
    for sent in std::mem::take(&mut world.deliveries) {
        if world.consumers.contains(&sent.consumer) {
            end(world, sent, blocked);
        }
    }
    world.run(Op::Submit);
    world.run(Op::Settle(true));
}

/// Says of each event of a delivery what its consumer says of it.
fn end(world: &mut World, sent: Sent, blocked: Option<(u64, Block)>) {
    let kept = std::mem::take(&mut world.deliveries);
    world.deliveries.push(sent.clone());
    match blocked {
        None => say(world, sent.range.start, sent.range.end - sent.range.start, 0),
        Some((key, block)) => {
            for offset in sent.range.clone() {
                let is_blocked = sent.partition == LOG && key_of(LOG, offset) == Some(key);
                say(world, offset, 1, if is_blocked { block.kind() } else { 0 });
            }
        }
    }
    world.deliveries = kept;
    if world.events.holds(&sent) {
        world.deliveries.push(sent);
    }
}

fn say(world: &mut World, offset: u64, len: u64, kind: u8) {
    let from = offset - world.deliveries[0].range.start;
    world.run(Op::Verb { named: Named { delivery: 0, from, len }, kind, thief: false });
}
