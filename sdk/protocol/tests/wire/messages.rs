//! MessagePack messages, and those of versions that know more or fewer fields.

use std::fmt::Debug;

use levada_protocol::{
    error::{ErrorCode, Refusal},
    frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameType, message, read_message},
    publish::Durability,
    request::{
        Hello, Interface, Notice, Open, Opened, Request, RequestEnvelope, Response, RunState, Start,
        TopicSettings,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::samples;

/// What comes out of a frame around `value`.
fn through<T: DeserializeOwned>(kind: FrameType, value: &impl Serialize) -> Result<T, FrameError> {
    let frame = message(kind, value);
    let header = FrameHeader::read(frame.first_chunk().unwrap()).unwrap();
    assert_eq!((header.kind, header.len), (kind, frame.len() - FRAME_HEADER_BYTES));
    read_message(&frame[FRAME_HEADER_BYTES..])
}

fn is_read_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(kind: FrameType, values: Vec<T>) {
    for value in values {
        assert_eq!(through::<T>(kind, &value).as_ref(), Ok(&value));
        // A newer version adds fields, wherever there is a map.
        let mut newer = serde_json::to_value(&value).unwrap();
        add_fields(&mut newer);
        assert_eq!(through::<T>(kind, &newer).as_ref(), Ok(&value), "from {newer}");
        let bytes = &message(kind, &value)[FRAME_HEADER_BYTES..];
        for len in 0..bytes.len() {
            assert!(read_message::<T>(&bytes[..len]).is_err(), "{value:?} cut to {len}");
        }
    }
}

fn add_fields(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(add_fields);
            fields.insert("a_newer_field".to_owned(), json!({"with": ["any", 1, null]}));
        }
        Value::Array(items) => items.iter_mut().for_each(add_fields),
        _ => {}
    }
}

#[test]
fn every_message_is_read_back_also_with_fields_of_a_newer_version() {
    is_read_back(FrameType::Open, samples::opens());
    is_read_back(FrameType::Open, samples::requests().into_iter().map(samples::request).collect());
    is_read_back(FrameType::Opened, samples::openeds());
    is_read_back(FrameType::Opened, samples::responses().into_iter().map(samples::response).collect());
    is_read_back(FrameType::Notice, samples::notices());
    is_read_back(FrameType::CheckBack, vec![samples::check_back()]);
    is_read_back(FrameType::Error, vec![Refusal::new(ErrorCode::StorageFull, "full").retry_after(9)]);
}

#[test]
fn every_kind_is_among_the_samples() {
    fn kinds<T: Serialize>(values: &[T]) -> Vec<String> {
        let kind = |value| serde_json::to_value(value).unwrap()["kind"].as_str().unwrap().to_owned();
        values.iter().map(kind).collect()
    }
    let (requests, responses) = (kinds(&samples::requests()), kinds(&samples::responses()));
    for (kinds, count) in [(requests, 45), (responses, 29)] {
        let distinct: std::collections::HashSet<_> = kinds.iter().collect();
        assert_eq!((kinds.len(), distinct.len()), (count, count), "{kinds:?}");
    }
}

#[test]
fn unknown_kinds_are_told_apart_from_malformed_bytes() {
    let open = |value: Value| through::<Open>(FrameType::Open, &value);
    let other = json!({"kind": "teleport", "topic": 5, "deep": {"er": []}});
    assert_eq!(open(other.clone()), Ok(Open::Unknown));
    assert_eq!(through::<Opened>(FrameType::Opened, &other), Ok(Opened::Unknown));
    assert_eq!(through::<Notice>(FrameType::Notice, &other), Ok(Notice::Unknown));
    assert_eq!(through::<Response>(FrameType::Opened, &other), Ok(Response::Unknown));
    let request = open(json!({"kind": "request", "id": 3, "request": other}));
    let expected = RequestEnvelope { id: 3, deadline_ms: 0, trace: None, request: Request::Unknown };
    assert_eq!(request, Ok(Open::Request(expected)));
    for malformed in [
        json!({}),
        json!({"topic": "orders"}),
        json!({"kind": "publish"}),
        json!({"kind": "publish", "topic": 5}),
        json!({"kind": "request", "request": {"kind": "info"}}),
        json!({"kind": "read", "topic": "orders", "from": {"at": "yesterday"}}),
        json!({"kind": "read", "topic": "orders", "trace": "00-00000000000000000000000000000000-00f067aa0ba902b7-01"}),
        json!({"kind": "read", "topic": "orders", "trace": [1, 2]}),
        json!("hello"),
        json!(null),
    ] {
        assert!(open(malformed.clone()).is_err(), "{malformed}");
    }
}

#[test]
fn missing_fields_take_their_defaults() {
    let open = |value: Value| through::<Open>(FrameType::Open, &value).unwrap();
    assert_eq!(open(json!({"kind": "hello"})), Open::Hello(Hello::default()));
    let Open::Request(created) = open(
        json!({"kind": "request", "id": 1, "request": {"kind": "create_topic", "name": "t", "settings": {"partitions": 3}}}),
    ) else {
        panic!("a request")
    };
    let settings = TopicSettings { partitions: 3, ..TopicSettings::default() };
    assert_eq!(created.request, Request::CreateTopic { name: samples::name("t"), settings });
    let refusal: Refusal = through(FrameType::Error, &json!({"code": 9})).unwrap();
    assert_eq!(refusal, Refusal::new(ErrorCode::ShuttingDown, ""));
    assert!(through::<Refusal>(FrameType::Error, &json!({"message": "no code"})).is_err());
}

#[test]
fn words_of_a_newer_engine_are_unknown_and_nothing_else_is_lost() {
    let topic = json!({"name": "orders", "id": 5, "settings": {"durability": "replicated"}});
    let Response::Topic(topic) = through(FrameType::Opened, &with_kind("topic", topic)).unwrap() else {
        panic!("a topic")
    };
    assert_eq!((topic.id, topic.settings.durability), (5, Durability::Unknown));
    let plugin = json!({"name": "filter", "version": 2, "interface": "streams"});
    let Response::Plugin(plugin) = through(FrameType::Opened, &with_kind("plugin", plugin)).unwrap() else {
        panic!("a plugin")
    };
    assert_eq!((plugin.version, plugin.interface), (2, Interface::Unknown));
    let spec = json!({"name": "r", "from": "a", "to": ["b"]});
    let route = json!({"spec": spec, "state": {"kind": "drained", "by": "me"}, "lag": 7});
    let Response::Route(route) = through(FrameType::Opened, &with_kind("route", route)).unwrap() else {
        panic!("a route")
    };
    assert_eq!((route.lag, route.state), (7, RunState::Unknown));
}

fn with_kind(kind: &str, mut value: Value) -> Value {
    value["kind"] = kind.into();
    value
}

#[test]
fn starts_have_these_forms() {
    for (start, expected) in [
        (Start::Earliest, json!({"at": "earliest"})),
        (Start::Latest, json!({"at": "latest"})),
        (Start::Offset(42), json!({"at": "offset", "value": 42})),
        (Start::Time(9), json!({"at": "time", "value": 9})),
    ] {
        assert_eq!(serde_json::to_value(start).unwrap(), expected);
        assert_eq!(through::<Start>(FrameType::Open, &start), Ok(start));
        assert_eq!(through::<Start>(FrameType::Open, &expected), Ok(start));
    }
}
