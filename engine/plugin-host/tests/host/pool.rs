//! Many calls at once: everybody gets a turn.

use levada_plugin_host::CallError;

use crate::support::{Seen, call, payloads, start, wait};

#[test]
fn many_calls_of_many_attachments_are_all_answered() {
    let host = start();
    let attachments: Vec<_> = (0..8).map(|_| host.attach_hostile()).collect();
    let calls: Vec<_> =
        (0..400).map(|at| attachments[at % 8].call(payloads(&["keep", "drop", "keep"]))).collect();
    wait(async {
        for call in calls {
            assert!(call.await.is_ok());
        }
    });
    let events: u64 = attachments.iter().map(|attachment| attachment.figures().events).sum();
    assert_eq!(events, 1_200);
}

#[test]
fn plugins_that_loop_leave_a_worker_to_the_others() {
    let host = start();
    let good = host.attach_hostile();
    let bad: Vec<_> = (0..3).map(|_| host.attach_hostile()).collect();
    // Half a minute of loops is queued at 100 ms each.
    let loops: Vec<_> = (0..300).map(|at| bad[at % 3].call(payloads(&["loop"]))).collect();
    for _ in 0..20 {
        assert_eq!(call(&good, payloads(&["a"])), Ok(vec![Seen::Keep]));
    }
    let ended: u64 = bad.iter().map(|attachment| attachment.figures().calls).sum();
    assert!(ended < 48, "the good calls waited for {ended} loops");
    drop(loops);
}

#[test]
fn a_call_whose_caller_left_is_not_run() {
    let host = start();
    let (attachment, other) = (host.attach_hostile(), host.attach_hostile());
    let first = attachment.call(payloads(&["loop"]));
    drop((0..10).map(|_| attachment.call(payloads(&["loop"]))).collect::<Vec<_>>());
    assert_eq!(wait(first), Err(CallError::Deadline));
    assert_eq!(call(&attachment, payloads(&["a"])), Ok(vec![Seen::Keep]));
    assert_eq!(call(&other, payloads(&["a"])), Ok(vec![Seen::Keep]));
    assert_eq!(attachment.figures().calls, 2);
}

#[test]
fn calls_of_a_host_that_went_away_are_to_be_retried() {
    let host = start();
    let attachment = host.attach_hostile();
    let running = attachment.call(payloads(&["loop"]));
    let queued: Vec<_> = (0..30).map(|_| attachment.call(payloads(&["a"]))).collect();
    drop(host);
    assert!(matches!(wait(running), Err(CallError::Deadline | CallError::Retry(_))));
    for call in queued {
        assert!(matches!(wait(call), Err(CallError::Retry(_))));
    }
    assert!(matches!(call(&attachment, payloads(&["a"])), Err(CallError::Retry(_))));
}
