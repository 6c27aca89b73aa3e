//! Who is at the other end of a connection, as far as the connection itself tells.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use levada_protocol::{certificate_name::CertificateName, ids::Timestamp};

/// The other end of a connection, and what it has shown. Whoever serves the gateway puts it into the extensions of each request. Cheap to
/// clone; clones share it, as it is known only once hands are shaken.
#[derive(Debug, Clone)]
pub struct Peer {
    address: SocketAddr,
    certificate: Arc<OnceLock<(Vec<CertificateName>, Timestamp)>>,
}

impl Peer {
    /// The other end, which has shown nothing.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, certificate: Arc::default() }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// It has shown a certificate, which was verified: the names in it, in order of preference, and when it expires. Said once.
    pub fn shows(&self, certificate: (Vec<CertificateName>, Timestamp)) {
        // A connection shakes hands once.
        let _ = self.certificate.set(certificate);
    }

    /// The certificate that it has shown.
    pub(crate) fn certificate(&self) -> Option<(Vec<CertificateName>, Timestamp)> {
        self.certificate.get().cloned()
    }
}
