//! Whom clients trust: CAs and certificates that are expired, not valid yet or somebody else's, and how an engine comes
//! out of that by itself.

use std::{fs, path::Path, sync::Arc, time::Duration};

use levada_client::{Client, ErrorCode, TopicSettings};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
};
use tempfile::TempDir;

use crate::support::{
    engine::{Engine, config},
    process::{self, Process, command},
    until, within,
};

/// From the first of January of one year to that of another.
type Years = (i32, i32);
const PAST: Years = (2001, 2002);
const FUTURE: Years = (3001, 3002);
const NOW: Years = (2001, 3002);

fn params(name: &str, years: Years) -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    params
}

/// The certificate of a CA with this name and key, as PEM.
fn ca(name: &str, key: &KeyPair, years: Years) -> String {
    let mut params = params(name, years);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.subject_alt_names.clear();
    params.self_signed(key).unwrap().pem()
}

/// Puts a server's certificate and key into the directory, signed by this CA.
fn issue(tls: &Path, ca_pem: &str, ca_key: &KeyPair, years: Years) {
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::from_ca_cert_pem(ca_pem, ca_key).unwrap();
    let certificate = params("an engine", years).signed_by(&key, &issuer).unwrap();
    fs::write(tls.join("server.key"), key.serialize_pem()).unwrap();
    fs::write(tls.join("server.pem"), certificate.pem()).unwrap();
}

/// The key of the CA that an engine has made for itself, and that CA's name.
fn own_ca(data_dir: &Path) -> KeyPair {
    KeyPair::from_pem(&fs::read_to_string(data_dir.join("tls/ca.key")).unwrap()).unwrap()
}

const OWN_NAME: &str = "Levada local CA";

/// The client library and the command both refuse, with the code and these words.
async fn refused(addr: &str, ca: &Path, words: &[&str]) {
    let config = levada_client::ClientConfig::new(addr).ca_file(ca);
    let error = within("the refusal", Client::connect(config)).await.expect_err("this must not be trusted");
    assert_eq!(error.code(), ErrorCode::TlsFailed, "{error}");
    let mut list = command();
    list.args(["topic", "list", "--addr", addr, "--ca"]).arg(ca);
    let ran = process::run(list, "").await;
    ran.failed(1, "TLS_FAILED");
    for said in [error.to_string(), ran.stderr] {
        for word in words {
            assert!(said.contains(word), "{word:?} is missing in: {said}");
        }
    }
}

#[tokio::test]
async fn a_ca_that_is_out_of_its_time_or_foreign_is_refused_and_nobody_else_notices() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let engine = Process::start(&data).await;
    let client = engine.connect().await;
    client.create_topic("orders", TopicSettings::default()).await.unwrap();
    let (own, foreign) = (own_ca(&data), KeyPair::generate().unwrap());
    let file = dir.path().join("tried.pem");
    let not_signed = "not signed by the given CA";
    for (pem, words) in [
        (ca(OWN_NAME, &own, PAST), ["expired on 2002-01-01 00:00 UTC", "tls/ca.pem"]),
        (ca(OWN_NAME, &own, FUTURE), ["not valid before 3001-01-01 00:00 UTC", "clock"]),
        (ca(OWN_NAME, &foreign, NOW), [not_signed, "tls/ca.pem"]),
        (ca("Company CA", &foreign, NOW), [not_signed, "tls/ca.pem"]),
        (
            [ca(OWN_NAME, &own, PAST), ca("Company CA", &foreign, NOW)].concat(),
            [not_signed, "expired on 2002"],
        ),
    ] {
        fs::write(&file, pem).unwrap();
        refused(&engine.quic, &file, &words).await;
    }
    // A good certificate beside expired ones is enough.
    let good = fs::read_to_string(&engine.ca).unwrap();
    fs::write(&file, [ca(OWN_NAME, &own, PAST), good].concat()).unwrap();
    let config = engine.client_config().ca_file(&file);
    assert_eq!(Client::connect(config).await.unwrap().list_topics().await.unwrap().len(), 1);
    assert_eq!(client.list_topics().await.unwrap().len(), 1, "the first connection has stood all the while");
    assert!(client.is_connected());
    engine.stop().await;
}

#[tokio::test]
async fn an_engine_with_an_expired_certificate_is_refused_until_it_gets_another() {
    let dir = Arc::new(TempDir::new().unwrap());
    let mut config = config(dir.path().join("data"));
    config.tls.check_interval = Duration::from_millis(5);
    let tls = config.data_dir.join("tls");
    fs::create_dir_all(&tls).unwrap();
    let key = KeyPair::generate().unwrap();
    let pem = ca("Company CA", &key, NOW);
    fs::write(tls.join("ca.pem"), &pem).unwrap();
    issue(&tls, &pem, &key, PAST);
    let engine = Engine::run(config, Arc::clone(&dir)).await.unwrap();
    let addr = engine.started.quic.to_string();
    let file = dir.path().join("tried.pem");
    fs::write(&file, &pem).unwrap();
    refused(&addr, &file, &["the engine's own certificate has expired", "server.pem"]).await;

    issue(&tls, &pem, &key, FUTURE);
    until("another reason", async || {
        let error = Client::connect(engine.client_config()).await.expect_err("it is not valid yet either");
        error.to_string().contains("not valid yet").then_some(())
    })
    .await;
    refused(&addr, &file, &["the engine's own certificate is not valid yet", "clock"]).await;

    issue(&tls, &pem, &key, NOW);
    let client = until("a connection", async || Client::connect(engine.client_config()).await.ok()).await;
    client.list_topics().await.unwrap();
}

#[tokio::test]
async fn an_engine_whose_own_ca_has_expired_renews_it_at_start() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let engine = Process::start(&data).await;
    engine.stop().await;
    let expired = ca(OWN_NAME, &own_ca(&data), PAST);
    fs::write(data.join("tls/ca.pem"), &expired).unwrap();
    let engine = Process::start(&data).await;
    engine.connect().await.list_topics().await.unwrap();
    let old_copy = dir.path().join("old.pem");
    fs::write(&old_copy, &expired).unwrap();
    refused(&engine.quic, &old_copy, &["expired on 2002-01-01", "fetch"]).await;
    engine.stop().await;
}
