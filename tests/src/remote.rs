//! How clients on other machines come to trust an engine: names in its certificate, and its CA by fingerprint.
//!
//! 127.0.0.2 is an address that only a configured name covers, and that an engine without principals may listen on.

use std::{fs, path::Path, sync::Arc};

use levada_client::{CaFingerprint, ErrorCode, fetch_ca, shown_ca};
use levada_server::{ServerConfig, config::ClientAuth};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tempfile::TempDir;

use crate::support::{
    engine::{Engine, config},
    process::{Ran, command, run},
    within,
};

const ADDRESS: &str = "127.0.0.2";

/// An engine at that address, whose certificate covers these names.
async fn engine(
    dir: &Arc<TempDir>,
    change: impl FnOnce(&mut ServerConfig),
) -> (Engine, String, CaFingerprint) {
    let mut config = config(dir.path().join("data"));
    config.listen.address = (ADDRESS.parse::<std::net::IpAddr>().unwrap(), 0).into();
    change(&mut config);
    let engine = Engine::run(config, Arc::clone(dir)).await.unwrap();
    let address = engine.started.quic.to_string();
    let fingerprint = engine.started.ca_fingerprint.as_deref().unwrap().parse().unwrap();
    (engine, address, fingerprint)
}

async fn levada(arguments: &[&str]) -> Ran {
    let mut command = command();
    command.args(arguments);
    run(command, "").await
}

