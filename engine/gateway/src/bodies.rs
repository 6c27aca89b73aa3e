//! What the bodies of administration hold: those of the protocol, which knows no OpenAPI. A test compares the members of both.

use levada_protocol::limits::{
    CHAIN_STAGES_MAX, DEDUP_WINDOW_MS_MAX, EXPIRE_AFTER_MS_MAX, EXPIRE_AFTER_MS_MIN, HEADER_NAME_BYTES_MAX,
    INSTANCE_MEMORY_BYTES_MAX, PARTITIONS_MAX, PLUGIN_CONFIG_BYTES_MAX, REDRIVE_EVENTS_MAX,
    ROUTE_TARGETS_MAX,
};
use serde_json::{Map, Value, json};

use crate::grammar;

/// The schemas, by their names.
pub(crate) fn schemas() -> [(&'static str, Value); 5] {
    [
        ("TopicChanges", topic()),
        ("SubscriptionOptions", subscription()),
        ("Stage", stage()),
        ("Route", route()),
        ("Redrive", redrive()),
    ]
}

/// The schema of the body of an operation, if it is one of these.
pub(crate) fn of(method: &str, path: &str) -> Option<Value> {
    let name = match (method, path) {
        ("put", "/v1/topics/{topic}") => "TopicChanges",
        ("put", "/v1/topics/{topic}/subscriptions/{subscription}") => "SubscriptionOptions",
        ("put", "/v1/routes/{route}") => "Route",
        ("post", "/v1/topics/{topic}/subscriptions/{subscription}/dead-letters/redrive") => "Redrive",
        _ => return None,
    };
    Some(json!({ "$ref": format!("#/components/schemas/{name}") }))
}

/// True if no body stands for an empty object.
pub(crate) fn may_be_left_out(method: &str, path: &str) -> bool {
    let of_options = ["/v1/topics/{topic}", "/v1/topics/{topic}/subscriptions/{subscription}"];
    path.ends_with("/pull") || (method == "put" && of_options.contains(&path))
}

/// An object of these members alone.
fn object(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "additionalProperties": false, "required": required, "properties": properties})
}

/// The same with `null` for each member that is not given.
fn options(properties: Value) -> Value {
    let Value::Object(members) = properties else { return properties };
    let nullable = |(name, mut schema): (String, Value)| {
        schema["type"] = json!([schema["type"], "null"]);
        if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
            words.push(Value::Null);
        }
        (name, schema)
    };
    object(&[], Value::Object(members.into_iter().map(nullable).collect::<Map<_, _>>()))
}

fn whole(least: u64, most: u64) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": most})
}

fn word(words: &[&str]) -> Value {
    json!({"type": "string", "enum": words})
}

fn topic() -> Value {
    let any = || whole(0, u64::MAX);
    options(json!({
        "partitions": whole(1, PARTITIONS_MAX.into()),
        "durability": word(&["sync", "os"]),
        "retain": word(&["time_and_acked", "time_and_size", "until_acked", "compact"]),
        "retain_for_ms": any(),
        "max_bytes": any(),
        "dedup_window_ms": whole(0, DEDUP_WINDOW_MS_MAX),
        "dedup_header": {"type": "string", "maxLength": HEADER_NAME_BYTES_MAX},
        "backlog_max_events": any(),
        "backlog_max_bytes": any(),
        "backlog_max_age_ms": any(),
        "on_full": word(&["reject", "drop_oldest"]),
    }))
}

fn chain() -> Value {
    json!({"type": "array", "maxItems": CHAIN_STAGES_MAX, "items": {"$ref": "#/components/schemas/Stage"}})
}

fn subscription() -> Value {
    let expires = json!({
        "type": "integer",
        "anyOf": [{"type": "null"}, {"const": 0}, {"minimum": EXPIRE_AFTER_MS_MIN, "maximum": EXPIRE_AFTER_MS_MAX}],
    });
    options(json!({
        "order": word(&["key", "partition", "none"]),
        "chain": chain(),
        "ack_timeout_ms": whole(10, 86_400_000),
        "max_attempts": whole(1, 10_000),
        "max_in_flight": whole(1, 1_048_576),
        "backoff_ms": {"type": "array", "maxItems": 64, "items": whole(0, 604_800_000)},
        "rate": whole(0, 10_000_000),
        "dead_letter_expired": {"type": "boolean"},
        "expire_after_ms": expires,
    }))
}

