//! Certificates while the server runs: its own, those of clients, and HTTP over TLS.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use quinn::{Connection, ConnectionError};
use rustls::{
    ClientConfig, HandshakeKind, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Duration,
};
use tokio_rustls::TlsConnector;

use super::{
    against, client, config,
    issuer::{NOW, OtherCa, PAST, Signed, dns, uri},
    with,
};
use crate::{ServerConfig, Started, config::ClientAuth};

/// The certificate that a new connection is shown.
async fn shown(address: SocketAddr, ca: &Path) -> CertificateDer<'static> {
    let connection = client::connect(address, ca).await.unwrap();
    let identity = connection.peer_identity().expect("a server shows who it is");
    identity.downcast::<Vec<CertificateDer<'static>>>().unwrap().swap_remove(0)
}

/// Waits until something holds.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async { while !holds().await {} };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect(what);
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
        until("the new certificate is served", async || shown(server.quic, ca).await != first).await;
        assert!(old.close_reason().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_client_connects_by_configured_names_and_refuses_others() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| {
        config.tls.names = ["engine.example.com", "192.0.2.1"].map(|name| name.parse().unwrap()).to_vec();
    });
    against(config, async |server| {
        let by = async |name| client::connect_by(server.quic, &server.ca_pem_path, name, None).await;
        for name in ["localhost", "127.0.0.1", "engine.example.com", "192.0.2.1"] {
            by(name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for name in ["example.com", "other.example.com", "192.0.2.2"] {
            let error = by(name).await.expect_err(name).to_string();
            assert!(error.contains("not valid for name"), "{name}: {error}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_operators_own_certificate_is_served_for_quic_and_http() {
    let dir = tempfile::tempdir().unwrap();
    let company = OtherCa::new("Company CA", NOW);
    let signed = company.sign("an engine", vec![dns("localhost")], NOW);
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let ca = file("company.pem", company.pem());
    let config = with(config(&dir), |config| {
        config.tls.certificate = Some(file("chain.pem", &signed.pem));
        config.tls.key = Some(file("chain.key", &signed.key.serialize_pem()));
        config.http.tls = crate::config::HttpTls::On;
    });
    let data = config.data_dir.clone();
    against(config, async |server| {
        assert_eq!(shown(server.quic, &ca).await, signed.chain[0]);
        assert_eq!(server.ca_fingerprint, None, "who has signed it is not known here");
        assert!(answers(&get(&server, &ca, &TLS13, "localhost").await));
    })
    .await;
    let mut made: Vec<_> =
        fs::read_dir(data.join("tls")).unwrap().map(|it| it.unwrap().file_name()).collect();
    made.sort();
    assert_eq!(made, ["reset.key"], "nothing of the engine's own is made beside it");
}

/// A server that asks clients for certificates of a CA.
fn asking(dir: &tempfile::TempDir, auth: ClientAuth, ca: &OtherCa) -> (ServerConfig, PathBuf) {
    let file = dir.path().join("clients.pem");
    ca.write(&file);
    let config = with(config(dir), |config| {
        config.tls.client_ca = Some(file.clone());
        config.tls.client_auth = auth;
        config.tls.check_interval = Duration::from_millis(2);
        config.http.tls = crate::config::HttpTls::On;
    });
    (config, file)
}

/// How a connection with this certificate fares: with TLS 1.3 a client hears of its refusal only afterwards.
async fn greeted(server: &Started, shown: Option<&Signed>) -> Result<Connection, ConnectionError> {
    let connection = client::connect_by(server.quic, &server.ca_pem_path, "localhost", shown).await?;
    tokio::select! {
        biased;
        error = connection.closed() => Err(error),
        _greeted = client::say_hello_on(&connection) => Ok(connection),
    }
}

/// The number of the TLS alert that ended a connection.
fn alert(error: &ConnectionError) -> u64 {
    match error {
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code) - 0x100,
        other => panic!("expected an alert, got {other}"),
    }
}

const CERTIFICATE_EXPIRED: u64 = 45;
const UNKNOWN_CA: u64 = 48;
const CERTIFICATE_REQUIRED: u64 = 116;

#[tokio::test]
async fn a_client_certificate_is_checked_as_configured() {
    let (ca, other) = (OtherCa::new("Clients", NOW), OtherCa::new("Others", NOW));
    let good = ca.sign("a client", vec![uri("spiffe://example.com/payment")], NOW);
    let expired = ca.sign("a client", vec![uri("spiffe://example.com/payment")], PAST);
    let foreign = other.sign("a client", vec![uri("spiffe://example.com/payment")], NOW);
    for (auth, without) in [
        (ClientAuth::Optional, None),
        (ClientAuth::Auto, None),
        (ClientAuth::Required, Some(CERTIFICATE_REQUIRED)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (config, _file) = asking(&dir, auth, &ca);
        against(config, async |server| {
            for (certificate, expected) in [
                (Some(&good), None),
                (None, without),
                (Some(&expired), Some(CERTIFICATE_EXPIRED)),
                (Some(&foreign), Some(UNKNOWN_CA)),
            ] {
                let got = greeted(&server, certificate).await.err().map(|error| alert(&error));
                assert_eq!(got, expected, "{auth:?}");
                let answer = https(&server, certificate).await;
                assert_eq!(
                    answer.as_ref().is_ok_and(|answer| answers(answer)),
                    expected.is_none(),
                    "{auth:?}: {answer:?}"
                );
            }
        })
        .await;
    }
}

#[tokio::test]
async fn without_client_auth_no_certificate_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let (config, _file) = asking(&dir, ClientAuth::Off, &OtherCa::new("Clients", NOW));
    let foreign = OtherCa::new("Others", NOW).sign("a client", Vec::new(), PAST);
    against(config, async |server| {
        greeted(&server, Some(&foreign)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_session_of_clients_with_certificates_is_never_resumed() {
    let ca = OtherCa::new("Clients", NOW);
    let signed = ca.sign("a client", Vec::new(), NOW);
    for (auth, expected) in
        [(ClientAuth::Off, HandshakeKind::Resumed), (ClientAuth::Optional, HandshakeKind::Full)]
    {
        let dir = tempfile::tempdir().unwrap();
        let (config, _file) = asking(&dir, auth, &ca);
        against(config, async |server| {
            let tls = Arc::new(client::tls(&server.ca_pem_path, &[&TLS13], b"http/1.1", Some(&signed)));
            let shaken = async || {
                let stream = TcpStream::connect(server.http).await.unwrap();
                let name = ServerName::try_from("localhost").unwrap();
                let mut stream = TlsConnector::from(Arc::clone(&tls)).connect(name, stream).await.unwrap();
                let request = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
                stream.write_all(request).await.unwrap();
                stream.read_to_end(&mut Vec::new()).await.unwrap();
                stream.get_ref().1.handshake_kind().unwrap()
            };
            assert_eq!(shaken().await, HandshakeKind::Full);
            assert_eq!(shaken().await, expected, "{auth:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn another_ca_for_clients_is_in_force_for_new_connections_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (OtherCa::new("First", NOW), OtherCa::new("Second", NOW));
    let (old, new) = (first.sign("a client", Vec::new(), NOW), second.sign("a client", Vec::new(), NOW));
    let (config, file) = asking(&dir, ClientAuth::Required, &first);
    against(config, async |server| {
        let standing = greeted(&server, Some(&old)).await.unwrap();
        assert!(greeted(&server, Some(&new)).await.is_err());

        fs::write(&file, "nothing of use").unwrap();
        fs::write(&file, [first.pem(), second.pem()].concat()).unwrap();
        until("both are taken", async || greeted(&server, Some(&new)).await.is_ok()).await;
        assert!(greeted(&server, Some(&old)).await.is_ok());

        second.write(&file);
        until("the first is taken no more", async || greeted(&server, Some(&old)).await.is_err()).await;
        until("nor for HTTP", async || https(&server, Some(&old)).await.is_err()).await;
        assert!(greeted(&server, Some(&new)).await.is_ok());
        assert!(standing.close_reason().is_none());
    })
    .await;
}

/// What the server answers over TLS of this version, for a name.
async fn get(
    server: &Started,
    ca: &Path,
    version: &'static SupportedProtocolVersion,
    name: &'static str,
) -> String {
    let tls = client::tls(ca, &[version], b"http/1.1", None);
    request(server, tls, name).await.unwrap()
}

async fn https(server: &Started, shown: Option<&Signed>) -> std::io::Result<String> {
    let tls = client::tls(&server.ca_pem_path, &[&TLS13], b"http/1.1", shown);
    request(server, tls, "localhost").await
}

async fn request(server: &Started, tls: ClientConfig, name: &'static str) -> std::io::Result<String> {
    let stream = TcpStream::connect(server.http).await?;
    let name = ServerName::try_from(name).unwrap();
    let mut stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn answers(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(r#"{"status":"ready"}"#)
}

/// HTTP over TLS on loopback.
fn secure(dir: &tempfile::TempDir) -> ServerConfig {
    with(config(dir), |config| {
        config.http.tls = crate::config::HttpTls::On;
        config.tls.check_interval = Duration::from_millis(2);
    })
}

#[tokio::test]
async fn http_is_served_over_both_versions_of_tls_with_the_certificate_of_quic() {
    let dir = tempfile::tempdir().unwrap();
    against(secure(&dir), async |server| {
        assert!(server.https);
        for version in [&TLS12, &TLS13] {
            let answer = get(&server, &server.ca_pem_path, version, "localhost").await;
            assert!(answers(&answer), "{version:?}: {answer}");
        }
        let tls = client::tls(&server.ca_pem_path, &[&TLS13], b"http/1.1", None);
        let refused = request(&server, tls, "other.example.com").await.unwrap_err().to_string();
        assert!(refused.contains("not valid for name"), "{refused}");
        let mut plain = TcpStream::connect(server.http).await.unwrap();
        plain.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "nothing is said in the clear: {answer:?}");
    })
    .await;
}

#[tokio::test]
async fn http_takes_a_new_certificate_and_keeps_its_connections() {
    let dir = tempfile::tempdir().unwrap();
    against(secure(&dir), async |server| {
        let ca = &server.ca_pem_path;
        let connected = async || {
            let tls = client::tls(ca, &[&TLS13], b"http/1.1", None);
            let stream = TcpStream::connect(server.http).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap()
        };
        let mut old = connected().await;
        let certificate = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
            stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
        };
        let first = certificate(&old);
        fs::remove_file(ca.with_file_name("server.pem")).unwrap();
        until("another is served", async || certificate(&connected().await) != first).await;
        old.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        old.read_to_string(&mut answer).await.unwrap();
        assert!(answers(&answer), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn half_a_tls_handshake_keeps_nobody_from_an_answer_and_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(secure(&dir), |config| {
        config.http.connections_max = 8;
        config.http.idle_timeout = Duration::from_secs(1);
    });
    against(config, async |server| {
        let mut halves = Vec::new();
        for _ in 0..20 {
            let mut half = TcpStream::connect(server.http).await.unwrap();
            // The beginning of a record that is never whole.
            half.write_all(&[22, 3, 1, 1, 0, 1]).await.unwrap();
            halves.push(half);
        }
        assert!(answers(&https(&server, None).await.unwrap()), "others are served meanwhile");
        for mut half in halves {
            let mut rest = Vec::new();
            let ended = tokio::time::timeout(Duration::from_secs(9), half.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "it is closed after the second that it may be silent");
        }
    })
    .await;
}
