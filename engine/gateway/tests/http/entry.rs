//! What holds for every request: ids, hosts, origins, paths and methods that are not there.

use crate::support::{against, with};

#[tokio::test]
async fn a_request_id_that_is_sane_comes_back_and_any_other_is_replaced() {
    against(1, async |engine| {
        let answer = engine.publish(&[("x-request-id", "mine-7")], "x").await;
        assert_eq!(answer.header("x-request-id"), Some("mine-7"));
        let first = engine.publish(&[], "x").await;
        let long = engine.publish(&[("x-request-id", &"x".repeat(129))], "x").await;
        let blank = engine.publish(&[("x-request-id", "a b")], "x").await;
        let ids = [&first, &long, &blank].map(|answer| answer.header("x-request-id").unwrap());
        assert!(ids.iter().all(|id| id.len() == 32), "{ids:?}");
        assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
        let missing = engine.send("GET /nowhere", &[("x-request-id", "mine-8")], b"").await;
        assert_eq!((missing.status, missing.code().as_str()), (404, "UNSUPPORTED"));
        assert_eq!(missing.json()["request_id"], "mine-8");
    })
    .await;
}

#[tokio::test]
async fn a_method_that_is_not_there_is_a_problem_that_names_the_others() {
    against(1, async |engine| {
        let answer = engine.send("DELETE /v1/topics/orders/events", &[], b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (405, "UNSUPPORTED"));
        assert!(answer.header("allow").is_some_and(|allow| allow.contains("POST")), "{answer:?}");
    })
    .await;
}

#[tokio::test]
async fn while_there_are_no_identities_other_hosts_and_pages_are_refused() {
    against(1, async |engine| {
        let request = |host: &str| {
            format!("POST /v1/topics/orders/events HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx")
        };
        for host in ["rebound.example", "127.0.0.1.rebound.example:80"] {
            let answer = engine.raw(request(host).as_bytes()).await;
            assert_eq!((answer.status, answer.code().as_str()), (403, "PERMISSION_DENIED"), "{host}");
        }
        assert_eq!(engine.raw(request("127.0.0.1:7601").as_bytes()).await.status, 200);
        let absolute = "GET http://rebound.example/v1/topics/orders/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        assert_eq!(engine.raw(absolute.as_bytes()).await.status, 403);
        let twice = "GET /v1/topics/orders/events HTTP/1.1\r\nhost: localhost\r\nhost: rebound.example\r\nconnection: close\r\n\r\n";
        assert_eq!(engine.raw(twice.as_bytes()).await.status, 400);
        for origin in ["https://page.example", "null", "http://localhost:7601"] {
            let answer = engine.publish(&[("origin", origin)], "x").await;
            assert_eq!((answer.status, answer.code().as_str()), (403, "PERMISSION_DENIED"), "{origin}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    })
    .await;
}

#[tokio::test]
async fn pages_of_listed_origins_may_call() {
    let listed = "https://console.example";
    with(
        1,
        |config| config.cors_origins.push(listed.to_owned()),
        async |engine| {
            let answer = engine.publish(&[("origin", listed)], "x").await;
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(listed)));
            let asked = [
                ("origin", listed),
                ("access-control-request-method", "POST"),
                ("access-control-request-headers", "levada-key"),
            ];
            let preflight = engine.send("OPTIONS /v1/topics/orders/events", &asked, b"").await;
            assert_eq!(
                (preflight.status, preflight.header("access-control-allow-headers")),
                (204, Some("levada-key"))
            );
            assert_eq!(preflight.header("access-control-allow-origin"), Some(listed));
            let other = engine
                .send("OPTIONS /v1/topics/orders/events", &[("origin", "https://page.example")], b"")
                .await;
            assert_eq!(other.status, 403);
        },
    )
    .await;
}
