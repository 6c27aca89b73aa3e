//! Following judged verdicts: events go on into a sink, in order, save those that are withheld.

use std::collections::BTreeSet;

use levada_protocol::{
    batch::EventRef,
    ids::Offset,
    verdict::{Output, Verdict},
};

use crate::{
    answer::Judged,
    cut::{Flat, Part, count_of},
    outcome::DeadReason,
    walk::{Chunk, Forward, Walker},
};

/// Where the events go that pass a stage.
pub(crate) trait Sink: Send {
    /// `count` neighbouring events of `flat`, from index `first` on, go on as they are.
    fn keep(&mut self, flat: &Flat, first: u32, count: u32, forward: &mut Forward<'_>);

    /// An event made of `event`. It was judged: it is within every limit, its target is declared.
    fn emit(&mut self, flat: &Flat, event: &EventRef<'_>, output: &Output<'_>);

    /// True once there is as much as is good to commit at once.
    fn is_full(&self) -> bool;
}

/// Which events do not go on although their verdict says so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Withheld<'w> {
    /// Every event of this source offset and those after it.
    pub(crate) from: Option<Offset>,
    /// Every event of these source offsets: a sibling failed, and the source event is a dead letter as a whole.
    pub(crate) dead: Option<&'w BTreeSet<Offset>>,
}

impl Withheld<'_> {
    pub(crate) const NOTHING: Self = Self { from: None, dead: None };

    fn is_nothing(&self) -> bool {
        self.from.is_none() && self.dead.is_none()
    }

    fn holds(&self, offset: Offset) -> bool {
        self.from.is_some_and(|from| offset >= from) || self.dead.is_some_and(|dead| dead.contains(&offset))
    }
}

/// Follows an answer. An event with a fault goes on unchanged if `faulty_pass`, else not at all.
pub(crate) fn follow(
    judged: &Judged<'_>,
    flats: &[Flat],
    parts: &[Part],
    withheld: Withheld<'_>,
    faulty_pass: bool,
    sink: &mut impl Sink,
) {
    let mut walker = Walker::new(flats, parts);
    let mut faults = judged.faults.iter().peekable();
    let mut index = 0;
    for verdict in &judged.verdicts {
        match verdict {
            Verdict::Drop(n) => {
                walker.skip(u32::from(*n));
                index += u32::from(*n);
            }
            Verdict::Keep(n) => {
                let end = index + u32::from(*n);
                while index < end {
                    // Only an event that passed too many routes has a fault here: it never goes on.
                    match faults.next_if(|fault| fault.index == index) {
                        Some(_) => {
                            walker.skip(1);
                            index += 1;
                        }
                        None => {
                            let until = faults.peek().map_or(end, |fault| fault.index.min(end));
                            keep(&mut walker, until - index, withheld, sink);
                            index = until;
                        }
                    }
                }
            }
            Verdict::Reject(_) | Verdict::Emit(_) => {
                match (faults.next_if(|fault| fault.index == index), verdict) {
                    (None, Verdict::Emit(outputs)) => emit(&mut walker, outputs, withheld, sink),
                    (Some(fault), _) if faulty_pass && fault.reason != DeadReason::Loop => {
                        keep(&mut walker, 1, withheld, sink)
                    }
                    _ => walker.skip(1),
                }
                index += 1;
            }
        }
    }
}

/// Lets the events of a call go on unchanged.
pub(crate) fn keep_parts(flats: &[Flat], parts: &[Part], withheld: Withheld<'_>, sink: &mut impl Sink) {
    let mut walker = Walker::new(flats, parts);
    keep(&mut walker, count_of(parts), withheld, sink);
}

fn keep(walker: &mut Walker<'_>, count: u32, withheld: Withheld<'_>, sink: &mut impl Sink) {
    let mut left = count;
    let most = if withheld.is_nothing() { u32::MAX } else { 1 };
    while left > 0
        && let Some(Chunk { flat, first, count, forward }) = walker.chunk(left.min(most))
    {
        left -= count;
        if withheld.is_nothing() || !withheld.holds(forward.get(first).offset(flat.base)) {
            sink.keep(flat, first, count, forward);
        }
    }
}

fn emit(walker: &mut Walker<'_>, outputs: &[Output<'_>], withheld: Withheld<'_>, sink: &mut impl Sink) {
    let Some(Chunk { flat, first, forward, .. }) = walker.chunk(1) else { return };
    if outputs.is_empty() {
        return;
    }
    let event = forward.get(first);
    if !withheld.is_nothing() && withheld.holds(event.offset(flat.base)) {
        return;
    }
    for output in outputs {
        sink.emit(flat, &event, output);
    }
}
