//! Thousands of connections by HTTP that ask for nothing.

use levada_client::TopicSettings;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    disk::publish_one,
    support::{process::Process, within},
};

const MIB: u64 = 1024 * 1024;
const CONNECTIONS: u64 = 10_000;
/// Descriptors that everything else in this process may need meanwhile.
const OTHERS: u64 = 2_000;

/// How many connections this process may have: as many as wanted, unless the machine allows fewer.
fn allowed() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = CONNECTIONS + OTHERS;
    let most = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if current.is_some_and(|current| current < most) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }).unwrap();
    }
    let connections = getrlimit(Resource::Nofile)
        .current
        .map_or(CONNECTIONS, |current| current.saturating_sub(OTHERS))
        .min(CONNECTIONS);
    if connections < CONNECTIONS {
        eprintln!(
            "NOT TESTED with {CONNECTIONS} connections, but with {connections}: this process may not have more files"
        );
    }
    connections
}

#[tokio::test]
async fn ten_thousand_connections_that_ask_for_nothing_cost_little_and_keep_nobody_out() {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(&dir.path().join("data")).await;
    let client = engine.connect().await;
    client.create_topic("orders", TopicSettings::default()).await.unwrap();
    publish_one(&client, 0).await.unwrap();
    let before = engine.resident_bytes();
    let mut halves = Vec::new();
    for number in 0..allowed() {
        let connected = within("a connection", TcpStream::connect(&engine.http)).await;
        let mut half = connected.unwrap_or_else(|error| panic!("connection {number}: {error}"));
        // It fails if the engine has given its place to another already.
        let _ =
            half.write_all(b"POST /v1/topics/orders/events HTTP/1.1\r\nhost: localhost\r\ncontent-le").await;
        halves.push(half);
        if number % 2_500 == 0 {
            assert_eq!(within("health", engine.get("/readyz")).await.0, 200, "beside {number}");
        }
    }
    assert_eq!(within("health", engine.get("/readyz")).await.0, 200);
    publish_one(&client, 1).await.unwrap();
    let during = engine.resident_bytes();
    assert!(during < before + 64 * MIB, "memory went from {before} to {during} bytes");
    drop(halves);
    engine.stop().await;
}
