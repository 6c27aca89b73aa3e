//! Both ways at once: what is written is read back.

use bytes::Bytes;
use levada_protocol::{
    batch::{Batch, BatchBuilder, Stamp},
    event::Event,
    ids::{Epoch, Offset, PartitionId, ProducerId, Sequence, Timestamp},
};
use proptest::{collection::vec, option, prelude::*};

use crate::{InvalidEvent, Location, read_event, write_event};

fn read(line: &str) -> Result<Event, InvalidEvent> {
    read_event(line.as_bytes())
}

fn stored(event: &Event) -> Batch {
    let mut builder = BatchBuilder::of_engine();
    builder.push(event).unwrap();
    builder.finish(Stamp { producer_id: ProducerId(1), epoch: Epoch(0), first_sequence: Sequence(0) })
}

fn written(event: &Event) -> String {
    let location =
        Location { topic: "t", partition: PartitionId(1), offset: Offset(7), delivery: Some(("s", 2)) };
    let mut out = Vec::new();
    write_event(&mut out, location, &stored(event).events().next().unwrap());
    String::from_utf8(out).unwrap()
}

/// Payloads of every kind: JSON, JSON with line ends and white space, text, bytes, what looks like our own fields.
fn any_payload() -> impl Strategy<Value = Option<Vec<u8>>> {
    let json = prop_oneof![
        Just("null".to_owned()),
        Just(r#"{"base64":"AA=="}"#.to_owned()),
        Just("{\n  \"a\": [1.50, 2e400]\r\n}".to_owned()),
        Just(" 1".to_owned()),
        Just("1\t".to_owned()),
        Just(r#""\ud800""#.to_owned()),
        (1..2_000_usize).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
        (1..300_usize).prop_map(|depth| "[".repeat(depth)),
    ];
    option::weighted(
        0.9,
        prop_oneof![
            json.prop_map(String::into_bytes),
            any::<String>().prop_map(String::into_bytes),
            vec(any::<u8>(), 0..40),
        ],
    )
}

fn any_text_or_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![any::<String>().prop_map(String::into_bytes), vec(any::<u8>(), 0..20)]
}

fn any_event() -> impl Strategy<Value = Event> {
    // Few names, so that they repeat and interleave.
    let name =
        prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("base64".to_owned()), "\\PC{1,8}"];
    let time = prop_oneof![
        any::<u64>(),
        0..=253_402_300_799_999_u64,
        Just(0),
        Just(253_402_300_799_999),
        Just(253_402_300_800_000)
    ];
    (
        option::of(any_text_or_bytes()),
        vec((name, any_text_or_bytes()), 0..8),
        any_payload(),
        time,
        option::of("\\PC{1,20}"),
        option::of(1..=u32::MAX),
    )
        .prop_map(|(key, headers, payload, time, id, ttl_ms)| Event {
            key: key.map(Bytes::from),
            headers: headers.into_iter().map(|(name, value)| (name, value.into())).collect(),
            payload: payload.map(Bytes::from),
            time: Some(Timestamp(time)),
            id: id.map(Into::into),
            ttl_ms,
        })
}

proptest! {
    #[test]
    fn every_event_that_can_be_stored_is_written_as_one_line_and_read_back_as_the_same(event in any_event()) {
        let line = written(&event);
        prop_assert_eq!(line.find(['\n', '\r']), Some(line.len() - 1));
        prop_assert_eq!(read(&line), Ok(event));
    }

    #[test]
    fn no_line_makes_reading_panic(line in vec(any::<u8>(), 0..60), text in "[{\\[\"a-z:,}\\]0-9\\\\ ]{0,40}") {
        let _ = read_event(&line);
        let _ = read(&text);
        let _ = read(&format!("{{{text}"));
    }
}

