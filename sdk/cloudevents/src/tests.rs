//! Both ways at once, and what is refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use levada_protocol::{
    batch::{Batch, BatchBuilder, Stamp},
    event::Event,
    ids::{Epoch, Offset, PartitionId, ProducerId, Sequence, Timestamp},
};
use proptest::{collection::btree_map, option, prelude::*};
use serde_json::{Value, json};

use crate::{
    InvalidBatch, InvalidCloudEvent, Stored, is_binary, percent_encode, read_batch, read_binary,
    read_structured, write_batch, write_binary, write_structured,
};

const NOW: Timestamp = Timestamp(1_769_860_800_000);
const STORED: Stored<'static> = Stored {
    topic: "orders",
    topic_id: 4,
    partition: PartitionId(1),
    offset: Offset(42),
    appended: Some(NOW),
};

fn stored(event: &Event) -> Batch {
    let mut builder = BatchBuilder::new();
    builder.push(event).unwrap();
    builder.finish(Stamp { producer_id: ProducerId(1), epoch: Epoch(0), first_sequence: Sequence(0) })
}

fn structured(event: &Event) -> Vec<u8> {
    let mut out = Vec::new();
    write_structured(&mut out, &STORED, &stored(event).events().next().unwrap());
    out
}

fn shown(event: &Event) -> Value {
    serde_json::from_slice(&structured(event)).unwrap()
}

fn binary(event: &Event) -> (BTreeMap<String, String>, Vec<u8>) {
    let batch = stored(event);
    let (headers, body) = write_binary(&STORED, &batch.events().next().unwrap());
    (headers.into_iter().collect(), body.to_vec())
}

fn read_headers(headers: &BTreeMap<String, String>, body: &[u8]) -> Result<Event, InvalidCloudEvent> {
    let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    read_binary(headers, Bytes::copy_from_slice(body), NOW)
}

fn read(json: &Value) -> Result<Event, InvalidCloudEvent> {
    read_structured(json.to_string().as_bytes(), NOW)
}

fn least() -> Value {
    json!({"specversion": "1.0", "id": "a", "source": "/web", "type": "t", "time": "2026-01-31T12:00:00Z"})
}

/// The least event with other members; null takes one away.
fn with(members: &Value) -> Value {
    let mut event = least();
    for (name, value) in members.as_object().unwrap() {
        event[name] = value.clone();
    }
    event.as_object_mut().unwrap().retain(|name, value| name == "data" || !value.is_null());
    event
}

fn any_attributes() -> impl Strategy<Value = BTreeMap<String, String>> {
    let text = "\\PC{1,12}|[ -~]{1,12}|Euro € 😀|100%|say \"%22\"|\\\\";
    let fixed = (
        "[!-~]{1,12}",
        prop_oneof![text.boxed(), "x{129,140}".boxed()],
        text,
        option::of(text),
        option::of(text),
        option::of(text),
    );
    let time = prop_oneof![
        Just("2026-01-31T12:00:00.123456Z"),
        Just("2026-01-31T13:00:00+01:00"),
        Just("2026-01-31T12:00:00Z")
    ];
    let extensions = btree_map("x[a-z0-9]{0,19}", text, 0..4);
    (fixed, time, extensions).prop_map(|((source, id, kind, subject, key, schema), time, extensions)| {
        let mut all: BTreeMap<String, String> = extensions;
        let mut put =
            |name: &str, value: Option<String>| value.map(|value| all.insert(name.to_owned(), value));
        put("specversion", Some("1.0".to_owned()));
        put("source", Some(source));
        put("id", Some(id));
        put("type", Some(kind));
        put("subject", subject);
        put("partitionkey", key);
        put("dataschema", schema);
        put("time", Some(time.to_owned()));
        // Spaces around a value are not the value's in HTTP, but these are percent-coded.
        all
    })
}

