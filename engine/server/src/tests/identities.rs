//! Who is served, and until when: tokens and permissions over real connections.

use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc};

use levada_protocol::{
    certificate_name::CertificateName,
    error::{ErrorCode, Refusal},
    ids::TopicName,
    request::{
        ChangePrincipal, CreatePrincipal, CreateToken, IssuedToken, NewToken, Open, Opened, QuotaChanges,
        Quotas, Read, Request, Response, Subscribe, SubscriptionOptions, TopicSettings,
    },
};
use quinn::Connection;
use rustls::{pki_types::ServerName, version::TLS13};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    against, against_with,
    client::{self, ClientStream},
    config,
    issuer::{NOW, OtherCa, Signed, dns, uri},
    with,
};
use crate::{Error, Started, run};

const SHOP: &str = "shop";

fn topic() -> TopicName {
    "orders".parse().unwrap()
}

/// An engine's administrator, who came in with the token of its start.
struct Office<'a> {
    server: &'a Started,
    connection: Connection,
    _control: ClientStream,
}

impl<'a> Office<'a> {
    async fn open(server: &'a Started, token: &str) -> Self {
        let (connection, _control, answer) = come(server, Some(token)).await;
        assert!(matches!(answer, Ok(Opened::Hello(hello)) if hello.principal == "admin"));
        let office = Self { server, connection, _control };
        office.ask(Request::CreateTopic { name: topic(), settings: TopicSettings::default() }).await;
        office
    }

    async fn ask(&self, request: Request) -> Response {
        match client::request(&self.connection, request).await {
            Response::Refused(refusal) => panic!("{refusal}"),
            response => response,
        }
    }

    /// A principal who may do this, and its token.
    async fn shop(&self, permissions: &[&str], expires_in_ms: Option<u64>) -> IssuedToken {
        let request = Request::CreatePrincipal(CreatePrincipal {
            name: SHOP.parse().unwrap(),
            permissions: permissions.iter().map(|line| line.parse().unwrap()).collect(),
            certificates: Vec::new(),
            token: Some(NewToken { expires_in_ms, ..NewToken::default() }),
            quotas: Quotas::default(),
        });
        match self.ask(request).await {
            Response::Principal { issued: Some(issued), .. } => issued,
            other => panic!("{other:?}"),
        }
    }

    async fn come(&self, token: &str) -> (Connection, ClientStream) {
        let (connection, control, answer) = come(self.server, Some(token)).await;
        answer.unwrap();
        (connection, control)
    }
}

async fn come(server: &Started, token: Option<&str>) -> (Connection, ClientStream, Result<Opened, Refusal>) {
    client::greet_with_token(server.quic, &server.ca_pem_path, token).await
}

/// Runs the body against a server whose first start makes an administrator.
async fn with_office(body: impl AsyncFnOnce(&Office<'_>)) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("admin.token");
    against_with(config(&dir), Some(file.clone()), async |server| {
        let token = fs::read_to_string(&file).unwrap();
        body(&Office::open(&server, token.trim_end()).await).await;
    })
    .await;
}

/// A stream of each kind that goes on, opened and answered.
async fn open_all(connection: &Connection) -> [ClientStream; 3] {
    let subscribe = Subscribe::new(topic(), "payment".parse().unwrap());
    let subscribe = Subscribe { options: Some(SubscriptionOptions::default()), ..subscribe };
    let read = Read { follow: true, ..Read::new(topic()) };
    let mut streams = [
        ClientStream::open(connection, &Open::Publish { topic: topic(), trace: None }).await,
        ClientStream::open(connection, &Open::Subscribe(subscribe)).await,
        ClientStream::open(connection, &Open::Read(read)).await,
    ];
    for stream in &mut streams {
        stream.answer().await.unwrap();
    }
    streams
}

/// The code with which the engine ended a stream.
async fn reset_with(stream: &mut ClientStream) -> ErrorCode {
    match stream.recv.read(&mut [0; 64]).await {
        Err(quinn::ReadError::Reset(code)) => {
            ErrorCode::from_number(u16::try_from(code.into_inner()).unwrap())
        }
        other => panic!("expected a reset, got {other:?}"),
    }
}

#[tokio::test]
async fn the_first_start_makes_a_token_that_only_its_owner_may_read_and_a_second_one_refuses_to_write_over_it()
 {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("admin.token");
    against_with(config(&dir), Some(file.clone()), async |server| {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let token = fs::read_to_string(&file).unwrap();
        let (_connection, _control, answer) = come(&server, Some(token.trim_end())).await;
        assert!(matches!(answer, Ok(Opened::Hello(hello)) if hello.principal == "admin"));
    })
    .await;
    // A file with a valid token stays as it is: the flag may stay, too.
    let before = fs::read_to_string(&file).unwrap();
    against_with(config(&dir), Some(file.clone()), async |_| {}).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    // One that has ended keeps no engine from starting that has principals, and nothing is written over.
    fs::write(&file, "something else").unwrap();
    against_with(config(&dir), Some(file.clone()), async |_| {}).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), "something else");
    let other = tempfile::tempdir().unwrap();
    let first = run(config(&other), Some(file), async {}, |_| panic!("the server must not start")).await;
    assert!(matches!(first, Err(Error::AdminToken { .. })), "{first:?}");
}

