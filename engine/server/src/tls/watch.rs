//! Renews and reloads the certificate files while a server runs.
//!
//! It owns the chain in force. It must not know sockets: the caller serves with what it returns.

use std::sync::Arc;

use levada_protocol::ids::Timestamp;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::CertificateDer;
use tracing::{error, info};

use super::{Identity, TlsFiles, concern::Concerns, prepare};

/// The certificate in force, and the concerns that were logged.
pub(crate) struct Watch {
    files: TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    concerns: Concerns,
}

impl Watch {
    /// Begins with the identity that a server starts with, and logs its concerns.
    pub(crate) fn new(files: TlsFiles, identity: &Identity, now: Timestamp) -> Self {
        let mut concerns = Concerns::default();
        concerns.say(identity.concerns.clone(), now);
        Self { files, chain: identity.chain.clone(), concerns }
    }

    /// Renews certificates of ours and reads those of others; returns what to serve new connections with, if that has
    /// changed. Unusable files change nothing.
    pub(crate) fn refresh(&mut self, now: Timestamp) -> Option<Arc<QuicServerConfig>> {
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