#[test]
fn payloads_are_stored_as_their_own_json_bytes() {
    for payload in [
        r#"{"b":1,"a":[1.50,2]}"#,
        "17",
        "null",
        "\"text\"",
        "[]",
        "1.000000000000000000001",
        r#"{"base64":"AP8="}"#,
    ] {
        let event = read(&format!(r#"{{"payload":{payload}}}"#)).unwrap();
        assert_eq!(event.payload.unwrap(), payload.as_bytes());
    }
    assert_eq!(read(r#"{"payload_base64":"AP8="}"#).unwrap().payload.unwrap(), &[0, 255][..]);
    assert_eq!(read(r#"{"payload_text":"a\nb"}"#).unwrap().payload.unwrap(), "a\nb");
    assert_eq!(read(r#"{"tombstone":true,"key":"k"}"#).unwrap().payload, None);
}

#[test]
fn text_is_written_as_text_and_json_as_json() {
    for (payload, part) in [
        ("hello", r#","payload_text":"hello"}"#),
        ("", r#","payload_text":""}"#),
        (r#"{"a":1}"#, r#","payload":{"a":1}}"#),
        ("{\n}", r#","payload_text":"{\n}"}"#),
    ] {
        let line = written(&Event::new(payload).at(Timestamp(0)));
        assert!(line.trim_end().ends_with(part), "{line}");
    }
    let line = written(&Event { payload: None, ..Event::default() }.with_key("k"));
    assert!(line.trim_end().ends_with(r#""tombstone":true}"#), "{line}");
    let interleaved = Event::new("1").with_header("a", "1").with_header("b", "2").with_header("a", vec![255]);
    let line = written(&interleaved);
    assert!(line.contains(r#""headers":[["a","1"],["b","2"],["a",{"base64":"/w=="}]]"#), "{line}");
    let grouped = Event::new("1").with_header("a", "1").with_header("a", "2").with_header("b", "3");
    assert!(written(&grouped).contains(r#""headers":{"a":["1","2"],"b":"3"}"#));
}

#[test]
fn every_field_is_read() {
    let line = "\u{feff}".to_owned()
        + r#"{"key":"k","headers":{"z":"1","a":["2",{"base64":"AP8="}]},"payload":1,"id":"i",
            "time":"1970-01-01T00:00:02Z","topic":"t","partition":0,"offset":3,"attempt":1,"delivery":"d"} "#;
    let event = read(&line).unwrap();
    assert_eq!(event.key.unwrap(), "k");
    let headers: Vec<(&str, &[u8])> =
        event.headers.iter().map(|(name, value)| (&**name, &value[..])).collect();
    assert_eq!(headers, [("z", &b"1"[..]), ("a", b"2"), ("a", &[0, 255])]);
    assert_eq!((event.id.as_deref(), event.time), (Some("i"), Some(Timestamp(2_000))));
    assert_eq!(read(r#"{"payload":1,"time":5}"#).unwrap().time, Some(Timestamp(5)));
    assert_eq!(read(r#"{"payload":1,"time":0}"#).unwrap().time, Some(Timestamp(0)));
    let sparse = read(r#"{"payload":1,"key":null,"id":null,"time":null,"headers":null}"#).unwrap();
    assert_eq!(sparse, Event::new("1"));
    assert_eq!(sparse.time, None);
}

#[test]
fn a_printed_line_names_its_place() {
    let line = written(&Event::new("1").at(Timestamp(0)));
    let start = r#"{"topic":"t","partition":1,"offset":7,"attempt":2,"delivery":"t/s/1/7","time":"1970"#;
    assert!(line.starts_with(start), "{line}");
}

#[test]
fn wrong_lines_say_what_was_expected() {
    for (line, part) in [
        ("", "got an empty line"),
        ("17", "got the number 17"),
        ("\"a b\"", "got the text \"a b\""),
        ("[1]", "got the array [1]"),
        ("null", "got the word null"),
        ("no JSON at all", "got text that is not JSON: no JSON at all"),
        ("ü", "got text that is not JSON: ü"),
        ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "xxxx…"),
        ("{", "one that does not end"),
        ("{\"payload\":}", "column 12"),
        ("{\"payload\":1} x", "invalid JSON at column 15"),
        ("{}", "expected a field `payload`, `payload_text`, `payload_base64` or `tombstone`, got none"),
        (r#"{"payload":1,"paylod":2}"#, "expected `payload`, got a field `paylod`"),
        (r#"{"payload":1,"colour":2}"#, "expected only the fields `key`"),
        (r#"{"payload":1,"payload":2}"#, "`payload` twice"),
        (r#"{"payload":1,"tombstone":true}"#, "either `payload` or `tombstone`"),
        (r#"{"key":"","key_base64":"","payload":1}"#, "either `key` or `key_base64`"),
        (r#"{"payload":1,"key":5}"#, "expected a text as `key`, got the number 5"),
        (
            r#"{"payload":1,"headers":[1]}"#,
            "expected pairs of a name and a value as `headers`, got the number 1",
        ),
        (r#"{"payload":1,"headers":7}"#, "expected an object of names and values"),
        (r#"{"payload":1,"headers":{"a":1}}"#, "as the header a, got the number 1"),
        (r#"{"payload":1,"time":"noon"}"#, "expected a time"),
        (r#"{"payload":1,"time":-1}"#, "got the number -1"),
        (
            r#"{"payload":1,"ttl_ms":0}"#,
            "expected milliseconds from 1 to 4294967295 as `ttl_ms`, got the number 0",
        ),
        (r#"{"payload":1,"ttl_ms":"1s"}"#, "expected milliseconds from 1 to 4294967295 as `ttl_ms`"),
        (r#"{"payload_base64":"%"}"#, "bytes in base64"),
        (r#"{"tombstone":1}"#, "expected true or false"),
    ] {
        let error = read(line).unwrap_err().to_string();
        assert!(error.contains(part), "{line}: {error}");
    }
    assert_eq!(read(r#"{"amount":5}"#), Err(InvalidEvent::NoContent { is_bare: true }));
    for bare in [r#"{"id":1,"status":"paid"}"#, r#"{"key":"a","value":1}"#, r#"{"time":"noon","msg":"x"}"#] {
        assert_eq!(read(bare), Err(InvalidEvent::NoContent { is_bare: true }), "{bare}");
    }
    assert!(matches!(read(r#"{"paylod":1}"#), Err(InvalidEvent::UnknownField { .. })));
    assert_eq!(read(r#"{"key":"k"}"#), Err(InvalidEvent::NoContent { is_bare: false }));
    for utf16 in [&b"\xff\xfe{\0"[..], b"\xfe\xff\0{", b"{\0\"\0", b"\0{\0\"", b"{\0\"\0\xff"] {
        let error = read_event(utf16).unwrap_err().to_string();
        assert!(error.contains("UTF-16"), "{utf16:?}: {error}");
    }
}
