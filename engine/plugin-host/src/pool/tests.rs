//! Whose turn it is, without threads.

use super::{turns::SLICE, *};

fn work() -> Work {
    Box::pin(async {})
}

fn ended(taken: Taken, class: Class, slice: Duration, overran: bool) -> Ended {
    Ended { lane: taken.lane, class, slice, overran, aside: None }
}

fn put_aside(taken: Taken, class: Class) -> Ended {
    Ended { aside: Some(work()), ..ended(taken, class, SLICE, false) }
}

#[test]
fn what_is_put_aside_goes_on_on_workers_for_long_work_and_what_is_queued_begins_beside_it() {
    let mut state = State::new(2);
    let slow = state.new_lane();
    (0..4).for_each(|_| state.queue(slow, work()));
    for _ in 0..2 {
        let taken = state.next(Class::Quick).unwrap();
        assert!(!taken.has_begun);
        state.end_slice(put_aside(taken, Class::Quick));
    }
    assert!(state.next(Class::Quick).is_none(), "two of its calls have begun");
    let first = state.next(Class::Long).unwrap();
    assert!(first.has_begun);
    assert!(!state.is_runnable(slow, Class::Quick), "it is still under way");
    state.end_slice(ended(first, Class::Long, SLICE, false));
    assert!(!state.next(Class::Quick).unwrap().has_begun, "one has ended");
}

#[test]
fn a_lane_whose_slice_overran_begins_on_workers_for_long_work_until_it_does_better() {
    let mut state = State::new(2);
    let (slow, quick) = (state.new_lane(), state.new_lane());
    (0..4).for_each(|_| state.queue(slow, work()));
    let first = state.next(Class::Quick).unwrap();
    state.end_slice(ended(first, Class::Quick, SLICE, true));
    assert!(state.next(Class::Quick).is_none());
    let second = state.next(Class::Long).unwrap();
    assert!(!second.has_begun);
    state.queue(quick, work());
    assert_eq!(state.next(Class::Quick).unwrap().lane, quick);
    state.end_slice(ended(second, Class::Long, SLICE, false));
    assert_eq!(state.next(Class::Quick).unwrap().lane, slow);
}

#[test]
fn time_on_workers_of_one_class_is_nothing_to_those_of_the_other() {
    let mut state = State::new(2);
    let (looping, quick) = (state.new_lane(), state.new_lane());
    state.queue(looping, work());
    let taken = state.next(Class::Quick).unwrap();
    state.end_slice(put_aside(taken, Class::Quick));
    (0..1_000).for_each(|_| {
        let taken = state.next(Class::Long).unwrap();
        state.end_slice(Ended { slice: SLICE * 600, ..put_aside(taken, Class::Long) });
    });
    (0..2).for_each(|_| state.queue(quick, work()));
    let busy = state.next(Class::Quick).unwrap();
    state.end_slice(ended(busy, Class::Quick, SLICE, false));
    let comes = state.new_lane();
    state.queue(comes, work());
    assert_eq!(state.next(Class::Quick).unwrap().lane, comes);
    // Nor has one that comes to the long workers a claim to all that the looping lane had.
    state.queue(quick, work());
    let taken = state.next(Class::Quick).unwrap();
    assert_eq!(taken.lane, quick);
    state.end_slice(put_aside(taken, Class::Quick));
    let turns: Vec<usize> = (0..4)
        .map(|_| {
            let taken = state.next(Class::Long).unwrap();
            let lane = taken.lane;
            state.end_slice(Ended { slice: SLICE * 600, ..put_aside(taken, Class::Long) });
            lane
        })
        .collect();
    assert!(turns.contains(&looping) && turns.contains(&quick), "{turns:?}");
}

#[test]
fn a_lane_that_comes_back_has_no_claim_to_time_that_it_did_not_use_and_pays_for_what_it_used() {
    let mut state = State::new(2);
    let (busy, idle) = (state.new_lane(), state.new_lane());
    (0..3).for_each(|_| state.queue(busy, work()));
    for _ in 0..2 {
        let taken = state.next(Class::Quick).unwrap();
        state.end_slice(ended(taken, Class::Quick, SLICE * 10, false));
    }
    (0..2).for_each(|_| state.queue(idle, work()));
    let taken = state.next(Class::Quick).unwrap();
    assert_eq!(taken.lane, idle);
    state.end_slice(ended(taken, Class::Quick, SLICE * 11, false));
    assert_eq!(state.next(Class::Quick).unwrap().lane, busy, "it is paid for what it left unused");
}

#[test]
fn lanes_are_used_again_when_their_share_is_gone_and_has_no_more_work() {
    let mut state = State::new(2);
    let (gone, stays) = (state.new_lane(), state.new_lane());
    state.queue(gone, work());
    state.queue(stays, work());
    let taken = state.next(Class::Quick).unwrap();
    assert_eq!(taken.lane, gone);
    state.abandon(gone);
    assert_ne!(state.new_lane(), gone, "its work is under way");
    state.end_slice(ended(taken, Class::Quick, SLICE, false));
    assert_eq!((state.new_lane(), state.next(Class::Quick).unwrap().lane), (gone, stays));
    assert!(state.next(Class::Quick).is_none());
}
