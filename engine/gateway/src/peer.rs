//! Who is at the other end of a connection, as far as the connection itself tells.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use levada_protocol::{certificate_name::CertificateName, ids::Timestamp};
use tokio::time::Instant;

/// The other end of a connection, and what it has shown. Whoever serves the gateway puts it into the extensions of each request. Cheap to
/// clone; clones share it, as it is known only once hands are shaken.
#[derive(Debug, Clone)]
pub struct Peer {
    address: SocketAddr,
    certificate: Arc<OnceLock<(Vec<CertificateName>, Timestamp)>>,
    answered_by: Arc<Mutex<Option<Instant>>>,
}

impl Peer {
    /// The other end, which has shown nothing.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, certificate: Arc::default(), answered_by: Arc::default() }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Until when the request under way may be answered, if it was given longer than requests are.
    pub fn answered_by(&self) -> Option<Instant> {
        *self.lock()
    }

    /// A request was answered: the next has no longer than any other.
    pub fn is_answered(&self) {
        *self.lock() = None;
    }

    /// The request under way may be answered until then.
    pub(crate) fn answer_by(&self, until: Instant) {
        *self.lock() = Some(until);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.answered_by.lock().unwrap_or_else(PoisonError::into_inner)
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
