//! The configuration of a client: where the engine is, whom to trust, how long to wait.

use std::{fmt, path::PathBuf, time::Duration};

use crate::error::Error;

/// The UDP payload that every path of QUIC must carry.
pub(crate) const UDP_PAYLOAD_BYTES_MIN: u16 = 1_200;
/// Largest UDP payload searched for: ten of them, which is what one send call takes, just fit a datagram
/// buffer.
pub(crate) const UDP_PAYLOAD_BYTES_MAX: u16 = 6_500;

/// The port of an address that names none.
pub const DEFAULT_PORT: u16 = 7600;

/// How to reach an engine.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Host and port, such as `localhost:7600` or `[::1]:7600`; without a port 7600. The host must be one
    /// that the engine's certificate covers.
    pub addr: String,
    /// Who signs the engine's certificate. There is no default: an engine makes its own CA at first start, in
    /// `DATA_DIR/tls/ca.pem`, and renews it there a year before it expires. Certificates that have expired or
    /// are not valid yet are left out; if no other is left, connecting fails with `TLS_FAILED`.
    pub ca: Option<Ca>,
    /// A bearer token, see `levada token create`: whom the engine takes this client for. Default: none.
    pub token: Option<BearerToken>,
    /// A certificate that the engine knows this client by, instead of a token or beside one. Default: none.
    pub client_certificate: Option<ClientCertificate>,
    /// Names this program in the engine's log. Default: this library's name and version.
    pub client_name: String,
    /// Largest UDP payload that this client sends and takes, in bytes, 1200 to 6500; the path may allow less, which is
    /// discovered. Default 6500.
    pub mtu_max: u16,
    /// How long one attempt to connect may take. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a request waits for its answer, reconnecting included. Default 30 s. Deploying a plugin, which is
    /// compiled meanwhile, has 10 minutes.
    pub request_timeout: Duration,
}

/// A certificate authority, as PEM text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ca {
    /// The text itself.
    Pem(Vec<u8>),
    /// A file that holds it. It is read whenever a connection is made, so that a CA can be replaced under a
    /// running client; if it cannot be read again, its first content stays in force.
    File(PathBuf),
}

/// A bearer token, as `levada token create` shows it. Debug does not show it.
#[derive(Clone, PartialEq, Eq)]
pub enum BearerToken {
    /// The text itself, with nothing around it.
    Text(String),
    /// A file that holds it; blanks and line ends around it are ignored. It is read whenever a connection is made, so that
    /// a token can be replaced under a running client; if it cannot be read again, or holds no token, what was last read
    /// stays in force.
    File(PathBuf),
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// A client's certificate and its key, in PEM files. They are read whenever a connection is made, so that a certificate
/// can be renewed under a running client; if they cannot be read again, or do not fit each other, those last read stay in
/// force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, and behind it those that lead to its CA, if there are any.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}

impl ClientConfig {
    /// A configuration for the engine at `addr`, with the defaults for everything else.
    pub fn new(addr: impl Into<String>) -> Self {
        Self {
            addr: addr.into(),
            ca: None,
            token: None,
            client_certificate: None,
            client_name: concat!("levada-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            mtu_max: UDP_PAYLOAD_BYTES_MAX,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
        }
    }

    /// Trusts the certificates in this PEM text.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(Ca::Pem(pem.into()));
        self
    }

    /// Trusts the certificates in this PEM file.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca = Some(Ca::File(path.into()));
        self
    }

    /// Shows this bearer token to the engine, see `levada token create`. What is no token's text fails before anything is
    /// sent, with `CONFIG_INVALID`.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(BearerToken::Text(token.into()));
        self
    }

    /// Shows the bearer token in this file to the engine, see [`BearerToken::File`].
    #[must_use]
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = Some(BearerToken::File(path.into()));
        self
    }

    /// Shows the certificate in the first PEM file, whose key is in the second, see [`ClientCertificate`].
    #[must_use]
    pub fn client_certificate_files(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.client_certificate =
            Some(ClientCertificate { certificate: certificate.into(), key: key.into() });
        self
    }

    /// Names this program in the engine's log.
    #[must_use]
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = name.into();
        self
    }

    /// Bounds the UDP payload in both directions, for a path that loses larger packets; values outside 1200 to 6500
    /// are clamped.
    #[must_use]
    pub fn mtu_max(mut self, bytes: u16) -> Self {
        self.mtu_max = bytes.clamp(UDP_PAYLOAD_BYTES_MIN, UDP_PAYLOAD_BYTES_MAX);
        self
    }

    /// Bounds one attempt to connect.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Bounds a request.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The host to resolve and verify, and the port.
    ///
    /// # Errors
    /// If the address has another form.
    pub fn host_and_port(&self) -> Result<(String, u16), Error> {
        let invalid =
            || Error::Config { what: format!("expected host:port as address, got {:?}", self.addr) };
        let addr = self.addr.as_str();
        let (host, port) = if let Some(rest) = addr.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or_else(invalid)?;
            (host, port.strip_prefix(':'))
        } else if addr.matches(':').count() > 1 {
            (addr, None)
        } else {
            addr.split_once(':').map_or((addr, None), |(host, port)| (host, Some(port)))
        };
        let port = match port {
            Some(port) => port.parse().map_err(|_| invalid())?,
            None => DEFAULT_PORT,
        };
        if host.is_empty() { Err(invalid()) } else { Ok((host.to_owned(), port)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_a_token() {
        let config = ClientConfig::new("localhost").token("lv1_secret");
        let shown = format!("{config:?}");
        assert!(!shown.contains("secret") && shown.contains("token: Some(Text(..))"), "{shown}");
        let shown = format!("{:?}", config.token_file("/etc/levada/token"));
        assert!(shown.contains("/etc/levada/token"), "{shown}");
    }

    #[test]
    fn addresses_of_every_form_give_host_and_port() {
        for (addr, host, port) in [
            ("localhost:7000", "localhost", 7000),
            ("localhost", "localhost", DEFAULT_PORT),
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("[::1]:9", "::1", 9),
            ("[::1]", "::1", DEFAULT_PORT),
            ("::1", "::1", DEFAULT_PORT),
        ] {
            let parsed = ClientConfig::new(addr).host_and_port().unwrap();
            assert_eq!(parsed, (host.to_owned(), port), "{addr}");
        }
        for addr in ["", ":7600", "host:port", "host:99999", "[::1"] {
            assert!(ClientConfig::new(addr).host_and_port().is_err(), "{addr}");
        }
    }
}
