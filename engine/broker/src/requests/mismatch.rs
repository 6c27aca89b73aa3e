//! What an existing subscription is like against what a consumer asks for: the first field that differs.
//!
//! Pure. It compares what is meant and not how it is written: configurations as JSON values.

use std::{collections::BTreeMap, fmt};

use levada_protocol::request::{OnError, Order, StageSpec, SubscriptionOptions};
use serde_json::value::RawValue;

/// Most characters of a value that a message shows.
const SHOWN_MAX: usize = 200;
/// Deepest nesting of a configuration that is compared as JSON; a deeper one is compared as text.
const DEPTH_MAX: usize = 128;

/// A field that is given and differs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// The field's name on the wire, with the path inside a stage's configuration.
    field: String,
    has: String,
    given: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, got {}", self.field, self.has, self.given)
    }
}

impl Difference {
    fn new(field: impl Into<String>, has: impl fmt::Display, given: impl fmt::Display) -> Self {
        Self { field: field.into(), has: shown(&has.to_string()), given: shown(&given.to_string()) }
    }
}

/// The first option of `given` that is another than what `has` has. What is not given differs from nothing.
pub(super) fn first(has: &SubscriptionOptions, given: &SubscriptionOptions) -> Option<Difference> {
    let orders = (has.order(), given.order);
    field("order", word_of_order(orders.0), orders.1.map(word_of_order))
        .or_else(|| field("ack_timeout_ms", has.ack_timeout_ms(), given.ack_timeout_ms))
        .or_else(|| field("max_attempts", has.max_attempts(), given.max_attempts))
        .or_else(|| field("max_in_flight", has.max_in_flight(), given.max_in_flight))
        .or_else(|| field("backoff_ms", listed(has.backoff_ms()), given.backoff_ms.as_deref().map(listed)))
        .or_else(|| field("rate", has.rate.unwrap_or(0), given.rate))
        .or_else(|| field("dead_letter_expired", has.dead_letter_expired(), given.dead_letter_expired))
        .or_else(|| field("expire_after_ms", has.expire_after_ms.unwrap_or(0), given.expire_after_ms))
        .or_else(|| chain(has.chain(), given.chain.as_deref()?))
}

fn field<T: PartialEq + fmt::Display>(name: &str, has: T, given: Option<T>) -> Option<Difference> {
    given.filter(|given| *given != has).map(|given| Difference::new(name, has, given))
}

fn listed(numbers: &[u32]) -> String {
    format!("{numbers:?}")
}

fn chain(has: &[StageSpec], given: &[StageSpec]) -> Option<Difference> {
    if has.len() != given.len() {
        let plugins = |chain: &[StageSpec]| {
            let names: Vec<&str> = chain.iter().map(|stage| stage.plugin.as_str()).collect();
            format!("[{}]", names.join(", "))
        };
        return Some(Difference::new("chain", plugins(has), plugins(given)));
    }
    has.iter().zip(given).enumerate().find_map(|(index, (has, given))| stage(index, has, given))
}

fn stage(index: usize, has: &StageSpec, given: &StageSpec) -> Option<Difference> {
    let name = |field: &str| format!("chain[{index}].{field}");
    field(&name("plugin"), &has.plugin, Some(&given.plugin))
        .or_else(|| config(&name("config"), &has.config, &given.config))
        .or_else(|| {
            field(&name("on_error"), word_of_policy(has.on_error()), given.on_error.map(word_of_policy))
        })
        .or_else(|| field(&name("retries"), has.retries(), given.retries))
        .or_else(|| field(&name("deadline_ms"), has.deadline_ms(), given.deadline_ms))
        .or_else(|| field(&name("memory_bytes_max"), has.memory_bytes_max(), given.memory_bytes_max))
}

fn config(path: &str, has: &str, given: &str) -> Option<Difference> {
    if has == given {
        return None;
    }
    let parse = |text| serde_json::from_str::<&RawValue>(text).ok();
    match (parse(has), parse(given)) {
        (Some(has), Some(given)) => values(path, has.get(), given.get(), DEPTH_MAX),
        _ => Some(Difference::new(path, has, given)),
    }
}

