//! The engine's QUIC endpoint and its HTTP server with nothing of the engine behind them: same sockets, same transport settings, same
//! threads.
//!
//! For measurements, which set the engine in relation to what QUIC can do by itself.

use std::{future::Future, io, path::PathBuf};

use axum::{Router, http::header::CONTENT_TYPE, routing::post};
use bytes::Bytes;
use tokio::net::TcpListener;

use crate::{
    clock,
    config::{HttpConfig, ServerConfig, require_identities},
    error::Error,
    files, http,
    http_runtime::HttpRuntime,
    quic::listener,
    tls::{self, TlsFiles},
};

/// An endpoint that accepts connections, and what a client must trust.
#[derive(Debug)]
pub struct BareEndpoint {
    /// The endpoint. Its connections have no hello.
    pub endpoint: quinn::Endpoint,
    /// The certificate that clients must trust.
    pub ca_pem_path: PathBuf,
}

/// Takes the UDP port of `config` and makes certificates in its data directory.
///
/// # Errors
/// If a setting is wrong, the port is taken, or the certificates cannot be made.
pub fn bare_endpoint(config: &ServerConfig) -> Result<BareEndpoint, Error> {
    config.check()?;
    require_identities(config, false)?;
    let listen_error = |source| Error::Listen { address: config.listen.address, protocol: "udp", source };
    let socket = listener::bind(config).map_err(listen_error)?;
    let path = config.data_dir.clone();
    files::private_dir(&path).map_err(|source| Error::DataDir { path, source })?;
    let files = TlsFiles::new(&config.data_dir, &config.tls);
    let identity = tls::prepare(&files, clock::now())?;
    let endpoint = listener::endpoint(socket, identity, config).map_err(listen_error)?;
    Ok(BareEndpoint { endpoint, ca_pem_path: files.ca_pem() })
}

/// Serves an empty handler as the engine does its own, on the engine's threads of HTTP, until `until` is done: each POST, whose body
/// it takes whole, gets this JSON.
///
/// # Errors
/// If the listener cannot be used, or a thread cannot be had.
pub async fn bare_http(
    listener: TcpListener,
    json: &'static str,
    until: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let take = async move |body: Bytes| {
        drop(body);
        ([(CONTENT_TYPE, "application/json")], json)
    };
    let routes = Router::new().route("/{*path}", post(take));
    let (listener, runtime) = (listener.into_std()?, HttpRuntime::start()?);
    let serving = async move { http::serve_bare(listener, &HttpConfig::default(), routes, until).await };
    runtime.handle().spawn(serving).await.map_err(io::Error::other)?
}
