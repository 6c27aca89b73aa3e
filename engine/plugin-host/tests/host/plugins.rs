//! The plugins of `plugins/`, as components in the host.

use levada_plugin_host::Attachment;
use levada_protocol::event::Event;

use crate::support::{Blocking as _, Seen, SeenOutput, TestHost, call, guest, input, payloads, spec, start};

fn attach(host: &TestHost, plugin: &'static str, config: &str) -> Attachment {
    host.attach(&guest(plugin), config)
}

/// What the plugin says about its configuration.
fn refusal(plugin: &'static str, config: &str) -> String {
    let artefact = guest(plugin);
    let artefact = levada_stage::Artefact::Bytes(artefact);
    start().host.attach_now(&artefact, spec(config)).unwrap_err().to_string()
}

mod json_filter {
    use super::*;

    const PLUGIN: &str = "plugins/json-filter";

    /// Whether the condition holds for the event.
    fn holds(condition: &str, event: Event) -> bool {
        let host = start();
        let config = serde_json::json!({ "where": condition }).to_string();
        match &call(&attach(&host, PLUGIN, &config), input(&[event])).unwrap()[..] {
            [Seen::Keep] => true,
            [Seen::Drop] => false,
            other => panic!("{condition}: {other:?}"),
        }
    }

    fn order() -> Event {
        let text = r#"{"id": "o-1", "amount": 12.5, "n": 9007199254740993, "paid": true, "open": false, "none": null,
            "name": "caf\u00e9", "ship_to": {"zip": "9000", "lines": [1, 2]}, "header": {"x": 1}}"#;
        Event::new(text).with_header("region", "eu").with_header("weight", "7.5").with_header("x-kind", "a")
    }

    #[test]
    fn conditions_hold_or_not() {
        let cases = [
            (r#"amount > 0 && header.region == "eu" && !(status in ["a", "b"]) && exists(ship_to)"#, true),
            ("amount >= 12.5 && amount <= 12.5 && amount == 1.25e1", true),
            ("amount < 12.5 || amount > 12.5 || amount != 12.5", false),
            ("n == 9007199254740993 && n != 9007199254740992", true),
            ("paid && !open && !none && !absent && !amount", true),
            ("paid == true && open == false && none == null", true),
            ("absent == null || absent == 0 || absent < 1 || absent >= 1", false),
            ("absent != null && absent != 0 && !exists(absent) && exists(none)", true),
            (r#"name == "café" && name > "caf" && name < "d""#, true),
            (r#"amount == "12.5" || id > 1 || none < 1 || paid > 0"#, false),
            (r#"ship_to.zip == "9000" && ship_to.zip in ["8000", "9000"]"#, true),
            (r#"ship_to == "x" || ship_to.lines == 1 || ship_to.lines.x == 1"#, false),
            (r#"amount in [1, 12.5, "x", null]"#, true),
            ("header.weight > 7 && header.weight < 8 && 8 > header.weight", true),
            ("header.region > 7 || header.absent == 1", false),
            (r#"header."x-kind" == "a" && header.x-kind in ["a"]"#, true),
            (".header.x == 1 && !exists(header.y)", true),
            ("id == id && amount != n", true),
            (r#""a" < "b" && true"#, true),
        ];
        for (condition, expected) in cases {
            assert_eq!(holds(condition, order()), expected, "{condition}");
        }
    }

    #[test]
    fn a_payload_that_is_no_json_is_treated_as_configured() {
        let host = start();
        let tombstone = Event { payload: None, ..Event::default() };
        let events = [Event::new("{\"a\": 1"), Event::new("{\"a\": 1}"), tombstone];
        let answer = |on_invalid: &str| {
            let config = format!(r#"{{"where": "a == 1"{on_invalid}}}"#);
            call(&attach(&host, PLUGIN, &config), input(&events)).unwrap()
        };
        let rejected = answer("");
        let [Seen::Undecodable(reason), Seen::Keep, Seen::Undecodable(_)] = &rejected[..] else {
            panic!("{rejected:?}")
        };
        assert_eq!(reason, "byte 7 of the payload is no JSON: expected , or }");
        assert_eq!(answer(r#", "on_invalid": "reject""#), rejected);
        assert_eq!(answer(r#", "on_invalid": "drop""#), vec![Seen::Drop, Seen::Keep, Seen::Drop]);
        assert_eq!(answer(r#", "on_invalid": "keep""#), vec![Seen::Keep; 3]);
    }

    #[test]
    fn a_condition_on_headers_alone_does_not_look_at_payloads() {
        let event = Event::new("\u{1} no json").with_header("a", "1");
        assert!(holds("header.a == 1", event.clone()));
        assert!(!holds("header.a == 2", event));
    }

    #[test]
    fn a_mistake_is_refused_with_its_place() {
        let error = refusal(PLUGIN, r#"{"where": "amount > "}"#);
        assert!(
            error.ends_with("where: column 10: expected a field, a header or a value, found the end"),
            "{error}"
        );
        assert!(refusal(PLUGIN, r#"{"where": "a", "onInvalid": "drop"}"#).contains("onInvalid"));
        assert!(refusal(PLUGIN, "").contains("the configuration"));
    }
}

mod json_project {
    use super::*;

    const PLUGIN: &str = "plugins/json-project";

    #[test]
    fn payloads_are_rewritten_and_all_else_stays() {
        let host = start();
        let attachment =
            attach(&host, PLUGIN, r#"{"keep": ["id", "amount", "items.sku"], "rename": {"id": "order"}}"#);
        let event = Event::new(r#"{"id": 7, "card": "4111", "amount": 5, "items": [{"sku": "a", "n": 1}]}"#);
        let event = Event { id: Some("e-1".into()), ..event.with_key("k") };
        let output = SeenOutput {
            id: Some("e-1".to_owned()),
            payload: Some(Some(r#"{"order":7,"amount":5,"items":[{"sku":"a"}]}"#.to_owned())),
            ..SeenOutput::default()
        };
        assert_eq!(call(&attachment, input(&[event])), Ok(vec![Seen::Emit(vec![output])]));
    }

    #[test]
    fn what_does_not_change_goes_on_as_it_is() {
        let host = start();
        let attachment = attach(&host, PLUGIN, r#"{"drop": ["card"]}"#);
        let seen = call(&attachment, payloads(&[r#"{ "id" : 7 }"#, r#"{ "id" : 7, "card": 1 }"#]));
        assert_eq!(seen, Ok(vec![Seen::Keep, Seen::payload(r#"{"id":7}"#)]));
    }

    #[test]
    fn a_payload_that_is_no_object_is_treated_as_configured() {
        let host = start();
        let answer = |on_invalid: &str| {
            let config = format!(r#"{{"keep": ["a"], "on_invalid": "{on_invalid}"}}"#);
            call(&attach(&host, PLUGIN, &config), payloads(&["[1]"])).unwrap().remove(0)
        };
        assert_eq!(
            answer("reject"),
            Seen::Undecodable("byte 0 of the payload is no JSON: expected an object".to_owned())
        );
        assert_eq!(answer("drop"), Seen::Drop);
        assert_eq!(answer("keep"), Seen::Keep);
        assert!(
            refusal(PLUGIN, r#"{"keep": ["a"], "drop": ["b"]}"#).contains("expected keep or drop, got both")
        );
    }
}

mod content_router {
    use super::*;

    const PLUGIN: &str = "plugins/content-router";

    #[test]
    fn a_fields_value_names_the_topic() {
        let host = start();
        let config = r#"{"field": "order.status", "routes": {"paid": "orders.paid", "42": "orders.numbers", "true": "orders.flags"}, "default": "orders.other"}"#;
        let attachment = attach(&host, PLUGIN, config);
        let statuses = [r#""paid""#, r#""p\u0061id""#, "42", "true", "null", r#""new""#, "[1]"];
        let events: Vec<Event> = statuses
            .iter()
            .map(|status| Event::new(format!(r#"{{"order": {{"status": {status}}}}}"#)))
            .collect();
        let topics = ["paid", "paid", "numbers", "flags", "other", "other", "other"];
        let expected: Vec<Seen> =
            topics.iter().map(|topic| Seen::target(&format!("orders.{topic}"))).collect();
        assert_eq!(call(&attachment, input(&events)), Ok(expected));
    }

    #[test]
    fn a_header_names_the_topic_whatever_the_payload_is() {
        let host = start();
        let attachment =
            attach(&host, PLUGIN, r#"{"header": "kind", "routes": {"a": "topic-a"}, "default": null}"#);
        let events = [
            Event::new("no json").with_header("kind", "a"),
            Event::new("").with_header("kind", "b"),
            Event::new(""),
        ];
        assert_eq!(
            call(&attachment, input(&events)),
            Ok(vec![Seen::target("topic-a"), Seen::Drop, Seen::Drop])
        );
    }

    #[test]
    fn without_a_default_nothing_is_lost_silently() {
        let host = start();
        let attachment = attach(&host, PLUGIN, r#"{"field": "status", "routes": {"paid": "orders.paid"}}"#);
        let seen = call(&attachment, payloads(&[r#"{"status": "new"}"#, "{}", "x", r#"{"status": "paid"}"#]))
            .unwrap();
        let expected = vec![
            Seen::Reject(r#"no route for "new""#.to_owned()),
            Seen::Reject("no route without a value".to_owned()),
            Seen::Undecodable("byte 0 of the payload is no JSON: expected a value".to_owned()),
            Seen::target("orders.paid"),
        ];
        assert_eq!(seen, expected);
        assert!(refusal(PLUGIN, r#"{"routes": {"a": "b"}}"#).contains("exactly one of field and header"));
    }
}

mod sample {
    use super::*;

    const PLUGIN: &str = "plugins/sample";

    #[test]
    fn a_share_of_the_events_passes_and_the_same_ones_again() {
        let host = start();
        let attachment = attach(&host, PLUGIN, r#"{"pass": 0.1}"#);
        let events = vec![Event::new("x"); 512];
        let first = call(&attachment, input(&events)).unwrap();
        let kept = first.iter().filter(|seen| **seen == Seen::Keep).count();
        assert_eq!(first.len(), 512);
        assert!((25..=80).contains(&kept), "{kept} of 512");
        assert_eq!(call(&attachment, input(&events)).unwrap(), first);
    }

    #[test]
    fn payloads_are_changed_in_place() {
        let host = start();
        let upper = attach(&host, PLUGIN, r#"{"transform": "upper"}"#);
        assert_eq!(call(&upper, payloads(&["Abc1"])), Ok(vec![Seen::payload("ABC1")]));
        let reverse = attach(&host, PLUGIN, r#"{"transform": "reverse"}"#);
        assert_eq!(call(&reverse, payloads(&["Abc1"])), Ok(vec![Seen::payload("1cbA")]));
        assert_eq!(call(&attach(&host, PLUGIN, ""), payloads(&["a", "b"])), Ok(vec![Seen::Keep; 2]));
        assert!(refusal(PLUGIN, r#"{"pass": 2}"#).contains("expected a share from 0 to 1, got 2"));
    }
}
