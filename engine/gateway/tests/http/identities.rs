//! Bearer tokens: who asks, what they may do, and until when.

use levada_protocol::{ids::TokenId, token::Token};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    office::Office,
    support::{Answer, Engine, SOON, against},
};

async fn send(engine: &Engine, line: &str, authorization: &str, body: &str) -> Answer {
    let ndjson = ("content-type", "application/x-ndjson");
    engine.send(line, &[("authorization", authorization), ndjson], body.as_bytes()).await
}

#[tokio::test]
async fn nobody_is_served_without_a_token_and_tokens_that_are_not_taken_are_refused_alike() {
    against(1, async |engine| {
        assert_eq!(
            engine.get("/v1/topics/orders/events?from=earliest").await.status,
            200,
            "all are local so far"
        );
        let office = Office::open(&engine).await;
        let token = office.token("shop", &["read orders"]).await;
        let path = "GET /v1/topics/orders/events?from=earliest";
        let nothing = engine.get("/v1/topics/orders/events?from=earliest").await;
        assert_eq!((nothing.status, nothing.code().as_str()), (401, "UNAUTHENTICATED"));
        assert_eq!(nothing.header("www-authenticate"), Some("Bearer"));
        assert_eq!(engine.get("/openapi.json").await.status, 200, "how to ask is for everybody");
        let malformed = send(&engine, path, &format!("Bearer {}", &token[..40]), "").await;
        let detail = malformed.json()["detail"].as_str().unwrap().to_owned();
        assert!(
            malformed.status == 401 && detail.contains("malformed") && !detail.contains(&token[4..20]),
            "{detail}"
        );
        assert_eq!(send(&engine, path, &format!("Bearer {token}"), "").await.status, 200);
        let unknown = Token::new(TokenId(1), [1; 32]).reveal();
        let unknown = send(&engine, path, &format!("Bearer {unknown}"), "").await;
        office.revoke(&token).await;
        let revoked = send(&engine, path, &format!("Bearer {token}"), "").await;
        assert_eq!((unknown.status, revoked.status), (401, 401));
        assert_eq!(unknown.json()["detail"], revoked.json()["detail"]);
    })
    .await;
}

#[tokio::test]
async fn each_verb_allows_its_requests_and_no_others() {
    against(4, async |engine| {
        let office = Office::open(&engine).await;
        let events: String = (0..16).map(|at| format!("{{\"key\":\"k{at}\",\"payload\":{at}}}\n")).collect();
        // Permission; status of a publish of one event, of many for several partitions, and of a read.
        for (name, line, one, many, read) in [
            ("a", "publish orders", 200, 200, 403),
            ("b", "read orders", 403, 403, 200),
            ("c", "browse orders", 403, 403, 403),
            ("d", "publish others", 404, 404, 404),
            ("e", "manage **", 403, 403, 403),
            ("f", "admin", 200, 200, 200),
        ] {
            let bearer = format!("Bearer {}", office.token(name, &[line]).await);
            let publish = "POST /v1/topics/orders/events";
            assert_eq!(send(&engine, publish, &bearer, "{\"payload\":1}\n").await.status, one, "{line}");
            assert_eq!(send(&engine, publish, &bearer, &events).await.status, many, "{line}");
            let got = send(&engine, "GET /v1/topics/orders/events?from=earliest", &bearer, "").await.status;
            assert_eq!(got, read, "{line}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_revoked() {
    against(1, async |engine| {
        let office = Office::open(&engine).await;
        let token = office.token("shop", &["read orders"]).await;
        let mut stream = TcpStream::connect(engine.address).await.unwrap();
        let request = format!(
            "GET /v1/topics/orders/stream HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        timeout(SOON, stream.read_exact(&mut head)).await.unwrap().unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        office.revoke(&token).await;
        let mut rest = Vec::new();
        timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the stream ends").unwrap();
    })
    .await;
}
