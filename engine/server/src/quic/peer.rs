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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{
        ServerConfig,
        quic::listener,
        tests::{
            client,
            issuer::{NOW, OtherCa, Signed, dns, end_of, uri},
        },
        tls::{self, TlsFiles},
    };

    #[tokio::test]
    async fn a_verified_client_is_known_by_its_alternative_names() {
        let dir = tempfile::tempdir().unwrap();
        let ca = OtherCa::new("Clients", NOW);
        let file = dir.path().join("clients.pem");
        ca.write(&file);
        let mut config = ServerConfig::default();
        config.listen.address.set_port(0);
        config.tls.client_ca = Some(file);
        let files = TlsFiles::new(dir.path(), &config.tls);
        let identity = tls::prepare(&files, crate::clock::now()).unwrap();
        let endpoint = listener::endpoint(listener::bind(&config).unwrap(), identity, &config).unwrap();
        let address: SocketAddr = endpoint.local_addr().unwrap();
        let names = vec![dns("b.example"), uri("spiffe://example/payment"), dns("a.example")];
        let signed = ca.sign("never this", names, NOW);
        let seen = async |shown: Option<&Signed>| {
            let accepting = async { endpoint.accept().await.unwrap().accept().unwrap().await.unwrap() };
            let ca = files.ca_pem();
            let (accepted, _connected) =
                tokio::join!(accepting, client::connect_by(address, &ca, "localhost", shown));
            certificate(&accepted)
        };
        let expected = ClientCertificate {
            uris: vec!["spiffe://example/payment".to_owned()],
            dns: vec!["b.example".to_owned(), "a.example".to_owned()],
            not_after: end_of(NOW),
        };
        assert_eq!(seen(Some(&signed)).await, Some(expected));
        assert_eq!(seen(None).await, None);
    }
}
