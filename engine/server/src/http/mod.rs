//! HTTP: health, metrics, and the gateway, on a listener of its own.
//!
//! It owns the connections, and the paths of health and metrics; all others are the gateway's. It must not know QUIC.

mod connections;
mod routes;
mod stream;

use std::{future::Future, io, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use levada_broker::Broker;
use levada_gateway::{Gateway, GatewayConfig, Peer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use self::connections::Tls;
use self::{connections::Limited, routes::Routes};
use crate::{clock, config::HttpConfig, metrics};

/// Serves, over TLS if there is `tls`, until `until` is cancelled and the requests under way have been answered. Streams end when
/// `draining` is.
pub(crate) async fn serve(
    listener: std::net::TcpListener,
    tls: Tls,
    config: &HttpConfig,
    broker: Broker,
    draining: CancellationToken,
    until: CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let listener = Limited::new(listener, tls, config.connections_max, config.idle_timeout);
    let is_local = config.address.ip().to_canonical().is_loopback();
    let gateway = Gateway::new(broker.clone(), gateway_config(config), draining.clone());
    let gateway = gateway.map_err(|error| io::Error::other(error.to_string()))?;
    let routes = Routes::new(router(Engine { broker, draining, is_local }, gateway));
    axum::serve(listener, routes).with_graceful_shutdown(until.cancelled_owned()).await
}

/// Serves other routes in the engine's place, until `until` is done.
pub(crate) async fn serve_bare(
    listener: std::net::TcpListener,
    config: &HttpConfig,
    routes: Router,
    until: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let listener = Limited::new(listener, None, config.connections_max, config.idle_timeout);
    axum::serve(listener, routes.into_make_service()).with_graceful_shutdown(until).await
}

fn gateway_config(config: &HttpConfig) -> GatewayConfig {
    let defaults = GatewayConfig::new(clock::now);
    // A stream must not look as if it were silent.
    let comment_interval =
        defaults.comment_interval.min(config.idle_timeout / 2).max(Duration::from_millis(100));
    let serves_local = config.address.ip().to_canonical().is_loopback();
    GatewayConfig { serves_local, cors_origins: config.cors_origins.clone(), comment_interval, ..defaults }
}

/// What the handlers read.
#[derive(Clone)]
struct Engine {
    broker: Broker,
    /// Set when the server goes away.
    draining: CancellationToken,
    /// Only this machine can ask.
    is_local: bool,
}

fn router(engine: Engine, gateway: Gateway) -> Router {
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_page))
        .with_state(engine)
        .merge(levada_gateway::router(gateway))
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

/// The metrics: counters, and values that are computed for the response. They name all that there is: once there
/// are principals, they are for those who may browse all of it.
async fn metrics_page(
    State(engine): State<Engine>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Response {
    if (!engine.is_local || engine.broker.has_principals())
        && let Some(response) =
            levada_gateway::refusal_to_browse_all(&engine.broker, &headers, peer.as_deref())
    {
        return response;
    }
    let series = engine.broker.observe().await;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, kind)], metrics::page(&series)).into_response()
}
