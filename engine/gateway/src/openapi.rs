//! The description of all endpoints, generated from the handlers.

use serde_json::{Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use crate::{bodies, grammar};

/// What the description begins with; the routes add themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Levada",
        description = "Publish, read, stream and pull events, and administrate what they flow through. Errors are problem details (RFC 9457) with a stable `code`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    modifiers(&Bearer),
    security((), ("bearer" = [])),
    tags(
        (name = "events", description = "Events of topics"),
        (name = "consuming", description = "Events of subscriptions, pulled and settled"),
        (name = "administration", description = "Topics, subscriptions, routes and plugins"),
    ),
)]
pub(crate) struct Description;

/// Names the token that principals show; an engine without principals asks for none.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some("lv1".to_owned());
        scheme.description = Some("A token of a principal, see `levada token create`.".to_owned());
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The schemas that have the tokens of pulled events, and what such a token is: 36 characters, the first two of which say its form.
const WITH_TOKENS: [&str; 3] = ["Tokens", "NackRequest", "RejectRequest"];
const TOKEN: &str = "^A[Q-Za-f][A-Za-z0-9_-]{34}$";

/// The whole description: that of the handlers, with the grammars of names and the bodies that the protocol has.
pub(crate) fn described(handlers: &utoipa::openapi::OpenApi) -> Value {
    let mut all = json!(handlers);
    for (name, schema) in bodies::schemas() {
        all["components"]["schemas"][name] = schema;
    }
    // At least 24 bytes in Base64, and at most 64.
    let secret = &mut all["components"]["schemas"]["PushRequest"]["properties"]["secret"];
    secret["pattern"] = json!("^whsec_([A-Za-z0-9+/]{4}){8}([A-Za-z0-9+/]{4}){0,13}$");
    for name in WITH_TOKENS {
        all["components"]["schemas"][name]["properties"]["tokens"]["items"]["pattern"] = json!(TOKEN);
    }
    let paths = all["paths"].as_object_mut().into_iter().flatten();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object_mut().into_iter().flatten() {
            describe(operation, method, path);
        }
    }
    all
}

fn describe(operation: &mut Value, method: &str, path: &str) {
    for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
        let (place, name) = (parameter["in"].as_str(), parameter["name"].as_str());
        let schema = grammar::schema_of(path, place.unwrap_or_default(), name.unwrap_or_default());
        if let Some(schema) = schema {
            parameter["schema"] = schema;
        }
    }
    if bodies::may_be_left_out(method, path) {
        operation["requestBody"]["required"] = json!(false);
    }
    if let Some(schema) = bodies::of(method, path) {
        operation["requestBody"]["content"]["application/json"]["schema"] = schema;
    }
}