/// The first difference of two JSON values, which stand at `path`.
fn values(path: &str, has: &str, given: &str, depth: usize) -> Option<Difference> {
    let differ = || Some(Difference::new(path, has, given));
    match (has.as_bytes().first(), given.as_bytes().first()) {
        _ if has == given => None,
        (Some(b'{'), Some(b'{')) if depth > 0 => match (fields(has), fields(given)) {
            (Some(has), Some(given)) => objects(path, &has, &given, depth - 1),
            _ => differ(),
        },
        (Some(b'['), Some(b'[')) if depth > 0 => match (items(has), items(given)) {
            (Some(has), Some(given)) if has.len() == given.len() => {
                let pairs = has.iter().zip(&given).enumerate();
                let item = |(index, (has, given)): (usize, (&&RawValue, &&RawValue))| {
                    values(&format!("{path}[{index}]"), has.get(), given.get(), depth - 1)
                };
                pairs.map(item).find_map(|difference| difference)
            }
            _ => differ(),
        },
        (Some(b'"'), Some(b'"')) => {
            let text = |json| serde_json::from_str::<String>(json).ok();
            if text(has).is_some_and(|has| text(given) == Some(has)) { None } else { differ() }
        }
        (Some(b'-' | b'0'..=b'9'), Some(b'-' | b'0'..=b'9')) => {
            if Decimal::of(has).is_some_and(|has| Decimal::of(given) == Some(has)) { None } else { differ() }
        }
        _ => differ(),
    }
}

fn objects(
    path: &str,
    has: &BTreeMap<String, &RawValue>,
    given: &BTreeMap<String, &RawValue>,
    depth: usize,
) -> Option<Difference> {
    let keys: std::collections::BTreeSet<&String> = has.keys().chain(given.keys()).collect();
    keys.into_iter().find_map(|key| {
        let path = format!("{path}{}", Key(key));
        match (has.get(key), given.get(key)) {
            (Some(has), Some(given)) => values(&path, has.get(), given.get(), depth),
            (has, given) => {
                let value =
                    |value: Option<&&RawValue>| value.map_or("nothing", |value| value.get()).to_owned();
                Some(Difference::new(path, value(has), value(given)))
            }
        }
    })
}

fn fields(json: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(json).ok()
}

fn items(json: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json).ok()
}

/// A key as a step of a path: `.where`, or `["user.email"]` if it is no plain word.
struct Key<'a>(&'a str);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        match !self.0.is_empty() && self.0.bytes().all(plain) {
            true => write!(f, ".{}", self.0),
            false => write!(f, "[{}]", serde_json::Value::from(self.0)),
        }
    }
}

/// A number by its value: its digits without zeros at either end, and the power of ten of the last.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// The value of a number in JSON; `None` if its exponent is beyond all bounds.
    fn of(json: &str) -> Option<Self> {
        let (negative, json) = json.strip_prefix('-').map_or((false, json), |rest| (true, rest));
        let (mantissa, exponent) = json.split_once(['e', 'E']).unwrap_or((json, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0').trim_end_matches('0');
        if digits.is_empty() {
            return Some(Self { negative: false, digits: String::new(), exponent: 0 });
        }
        let zeros = all.len() - all.trim_end_matches('0').len();
        let exponent = exponent.parse::<i64>().ok()?;
        let exponent =
            exponent.checked_add(i64::try_from(zeros).ok()? - i64::try_from(fraction.len()).ok()?)?;
        Some(Self { negative, digits: digits.to_owned(), exponent })
    }
}

fn word_of_order(order: Order) -> &'static str {
    match order {
        Order::Key => "key",
        Order::Partition => "partition",
        Order::None => "none",
    }
}

fn word_of_policy(on_error: OnError) -> &'static str {
    match on_error {
        OnError::DeadLetter => "dead_letter",
        OnError::Skip => "skip",
        OnError::Pause => "pause",
        OnError::Pass => "pass",
    }
}

