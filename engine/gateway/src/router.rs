//! All routes.

use axum::{
    Json, Router,
    http::{StatusCode, Uri},
    middleware,
    routing::get,
};
use levada_protocol::error::ErrorCode;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{entry, openapi::Description, problem::Problem, publish, push, read, state::Gateway, stream};

/// The routes of the gateway, and its answers to paths and methods that are not there.
pub fn router(gateway: Gateway) -> Router {
    let (routes, description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(publish::publish, read::read))
        .routes(routes!(stream::stream))
        .routes(routes!(push::set, push::describe, push::remove))
        .split_for_parts();
    let description = Json(description);
    routes
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(gateway.clone(), entry::enter))
        // For whoever wants to know how to ask.
        .route("/openapi.json", get(async move || description))
        .with_state(gateway)
}

async fn not_found(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(ErrorCode::Unsupported, format!("this version serves no path {path:?}"))
}

async fn method_not_allowed(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    let detail = format!("expected one of the methods in the header Allow for the path {path:?}");
    Problem::new(ErrorCode::Unsupported, detail).with_status(StatusCode::METHOD_NOT_ALLOWED)
}
