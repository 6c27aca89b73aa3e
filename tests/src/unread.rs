//! What clients cost that ask for everything and read nothing, and what others notice of them.

use std::time::Instant;

use levada_client::Event;
use levada_protocol::{
    request::{Open, Opened, Read, Start},
    verbs::Credit,
};
use tempfile::TempDir;

use crate::support::{events, process::Process, raw};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_thousand_readers_that_read_nothing_cost_little_and_slow_no_publisher() {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(dir.path()).await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let publisher = events::publisher(&client, "orders").await;
    // More than the tail keeps in memory.
    let mut tickets = Vec::new();
    for _ in 0..2_500 {
        tickets.push(publisher.publish(Event::new(vec![b'x'; 60_000])).await.unwrap());
    }
    for ticket in tickets {
        ticket.await.unwrap();
    }
    let publish = async |rounds: u32| {
        let (mut took, mut most) = (Vec::new(), 0);
        for _ in 0..rounds {
            let begun = Instant::now();
            publisher.publish(Event::new("honest")).await.unwrap().await.unwrap();
            took.push(begun.elapsed());
            most = engine.resident_bytes().max(most);
        }
        took.sort_unstable();
        (took[took.len() / 2], most)
    };
    let (quiet, before) = publish(300).await;

    let (connection, _control) =
        raw::greet_with_window(engine.quic.parse().unwrap(), &engine.ca, 50_000).await;
    let read = Read { from: Start::Earliest, ..Read::new("orders".parse().unwrap()) };
    let mut deaf = Vec::new();
    for _ in 0..1_000 {
        let mut stream = raw::Stream::open(&connection, &Open::Read(read.clone())).await;
        assert!(matches!(stream.answer().await, Ok(Opened::Read { .. })));
        stream.send(&Credit { events: u64::MAX, bytes: u64::MAX }.frame()).await;
        deaf.push(stream);
    }
    let (beside, most) = publish(1_000).await;
    drop(deaf);
    connection.close(0_u32.into(), b"");
    let (_, after) = publish(300).await;
    eprintln!(
        "resident MiB: {} before, {} at most with 1,000 readers, {} after; publish p50 {quiet:?} without, {beside:?} beside",
        before / MIB,
        most / MIB,
        after / MIB
    );
    assert!(most < before + 128 * MIB, "memory went from {before} to {most} bytes");
    client.close().await;
    engine.stop().await;
}