fn stage() -> Value {
    let mut stage = options(json!({
        "on_error": word(&["dead_letter", "skip", "pause", "pass"]),
        "retries": whole(0, 255),
        "deadline_ms": whole(1, 60_000),
        "memory_bytes_max": whole(1, INSTANCE_MEMORY_BYTES_MAX),
    }));
    stage["properties"]["plugin"] =
        json!({"type": "string", "pattern": format!("^{}(@[1-9][0-9]{{0,8}})?$", grammar::NAME)});
    stage["properties"]["config"] = json!({
        "type": "string", "maxLength": PLUGIN_CONFIG_BYTES_MAX, "description": "JSON, as a text. Default: `{}`",
    });
    stage["required"] = json!(["plugin"]);
    stage
}

fn route() -> Value {
    let topic = |pattern: &str| json!({"type": "string", "pattern": format!("^{pattern}$")});
    object(
        &["from", "to"],
        json!({
            "from": topic(grammar::TOPIC),
            "to": {"type": "array", "minItems": 1, "maxItems": ROUTE_TARGETS_MAX, "items": topic(grammar::USERS_TOPIC)},
            "chain": chain(),
            "start": start(),
            "name": {"type": "string", "description": "That of the path, if it is given"},
        }),
    )
}

/// Where reading begins; times in milliseconds since 1970.
fn start() -> Value {
    let at = |words: &[&str]| word(words);
    json!({"oneOf": [
        object(&["at"], json!({"at": at(&["earliest", "latest"])})),
        object(&["at", "value"], json!({"at": at(&["offset", "time"]), "value": whole(0, u64::MAX)})),
    ]})
}

fn redrive() -> Value {
    let select = json!({"oneOf": [
        object(&["kind"], json!({"kind": {"const": "all"}})),
        object(&["kind", "offsets"], json!({
            "kind": {"const": "offsets"},
            "offsets": {"type": "array", "minItems": 1, "maxItems": REDRIVE_EVENTS_MAX, "items": whole(0, u64::MAX)},
        })),
        object(&["kind", "condition"], json!({"kind": {"const": "where"}, "condition": {"type": "string"}})),
    ]});
    object(
        &["select"],
        json!({
            "select": select,
            "to": {"type": ["string", "null"], "pattern": format!("^{}$", grammar::USERS_TOPIC)},
            "from": whole(0, u64::MAX),
            "until": {"type": ["integer", "null"], "minimum": 0, "maximum": u64::MAX},
            "force": {"type": "boolean"},
        }),
    )
}

#[cfg(test)]
mod tests {
    use levada_protocol::request::{RouteSpec, StageSpec, SubscriptionOptions, TopicChanges};
    use serde::Serialize;

    use super::*;

    /// The members of a value as it is sent, and those that a schema has.
    fn members(sent: &impl Serialize, schema: &Value) -> (Vec<String>, Vec<String>) {
        let names = |value: &Value| {
            let mut names: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            names.sort_unstable();
            names
        };
        (names(&serde_json::to_value(sent).unwrap()), names(&schema["properties"]))
    }

    #[test]
    fn schemas_have_the_members_that_are_sent() {
        let (sent, described) = members(&TopicChanges::default(), &topic());
        assert_eq!(sent, described);
        let all = SubscriptionOptions { expire_after_ms: Some(0), ..SubscriptionOptions::default() };
        let (sent, described) = members(&all, &subscription());
        assert_eq!(sent, described);
        let (sent, described) = members(&StageSpec::default(), &stage());
        assert_eq!(sent, described);
        let spec = RouteSpec::new("copy".parse().unwrap(), "a".parse().unwrap(), ["b".parse().unwrap()]);
        let (sent, described) = members(&spec, &route());
        assert_eq!(sent, described);
    }
}
