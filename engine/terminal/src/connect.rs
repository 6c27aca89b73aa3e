//! A connection to the engine that is named: whom to trust there, and as whom to come.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use levada_client::{BearerToken, Ca, Client, ClientConfig};
use levada_protocol::error::ErrorCode;

use crate::failure::Failure;

/// The default path of the CA: that of an engine started in the same directory.
const CA_BESIDE: &str = "levada-data/tls/ca.pem";
/// How a certificate begins in PEM text.
const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// An engine, and what a client needs to be served there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Host and port.
    pub addr: String,
    /// Who signs the engine's certificate; without it, the CA of an engine started in the current directory.
    pub ca: Option<Ca>,
    /// The bearer token to show.
    pub token: Option<BearerToken>,
}

impl Reach {
    /// Connects. `request_timeout` bounds each request; without it the client's default does.
    ///
    /// # Errors
    /// If there is no CA or no token where one is named, or what the client says.
    pub async fn connect(&self, request_timeout: Option<Duration>) -> anyhow::Result<Client> {
        let config = self.config()?;
        let config = match request_timeout {
            Some(timeout) => config.request_timeout(timeout),
            None => config,
        };
        Ok(Client::connect(config).await?)
    }

    fn config(&self) -> Result<ClientConfig, Failure> {
        let config = match &self.ca {
            Some(Ca::Pem(pem)) => base(&self.addr).ca_pem(pem.as_slice()),
            Some(Ca::File(file)) => base(&self.addr).ca_file(ca_file(Some(file))?),
            None => base(&self.addr).ca_file(ca_file(None)?),
        };
        match &self.token {
            None => Ok(config),
            Some(BearerToken::Text(text)) => Ok(config.token(text)),
            Some(BearerToken::File(file)) => {
                fs::File::open(file).map_err(|error| {
                    Failure::unreadable(file, &error).hint(
                        "it is to hold the text of a token, see `levada token create`; --token-file or \
                         LEVADA_TOKEN_FILE names it",
                    )
                })?;
                Ok(config.token_file(file))
            }
        }
    }
}

/// Connects to the engine at `addr`; without `ca` it is the one of an engine started in the current directory.
/// `mtu_max` bounds the UDP payload; without it the path does.
///
/// # Errors
/// If there is no CA, or what the client says.
pub async fn connect_to(addr: &str, ca: Option<&Path>, mtu_max: Option<u16>) -> anyhow::Result<Client> {
    let config = base(addr).ca_file(ca_file(ca)?);
    let config = match mtu_max {
        Some(bytes) => config.mtu_max(bytes),
        None => config,
    };
    Ok(Client::connect(config).await?)
}

fn base(addr: &str) -> ClientConfig {
    ClientConfig::new(addr).client_name(concat!("levada-cli/", env!("CARGO_PKG_VERSION")))
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
