//! Certificates while the server runs.

use std::{fs, path::Path};

use rustls::pki_types::CertificateDer;
use tokio::time::Duration;

use super::{against, client, config, with};

/// The certificate that a new connection is shown.
async fn shown(address: std::net::SocketAddr, ca: &Path) -> CertificateDer<'static> {
    let connection = client::connect(address, ca).await.unwrap();
    let identity = connection.peer_identity().expect("a server shows who it is");
    identity.downcast::<Vec<CertificateDer<'static>>>().unwrap().swap_remove(0)
}

#[tokio::test]
async fn a_running_server_takes_a_new_certificate_and_keeps_its_connections() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| config.tls.check_interval = Duration::from_millis(2));
    against(config, async |server| {
        let ca = &server.ca_pem_path;
        let (old, _control) = client::greet(server.quic, ca).await;
        let first = shown(server.quic, ca).await;
        fs::remove_file(ca.with_file_name("server.pem")).unwrap();
        let changed = async { while shown(server.quic, ca).await == first {} };
        tokio::time::timeout(Duration::from_secs(30), changed).await.expect("the new certificate is served");
        assert!(old.close_reason().is_none());
    })
    .await;
}
