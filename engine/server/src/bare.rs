//! The engine's QUIC endpoint with nothing of the engine behind it: same socket, same transport settings, same TLS.
//!
//! For measurements, which set the engine in relation to what QUIC can do by itself.

use std::path::PathBuf;

use crate::{
    clock,
    config::{ServerConfig, require_identities},
    error::Error,
    files,
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
