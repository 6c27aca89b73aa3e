//! Health, metrics, and paths that are not there.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Duration, timeout},
};

use super::{against, client, config, with};

/// Status and body of a GET.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(address, "GET", path).await
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn a_running_engine_is_alive_and_ready() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        assert_eq!(get(server.http, "/healthz").await, (200, r#"{"status":"alive"}"#.to_owned()));
        assert_eq!(get(server.http, "/readyz").await, (200, r#"{"status":"ready"}"#.to_owned()));
    })
    .await;
}

#[tokio::test]
async fn metrics_tell_of_connections_and_the_process() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (_connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let (status, page) = get(server.http, "/metrics").await;
        assert_eq!(status, 200);
        for name in ["levada_connections ", "process_cpu_seconds_total ", "process_resident_memory_bytes "] {
            let line = page.lines().find(|line| line.starts_with(name)).expect(name);
            let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!(value > 0.0, "{line}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_path_that_is_not_there_is_a_problem_with_a_code() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (status, body) = get(server.http, "/v1/nothing").await;
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, problem["code"].as_str()), (404, Some("UNSUPPORTED")), "{body}");
        assert!(problem["detail"].as_str().unwrap().contains("/v1/nothing"));
    })
    .await;
}

#[tokio::test]
async fn the_gateway_is_served_beside_health_and_metrics() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (status, body) = get(server.http, "/openapi.json").await;
        assert_eq!(status, 200);
        assert!(body.contains("/v1/topics/{topic}/events"), "{body}");
        let (status, body) = get(server.http, "/v1/topics/absent/events").await;
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, problem["code"].as_str()), (404, Some("TOPIC_NOT_FOUND")), "{body}");
    })
    .await;
}

#[tokio::test]
async fn a_silent_http_connection_gives_its_place_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| {
        config.http.connections_max = 1;
        config.http.idle_timeout = Duration::from_secs(1);
    });
    against(config, async |server| {
        let mut silent = TcpStream::connect(server.http).await.unwrap();
        silent.write_all(b"GET /healthz HT").await.unwrap();
        assert_eq!(get(server.http, "/healthz").await.0, 200);
    })
    .await;
}

#[tokio::test]
async fn half_requests_do_not_keep_others_from_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| config.http.connections_max = 8);
    against(config, async |server| {
        let mut halves = Vec::new();
        for _ in 0..20 {
            let mut half = TcpStream::connect(server.http).await.unwrap();
            half.write_all(b"GET /healthz HT").await.unwrap();
            halves.push(half);
        }
        assert_eq!(get(server.http, "/readyz").await.0, 200);
    })
    .await;
}

#[tokio::test]
async fn who_asks_to_wait_may_wait_longer_than_a_request_may_take_and_the_next_request_may_not() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| config.http.idle_timeout = Duration::from_secs(1));
    against(config, async |server| {
        assert_eq!(ask(server.http, "PUT", "/v1/topics/orders").await.0, 201);
        let mut stream = TcpStream::connect(server.http).await.unwrap();
        let waiting = "GET /v1/topics/orders/events?wait=1500ms HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(waiting.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("levada-complete: true"), "{answer}");
        // Half of another request: the connection ends as any that is silent.
        stream.write_all(b"GET /v1/topics/orders/events?wait=60s HT").await.unwrap();
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "it is cut off");
    })
    .await;
}
