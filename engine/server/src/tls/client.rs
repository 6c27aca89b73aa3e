//! Certificates of clients: who may show one, and what it says.
//!
//! It must not know what a name in a certificate allows.

use std::sync::Arc;

use levada_protocol::{certificate_name::CertificateName, ids::Timestamp};
use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::CertificateDer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::{
    error::Error,
    files::{TlsFiles, read_named},
};

/// Who a verified client certificate says its holder is. The common name is never read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// The URIs of its subject alternative names, in its order. They come before the DNS names.
    pub(crate) uris: Vec<String>,
    /// The DNS names among them, in its order.
    pub(crate) dns: Vec<String>,
    /// Its last millisecond: TLS looks at it when a connection begins, and not again.
    pub(crate) not_after: Timestamp,
}

impl ClientCertificate {
    /// The names by which its holder may be a principal, in order of preference, and when it expires.
    pub(crate) fn proof(&self) -> (Vec<CertificateName>, Timestamp) {
        let uris = self.uris.iter().map(|uri| CertificateName::uri(uri));
        (uris.chain(self.dns.iter().map(|name| CertificateName::dns(name))).collect(), self.not_after)
    }
}

/// What a certificate says, in DER. It must have been verified before.
///
/// # Errors
/// If it cannot be read, why.
pub(crate) fn names(der: &[u8]) -> Result<ClientCertificate, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let alternatives = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    let (mut uris, mut dns) = (Vec::new(), Vec::new());
    for name in alternatives.iter().flat_map(|it| &it.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => dns.push((*name).to_owned()),
            _ => {}
        }
    }
    let last_second = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Ok(ClientCertificate {
        uris,
        dns,
        not_after: Timestamp(last_second.saturating_mul(1_000).saturating_add(999)),
    })
}

/// The certificates that sign those of clients, and what checks them.
pub(super) struct ClientCa {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
}

/// What clients are checked by; `None` if they are not asked for a certificate.
pub(super) fn ca(files: &TlsFiles, provider: &Arc<CryptoProvider>) -> Result<Option<ClientCa>, Error> {
    let Some(asked) = files.config().asked_of_clients() else { return Ok(None) };
    let unusable = |got: String| files.unusable(asked.ca, "CA certificate for clients", got);
    let certificates = files.certificates(asked.ca, &read_named(asked.ca)?)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| unusable(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if asked.is_required { builder } else { builder.allow_unauthenticated() };
    let verifier = builder.build().map_err(|error| unusable(error.to_string()))?;
    Ok(Some(ClientCa { certificates, verifier }))
}
