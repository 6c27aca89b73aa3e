//! Publishing under a name: who took it over last publishes, and nobody before it, whatever is killed meanwhile.

use std::collections::HashMap;

use levada_client::{
    Client, DeleteOptions, Error, ErrorCode, Event, PartitionId, Publisher, PublisherOptions, Request,
    Response, protocol::request::OpenedProducer,
};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::support::{
    engine::Engine,
    events::{self, code, numbered, offset},
    process::Process,
    raw::{self, Ask, PublishStream, batch, stored},
    within,
};

async fn importer(client: &Client) -> Publisher {
    let options = PublisherOptions {
        batch_bytes: 2_000,
        buffer_bytes: Some(64 * 1024),
        producer: Some("importer".parse().unwrap()),
        ..PublisherOptions::default()
    };
    within("the takeover", client.publisher("orders", options)).await.unwrap()
}

fn opening(topic: &str) -> Request {
    Request::OpenProducer { topic: topic.parse().unwrap(), name: "importer".parse().unwrap() }
}

/// Takes the name over on bare frames.
async fn open(connection: &quinn::Connection) -> OpenedProducer {
    match raw::request(connection, opening("orders")).await {
        Response::Producer(opened) => *opened,
        other => panic!("expected the producer, got {other:?}"),
    }
}

fn ask(partition: u16) -> Ask {
    Ask { partition, ..Ask::default() }
}

/// A batch of one event, under the id of this number.
fn one(owner: OpenedProducer, number: u128, sequence: u64) -> levada_client::protocol::batch::Batch {
    batch(owner.producer_id.0 | number, owner.epoch, sequence, &[numbered(sequence)])
}

#[tokio::test]
async fn who_was_taken_over_is_refused_also_where_its_successor_never_published_and_after_a_kill() {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(dir.path()).await;
    let (client, address) = (engine.connect().await, engine.quic.clone());
    client.create_topic("orders", events::partitions(4)).await.unwrap();
    client.close().await;
    let (connection, _control, _) = raw::greet(address.parse().unwrap(), &engine.ca).await;
    let first = open(&connection).await;
    assert_eq!((first.epoch, first.producer_id.base()), (1, first.producer_id));
    let mut stream = PublishStream::open(&connection, "orders").await;
    assert_eq!(stream.publish(ask(0), one(first, 0, 0).bytes()).await, stored(0, 1, false));
    assert_eq!(stream.publish(ask(0), one(first, 5, 0).bytes()).await, stored(1, 1, false));
    let second = open(&connection).await;
    assert_eq!(second, OpenedProducer { epoch: 2, ..first });
    // Nothing but the opening itself was written since.
    engine.kill().await;
    let engine = Process::start_at(dir.path(), &address).await;
    let (connection, _control, _) = raw::greet(address.parse().unwrap(), &engine.ca).await;
    let mut stream = PublishStream::open(&connection, "orders").await;
    for partition in 0..4 {
        for (number, sequence) in [(0, 0), (0, 1), (9, 0)] {
            let refused = stream.publish(ask(partition), one(first, number, sequence).bytes()).await;
            assert_eq!(raw::refused(&refused), ErrorCode::ProducerFenced, "{partition} {number} {sequence}");
        }
    }
    assert_eq!(stream.publish(ask(3), one(second, 0, 0).bytes()).await, stored(0, 1, false));
    assert_eq!(stream.publish(ask(0), one(second, 0, 0).bytes()).await, stored(2, 1, false));
    assert_eq!(stream.publish(ask(0), one(second, 0, 0).bytes()).await, stored(2, 1, true));
    let never = OpenedProducer { epoch: 3, ..second };
    let refused = stream.publish(ask(1), one(never, 0, 0).bytes()).await;
    assert_eq!(raw::refused(&refused), ErrorCode::ProducerUnknown);
    assert_eq!(open(&connection).await.epoch, 3);
    engine.stop().await;
}

#[tokio::test]
async fn a_name_is_of_one_topic_and_goes_with_it() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    events::topic(&client, "bills").await;
    let (connection, _control, _) = raw::greet(engine.started.quic, &engine.started.ca_pem_path).await;
    let first = open(&connection).await;
    let Response::Producer(other) = raw::request(&connection, opening("bills")).await else {
        panic!("no producer")
    };
    assert_eq!(other.epoch, 1);
    assert_ne!(other.producer_id, first.producer_id);
    let mut bills = PublishStream::open(&connection, "bills").await;
    let refused = bills.publish(ask(0), one(first, 0, 0).bytes()).await;
    assert_eq!(raw::refused(&refused), ErrorCode::ProducerUnknown);
    client.delete_topic("orders", DeleteOptions::default()).await.unwrap();
    let gone = raw::request(&connection, opening("orders")).await;
    assert!(
        matches!(&gone, Response::Refused(refusal) if refusal.code == ErrorCode::TopicNotFound),
        "{gone:?}"
    );
    events::topic(&client, "orders").await;
    let mut orders = PublishStream::open(&connection, "orders").await;
    let refused = orders.publish(ask(0), one(first, 0, 0).bytes()).await;
    assert_eq!(raw::refused(&refused), ErrorCode::ProducerUnknown);
    let anew = open(&connection).await;
    assert_eq!(anew.epoch, 1);
    assert_ne!(anew.producer_id, first.producer_id);
}

