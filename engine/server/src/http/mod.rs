//! HTTP: health and metrics, on a listener of its own.
//!
//! It owns paths, statuses and the JSON of errors. It must not know QUIC.

mod connections;
mod stream;

use std::io;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use levada_broker::Broker;
use levada_protocol::error::ErrorCode;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::connections::Limited;
pub(crate) use self::connections::Tls;
use crate::{config::HttpConfig, metrics, wire_error};

/// Serves, over TLS if there is `tls`, until `until` is cancelled and the requests under way have been answered.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Tls,
    config: &HttpConfig,
    broker: Broker,
    draining: CancellationToken,
    until: CancellationToken,
) -> io::Result<()> {
    let listener = Limited::new(listener, tls, config.connections_max, config.idle_timeout);
    axum::serve(listener, router(Engine { broker, draining }))
        .with_graceful_shutdown(until.cancelled_owned())
        .await
}

/// What the handlers read.
#[derive(Clone)]
struct Engine {
    broker: Broker,
    /// Set when the server goes away.
    draining: CancellationToken,
}

fn router(engine: Engine) -> Router {
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_page))
        .fallback(not_found)
        .with_state(engine)
}

/// What both health paths answer.
#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The process runs and answers.
async fn alive() -> Json<Health> {
    Json(Health { status: "alive", reason: None })
}

/// Publishes are taken; else 503 with the reason.
async fn ready(State(engine): State<Engine>) -> (StatusCode, Json<Health>) {
    let health = engine.broker.health();
    let reason = match (health.ready, engine.draining.is_cancelled()) {
        (_, true) => Some("the engine is shutting down".to_owned()),
        (false, false) => Some(health.reason.unwrap_or_else(|| "publishes are not taken".to_owned())),
        (true, false) => return (StatusCode::OK, Json(Health { status: "ready", reason: None })),
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "not ready", reason }))
}

/// The metrics: counters, and values that are computed for the response.
async fn metrics_page(State(engine): State<Engine>) -> Response {
    let series = engine.broker.observe().await;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, kind)], metrics::page(&series)).into_response()
}

async fn not_found(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem { code: ErrorCode::Unsupported, message: format!("this version serves no path {path:?}") }
}

/// An error as HTTP shows it: a status, and JSON with the stable code.
#[derive(Debug)]
struct Problem {
    code: ErrorCode,
    message: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "code": self.code.as_str(), "message": self.message });
        (wire_error::http_status(self.code), Json(body)).into_response()
    }
}
