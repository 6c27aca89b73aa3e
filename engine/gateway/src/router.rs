//! All routes.

use axum::{
    Json, Router,
    http::{StatusCode, Uri},
    routing::get,
};
use levada_protocol::error::ErrorCode;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    dead_letters,
    entry::Entry,
    openapi::{self, Description},
    plugins,
    problem::Problem,
    publish, pull, push, read, routes, settle,
    state::Gateway,
    stream, subscriptions, topics,
};

/// The routes of the gateway, and its answers to paths and methods that are not there.
pub fn router(gateway: Gateway) -> Router {
    let (routes, description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(publish::publish, read::read))
        .routes(routes!(stream::stream))
        .routes(routes!(pull::pull))
        .routes(routes!(settle::ack))
        .routes(routes!(settle::nack))
        .routes(routes!(settle::reject))
        .routes(routes!(settle::extend))
        .routes(routes!(topics::list))
        .routes(routes!(topics::describe, topics::put, topics::delete))
        .routes(routes!(subscriptions::list))
        .routes(routes!(subscriptions::describe, subscriptions::put, subscriptions::delete))
        .routes(routes!(subscriptions::pause))
        .routes(routes!(subscriptions::resume))
        .routes(routes!(subscriptions::seek))
        .routes(routes!(dead_letters::redrive))
        .routes(routes!(routes::list))
        .routes(routes!(routes::describe, routes::put, routes::delete))
        .routes(routes!(plugins::list, plugins::deploy))
        .routes(routes!(plugins::describe, plugins::delete))
        .routes(routes!(push::set, push::describe, push::remove))
        .split_for_parts();
    let description = Json(openapi::described(&description));
    routes
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(Entry(gateway.clone()))
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