#[tokio::test]
async fn without_principals_everybody_here_is_served_and_with_one_nobody_without_a_token() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (local, mut control, answer) = come(&server, None).await;
        assert!(matches!(answer, Ok(Opened::Hello(hello)) if hello.principal == "local"));
        let [mut publish, ..] = {
            client::request(
                &local,
                Request::CreateTopic { name: topic(), settings: TopicSettings::default() },
            )
            .await;
            open_all(&local).await
        };
        let first = Request::CreatePrincipal(CreatePrincipal {
            name: "boss".parse().unwrap(),
            permissions: vec!["admin".parse().unwrap()],
            certificates: Vec::new(),
            token: Some(NewToken::default()),
            quotas: Quotas::default(),
        });
        // The request that ends the connection is answered.
        let Response::Principal { issued: Some(issued), .. } = client::request(&local, first).await else {
            panic!("expected a token")
        };
        assert_eq!(reset_with(&mut publish).await, ErrorCode::Unauthenticated);
        assert_eq!(control.answer().await.unwrap_err().code, ErrorCode::Unauthenticated);
        assert_eq!(client::closed_with(&local).await, ErrorCode::Unauthenticated);

        let (_nobody, _control, answer) = come(&server, None).await;
        let refusal = answer.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Unauthenticated);
        assert!(refusal.message.contains("levada token create"), "{refusal}");
        let (_wrong, _control, answer) = come(&server, Some(&issued.token[1..])).await;
        let refusal = answer.unwrap_err();
        assert!(
            refusal.message.contains("malformed") && !refusal.message.contains(&issued.token[20..]),
            "{refusal}"
        );
        assert!(come(&server, Some(&issued.token)).await.2.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_revoked_token_closes_its_connections_and_no_others() {
    with_office(async |office| {
        let issued = office.shop(&["publish **", "subscribe **", "read **"], None).await;
        let request = Request::CreateToken(CreateToken {
            principal: SHOP.parse().unwrap(),
            token: NewToken::default(),
        });
        let Response::IssuedToken(other) = office.ask(request).await else { panic!("no token") };
        let (revoked, mut control) = office.come(&issued.token).await;
        let (stays, _control) = office.come(&other.token).await;
        let mut ended = open_all(&revoked).await;
        let mut going = open_all(&stays).await;
        office.ask(Request::RevokeToken { id: issued.info.id }).await;
        assert_eq!(control.answer().await.unwrap_err().code, ErrorCode::Unauthenticated);
        for stream in &mut ended {
            assert_eq!(reset_with(stream).await, ErrorCode::Unauthenticated);
        }
        assert_eq!(client::closed_with(&revoked).await, ErrorCode::Unauthenticated);
        assert!(matches!(client::request(&stays, Request::Info).await, Response::Info(_)));
        going[0].send.finish().unwrap();
        assert!(going[0].frame().await.is_none(), "it ends as it should");
    })
    .await;
}

#[tokio::test]
async fn a_permission_that_is_taken_back_ends_its_streams_and_no_others() {
    with_office(async |office| {
        let issued = office.shop(&["publish **", "subscribe **", "read **"], None).await;
        let (connection, _control) = office.come(&issued.token).await;
        let [mut publish, mut subscribe, mut read] = open_all(&connection).await;
        let revoke = |line: &str| {
            Request::ChangePrincipal(ChangePrincipal {
                name: SHOP.parse().unwrap(),
                grant: Vec::new(),
                revoke: vec![line.parse().unwrap()],
                add_certificates: Vec::new(),
                remove_certificates: Vec::new(),
                quotas: QuotaChanges::default(),
            })
        };
        office.ask(revoke("read **")).await;
        // Whoever publishes to it knows that it is there.
        assert_eq!(reset_with(&mut read).await, ErrorCode::PermissionDenied);
        office.ask(revoke("publish **")).await;
        assert_eq!(reset_with(&mut publish).await, ErrorCode::PermissionDenied);
        subscribe.send.finish().unwrap();
        assert!(subscribe.frame().await.is_none(), "it ends as it should");
        let mut publish =
            ClientStream::open(&connection, &Open::Publish { topic: topic(), trace: None }).await;
        assert_eq!(publish.answer().await.unwrap_err().code, ErrorCode::PermissionDenied);
    })
    .await;
}

#[tokio::test]
async fn an_expired_token_closes_its_connection_by_itself() {
    with_office(async |office| {
        let issued = office.shop(&["publish **"], Some(400)).await;
        let (connection, mut control) = office.come(&issued.token).await;
        assert_eq!(control.answer().await.unwrap_err().code, ErrorCode::Unauthenticated);
        assert_eq!(client::closed_with(&connection).await, ErrorCode::Unauthenticated);
        assert_eq!(
            come(office.server, Some(&issued.token)).await.2.unwrap_err().code,
            ErrorCode::Unauthenticated
        );
    })
    .await;
}

#[tokio::test]
async fn a_deployment_that_is_not_allowed_is_refused_before_its_bytes_are_taken() {
    with_office(async |office| {
        let issued = office.shop(&["publish **"], None).await;
        let (connection, _control) = office.come(&issued.token).await;
        // None of the bytes that are announced ever comes.
        let deploy = Request::DeployPlugin { name: "keep".parse().unwrap(), size: 1_000_000, config: None };
        match client::request(&connection, deploy).await {
            Response::Refused(refusal) => assert_eq!(refusal.code, ErrorCode::PermissionDenied),
            other => panic!("{other:?}"),
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_certificate_is_a_principal_by_its_alternative_names() {
    let dir = tempfile::tempdir().unwrap();
    let (file, ca_file) = (dir.path().join("admin.token"), dir.path().join("clients.pem"));
    let ca = OtherCa::new("Clients", NOW);
    ca.write(&ca_file);
    let config = with(config(&dir), |config| config.tls.client_ca = Some(ca_file));
    against_with(config, Some(file.clone()), async |server| {
        let token = fs::read_to_string(&file).unwrap();
        let office = Office::open(&server, token.trim_end()).await;
        office.shop(&["publish **"], None).await;
        let known = CertificateName::uri("spiffe://example/shop");
        office
            .ask(Request::ChangePrincipal(ChangePrincipal {
                name: SHOP.parse().unwrap(),
                grant: Vec::new(),
                revoke: Vec::new(),
                add_certificates: vec![known.clone()],
                remove_certificates: Vec::new(),
                quotas: QuotaChanges::default(),
            }))
            .await;
        let come = async |signed: &Signed| {
            let connection = client::connect_by(server.quic, &server.ca_pem_path, "localhost", Some(signed))
                .await
                .unwrap();
            let mut control = ClientStream::open(&connection, &client::hello()).await;
            let answer = control.answer().await;
            (connection, control, answer)
        };
        let shop = ca.sign("never this", vec![dns("else.example"), uri("spiffe://example/shop")], NOW);
        let (connection, mut control, answer) = come(&shop).await;
        assert!(matches!(answer, Ok(Opened::Hello(hello)) if hello.principal == SHOP));
        // The common name is no name of a principal.
        let (_other, _control, answer) = come(&ca.sign(SHOP, vec![dns("else.example")], NOW)).await;
        assert_eq!(answer.unwrap_err().code, ErrorCode::Unauthenticated);
        office
            .ask(Request::ChangePrincipal(ChangePrincipal {
                name: SHOP.parse().unwrap(),
                grant: Vec::new(),
                revoke: Vec::new(),
                add_certificates: Vec::new(),
                remove_certificates: vec![known],
                quotas: QuotaChanges::default(),
            }))
            .await;
        assert_eq!(control.answer().await.unwrap_err().code, ErrorCode::Unauthenticated);
        assert_eq!(client::closed_with(&connection).await, ErrorCode::Unauthenticated);
    })
    .await;
}

/// The head and body of the response to a request over TLS, with a certificate and some headers.
async fn by_https(server: &Started, shown: Option<&Signed>, path: &str, headers: &str) -> String {
    let tls = client::tls(&server.ca_pem_path, &[&TLS13], b"http/1.1", shown);
    let stream = TcpStream::connect(server.http).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

#[tokio::test]
async fn by_http_a_certificate_is_a_principal_too_unless_a_token_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let (file, ca_file) = (dir.path().join("admin.token"), dir.path().join("clients.pem"));
    let ca = OtherCa::new("Clients", NOW);
    ca.write(&ca_file);
    let config = with(config(&dir), |config| {
        config.tls.client_ca = Some(ca_file);
        config.http.tls = crate::config::HttpTls::On;
    });
    against_with(config, Some(file.clone()), async |server| {
        let token = fs::read_to_string(&file).unwrap();
        let office = Office::open(&server, token.trim_end()).await;
        office.shop(&["browse **"], None).await;
        let change = |add: &[&str], remove: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|name| CertificateName::uri(name)).collect();
            Request::ChangePrincipal(ChangePrincipal {
                add_certificates: names(add),
                remove_certificates: names(remove),
                ..ChangePrincipal::new(SHOP.parse().unwrap())
            })
        };
        office.ask(change(&["spiffe://example/shop"], &[])).await;
        let shop = ca.sign("never this", vec![uri("spiffe://example/shop")], NOW);
        let other = ca.sign(SHOP, vec![uri("spiffe://example/other")], NOW);
        let topics = "/v1/topics";
        let status = |response: &str| response[9..12].to_owned();
        for (shown, path, headers, expected) in [
            (Some(&shop), topics, "", "200"),
            (Some(&shop), "/metrics", "", "200"),
            (Some(&other), topics, "", "401"),
            (None, topics, "", "401"),
            // A token is meant: the certificate does not help one that is not taken.
            (Some(&shop), topics, "authorization: Bearer nonsense\r\n", "401"),
            // A browser shows a certificate for any page.
            (Some(&shop), topics, "origin: https://evil.example\r\n", "403"),
        ] {
            let response = by_https(&server, shown, path, headers).await;
            assert_eq!(status(&response), expected, "{path} {headers}: {response}");
        }
        let bearer = format!("authorization: Bearer {}\r\n", token.trim_end());
        let own = by_https(&server, Some(&other), "/metrics", &bearer).await;
        assert_eq!(status(&own), "200", "{own}");
        // On one connection, a name that is taken away is nobody's with the next request.
        let tls = client::tls(&server.ca_pem_path, &[&TLS13], b"http/1.1", Some(&shop));
        let stream = TcpStream::connect(server.http).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
        for expected in ["200", "401"] {
            stream.write_all(b"GET /v1/topics HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            let mut response = vec![0; 4096];
            let len = stream.read(&mut response).await.unwrap();
            assert_eq!(status(&String::from_utf8_lossy(&response[..len])), expected);
            if expected == "200" {
                office.ask(change(&[], &["spiffe://example/shop"])).await;
            }
        }
    })
    .await;
}
