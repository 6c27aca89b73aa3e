//! A connection to the engine that is named, and whom to trust there.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use levada_client::{Client, ClientConfig};
use levada_protocol::error::ErrorCode;

use crate::failure::Failure;

/// The default path of the CA: that of an engine started in the same directory.
const CA_BESIDE: &str = "levada-data/tls/ca.pem";
/// How a certificate begins in PEM text.
const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Connects to the engine at `addr`; without `ca` it is the one of an engine started in the current directory.
/// `mtu_max` bounds the UDP payload; without it the path does.
///
/// # Errors
/// If there is no CA, or what the client says.
pub async fn connect_to(addr: &str, ca: Option<&Path>, mtu_max: Option<u16>) -> anyhow::Result<Client> {
    let config = config(addr, ca)?;
    let config = match mtu_max {
        Some(bytes) => config.mtu_max(bytes),
        None => config,
    };
    Ok(Client::connect(config).await?)
}

/// As [`connect_to`], the UDP payload bounded by the path; each request is tried for `request_timeout`.
///
/// # Errors
/// As there.
pub async fn connect_within(
    addr: &str,
    ca: Option<&Path>,
    request_timeout: Duration,
) -> anyhow::Result<Client> {
    Ok(Client::connect(config(addr, ca)?.request_timeout(request_timeout)).await?)
}

fn config(addr: &str, ca: Option<&Path>) -> Result<ClientConfig, Failure> {
    let file = ca_file(ca)?;
    Ok(ClientConfig::new(addr).ca_file(file).client_name(concat!("levada-cli/", env!("CARGO_PKG_VERSION"))))
}

/// The file that holds the CA, once it is certain that it does: the client's own error would not say what to do.
fn ca_file(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = named.map_or_else(|| PathBuf::from(CA_BESIDE), Path::to_owned);
    let wrong = |what: String| {
        Failure::new(ErrorCode::ConfigInvalid, what)
            .hint("the engine keeps it in DATA_DIR/tls/ca.pem; name it with --ca FILE or LEVADA_CA")
    };
    let text = fs::read(&path).map_err(|error| match named {
        Some(file) => Failure::unreadable(file, &error).hint(
            "it is to be the engine's CA certificate, which the engine keeps in DATA_DIR/tls/ca.pem; --ca or LEVADA_CA \
             names it",
        ),
        None => wrong(format!("no CA certificate: neither --ca nor LEVADA_CA is set, and ./{CA_BESIDE}: {error}")),
    })?;
    if text.windows(PEM_BEGIN.len()).any(|part| part == PEM_BEGIN) {
        return Ok(path);
    }
    Err(wrong(format!("{} holds no certificate, expected the PEM text of the engine's CA", path.display())))
}
