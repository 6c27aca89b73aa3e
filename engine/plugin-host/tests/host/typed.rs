//! The typed interface: records in, typed verdicts out, the same meaning and limits.

use levada_protocol::{event::Event, ids::Timestamp};
use levada_stage::{Artefact, CallError, Interface};

use crate::support::{Blocking as _, Seen, SeenOutput, call, guest, input, payloads, spec, start};

fn typed() -> bytes::Bytes {
    guest("tests/guests/typed")
}

fn echo() -> Event {
    let event = Event::new("echo").with_key("k1").with_header("region", "eu").with_header("other", "x");
    Event { id: Some("id-1".into()), ..event.at(Timestamp(1_000)) }
}

fn echoed(config: &str) -> String {
    let host = start();
    let attachment = host.attach(&typed(), config);
    let seen = call(&attachment, input(&[Event::new("keep"), echo()])).unwrap();
    let [Seen::Keep, Seen::Emit(outputs)] = &seen[..] else { panic!("{seen:?}") };
    outputs[0].payload.clone().unwrap().unwrap()
}

#[test]
fn a_plugin_sees_what_it_is_interested_in() {
    let host = start();
    assert_eq!(host.host.inspect_now(&typed()).unwrap().interface, Interface::Events);
    let everything = echoed("*");
    for part in ["offset: 101", "time: 1000", "\"id-1\"", "key: Some([107, 49])", "\"region\"", "\"other\""] {
        assert!(everything.contains(part), "{part} in {everything}");
    }
    let nothing = echoed("");
    assert!(nothing.contains("key: None") && nothing.contains("headers: []"), "{nothing}");
    let one = echoed("region,absent");
    assert!(one.contains("\"region\"") && !one.contains("\"other\""), "{one}");
}

#[test]
fn every_verdict_and_change_arrives() {
    let host = start();
    let attachment = host.attach(&typed(), "");
    let tombstone = Event { payload: None, ..Event::default() };
    let events =
        [Event::new("keep"), Event::new("drop"), Event::new("reject"), Event::new("change"), tombstone];
    let changed = SeenOutput {
        target: Some("elsewhere".to_owned()),
        key: Some(Some(b"new".to_vec())),
        time: Some(42),
        id: Some("id-42".to_owned()),
        headers: Some(r#"Replace([("only", [116, 104, 105, 115])])"#.to_owned()),
        payload: Some(Some("changed".to_owned())),
    };
    let patched = SeenOutput {
        key: Some(None),
        headers: Some(r#"Patch([("set", [118, 97, 108, 117, 101])], ["gone"])"#.to_owned()),
        payload: Some(None),
        ..SeenOutput::default()
    };
    let expected = vec![
        Seen::Keep,
        Seen::Drop,
        Seen::Reject("an event asked for it".to_owned()),
        Seen::Emit(vec![changed, patched]),
        Seen::Drop,
    ];
    assert_eq!(call(&attachment, input(&events)), Ok(expected));
}

#[test]
fn the_parts_of_typed_answers_have_limits() {
    let host = start();
    let attachment = host.attach(&typed(), "");
    let reason = |word| match call(&attachment, payloads(&["keep", word])) {
        Err(CallError::Output(reason)) => reason,
        other => panic!("{word}: {other:?}"),
    };
    assert_eq!(
        call(&attachment, payloads(&["keep", "missing"])),
        Ok(vec![Seen::Keep]),
        "counting is the caller's"
    );
    assert!(reason("flood").contains("10001 outputs"));
    assert!(reason("huge").contains("payload has 5242880 bytes"));
    assert!(reason("long-key").contains("key has 70000 bytes"));
    assert_eq!(call(&attachment, payloads(&["retry"])), Err(CallError::Retry("come back later".to_owned())));
    assert_eq!(call(&attachment, payloads(&["keep"])), Ok(vec![Seen::Keep]));
}

#[test]
fn the_memory_cap_holds_for_what_the_host_hands_over_too() {
    let host = start();
    let mut spec = spec("");
    spec.memory_bytes_max = 2 << 20;
    let attachment = host.host.attach_now(&Artefact::Bytes(typed()), spec).unwrap();
    let large = Event::new(vec![b'x'; 900 << 10]);
    assert_eq!(call(&attachment, input(std::slice::from_ref(&large))), Ok(vec![Seen::Keep]));
    let mut three = input(&[large]);
    three.runs = [&three.runs[..], &three.runs[..], &three.runs[..]].concat().into();
    three.events = 3;
    assert_eq!(call(&attachment, three), Err(CallError::Memory));
    assert_eq!(call(&attachment, payloads(&["keep"])), Ok(vec![Seen::Keep]));
}