/// A member of a CloudEvent in JSON, its value as it stands there, and the payload that it means.
type Data = (&'static str, String, Vec<u8>);

/// A media type with data.
fn any_data() -> impl Strategy<Value = (Option<&'static str>, Option<Data>)> {
    let json = prop_oneof![
        Just("null".to_owned()),
        Just("{\"b\" : 1.50,\n \"a\":[1e400]}".to_owned()),
        Just("\"€ \\u20ac %41\"".to_owned()),
        (1..600_usize).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
    ];
    let json_type = prop_oneof![
        Just(None),
        Just(Some("application/json")),
        Just(Some("application/x+json; charset=UTF-8"))
    ];
    let as_json =
        (json_type, json).prop_map(|(kind, json)| (kind, Some(("data", json.clone(), json.into_bytes()))));
    let as_text = "\\PC{1,20}".prop_map(|text| {
        (Some("text/plain"), Some(("data", serde_json::to_string(&text).unwrap(), text.into_bytes())))
    });
    let as_bytes = proptest::collection::vec(any::<u8>(), 1..20).prop_map(|bytes| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        (Some("image/png"), Some(("data_base64", format!("\"{}\"", STANDARD.encode(&bytes)), bytes)))
    });
    prop_oneof![Just((None, None)), as_json, as_text, as_bytes]
}

fn without_place(mut headers: BTreeMap<String, String>) -> BTreeMap<String, String> {
    assert_eq!(headers.remove("ce-sequence").as_deref(), Some("00000000000000000042"));
    assert_eq!(headers.remove("ce-recordedtime").as_deref(), Some("2026-01-31T12:00:00Z"));
    headers
}

proptest! {
    #[test]
    fn binary_to_event_to_binary_changes_nothing(attributes in any_attributes(), (kind, data) in any_data()) {
        let mut headers: BTreeMap<String, String> = attributes
            .iter()
            .map(|(name, value)| (format!("ce-{name}"), percent_encode(value).into_owned()))
            .collect();
        headers.extend(kind.map(|kind| ("content-type".to_owned(), kind.to_owned())));
        headers.insert("levada-header-a.b".to_owned(), "%E2%82%AC".to_owned());
        headers.insert("traceparent".to_owned(), "00-1-2-01".to_owned());
        let body = data.map(|(_, _, bytes)| bytes).unwrap_or_default();
        let event = read_headers(&headers, &body).unwrap();
        let (written, written_body) = binary(&event);
        prop_assert_eq!(without_place(written), headers);
        prop_assert_eq!(written_body, body);
    }

    #[test]
    fn structured_to_event_to_structured_changes_nothing(attributes in any_attributes(), (kind, data) in any_data()) {
        let mut text = serde_json::to_string(&attributes).unwrap();
        prop_assert_eq!(text.pop(), Some('}'));
        let member = |name: &str, json: &str| format!(",\"{name}\":{json}");
        text.extend(kind.map(|kind| member("datacontenttype", &format!("\"{kind}\""))));
        text.extend(data.as_ref().map(|(name, json, _)| member(name, json)));
        text.push('}');
        let event = read_structured(text.as_bytes(), NOW).unwrap();
        let payload = data.map(|(_, _, bytes)| bytes).unwrap_or_default();
        prop_assert_eq!(event.payload.as_deref(), Some(payload.as_slice()));
        let written = structured(&event);
        // As texts, so that a number that no program can hold is compared as well.
        type Members<'a> = BTreeMap<String, &'a serde_json::value::RawValue>;
        let values = |members: Members<'_>| -> BTreeMap<String, String> {
            let decoded = |name: &str, raw: &str| match serde_json::from_str::<String>(raw) {
                Ok(text) if name != "data" => text,
                _ => raw.to_owned(),
            };
            members.into_iter().map(|(name, raw)| { let value = decoded(&name, raw.get()); (name, value) }).collect()
        };
        let mut written = values(serde_json::from_slice::<Members<'_>>(&written).unwrap());
        prop_assert!(written.remove("sequence").is_some() && written.remove("recordedtime").is_some());
        prop_assert_eq!(written, values(serde_json::from_str::<Members<'_>>(&text).unwrap()));
    }

    #[test]
    fn an_event_is_the_same_through_either_mode(attributes in any_attributes(), (kind, data) in any_data()) {
        let headers = attributes.iter().map(|(name, value)| (format!("ce-{name}"), percent_encode(value).into_owned()));
        let kind = kind.map(|kind| ("content-type".to_owned(), kind.to_owned()));
        let body = data.map(|(_, _, bytes)| bytes).unwrap_or_default();
        let event = read_headers(&headers.chain(kind).collect(), &body).unwrap();
        let mut again = read_structured(&structured(&event), NOW).unwrap();
        let (headers, body) = binary(&again);
        let mut through_both = read_headers(&headers, &body).unwrap();
        again.headers.sort();
        through_both.headers.sort();
        prop_assert_eq!(&through_both, &again);
        prop_assert_eq!((again.id, again.key, again.time, again.payload), (event.id, event.key, event.time, event.payload));
    }

    #[test]
    fn nothing_that_comes_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), text in "\\PC{0,40}") {
        let _ = (read_structured(&bytes, NOW), read_batch(&bytes, NOW), read_structured(text.as_bytes(), NOW));
        let _ = read_batch(format!("[{text}]").as_bytes(), NOW);
    }

    #[test]
    fn any_stored_event_is_a_cloud_event(
        key in option::of(proptest::collection::vec(any::<u8>(), 0..10)),
        headers in proptest::collection::vec(("[a-zA-Z-]{1,8}|id|ce-id|ce-specversion|data", proptest::collection::vec(any::<u8>(), 0..8)), 0..5),
        payload in option::of(proptest::collection::vec(any::<u8>(), 0..20)),
    ) {
        prop_assume!(!headers.iter().any(|(name, _)| name == "ce-specversion"));
        let headers = headers.into_iter().filter(|(name, _)| !name.starts_with("lv-"));
        let event = Event {
            key: key.map(Bytes::from),
            headers: headers.map(|(name, value)| (name, Bytes::from(value))).collect(),
            payload: payload.map(Bytes::from),
            ..Event::default()
        };
        let again = read_structured(&structured(&event), NOW).unwrap();
        prop_assert_eq!(&again.payload, &event.payload);
        let (headers, body) = binary(&event);
        prop_assert_eq!(read_headers(&headers, &body).unwrap().payload, event.payload);
    }
}

