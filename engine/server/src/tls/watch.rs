//! Looks after the certificate files while a server runs.
//!
//! It owns what was seen last. It must not know sockets: it says what to serve with, another does so.

use std::sync::Arc;

use levada_protocol::ids::Timestamp;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::CertificateDer;
use tracing::{error, info};

use super::{Identity, TlsFiles, concern::Concerns, prepare};

/// The certificate that is served now, and what was said about it.
pub(crate) struct Watch {
    files: TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    concerns: Concerns,
}

impl Watch {
    /// Begins with what a server starts with, and says what there is to say about it.
    pub(crate) fn new(files: TlsFiles, identity: &Identity, now: Timestamp) -> Self {
        let mut concerns = Concerns::default();
        concerns.say(identity.concerns.clone(), now);
        Self { files, chain: identity.chain.clone(), concerns }
    }

    /// Renews what is ours and reads what is not; answers what to serve new connections with, if that has changed.
    /// Files that are of no use change nothing.
    pub(crate) fn look(&mut self, now: Timestamp) -> Option<Arc<QuicServerConfig>> {
        let identity = match prepare(&self.files, now) {
            Ok(identity) => identity,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                error!(error, "certificate files are of no use; the certificate in force stays");
                return None;
            }
        };
        self.concerns.say(identity.concerns, now);
        if identity.chain == self.chain {
            return None;
        }
        info!("another certificate is in force for new connections");
        self.chain = identity.chain;
        Some(identity.crypto)
    }
}