/// A value as a message shows it: whole, or its beginning.
fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(config: &str) -> StageSpec {
        StageSpec { plugin: "filter".to_owned(), config: config.to_owned(), ..StageSpec::default() }
    }

    fn chained(chain: Vec<StageSpec>) -> SubscriptionOptions {
        SubscriptionOptions { chain: Some(chain), ..SubscriptionOptions::default() }
    }

    /// What is said of a subscription with one configuration that is asked for with another.
    fn said(has: &str, given: &str) -> Option<String> {
        let has = chained(vec![filter(has)]).with_defaults();
        first(&has, &chained(vec![filter(given)])).map(|difference| difference.to_string())
    }

    #[test]
    fn configurations_that_mean_the_same_are_the_same() {
        for (has, given) in [
            (r#"{"where": "x"}"#, r#"{"where":"x"}"#),
            (r#"{"a":1,"b":[true,null]}"#, "{\n  \"b\": [true, null],\n  \"a\": 1\n}"),
            (r#"{"a":"\u00fc\/"}"#, r#"{"a":"ü/"}"#),
            (r#"{"a":100}"#, r#"{"a":1.00e2}"#),
            (r#"{"a":-0.0}"#, r#"{"a":0}"#),
            ("{ }", "{}"),
        ] {
            assert_eq!(said(has, given), None, "{has} and {given}");
        }
    }

    #[test]
    fn the_field_that_differs_is_named_with_both_values() {
        for (has, given, expected) in [
            (
                r#"{"where":"currency == \"EUR\""}"#,
                r#"{"where":"currency == \"eur\""}"#,
                r#"chain[0].config.where "currency == \"EUR\"", got "currency == \"eur\"""#,
            ),
            (r#"{"a":{"b.c":[1,2]}}"#, r#"{"a":{"b.c":[1,3]}}"#, r#"chain[0].config.a["b.c"][1] 2, got 3"#),
            (r#"{"a":1}"#, r#"{"a":1,"b":2}"#, "chain[0].config.b nothing, got 2"),
            (r#"{"a":1}"#, r#"{"a":"1"}"#, r#"chain[0].config.a 1, got "1""#),
            (r#"{"keep":["a"]}"#, r#"{"keep":["a","b"]}"#, r#"chain[0].config.keep ["a"], got ["a","b"]"#),
            (
                "18446744073709551616",
                "18446744073709551617",
                "chain[0].config 18446744073709551616, got 18446744073709551617",
            ),
        ] {
            assert_eq!(said(has, given).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_is_not_given_differs_from_nothing() {
        let stage = StageSpec {
            on_error: Some(OnError::Skip),
            retries: Some(0),
            deadline_ms: Some(60_000),
            memory_bytes_max: Some(1 << 20),
            ..filter("{}")
        };
        let has = SubscriptionOptions {
            order: Some(Order::None),
            chain: Some(vec![stage]),
            ack_timeout_ms: Some(5_000),
            max_attempts: Some(1),
            max_in_flight: Some(7),
            backoff_ms: Some(vec![5, 50]),
            rate: Some(9),
            dead_letter_expired: Some(true),
            expire_after_ms: Some(60_000),
        };
        assert_eq!(first(&has, &SubscriptionOptions::default()), None);
        assert_eq!(first(&has, &chained(vec![filter("{}")])), None);
        let timeout = SubscriptionOptions { ack_timeout_ms: Some(5_001), ..SubscriptionOptions::default() };
        assert_eq!(first(&has, &timeout).unwrap().to_string(), "ack_timeout_ms 5000, got 5001");
        let backoff = SubscriptionOptions { backoff_ms: Some(Vec::new()), ..SubscriptionOptions::default() };
        assert_eq!(first(&has, &backoff).unwrap().to_string(), "backoff_ms [5, 50], got []");
        let rate = SubscriptionOptions { rate: Some(0), ..SubscriptionOptions::default() };
        assert_eq!(first(&has, &rate).unwrap().to_string(), "rate 9, got 0");
        let expired =
            SubscriptionOptions { dead_letter_expired: Some(false), ..SubscriptionOptions::default() };
        assert_eq!(first(&has, &expired).unwrap().to_string(), "dead_letter_expired true, got false");
        let kept = SubscriptionOptions { expire_after_ms: Some(0), ..SubscriptionOptions::default() };
        assert_eq!(first(&has, &kept).unwrap().to_string(), "expire_after_ms 60000, got 0");
        let retries = StageSpec { retries: Some(3), ..filter("{}") };
        assert_eq!(first(&has, &chained(vec![retries])).unwrap().to_string(), "chain[0].retries 0, got 3");
        assert_eq!(first(&has, &chained(Vec::new())).unwrap().to_string(), "chain [filter], got []");
    }

    #[test]
    fn long_values_are_shown_by_their_beginning() {
        let long = format!("{:?}", "ü".repeat(1_000));
        let said = said("1", &long).unwrap();
        assert!(said.ends_with('…') && said.chars().count() < 300, "{said}");
    }

    #[test]
    fn a_deep_configuration_is_compared_all_the_same() {
        let deep = |inner: &str| format!("{}{inner}{}", "[".repeat(20_000), "]".repeat(20_000));
        assert_eq!(said(&deep("1"), &deep("1")), None);
        assert!(said(&deep("1"), &deep("2")).is_some());
    }
}
