//! The expression language: what it understands, and where it says that something is wrong.

use super::*;

fn expression(text: &str) -> Expression {
    condition(text).unwrap().expression
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
        ("amount => 0", "column 8: expected &&, || or the end, found '='"),
        ("é == 1 | b", "column 8: expected &&, || or the end, found '|'"),
        ("(a", "column 3: expected ), found the end"),
        ("a)", "column 2: expected &&, || or the end, found ')'"),
        ("a in [1, b]", "column 10: expected a number, text, true, false or null"),
        ("a in []", "column 7: expected a field, a header or a value, found ']'"),
        ("a in 1", "column 6: expected [, found '1'"),
        ("exists(1)", "column 1: exists wants the name of a field or header"),
        ("a. == 1", "column 4: expected a name after the dot, found '='"),
        ("a == \"x", "column 8: expected a closing quote"),
        ("a == 1.", "column 8: expected a digit"),
        ("5", "column 1: a number or text alone is no condition, compare it"),
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
