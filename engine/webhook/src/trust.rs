//! Whose certificates receivers may have: those of the authorities that the system trusts, and of one that is named.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Makes the settings of TLS.
///
/// # Errors
/// If the file with authorities of one's own cannot be read or holds none.
pub(crate) fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in system.errors {
        tracing::warn!(%error, "a certificate authority of the system is not trusted for pushes");
    }
    roots.add_parsable_certificates(system.certs);
    if let Some(ca) = ca {
        let failed = |why: String| format!("push.ca {}: {why}", ca.display());
        let certificates = CertificateDer::pem_file_iter(ca)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| failed(format!("cannot be read: {error}")))?;
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(failed(
                "holds no certificate: expected a PEM file of certificate authorities".to_owned(),
            ));
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