/// Publishes numbers until it is refused; says so when the first of them is stored. Returns what became of each.
async fn publish_until_fenced(
    publisher: Publisher,
    begun: oneshot::Sender<()>,
) -> Vec<Result<(u16, u64), Error>> {
    let mut tickets = Vec::new();
    let first = publisher.publish(numbered(0)).await.unwrap();
    let receipt = within("the first", first).await.unwrap();
    begun.send(()).unwrap();
    let refused = loop {
        match within("room", publisher.publish(numbered(1 + tickets.len() as u64))).await {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Fenced { in_doubt: false, .. }), "{refused:?}");
    let mut outcomes = vec![Ok((receipt.partition.0, offset(&receipt)))];
    for ticket in tickets {
        let outcome = within("its end", ticket).await;
        outcomes.push(outcome.map(|receipt| (receipt.partition.0, offset(&receipt))));
    }
    assert!(matches!(publisher.flush().await, Err(Error::Fenced { .. })));
    outcomes
}

#[tokio::test]
async fn of_two_publishers_of_a_name_the_first_stores_nothing_once_the_second_is_there() {
    let engine = Engine::start().await;
    let (client, other) = (engine.connect().await, engine.connect().await);
    client.create_topic("orders", events::partitions(4)).await.unwrap();
    let (begun, stored) = oneshot::channel();
    let first = importer(&client).await;
    let taking_over = async {
        stored.await.unwrap();
        let second = importer(&other).await;
        // Whatever is there now is all that the first has stored.
        let ends: Vec<u64> =
            other.describe_topic("orders").await.unwrap().partitions.iter().map(|it| it.end).collect();
        for partition in 0..4 {
            let ticket = second.publish_to(PartitionId(partition), Event::new("second")).await.unwrap();
            let receipt = within("the second's", ticket).await.unwrap();
            assert_eq!(offset(&receipt), ends[usize::from(partition)], "nothing came in between");
        }
        ends
    };
    let (outcomes, ends) = tokio::join!(publish_until_fenced(first, begun), taking_over);
    let mut places: HashMap<String, Vec<(u16, u64)>> = HashMap::new();
    for (partition, found) in events::read_all(&client, "orders").await {
        assert_eq!(found.len() as u64, ends[usize::from(partition)] + 1, "the second's is the last");
        for (offset, event) in found {
            let text = String::from_utf8_lossy(events::payload(&event)).into_owned();
            places.entry(text).or_default().push((partition, offset));
        }
    }
    let mut refused = 0;
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let found = places.get(&number.to_string()).map_or(&[][..], Vec::as_slice);
        match outcome {
            Ok(place) => assert_eq!(found, [place], "{number} was acknowledged, and is stored once"),
            Err(Error::Fenced { in_doubt: false, .. }) => {
                assert!(found.is_empty(), "{number} was refused");
                refused += 1;
            }
            Err(error) => panic!("{number}: {error}"),
        }
    }
    assert!(refused > 0, "some were on their way");
}

#[tokio::test]
async fn a_name_outlives_its_engine_and_its_publisher_goes_on_until_it_is_taken_over() {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(dir.path()).await;
    let (client, address) = (engine.connect().await, engine.quic.clone());
    events::topic(&client, "orders").await;
    let first = importer(&client).await;
    let mut tickets = Vec::new();
    for number in 0..2_000 {
        tickets.push(first.publish(numbered(number)).await.unwrap());
    }
    // With what is under way.
    engine.kill().await;
    let engine = Process::start_at(dir.path(), &address).await;
    for (number, ticket) in (0..).zip(tickets) {
        assert_eq!(offset(&within("a ticket", ticket).await.unwrap()), number);
    }
    let other = engine.connect().await;
    let second = importer(&other).await;
    let late = first.publish(numbered(2_000)).await.unwrap();
    assert_eq!(code(within("the late one", late).await), ErrorCode::ProducerFenced);
    let ticket = second.publish(numbered(2_000)).await.unwrap();
    assert_eq!(offset(&within("the second's", ticket).await.unwrap()), 2_000);
    let log = events::read_all(&other, "orders").await;
    let numbers: Vec<u64> =
        log[&0].iter().map(|(_, event)| events::number_of(events::payload(event))).collect();
    assert!(numbers.into_iter().eq(0..=2_000), "each once, in order");
    client.close().await;
    other.close().await;
    engine.stop().await;
}
