//! The expression language: what it understands, and where it says that something is wrong.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

fn expression(text: &str) -> Expression {
    condition(text).unwrap().0
}

fn error(text: &str) -> String {
    condition(text).unwrap_err().to_string()
}

#[test]
fn and_binds_closer_than_or_and_not_closest() {
    let field = |slot| Expression::True(Operand::Field(slot));
    assert_eq!(
        expression("a || b && !c"),
        Expression::Any(vec![field(0), Expression::All(vec![field(1), Expression::Not(Box::new(field(2)))])])
    );
    assert_eq!(
        expression("(a || b) && a"),
        Expression::All(vec![Expression::Any(vec![field(0), field(1)]), field(0)])
    );
}

#[test]
fn words_mean_the_same_as_signs() {
    for (words, signs) in [
        ("a or b and not c", "a || b && !c"),
        ("not (a or b) and not not c", "!(a || b) && !!c"),
        ("a = 1 and b = \"x\"", "a == 1 && b == \"x\""),
        ("a=1or b", "a==1 || b"),
    ] {
        assert_eq!(expression(words), expression(signs), "{words}");
    }
}

#[test]
fn the_key_is_a_word_of_its_own_and_a_field_of_that_name_has_a_dot() {
    let exists = |text: &str| match expression(&format!("exists({text})")) {
        Expression::Exists(operand) => operand,
        other => panic!("{other:?}"),
    };
    assert_eq!(exists("key"), Operand::Key);
    for field in [".key", "key.id", "keys", ".and", ".not.a"] {
        assert_eq!(exists(field), Operand::Field(0), "{field}");
    }
}

#[test]
fn values_are_read_as_json_writes_them() {
    let right = |text: &str| match expression(text) {
        Expression::Compare(_, _, Operand::Literal(literal)) => literal,
        other => panic!("{other:?}"),
    };
    assert_eq!(right("a == -1.5e2"), Literal::Number(Number::Integer(-150)));
    assert_eq!(right(r#"a == "q\"\u00e9""#), Literal::Text("q\"é".to_owned()));
    assert_eq!(right("a != null"), Literal::Null);
    assert_eq!(right("a==true"), Literal::Bool(true));
}

#[test]
fn names_may_be_words_quoted_or_headers() {
    let exists = |text: &str| match expression(text) {
        Expression::Exists(operand) => operand,
        other => panic!("{other:?}"),
    };
    assert_eq!(exists("exists(ship_to.zip-code)"), Operand::Field(0));
    assert_eq!(exists(r#"exists(header."content.type")"#), Operand::Header("content.type".to_owned()));
    assert_eq!(exists("exists( header.x-region )"), Operand::Header("x-region".to_owned()));
    assert_eq!(exists("exists(.header.x)"), Operand::Field(0));
    assert_eq!(exists("exists(header)"), Operand::Field(0));
    assert_eq!(exists(r#"exists(."a b"."c d")"#), Operand::Field(0));
}

#[test]
fn a_word_that_begins_like_a_keyword_is_a_name() {
    assert_eq!(expression("android or notes"), expression("android || notes"));
    assert_eq!(expression("exists_now"), Expression::True(Operand::Field(0)));
    assert_eq!(expression("nullable"), Expression::True(Operand::Field(0)));
    assert_eq!(expression("inner && a"), expression("a && inner"));
}

#[test]
fn errors_point_at_the_column() {
    let cases = [
        ("", "column 1: expected a field, a header or a value, found the end"),
        ("amount >", "column 9: expected a field, a header or a value, found the end"),
        ("amount > 0 &&", "column 14: expected a field, a header or a value, found the end"),
        ("amount => 0", "column 9: expected a field, a header or a value, found '>'"),
        ("é == 1 | b", "column 8: expected and, or, or the end, found '|'"),
        ("(a", "column 3: expected ), found the end"),
        ("a)", "column 2: expected and, or, or the end, found ')'"),
        ("a in [1, b]", "column 10: expected a number, text, true, false or null"),
        ("a in []", "column 7: expected a field, a header or a value, found ']'"),
        ("a in 1", "column 6: expected [, found '1'"),
        ("exists(1)", "column 1: exists wants the name of a field or header"),
        ("a. == 1", "column 4: expected a name after the dot, found '='"),
        ("a == \"x", "column 8: expected a closing quote"),
        ("a == 1.", "column 8: expected a digit"),
        ("5", "column 1: a number or text alone is no condition, compare it"),
        ("a and", "column 6: expected a field, a header or a value, found the end"),
        ("or", "column 1: expected a field, a header or a value, found or; a field of that name is .or"),
        ("a in [key]", "column 7: expected a number, text, true, false or null"),
        ("a != != b", "column 6: expected a field, a header or a value, found '!'"),
    ];
    for (text, expected) in cases {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn nesting_is_limited() {
    let nested = |levels: usize| format!("{}a{}", "(".repeat(levels), ")".repeat(levels));
    assert!(condition(&nested(DEPTH_MAX)).is_ok());
    assert!(error(&nested(DEPTH_MAX + 1)).contains("at most 64 levels"));
    assert!(error(&format!("{}a", "!".repeat(DEPTH_MAX + 1))).contains("at most 64 levels"));
    assert!(error(&vec!["a"; SEGMENTS_MAX + 1].join(".")).contains("at most 32 levels"));
}

#[test]
fn what_every_event_costs_is_limited() {
    let terms = |count: usize| vec!["a"; count].join("||");
    assert!(condition(&terms(TERMS_MAX)).is_ok());
    assert!(error(&terms(TERMS_MAX + 1)).contains("at most 256 comparisons"));
    let fields = |count: usize| (0..count).map(|at| format!("f{at}")).collect::<Vec<_>>().join("||");
    assert!(condition(&fields(FIELDS_MAX)).is_ok());
    assert!(error(&fields(FIELDS_MAX + 1)).contains("at most 64 different fields"));
    let long = |len: usize| format!("a{}", " ".repeat(len - 1));
    assert!(condition(&long(CONDITION_BYTES_MAX)).is_ok());
    assert_eq!(error(&long(CONDITION_BYTES_MAX + 1)), "column 1: expected at most 16384 bytes, got 16385");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}") {
        let _parsed = condition(&text);
    }

    #[test]
    fn no_words_and_signs_make_the_parser_panic_and_mistakes_are_in_the_text(
        parts in vec(select(PARTS.to_vec()), 0..40),
    ) {
        let text = parts.concat();
        if let Err(error) = condition(&text) {
            prop_assert!((1..=text.chars().count() + 1).contains(&error.column), "{text}: {error}");
        }
    }
}

/// What conditions are made of.
const PARTS: [&str; 24] = [
    "a", "é", "header.", "key", ".", "\"x\"", "\"", "1", "-", "1e9", " ", "and ", "or ", "not ", "in", "[",
    "]", "(", ")", "!", "=", "<", "exists", ",",
];
