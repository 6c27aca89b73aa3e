//! Who the other end of a connection says it is, by its certificate.

use quinn::Connection;
use rustls::pki_types::CertificateDer;
use tracing::debug;

use crate::tls::client::{self, ClientCertificate};

/// What the certificate says that the client has shown; TLS has verified it. `None` if it has shown none.
pub(super) fn certificate(connection: &Connection) -> Option<ClientCertificate> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match client::names(chain.first()?) {
        Ok(shown) => Some(shown),
        Err(error) => {
            debug!(error, "client certificate cannot be read");
            None
        }
    }
}
