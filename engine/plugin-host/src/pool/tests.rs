//! Whose turn it is, without threads.

use super::{turns::SLICE, *};

fn work() -> Work {
    Box::pin(async {})
}

fn ended(taken: Taken, slice: Duration, overran: bool) -> Ended {
    Ended { lane: taken.lane, slice, overran, aside: None }
}

#[test]
fn what_is_put_aside_and_places_whose_slice_overran_are_left_to_workers_for_long_work() {
    let mut state = State::default();
    let (slow, quick) = (state.new_lane(), state.new_lane());
    (0..4).for_each(|_| state.queue(slow, work()));
    let Taken { lane, work: begun, .. } = state.next(Class::Quick).unwrap();
    state.end_slice(Ended { lane, slice: SLICE, overran: false, aside: Some(begun) });
    assert!(state.next(Class::Quick).is_none(), "what is queued waits behind what has begun");
    let first = state.next(Class::Long).unwrap();
    assert!(first.has_begun);
    state.end_slice(ended(first, SLICE, true));
    assert_eq!(state.class_of(slow), Some(Class::Long));
    let second = state.next(Class::Long).unwrap();
    assert!(!second.has_begun);
    assert!(state.next(Class::Quick).is_none());
    state.queue(quick, work());
    assert_eq!(state.next(Class::Quick).unwrap().lane, quick);
    // It did better this time.
    state.end_slice(ended(second, SLICE, false));
    assert_eq!(state.next(Class::Quick).unwrap().lane, slow);
}

#[test]
fn a_place_that_comes_back_has_no_claim_to_time_that_it_did_not_use_and_pays_for_what_it_used() {
    let mut state = State::default();
    let (busy, idle) = (state.new_lane(), state.new_lane());
    (0..3).for_each(|_| state.queue(busy, work()));
    for _ in 0..2 {
        let taken = state.next(Class::Quick).unwrap();
        state.end_slice(ended(taken, SLICE * 10, false));
    }
    (0..2).for_each(|_| state.queue(idle, work()));
    let taken = state.next(Class::Quick).unwrap();
    assert_eq!(taken.lane, idle);
    state.end_slice(ended(taken, SLICE * 11, false));
    assert_eq!(state.next(Class::Quick).unwrap().lane, busy, "it is paid for what it left unused");
}

#[test]
fn lanes_are_used_again_when_their_place_is_gone_and_has_no_more_work() {
    let mut state = State::default();
    let (gone, stays) = (state.new_lane(), state.new_lane());
    state.queue(gone, work());
    state.queue(stays, work());
    let taken = state.next(Class::Quick).unwrap();
    assert_eq!(taken.lane, gone);
    state.abandon(gone);
    assert_ne!(state.new_lane(), gone, "its work is under way");
    state.end_slice(ended(taken, SLICE, false));
    assert_eq!((state.new_lane(), state.next(Class::Quick).unwrap().lane), (gone, stays));
    assert!(state.next(Class::Quick).is_none());
}
