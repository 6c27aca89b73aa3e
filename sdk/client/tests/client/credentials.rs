//! What a client shows of itself: tokens and certificates, and files of them that change.

use std::{fs, path::Path};

use levada_client::{
    Client, ErrorCode, Notice,
    protocol::{ids::TokenId, token::Token},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tempfile::TempDir;

use crate::support::{Authority, Engine};

fn token(id: u64) -> String {
    Token::new(TokenId(id), [7; 32]).reveal()
}

/// Ends the client's connection, and has it make another.
async fn reconnected(engine: &Engine, client: &Client) {
    let mut notices = client.notices();
    let before = engine.inner.world().connections;
    let goodbye = Notice::GoAway { reason: "restart".to_owned() };
    engine.inner.change(|world| world.notices.push_back(goodbye));
    notices.recv().await.unwrap();
    client.list_topics().await.unwrap();
    assert_eq!(engine.inner.world().connections, before + 1);
}

#[tokio::test]
async fn a_token_is_shown_with_the_hello_and_none_without() {
    let engine = Engine::start(1);
    let _without = engine.client().await;
    let _with = Client::connect(engine.config().token(token(1))).await.unwrap();
    assert_eq!(engine.inner.world().tokens, [None, Some(token(1))]);
}

#[tokio::test]
async fn what_is_no_token_is_refused_before_anything_is_sent() {
    let engine = Engine::start(1);
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("token");
    let mut mistyped = token(1);
    mistyped.replace_range(20..21, "x");
    for (text, said) in [
        ("secret", "expected text that begins with lv1_"),
        (&token(1)[..60], "has 65 characters, this text has 60"),
        (&mistyped, "mistyped or cut off"),
    ] {
        fs::write(&file, text).unwrap();
        for config in [engine.config().token(text), engine.config().token_file(&file)] {
            let error = Client::connect(config).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::ConfigInvalid, "{error}");
            let (error, shown) = (error.to_string(), format!("{error:?}"));
            assert!(error.contains(said), "{error}");
            assert!(!shown.contains(&token(1)[17..30]), "the secret is not told: {shown}");
        }
    }
    let absent = engine.config().token_file(dir.path().join("absent"));
    let error = Client::connect(absent).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ConfigInvalid);
    assert!(error.to_string().contains("cannot read the token file "), "{error}");
    assert_eq!(engine.inner.world().connections, 0);
}

#[tokio::test]
async fn a_token_file_that_is_replaced_is_in_force_from_the_next_connection_on() {
    let engine = Engine::start(1);
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, format!(" {}\n", token(1))).unwrap();
    let client = Client::connect(engine.config().token_file(&file)).await.unwrap();
    fs::write(&file, token(2)).unwrap();
    reconnected(&engine, &client).await;
    // What is half written, or gone, leaves a client with what it has read last.
    fs::write(&file, &token(3)[..30]).unwrap();
    reconnected(&engine, &client).await;
    fs::remove_file(&file).unwrap();
    reconnected(&engine, &client).await;
    let shown = engine.inner.world().tokens.clone();
    assert_eq!(shown, [token(1), token(2), token(2), token(2)].map(Some));
}

/// Writes a client's certificate and key, and returns the certificate's bytes.
fn write(dir: &Path, authority: &Authority, name: &str) -> Vec<u8> {
    let (certificate, key) = authority.client_pem(name);
    fs::write(dir.join("client.pem"), &certificate).unwrap();
    fs::write(dir.join("client.key"), key).unwrap();
    CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap().to_vec()
}

#[tokio::test]
async fn a_certificate_is_shown_where_one_is_required_and_read_anew_for_each_connection() {
    let authority = Authority::new();
    let engine = Engine::start_for_certificates(&authority);
    let dir = TempDir::new().unwrap();
    let first = write(dir.path(), &authority, "spiffe://shop/payment");
    let (certificate, key) = (dir.path().join("client.pem"), dir.path().join("client.key"));
    let config = engine.config().client_certificate_files(&certificate, &key);
    let client = Client::connect(config).await.unwrap();
    client.list_topics().await.unwrap();
    let second = write(dir.path(), &authority, "spiffe://shop/payment");
    reconnected(&engine, &client).await;
    // A certificate whose key has not come yet.
    fs::write(&certificate, authority.client_pem("spiffe://shop/payment").0).unwrap();
    reconnected(&engine, &client).await;
    let shown = engine.inner.world().certificates.clone();
    assert_eq!(shown, [first, second.clone(), second].map(Some));
}

#[tokio::test]
async fn a_certificate_that_is_missing_or_of_another_ca_is_told_from_an_engine_that_is_not_trusted() {
    let authority = Authority::new();
    let engine = Engine::start_for_certificates(&authority);
    let dir = TempDir::new().unwrap();
    write(dir.path(), &Authority::new(), "spiffe://shop/payment");
    let (certificate, key) = (dir.path().join("client.pem"), dir.path().join("client.key"));
    let foreign = engine.config().client_certificate_files(certificate, key);
    for (config, said) in [
        (engine.config(), "it requires a client certificate, and this client has none"),
        (foreign, "it does not accept this client's certificate"),
    ] {
        let error = Client::connect(config).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::TlsFailed, "{error:?}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn files_that_hold_no_certificate_or_another_key_are_refused_before_anything_is_sent() {
    let authority = Authority::new();
    let engine = Engine::start(1);
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    write(dir.path(), &authority, "spiffe://shop/payment");
    fs::write(path("other.key"), authority.client_pem("spiffe://shop/payment").1).unwrap();
    fs::write(path("garbage"), "nothing of the kind").unwrap();
    for (certificate, key, said) in [
        ("absent", "client.key", "cannot read the client certificate file"),
        ("client.pem", "absent", "cannot read the client key file"),
        ("garbage", "client.key", "expected PEM text with a certificate"),
        ("client.pem", "garbage", "expected PEM text with a private key"),
        ("client.pem", "other.key", "does not fit the certificate in"),
    ] {
        let config = engine.config().client_certificate_files(path(certificate), path(key));
        let error = Client::connect(config).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::ConfigInvalid, "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    assert_eq!(engine.inner.world().connections, 0);
}