fn der(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

#[tokio::test]
async fn a_client_fetches_the_ca_by_its_fingerprint_and_then_connects_with_it() {
    let dir = Arc::new(TempDir::new().unwrap());
    let (engine, address, fingerprint) =
        engine(&dir, |config| config.tls.names = vec![ADDRESS.parse().unwrap()]).await;
    let fingerprint = fingerprint.to_string();
    let file = dir.path().join("fetched.pem");
    let name = file.to_str().unwrap();

    let looked = levada(&["ca", "fetch", &address, "--out", name]).await;
    assert_eq!((looked.code, looked.stdout.trim_end()), (1, fingerprint.as_str()), "{looked:?}");
    assert!(looked.stderr.starts_with("error: TLS_FAILED: nobody has verified the CA"), "{looked:?}");
    let advice = format!("levada ca fetch {address} --fingerprint {fingerprint}");
    assert!(looked.stderr.contains("compare") && looked.stderr.contains(&advice), "{looked:?}");
    assert!(!file.exists());

    let wrong = format!("sha256:{}", "00".repeat(32));
    let refused = levada(&["ca", "fetch", &address, "--fingerprint", &wrong, "--out", name]).await;
    refused.failed(1, "TLS_FAILED");
    assert!(refused.stderr.contains(&wrong) && refused.stderr.contains(&fingerprint), "{refused:?}");
    assert!(!file.exists());

    let fetch = ["ca", "fetch", &address, "--fingerprint", &fingerprint];
    let printed = levada(&fetch).await.done();
    assert_eq!(CertificateDer::from_pem_slice(printed.as_bytes()).unwrap(), der(&engine.started.ca_pem_path));
    let json = levada(&[&fetch[..], &["--output", "json"]].concat()).await.json().remove(0);
    assert_eq!((json["verified"].as_bool(), json["ca"].as_str()), (Some(true), Some(printed.as_str())));
    let said = levada(&[&fetch[..], &["--out", name]].concat()).await.done();
    assert!(said.contains(&format!("--ca {name}")), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), printed);
    levada(&["topic", "list", "--addr", &address, "--ca", name]).await.done();

    let nowhere = dir.path().join("absent/ca.pem");
    let unwritten = levada(&[&fetch[..], &["--out", nowhere.to_str().unwrap()]].concat()).await;
    unwritten.failed(1, "CONFIG_INVALID");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_told_that_the_engine_requires_one() {
    let dir = Arc::new(TempDir::new().unwrap());
    let file = dir.path().join("clients.pem");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(&file, params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()).unwrap();
    let (engine, address, fingerprint) = engine(&dir, |config| {
        config.tls.names = vec![ADDRESS.parse().unwrap()];
        config.tls.client_ca = Some(file);
        config.tls.client_auth = ClientAuth::Required;
    })
    .await;
    let ca = engine.started.ca_pem_path.to_str().unwrap();
    let listed = levada(&["topic", "list", "--addr", &address, "--ca", ca]).await;
    listed.failed(1, "TLS_FAILED");
    assert!(listed.stderr.contains("it requires a client certificate"), "{listed:?}");
    let pem = within("the CA", fetch_ca(&address, &fingerprint)).await.unwrap();
    assert_eq!(
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap(),
        der(Path::new(ca)),
        "it is no secret"
    );
}

#[tokio::test]
async fn a_ca_is_not_fetched_by_a_name_that_the_certificate_lacks() {
    let dir = Arc::new(TempDir::new().unwrap());
    let (engine, address, fingerprint) = engine(&dir, |_| {}).await;
    let error = within("the refusal", fetch_ca(&address, &fingerprint)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TlsFailed);
    assert!(error.to_string().contains("does not cover the name used"), "{error}");
    let ca = engine.started.ca_pem_path.to_str().unwrap();
    let listed = levada(&["topic", "list", "--addr", &address, "--ca", ca]).await;
    listed.failed(1, "TLS_FAILED");
    assert!(listed.stderr.contains("does not cover the name used"), "{listed:?}");
}

#[tokio::test]
async fn an_engine_that_shows_the_ca_of_another_is_not_taken_for_it() {
    let (dir, other) = (Arc::new(TempDir::new().unwrap()), Arc::new(TempDir::new().unwrap()));
    let (engine_of_others, _, fingerprint) = engine(&dir, |_| {}).await;

    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Levada local CA");
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([ADDRESS.to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &Issuer::from_ca_cert_pem(&ca, &ca_key).unwrap()).unwrap().pem();
    let (chain_file, key_file) = (other.path().join("chain.pem"), other.path().join("chain.key"));
    let shown = fs::read_to_string(&engine_of_others.started.ca_pem_path).unwrap();
    fs::write(&chain_file, [leaf, shown].concat()).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    let (_impostor, address, _) = engine(&other, |config| {
        (config.tls.certificate, config.tls.key) = (Some(chain_file), Some(key_file));
    })
    .await;

    assert_eq!(within("a look", shown_ca(&address)).await.unwrap(), fingerprint, "it is shown");
    let error = within("the refusal", fetch_ca(&address, &fingerprint)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TlsFailed);
    assert!(error.to_string().contains("not signed by the given CA"), "{error}");
}

#[tokio::test]
async fn an_engine_says_its_cas_fingerprint_and_keeps_the_ca_when_names_are_added() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let serve = async |more: &[&str]| {
        let mut command = command();
        command.arg("serve").arg("--data-dir").arg(&data).arg("--until-stdin-closes").args(more);
        command.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        run(command, "").await
    };
    let first = serve(&["--output", "json"]).await.json().remove(0);
    let (ca, fingerprint) = (first["ca"].as_str().unwrap(), first["ca_fingerprint"].as_str().unwrap());
    assert!(fingerprint.parse::<CaFingerprint>().is_ok() && first["https"] == false, "{first}");
    let certificate = der(&data.join("tls/server.pem"));

    let text = serve(&["--tls-name", "engine.example.com", "--tls-name", "192.0.2.1"]).await.done();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[3..5], [format!("  CA    {ca}"), format!("        {fingerprint}")], "{text}");
    let second = der(&data.join("tls/server.pem"));
    assert_ne!(second, certificate);

    let mut command = command();
    command.arg("serve").arg("--data-dir").arg(&data).arg("--until-stdin-closes");
    command.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.env("LEVADA_TLS_NAMES", "b.example.com,192.0.2.2");
    run(command, "").await.done();
    assert_ne!(der(&data.join("tls/server.pem")), second, "the environment names others");

    let tls = ["--output", "json"];
    let config = dir.path().join("levada.toml");
    fs::write(&config, "[http]\ntls = true\n").unwrap();
    let third = serve(&[&tls[..], &["--config", config.to_str().unwrap()]].concat()).await.json().remove(0);
    assert_eq!((third["https"].as_bool(), third["ca_fingerprint"].as_str()), (Some(true), Some(fingerprint)));
}
