//! A connection as a client makes it, on which nothing is said: same socket, same transport settings, same TLS.
//!
//! For measurements, which set a client in relation to what QUIC can do by itself.

use quinn::{Connection, Endpoint};

use crate::{config::ClientConfig, error::Error, session::Connector};

/// Connects to the address of `config` without a hello. The endpoint must outlive the connection.
///
/// # Errors
/// As [`crate::Client::connect`], but for those of the hello.
pub async fn connect(config: ClientConfig) -> Result<(Endpoint, Connection), Error> {
    let connector = Connector::new(config).await?;
    connector.connect_bare(connector.config().connect_timeout).await
}
