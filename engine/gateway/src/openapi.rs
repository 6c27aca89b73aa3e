//! The description of all endpoints, generated from the handlers.

use utoipa::OpenApi;

/// What the description begins with; the routes add themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Levada",
        description = "Publish, read and stream events. Errors are problem details (RFC 9457) with a stable `code`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags((name = "events", description = "Events of topics")),
)]
pub(crate) struct Description;