#[test]
fn the_parts_of_an_event_are_where_the_table_says() {
    let event = read(&with(&json!({
        "partitionkey": "k €", "subject": "s", "count": 7, "flag": true, "datacontenttype": "application/json",
        "expirytime": "2026-01-31T12:00:05Z", "data": {"a": 1},
    })))
    .unwrap();
    assert_eq!(event.id.as_deref(), Some("a"));
    assert_eq!(event.key.as_deref(), Some("k €".as_bytes()));
    assert_eq!((event.time, event.ttl_ms), (Some(NOW), Some(5_000)));
    assert_eq!(event.payload.as_deref(), Some(br#"{"a":1}"#.as_slice()));
    let names: Vec<&str> = event.headers.iter().map(|(name, _)| name.as_str()).collect();
    for name in
        ["content-type", "ce-specversion", "ce-source", "ce-type", "ce-subject", "ce-count", "ce-flag"]
    {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert!(!names.contains(&"ce-time") && !names.contains(&"ce-partitionkey"), "{names:?}");
}

#[test]
fn an_id_that_is_too_long_for_an_event_is_hashed_there_and_kept() {
    let long = "x".repeat(200);
    let event = read(&with(&json!({"id": long}))).unwrap();
    assert_eq!(event.id.as_ref().map(|id| id.len()), Some(64));
    assert_eq!(shown(&event)["id"], json!(long));
    let short = read(&least()).unwrap();
    assert_eq!(short.id.as_deref(), Some("a"));
    assert!(!short.headers.iter().any(|(name, _)| name == "ce-id"));
}

#[test]
fn a_time_before_1970_comes_back_as_it_was() {
    let landing = "1969-07-20T20:17:40Z";
    let event = read(&with(&json!({ "time": landing }))).unwrap();
    assert_eq!(event.time, Some(Timestamp(0)));
    assert_eq!(shown(&event)["time"], landing);
    let beginning = read(&with(&json!({ "time": "1970-01-01T00:00:00Z" }))).unwrap();
    assert_eq!(
        (beginning.time, &shown(&beginning)["time"]),
        (Some(Timestamp(0)), &json!("1970-01-01T00:00:00Z"))
    );
}

#[test]
fn data_is_kept_whether_absent_null_text_or_bytes() {
    for (members, payload, out) in [
        (json!({}), &b""[..], json!({})),
        (json!({"data": null}), b"null", json!({"data": null})),
        (json!({"data": "x"}), b"\"x\"", json!({"data": "x"})),
        (json!({"data": "x", "datacontenttype": "text/plain"}), b"x", json!({"data": "x"})),
        (json!({"data": null, "datacontenttype": "text/plain"}), b"", json!({})),
        (
            json!({"data": "<a/>", "datacontenttype": "application/soap+xml"}),
            b"<a/>",
            json!({"data": "<a/>"}),
        ),
        (json!({"data_base64": "AP8="}), b"\0\xff", json!({"data_base64": "AP8="})),
        (json!({"data_base64": "eyJhIjoxfQ=="}), br#"{"a":1}"#, json!({"data": {"a": 1}})),
        (json!({"data_base64": null}), b"", json!({})),
        (
            json!({"data": "é", "datacontenttype": "text/plain; charset=latin1"}),
            "é".as_bytes(),
            json!({"data_base64": "w6k="}),
        ),
    ] {
        let event = read(&with(&members)).unwrap();
        assert_eq!(event.payload.as_deref(), Some(payload), "{members}");
        let written = shown(&event);
        for member in ["data", "data_base64"] {
            assert_eq!(written.get(member), out.get(member), "{members}");
        }
    }
}

#[test]
fn an_event_that_was_no_cloud_event_is_written_as_one() {
    let event =
        Event::new("plain").with_key("k").with_header("region", "eu").with_header("id", "mine").at(NOW);
    let expected = json!({
        "specversion": "1.0", "id": "4-1-42", "source": "/topics/orders", "type": "levada.event",
        "time": "2026-01-31T12:00:00Z", "partitionkey": "k", "sequence": "00000000000000000042",
        "recordedtime": "2026-01-31T12:00:00Z", "region": "eu", "datacontenttype": "text/plain; charset=utf-8",
        "data": "plain",
    });
    assert_eq!(shown(&event), expected);
    let (headers, _) = binary(&event);
    assert_eq!(headers["levada-header-id"], "mine");
    assert_eq!(headers["ce-id"], "4-1-42");
}

#[test]
fn a_tombstone_stays_one() {
    let event = Event { payload: None, ..read(&least()).unwrap() };
    assert_eq!(shown(&event)["levadatombstone"], json!(true));
    assert_eq!(read_structured(&structured(&event), NOW).unwrap().payload, None);
    let (headers, body) = binary(&event);
    assert_eq!(read_headers(&headers, &body).unwrap().payload, None);
}

#[test]
fn what_is_no_cloud_event_is_refused_with_the_attribute_and_what_came() {
    for (members, expected) in [
        (json!({"id": null}), "expected the attribute `id`, which every CloudEvent has, got none"),
        (json!({"source": null}), "expected the attribute `source`, which every CloudEvent has, got none"),
        (json!({"type": null}), "expected the attribute `type`, which every CloudEvent has, got none"),
        (
            json!({"specversion": null}),
            "expected the attribute `specversion`, which every CloudEvent has, got none",
        ),
        (json!({"specversion": "0.3"}), "expected 1.0 as the attribute `specversion`, got \"0.3\""),
        (json!({"id": ""}), "expected a text that is not empty as the attribute `id`, got \"\""),
        (
            json!({"source": "a b"}),
            "expected a URI reference, which has no white space, as the attribute `source`, got \"a b\"",
        ),
        (
            json!({"time": "noon"}),
            "expected a time in RFC 3339, such as 2026-01-31T12:00:00Z, as the attribute `time`, got \"noon\"",
        ),
        (
            json!({"Trace": "x"}),
            "expected a name of 1 to 20 lower case letters and digits for an attribute, got \"Trace\"",
        ),
        (
            json!({"trace_id": "x"}),
            "expected a name of 1 to 20 lower case letters and digits for an attribute, got \"trace_id\"",
        ),
        (
            json!({"a23456789012345678901": "x"}),
            "expected a name of 1 to 20 lower case letters and digits for an attribute, got \"a23456789012345678901\"",
        ),
        (
            json!({"x": {"a": 1}}),
            "expected a text, a whole number of 32 bits, true or false as the attribute `x`, got \"{\\\"a\\\":1}\"",
        ),
        (
            json!({"x": 1.5}),
            "expected a text, a whole number of 32 bits, true or false as the attribute `x`, got \"1.5\"",
        ),
        (json!({"data": 1, "data_base64": "AA=="}), "expected either `data` or `data_base64`, got both"),
        (json!({"data_base64": "?"}), "expected bytes in base64 as `data_base64`, got the text \"?\""),
        (
            json!({"data": {}, "datacontenttype": "text/plain"}),
            "expected a text, as `datacontenttype` is no JSON, as `data`, got the object {}",
        ),
        (
            json!({"partitionkey": ""}),
            "expected a text that is not empty as the attribute `partitionkey`, got \"\"",
        ),
    ] {
        assert_eq!(read(&with(&members)).unwrap_err().to_string(), expected);
    }
    for text in ["", "[]", "7", "{", "{\"id\":\"a\",\"id\":\"b\"}", "\u{fffd}"] {
        assert!(read_structured(text.as_bytes(), NOW).is_err(), "{text}");
    }
}

#[test]
fn headers_claim_to_be_a_cloud_event_and_then_must_be_one() {
    assert!(is_binary(["host", "ce-id"].into_iter()));
    assert!(!is_binary(["host", "cedar"].into_iter()));
    let headers = |more: &[(&str, &str)]| -> BTreeMap<String, String> {
        let least = [("ce-specversion", "1.0"), ("ce-id", "a"), ("ce-source", "/web"), ("ce-type", "t")];
        least.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    assert!(read_headers(&headers(&[]), b"").is_ok());
    let quoted = read_headers(&headers(&[("ce-subject", "\"a \\\"b\\\"\"")]), b"").unwrap();
    assert!(quoted.headers.contains(&("ce-subject".to_owned(), "a \"b\"".into())));
    for (name, value) in
        [("ce-subject", "100%"), ("ce-trace_id", "x"), ("ce-data", "x"), ("ce-datacontenttype", "x")]
    {
        assert!(read_headers(&headers(&[(name, value)]), b"").is_err(), "{name}: {value}");
    }
    let twice = [("ce-id", "a"), ("ce-id", "b")].map(|(name, value)| (name, value.as_bytes()));
    let repeated = read_binary(twice.into_iter(), Bytes::new(), NOW);
    assert_eq!(repeated, Err(InvalidCloudEvent::Repeated("id".to_owned())));
}

#[test]
fn a_batch_is_read_and_written_as_a_whole_and_names_what_is_wrong() {
    let batch = json!([least(), with(&json!({"id": "b", "data": {"a": [1]}}))]).to_string();
    let events = read_batch(batch.as_bytes(), NOW).unwrap();
    let stored: Vec<Batch> = events.iter().map(stored).collect();
    let mut out = Vec::new();
    write_batch(&mut out, stored.iter().map(|batch| (STORED, batch.events().next().unwrap())));
    assert_eq!(read_batch(&out, NOW).unwrap().len(), 2);
    let bad = json!([least(), with(&json!({"time": "noon"}))]).to_string();
    let error = read_batch(bad.as_bytes(), NOW).unwrap_err();
    assert!(
        matches!(&error, InvalidBatch::Event { index: 1, error } if error.attribute_name() == Some("time")),
        "{error}"
    );
    assert!(
        error.to_string().starts_with("event 1 of the batch, counted from 0: expected a time"),
        "{error}"
    );
    assert_eq!(read_batch(b"[]", NOW), Ok(Vec::new()));
    assert!(matches!(read_batch(b"{}", NOW), Err(InvalidBatch::Json(_))));
}

#[test]
fn an_expiry_is_a_time_to_live_of_at_least_a_millisecond() {
    let ttl = |time: &str| read(&with(&json!({"expirytime": time}))).unwrap().ttl_ms;
    assert_eq!(ttl("2026-01-31T12:00:01Z"), Some(1_000));
    assert_eq!(ttl("2026-01-31T11:00:00Z"), Some(1), "it is over already");
    assert_eq!(ttl("2036-01-31T11:00:00Z"), None, "longer than a time to live can be");
}

#[test]
fn an_event_of_more_attributes_than_it_can_keep_is_refused_at_the_first_too_many() {
    let members: String = (0..100_000).map(|at| format!(",\"x{at}\":1")).collect();
    let text = format!("{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/a\",\"type\":\"t\"{members}}}");
    assert_eq!(read_structured(text.as_bytes(), Timestamp(0)), Err(InvalidCloudEvent::TooMany));
}
