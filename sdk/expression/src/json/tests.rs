//! The scanner: what it finds, and that it never takes for JSON what is none.

use proptest::prelude::*;

use super::*;

fn find(text: &str, path: &[&str]) -> Option<String> {
    let mut scanner = Scanner::new();
    let slot = scanner.want(path);
    scanner.scan(text.as_bytes()).unwrap().get(slot).map(|value| value.raw().to_owned())
}

#[test]
fn values_are_found_under_their_paths() {
    let text = r#" {"a": {"b": [1, {"c": 2}], "c": "x"}, "a.c": 5, "n": null, "e":{} } "#;
    assert_eq!(find(text, &["a", "c"]).as_deref(), Some("\"x\""));
    assert_eq!(find(text, &["a", "b"]).as_deref(), Some("[1, {\"c\": 2}]"));
    assert_eq!(find(text, &["a.c"]).as_deref(), Some("5"));
    assert_eq!(find(text, &["n"]).as_deref(), Some("null"));
    assert_eq!(find(text, &["e"]).as_deref(), Some("{}"));
    for missing in [&["a", "b", "c"][..], &["c"], &["n", "x"], &["e", "x"]] {
        assert_eq!(find(text, missing), None, "{missing:?}");
    }
}

#[test]
fn an_object_and_a_field_in_it_can_both_be_wanted() {
    let mut scanner = Scanner::new();
    let (outer, inner) = (scanner.want(&["a"]), scanner.want(&["a", "b"]));
    assert_eq!(scanner.want(&["a"]), outer);
    let fields = scanner.scan(br#"{"a":{"b":1}}"#).unwrap();
    assert_eq!(fields.get(outer).unwrap().raw(), r#"{"b":1}"#);
    assert_eq!(fields.get(inner).unwrap().raw(), "1");
}

#[test]
fn the_last_of_two_equal_names_counts() {
    assert_eq!(find(r#"{"a":1,"a":2}"#, &["a"]).as_deref(), Some("2"));
    assert_eq!(find(r#"{"a":{"b":1},"a":{"c":2}}"#, &["a", "b"]), None);
    assert_eq!(find(r#"{"a":{"b":1},"a":7}"#, &["a", "b"]), None);
}

#[test]
fn escapes_mean_what_they_say() {
    let text = br#"{"n\u0061me": "a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud800x"}"#;
    let mut scanner = Scanner::new();
    let slot = scanner.want(&["name"]);
    let value = scanner.scan(text).unwrap().get(slot).unwrap();
    assert_eq!(value.as_text().unwrap().decode(), "a\"\\/\u{8}\u{c}\n\r\té😀\u{fffd}x");
}

#[test]
fn numbers_are_exact_as_integers() {
    let number = |text| Number::parse(text).unwrap();
    assert!(number("9007199254740993") > number("9007199254740992"));
    assert!(number("-1.5") < number("-1"));
    assert_eq!(number("1e3"), number("1000"));
    assert_eq!(number("-0"), number("0"));
    assert_eq!(number("9223372036854775807"), Number::Integer(i64::MAX));
    for none in ["", "-", "inf", "NaN", "abc", "1."] {
        assert!(Number::parse(none).is_none(), "{none}");
    }
}

#[test]
fn what_is_no_json_is_refused() {
    let deep = "[".repeat(129) + &"]".repeat(129);
    let bad = [
        "",
        " ",
        "{",
        "}",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\":1 \"b\":2}",
        "[1}",
        "{\"a\":1]",
        "01",
        "-",
        "1.",
        "1e",
        ".5",
        "+1",
        "tru",
        "nulll",
        "\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\n\"",
        "1 2",
        "{} {}",
        "'a'",
        &deep,
    ];
    for text in bad {
        assert!(Scanner::new().scan(text.as_bytes()).is_err(), "{text:?}");
        let mut scanner = Scanner::new();
        scanner.want(&["a"]);
        assert!(scanner.scan(text.as_bytes()).is_err(), "{text:?} with a path");
    }
    assert!(Scanner::new().scan(b"\"\xff\"").is_err());
    assert!(Scanner::new().scan(("[".repeat(128) + &"]".repeat(128)).as_bytes()).is_ok());
}

#[test]
fn the_depth_limit_does_not_depend_on_what_is_looked_for() {
    let nested = |arrays: usize| format!("{{\"a\":{}{}}}", "[".repeat(arrays), "]".repeat(arrays));
    for path in [&[][..], &["a"], &["b"], &["a", "b"]] {
        let mut scanner = Scanner::new();
        scanner.want(path);
        assert!(scanner.scan(nested(127).as_bytes()).is_ok(), "{path:?}");
        assert!(scanner.scan(nested(128).as_bytes()).is_err(), "{path:?}");
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;

    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Quarters: serde_json reads other fractions back only nearly.
        any::<i32>().prop_map(|quarters| Value::from(f64::from(quarters) / 4.0)),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec(("[a-c\"\\\\é]{0,2}", inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_document_is_read_as_a_parser_reads_it(document in json(), pretty: bool) {
        let text =
            if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) };
        let text = text.unwrap();
        let mut scanner = Scanner::new();
        let (a, ab) = (scanner.want(&["a"]), scanner.want(&["a", "b"]));
        let fields = scanner.scan(text.as_bytes()).unwrap();
        let read = |slot| fields.get(slot).map(|value| serde_json::from_str(value.raw()).unwrap());
        prop_assert_eq!(read(a), document.get("a").cloned());
        prop_assert_eq!(read(ab), document.get("a").and_then(|inner| inner.get("b")).cloned());
    }

    #[test]
    fn a_damaged_document_is_refused_where_a_parser_refuses_it(
        document in json(), at: prop::sample::Index, byte in prop::sample::select(b"{}[]\",:\\ 0a\x01-e.".to_vec()),
    ) {
        let mut text = serde_json::to_vec(&document).unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        let ours = Scanner::new().scan(&text).is_ok();
        let theirs = std::str::from_utf8(&text).is_ok()
            && serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(&text));
    }
}
