//! Renews and reloads the certificate files while a server runs.
//!
//! It owns the certificates in force. It must not know sockets: the caller serves with what it returns.

use levada_protocol::ids::Timestamp;
use rustls::pki_types::CertificateDer;
use tracing::{error, info};

use super::{Ca, Identity, Served, TlsFiles, concern::Concerns, prepare};

/// The certificates in force, and the concerns that were logged.
pub(crate) struct Watch {
    files: TlsFiles,
    certificates: Vec<CertificateDer<'static>>,
    ca: Option<Ca>,
    concerns: Concerns,
}

impl Watch {
    /// Begins with the identity that a server starts with, and logs its concerns.
    pub(crate) fn new(files: TlsFiles, identity: &Identity, now: Timestamp) -> Self {
        let mut concerns = Concerns::default();
        concerns.say(identity.concerns.clone(), now);
        Self { files, certificates: identity.certificates.clone(), ca: identity.ca.clone(), concerns }
    }

    /// Renews certificates of ours and reads those of others; returns what to serve new connections with, if that has
    /// changed. Unusable files change nothing.
    pub(crate) fn refresh(&mut self, now: Timestamp) -> Option<Served> {
        let identity = match prepare(&self.files, now) {
            Ok(identity) => identity,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                error!(error, "certificate files are of no use; the certificate in force stays");
                return None;
            }
        };
        self.concerns.say(identity.concerns, now);
        if identity.certificates == self.certificates {
            return None;
        }
        info!("other certificates are in force for new connections");
        if let Some(Ca { file, fingerprint }) = identity.ca.as_ref().filter(|ca| self.ca.as_ref() != Some(ca))
        {
            info!(file = %file.display(), fingerprint, "clients must trust another CA certificate in time");
        }
        (self.certificates, self.ca) = (identity.certificates, identity.ca);
        Some(identity.served)
    }
}
