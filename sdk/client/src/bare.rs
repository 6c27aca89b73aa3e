//! A connection as a client opens it, without the protocol: same socket, same transport settings, same TLS.
//!
//! For measurements that compare a client with QUIC alone.

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
