//! The description of all endpoints, generated from the handlers.

use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

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
