//! Receivers behind TLS.

use std::{path::PathBuf, sync::Arc};

use levada_protocol::request::SubscriptionOptions;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::{
    receiver::{Receiver, status},
    support::{Engine, Setup, again_after},
};

/// A receiver's end, and a file with the certificate.
fn identity(name: &str) -> (TlsAcceptor, TempDir, PathBuf) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, cert.pem()).unwrap();
    (TlsAcceptor::from(Arc::new(config)), dir, file)
}

#[tokio::test]
async fn a_certificate_of_an_authority_that_was_named_is_trusted() {
    let (tls, _dir, file) = identity("127.0.0.1");
    let setup = Setup { ca: Some(file), ..Setup::default() };
    let engine = Engine::with(setup, again_after(0)).await;
    let mut receiver = Receiver::with(Some(tls), |_, _| status(204, "")).await;
    engine.push(format!("https://{}/", receiver.address)).await;
    engine.publish(&[(None, 1)]).await;
    assert_eq!(receiver.next().await.number(), 1);
    engine.until_done().await;
    engine.stop().await;
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_or_of_another_name_is_refused_clearly() {
    let options = SubscriptionOptions { max_attempts: Some(1), ..again_after(0) };
    for (name, is_named) in [("127.0.0.1", false), ("other.example", true)] {
        let (tls, _dir, file) = identity(name);
        let setup = Setup { ca: is_named.then_some(file), ..Setup::default() };
        let engine = Engine::with(setup, options.clone()).await;
        let mut receiver = Receiver::with(Some(tls), |_, _| status(204, "")).await;
        engine.push(format!("https://{}/", receiver.address)).await;
        engine.publish(&[(None, 1)]).await;
        let (reason, error, _) = engine.dead_letter().await;
        assert_eq!(reason, "push_failed");
        assert!(error.starts_with("TLS_FAILED: the TLS handshake with \"127.0.0.1\" failed: "), "{error}");
        assert!(error.contains("certificate"), "{error}");
        assert_eq!(engine.failure().await, error);
        assert!(receiver.is_quiet());
        engine.stop().await;
    }
}
