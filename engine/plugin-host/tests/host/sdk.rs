//! What the SDK offers to plugin authors, in a real component.

use levada_protocol::{event::Event, ids::Timestamp};
use levada_stage::CallError;

use crate::support::{Seen, SeenOutput, TestHost, call, guest, input, payloads, start};

fn attach(host: &TestHost) -> levada_plugin_host::Attachment {
    host.attach(&guest("tests/guests/sdk"), "")
}

#[test]
fn an_event_is_seen_as_it_was_published() {
    let host = start();
    let event = Event::new("describe").with_key("k").with_header("region", "eu").with_header("x", "");
    let event = Event { id: Some("id-7".into()), ..event.at(Timestamp(1_000)) };
    let described = r#"orders/101 at 1000 appended 5000 key Some("k") id Some("id-7") headers region=eu,x= region Some("eu")"#;
    let plain = r"orders/102 at 0 appended 5000 key None id None headers  region None";
    let seen = call(&attach(&host), input(&[Event::new("x"), event, Event::new("describe")]));
    assert_eq!(seen, Ok(vec![Seen::Keep, Seen::payload(described), Seen::payload(plain)]));
}

#[test]
fn several_runs_and_batches_keep_their_offsets() {
    let host = start();
    let mut input = payloads(&["x", "describe"]);
    input.runs = [&input.runs[..], &input.runs[..]].concat().into();
    input.events = 4;
    let seen = call(&attach(&host), input).unwrap();
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[1], seen[3]);
}

#[test]
fn verdicts_of_every_kind_arrive() {
    let host = start();
    let tombstone = Event { payload: None, ..Event::default() };
    let events = [Event::new("reject"), tombstone, Event::new("fan-out"), Event::new("log")];
    let outputs = vec![
        SeenOutput { target: Some("a".to_owned()), key: Some(None), ..SeenOutput::default() },
        SeenOutput {
            target: Some("b".to_owned()),
            time: Some(9),
            headers: Some(r#"Patch([("set", [120])], ["gone"])"#.to_owned()),
            ..SeenOutput::default()
        },
    ];
    let rejected = Seen::Reject("an event asked for it".to_owned());
    let expected = vec![rejected, Seen::Drop, Seen::Emit(outputs), Seen::Keep];
    assert_eq!(call(&attach(&host), input(&events)), Ok(expected));
}

#[test]
fn failures_and_panics_end_the_call() {
    let host = start();
    let attachment = attach(&host);
    let error = |word| call(&attachment, payloads(&["a", word, "b"])).unwrap_err();
    assert_eq!(error("retry"), CallError::Retry("come back later".to_owned()));
    assert_eq!(error("reject-all"), CallError::Reject("not these".to_owned()));
    assert!(matches!(error("panic"), CallError::Trap(said) if said.contains("event 101 asked for it")));
    assert_eq!(call(&attachment, payloads(&["a"])), Ok(vec![Seen::Keep]));
}
