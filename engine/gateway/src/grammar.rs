//! What the names and numbers in paths and queries may be: said once, for all endpoints that have them.

use levada_protocol::limits::{NAME_BYTES_MAX, TOPIC_NAME_BYTES_MAX_INTERNAL};
use serde_json::{Value, json};

/// A topic: one of a user, one of the engine, or one of dead letters.
pub(crate) const TOPIC: &str = r"([a-z0-9][a-z0-9._-]{0,127}|_[a-z0-9._-]{0,254}|dlq\.[a-z0-9._-]{0,251})";
/// A topic of a user.
pub(crate) const USERS_TOPIC: &str = "[a-z0-9][a-z0-9._-]{0,127}";
/// A subscription, a route or a plugin.
pub(crate) const NAME: &str = "[a-z0-9][a-z0-9_-]{0,62}";

/// The schema of a parameter with a grammar.
pub(crate) fn schema_of(path: &str, place: &str, name: &str) -> Option<Value> {
    let text = |pattern: &str, longest: usize| json!({"type": "string", "pattern": format!("^{pattern}$"), "maxLength": longest});
    let topic = || text(TOPIC, TOPIC_NAME_BYTES_MAX_INTERNAL);
    match (place, name) {
        ("path", "topic") => Some(topic()),
        ("path", "subscription" | "route" | "plugin") | ("query", "name") => Some(text(NAME, NAME_BYTES_MAX)),
        ("query", "limit") => Some(json!({"type": "integer", "minimum": 0, "maximum": u32::MAX})),
        // Where a list goes on: behind what its last entry was called.
        ("query", "after") => Some(match path.rsplit('/').next() {
            Some("topics") => topic(),
            Some("subscriptions") => {
                text(&format!("{TOPIC}/{NAME}"), TOPIC_NAME_BYTES_MAX_INTERNAL + 1 + NAME_BYTES_MAX)
            }
            Some("plugins") => text(&format!("{NAME}@(0|[1-9][0-9]{{0,8}})"), NAME_BYTES_MAX + 10),
            _ => text(NAME, NAME_BYTES_MAX),
        }),
        _ => None,
    }
}
