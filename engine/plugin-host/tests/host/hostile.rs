//! Everything a plugin can do wrong costs its call and nothing else; every limit from both sides.

use std::time::{Duration, Instant};

use levada_plugin_host::Attachment;
use levada_protocol::limits::CALL_OUTPUT_EVENTS_MAX;
use levada_stage::{Artefact, CallError, Stage as _};

use crate::support::{Blocking as _, Seen, TestHost, answer, call, hostile, payloads, spec, start};

/// Calls with `word`, and sees that the same attachment and another one go on.
fn provoke(word: &str) -> CallError {
    let host = start();
    let (bad, good) = (host.attach_hostile(), host.attach_hostile());
    let error = call(&bad, payloads(&["keep", word, "keep"])).expect_err(word);
    for attachment in [&bad, &good] {
        assert_eq!(
            call(attachment, payloads(&["a", "drop"])),
            Ok(vec![Seen::Keep, Seen::Drop]),
            "after {word}"
        );
    }
    assert_eq!((bad.stats().errors, good.stats().errors), (1, 0));
    error
}

fn output(word: &str) -> String {
    match provoke(word) {
        CallError::Output(reason) => reason,
        other => panic!("{word}: {other:?}"),
    }
}

#[test]
fn a_panic_traps_with_its_message() {
    let CallError::Trap(said) = provoke("trap") else { panic!("no trap") };
    assert!(said.contains("an event asked for it") && said.contains("unreachable"), "{said}");
}

#[test]
fn a_trap_without_a_word_says_what_to_do() {
    let CallError::Trap(said) = provoke("abort") else { panic!("no trap") };
    assert!(said.contains("uncaught exception") && said.contains("levada:plugin/log"), "{said}");
    let CallError::Trap(said) = provoke("warn-and-abort") else { panic!("no trap") };
    assert!(said.contains("uncaught exception") && said.ends_with("the ice is thin"), "{said}");
}

#[test]
fn memory_that_earlier_calls_left_behind_is_no_error() {
    let host = start();
    let attachment = host.attach_hostile();
    for _ in 0..40 {
        assert_eq!(call(&attachment, payloads(&["leak"])), Ok(vec![Seen::Keep]));
    }
    let stats = attachment.stats();
    assert_eq!((stats.calls, stats.errors), (40, 0));
    assert!(stats.memory_restarts > 1, "{stats:?}");
}

#[test]
fn a_new_instance_that_has_too_little_memory_too_is_an_error_and_no_memory_restart() {
    let host = start();
    let attachment = host.attach_hostile();
    assert_eq!(call(&attachment, payloads(&["memory"])), Err(CallError::Memory));
    let stats = attachment.stats();
    assert_eq!((stats.calls, stats.errors, stats.restarts, stats.memory_restarts), (1, 1, 1, 0));
}

#[test]
fn an_endless_loop_is_stopped_at_its_deadline() {
    let host = start();
    let attachment = host.attach_hostile();
    let begun = Instant::now();
    assert_eq!(call(&attachment, payloads(&["loop"])), Err(CallError::Deadline));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(99), "stopped early: {took:?}");
    assert!(took < Duration::from_secs(5), "stopped late: {took:?}");
    assert_eq!(provoke("loop"), CallError::Deadline);
}

#[test]
fn memory_has_a_cap() {
    assert_eq!(provoke("memory"), CallError::Memory);
    let host = start();
    let with = |mebibytes: u64| {
        let mut spec = spec("");
        spec.memory_bytes_max = mebibytes << 20;
        let attachment = host.host.attach_now(&Artefact::Bytes(hostile()), spec).unwrap();
        (call(&attachment, payloads(&["fill"])), attachment.stats().memory_bytes_peak)
    };
    let (enough, high) = with(16);
    assert!(enough.is_ok(), "{enough:?}");
    assert!((8 << 20..=16 << 20).contains(&high), "{high}");
    let (short, high) = with(6);
    assert_eq!(short, Err(CallError::Memory));
    assert!(high <= 6 << 20, "{high}");
}

#[test]
fn deep_recursion_is_a_stack_overflow_wherever_its_frames_lie() {
    assert_eq!(provoke("recurse"), CallError::Stack);
    assert_eq!(provoke("recurse-lean"), CallError::Stack);
}

#[test]
fn answers_have_a_size_limit() {
    assert!(output("huge").contains("the limit is 1048576") || output("huge").contains("too much data"));
    assert!(output("immense").contains("too much data"));
}

#[test]
fn an_answer_within_its_size_is_returned_whatever_it_says() {
    let host = start();
    let attachment = host.attach_hostile();
    assert_eq!(answer(&attachment, payloads(&["malformed"])).unwrap()[..], [9; 5]);
    assert_eq!(call(&attachment, payloads(&["keep", "missing"])), Ok(vec![Seen::Keep]));
    assert_eq!(call(&attachment, payloads(&["double"])).unwrap().len(), 2);
    assert!(answer(&attachment, payloads(&["large-event"])).is_ok());
    let flood = call(&attachment, payloads(&["flood"])).unwrap();
    assert!(matches!(&flood[..], [Seen::Emit(outputs)] if outputs.len() == CALL_OUTPUT_EVENTS_MAX + 1));
    assert_eq!(attachment.stats().errors, 0, "the caller counts what is not valid");
}

#[test]
fn a_plugin_may_refuse_a_call_or_ask_for_it_again() {
    assert_eq!(provoke("retry"), CallError::Retry("come back later".to_owned()));
    assert_eq!(provoke("fail"), CallError::Reject("not these".to_owned()));
    assert!(matches!(provoke("long-reason"), CallError::Reject(reason) if reason.len() == 1024));
}

#[test]
fn a_rejected_event_is_a_verdict_and_no_failure() {
    let host = start();
    let attachment = host.attach_hostile();
    let rejected = Seen::Reject("an event asked for it".to_owned());
    assert_eq!(
        call(&attachment, payloads(&["a", "reject", "b"])),
        Ok(vec![Seen::Keep, rejected, Seen::Keep])
    );
}

#[test]
fn only_a_trap_costs_the_instance() {
    let host = start();
    let restarts = |host: &TestHost, word: &str| -> u64 {
        let attachment: Attachment = host.attach_hostile();
        for _ in 0..20 {
            let _result = answer(&attachment, payloads(&[word]));
        }
        attachment.stats().restarts
    };
    assert_eq!(restarts(&host, "retry"), 0);
    assert_eq!(restarts(&host, "malformed"), 0);
    assert_eq!(restarts(&host, "trap"), 19);
}
