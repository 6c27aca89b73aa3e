//! Whom the client trusts, and what to tell a person when that fails.

use std::sync::Arc;

use levada_protocol::version::ALPN;
use quinn::{ConnectionError, crypto::rustls::QuicClientConfig};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::{
    config::{Ca, ClientConfig},
    error::Error,
};

/// TLS 1.3 with the configured CA alone.
pub(crate) async fn crypto(config: &ClientConfig) -> Result<Arc<QuicClientConfig>, Error> {
    let pem = match &config.ca {
        Some(Ca::Pem(pem)) => pem.clone(),
        Some(Ca::File(path)) => tokio::fs::read(path)
            .await
            .map_err(|error| invalid(format!("cannot read the CA file {}: {error}", path.display())))?,
        None => return Err(invalid("no CA is given; the engine keeps its own in DATA_DIR/tls/ca.pem")),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| invalid(format!("the CA is not PEM text: {error}")))?;
        roots.add(certificate).map_err(|error| invalid(format!("the CA is no certificate: {error}")))?;
    }
    if roots.is_empty() {
        return Err(invalid("the CA holds no certificate"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| invalid(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| invalid(error.to_string()))?;
    Ok(Arc::new(crypto))
}

fn invalid(what: impl Into<String>) -> Error {
    Error::Config { what: what.into() }
}

/// A sentence for a person, if the handshake failed over trust; `None` if something else went wrong.
pub(crate) fn explain(error: &ConnectionError) -> Option<String> {
    let (code, reason) = match error {
        ConnectionError::TransportError(error) => (u64::from(error.code), error.reason.clone()),
        ConnectionError::ConnectionClosed(close) => {
            (u64::from(close.error_code), String::from_utf8_lossy(&close.reason).into_owned())
        }
        _ => return None,
    };
    // RFC 9001, 4.8: a TLS alert is 0x100 and its number.
    let alert = code.checked_sub(0x100).filter(|alert| *alert <= 0xff)?;
    Some(match alert {
        45 => "its certificate has expired or is not valid yet; compare both clocks, or let the engine make \
               a new one"
            .to_owned(),
        // 51 comes when both CAs have the same name and differ in their keys, as those of two engines may.
        48 | 51 => "its certificate is not signed by the given CA; use that engine's own DATA_DIR/tls/ca.pem"
            .to_owned(),
        120 => "it does not speak levada/1; is this the QUIC port of an engine?".to_owned(),
        _ if reason.contains("not valid for name") => {
            format!("its certificate does not cover the name used; connect by one that it covers ({reason})")
        }
        _ => format!("the handshake failed ({reason})"),
    })
}
