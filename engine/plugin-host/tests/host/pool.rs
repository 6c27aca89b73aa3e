//! Many calls at once: everybody gets a turn.

use std::time::Duration;

use levada_stage::{Artefact, AttachSpec, CallError, Stage as _};

use crate::support::{Blocking as _, Seen, call, hostile, payloads, spec, start, wait};

#[test]
fn many_calls_of_many_attachments_are_all_answered() {
    let host = start();
    let attachments: Vec<_> = (0..8).map(|_| host.attach_hostile()).collect();
    let calls: Vec<_> =
        (0..400).map(|at| attachments[at % 8].call(payloads(&["keep", "drop", "keep"]))).collect();
    wait(async {
        for call in calls {
            assert!(call.await.result.is_ok());
        }
    });
    let events: u64 = attachments.iter().map(|attachment| attachment.stats().events).sum();
    assert_eq!(events, 1_200);
}

#[test]
fn others_wait_for_slices_of_looping_plugins_and_not_for_their_calls() {
    let host = start();
    let one = host.attach_hostile();
    let long = || AttachSpec { deadline: one.spec().deadline * 50, ..spec("") };
    let bad: Vec<_> =
        (0..3).map(|_| host.host.attach_now(&Artefact::Bytes(hostile()), long()).unwrap()).collect();
    let loops: Vec<_> = (0..30).map(|at| bad[at % 3].call(payloads(&["loop"]))).collect();
    assert_eq!(call(&one, payloads(&["loop"])), Err(CallError::Deadline));
    let ended: u64 = bad.iter().map(|attachment| attachment.stats().errors).sum();
    assert_eq!(ended, 0, "a call waited for one that has fifty times its deadline");
    drop(loops);
}

#[test]
fn attachment_points_have_equal_time_whatever_they_queue() {
    let host = start();
    let attach = |point_id| {
        let short = AttachSpec { point_id, deadline: Duration::from_millis(20), ..spec("") };
        host.host.attach_now(&Artefact::Bytes(hostile()), short).unwrap()
    };
    // As a route from many partitions, and a subscription.
    let many: Vec<_> = (0..8).map(|_| attach(1_001)).collect();
    let one = attach(1_002);
    let queued: Vec<_> = (0..160).map(|at| many[at % 8].call(payloads(&["loop"]))).collect();
    let loops: Vec<_> = (0..20).map(|_| one.call(payloads(&["loop"]))).collect();
    wait(async {
        for call in loops {
            assert_eq!(call.await.result, Err(CallError::Deadline));
        }
    });
    let many: Duration = many.iter().map(|attachment| attachment.stats().busy).sum();
    let one = one.stats().busy;
    assert!(many < one * 2 && one < many * 2, "{many:?} and {one:?}");
    drop(queued);
}

#[test]
fn others_wait_for_slices_of_an_init_that_loops() {
    let host = start();
    let good = host.attach_hostile();
    std::thread::scope(|scope| {
        let attach = || host.host.attach_now(&Artefact::Bytes(hostile()), spec("loop")).map(drop);
        let bad: Vec<_> = (0..6).map(|_| scope.spawn(attach)).collect();
        for _ in 0..50 {
            assert_eq!(call(&good, payloads(&["a"])), Ok(vec![Seen::Keep]));
        }
        let under_way = bad.iter().filter(|attaching| !attaching.is_finished()).count();
        assert!(under_way > 0, "50 good calls waited for six times 300 ms");
    });
}

#[test]
fn a_call_that_is_under_way_ends_when_its_caller_leaves() {
    let host = start();
    let hour = AttachSpec { deadline: Duration::from_secs(3_600), ..spec("") };
    let attachment = host.host.attach_now(&Artefact::Bytes(hostile()), hour).unwrap();
    let endless = attachment.call(payloads(&["loop"]));
    while attachment.stats().busy.is_zero() {
        std::thread::yield_now();
    }
    drop(endless);
    let other = host.attach_hostile();
    let runs_on = || {
        let before = attachment.stats().busy;
        assert_eq!(call(&other, payloads(&["loop"])), Err(CallError::Deadline));
        attachment.stats().busy > before
    };
    // The slice that it was in may have ended during the first look.
    assert!(!runs_on() || !runs_on());
    assert_eq!(call(&attachment, payloads(&["a"])), Ok(vec![Seen::Keep]));
}

#[test]
fn a_call_whose_caller_left_is_not_run() {
    let host = start();
    let (attachment, other) = (host.attach_hostile(), host.attach_hostile());
    let first = attachment.call(payloads(&["loop"]));
    drop((0..10).map(|_| attachment.call(payloads(&["loop"]))).collect::<Vec<_>>());
    assert_eq!(wait(first).result, Err(CallError::Deadline));
    assert_eq!(call(&attachment, payloads(&["a"])), Ok(vec![Seen::Keep]));
    assert_eq!(call(&other, payloads(&["a"])), Ok(vec![Seen::Keep]));
    assert_eq!(attachment.stats().calls, 2);
}

#[test]
fn calls_of_a_host_that_went_away_are_to_be_retried_and_not_waited_for() {
    let host = start();
    let hour = AttachSpec { deadline: Duration::from_secs(3_600), ..spec("") };
    let attachment = host.host.attach_now(&Artefact::Bytes(hostile()), hour).unwrap();
    // As many as there are workers.
    let running: Vec<_> = (0..2).map(|_| attachment.call(payloads(&["loop"]))).collect();
    let queued: Vec<_> = (0..30).map(|_| attachment.call(payloads(&["a"]))).collect();
    drop(host);
    for call in running.into_iter().chain(queued) {
        assert!(matches!(wait(call).result, Err(CallError::Retry(_))));
    }
    assert!(matches!(call(&attachment, payloads(&["a"])), Err(CallError::Retry(_))));
}
