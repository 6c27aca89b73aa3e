//! Who gets what next beside consumers that say nothing or take nothing, over real QUIC.

use std::{collections::BTreeSet, time::Duration};

use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    deliver::{DeliverHeader, checked_batches},
    event::Event,
    frame::FrameType,
    ids::{Offset, PartitionId},
    publish::PublishHeader,
    request::{
        Open, Order, Request, Response, Start, Subscribe, SubscriptionInfo, SubscriptionOptions,
        TopicSettings,
    },
    verbs::{Credit, Verb, VerbKind, Verbs},
};
use quinn::Connection;

use super::{
    against,
    client::{self, ClientStream},
    config,
};

const TOPIC: &str = "orders";
const SOON: Duration = Duration::from_secs(20);

/// Publishes one event after the other.
struct Publisher(ClientStream);

impl Publisher {
    async fn to_new_topic(connection: &Connection) -> Self {
        let request =
            Request::CreateTopic { name: TOPIC.parse().unwrap(), settings: TopicSettings::default() };
        client::request(connection, request).await;
        let mut stream =
            ClientStream::open(connection, &Open::Publish { topic: TOPIC.parse().unwrap(), trace: None })
                .await;
        stream.answer().await.unwrap();
        Self(stream)
    }

    async fn publish(&mut self, events: u64) {
        let mut builder = BatchBuilder::new();
        for _ in 0..events {
            builder.push(&Event::new("x")).unwrap();
            let batch = builder.finish(Stamp::ENGINE);
            let (correlation, partition) = (1, PartitionId(0));
            let header =
                PublishHeader { correlation, partition, durability: None, expect_offset: None, due: None };
            let frame = [&header.frame_prefix(batch.bytes().len())[..], batch.bytes()].concat();
            self.0.send.write_all(&frame).await.unwrap();
        }
    }
}

async fn consumer(connection: &Connection, name: &str, options: &SubscriptionOptions) -> ClientStream {
    let subscribe = Subscribe {
        consumer: name.to_owned(),
        options: Some(options.clone()),
        from: Start::Earliest,
        ..Subscribe::new(TOPIC.parse().unwrap(), "payment".parse().unwrap())
    };
    let mut stream = ClientStream::open(connection, &Open::Subscribe(subscribe)).await;
    stream.answer().await.unwrap();
    stream
}

async fn grant(stream: &mut ClientStream) {
    let credit = Credit { events: 1_000_000, bytes: 1 << 30 };
    stream.send.write_all(&credit.frame()).await.unwrap();
}

/// Takes the next delivery and acknowledges it, if it is to be; returns its offsets.
async fn take(stream: &mut ClientStream, acknowledge: bool) -> Vec<Offset> {
    loop {
        let (kind, mut payload) = stream.frame().await.expect("the stream goes on");
        if kind != FrameType::Deliver {
            continue;
        }
        let header = DeliverHeader::read(&mut payload).unwrap();
        let batches = checked_batches(payload).unwrap();
        let offsets = batches.iter().flat_map(|it| it.batch.events().map(|event| event.offset(it.base)));
        let offsets: Vec<Offset> = offsets.collect();
        if acknowledge {
            let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
            let kind = VerbKind::Ack;
            let verb = Verb { kind, partition: header.partition, token: header.token, first, last };
            // Tokens rise, as sequences must.
            let sequence = header.token.0 + 1;
            stream.send.write_all(&Verbs { sequence, verbs: vec![verb] }.frame()).await.unwrap();
        }
        return offsets;
    }
}

async fn describe(connection: &Connection) -> SubscriptionInfo {
    let request =
        Request::DescribeSubscription { topic: TOPIC.parse().unwrap(), name: "payment".parse().unwrap() };
    match client::request(connection, request).await {
        Response::Subscription(info) => *info,
        other => panic!("expected the subscription, got {other:?}"),
    }
}

#[tokio::test]
async fn a_consumer_that_never_acknowledges_costs_no_event_beside_a_healthy_one() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let mut publisher = Publisher::to_new_topic(&connection).await;
        let options = SubscriptionOptions {
            order: Some(Order::None),
            ack_timeout_ms: Some(100),
            max_attempts: Some(4),
            ..SubscriptionOptions::default()
        };
        let mut silent = consumer(&connection, "silent", &options).await;
        grant(&mut silent).await;
        let mut published = 100;
        publisher.publish(published).await;
        take(&mut silent, false).await;
        let mut healthy = consumer(&connection, "healthy", &options).await;
        grant(&mut healthy).await;
        let mut handled = BTreeSet::new();
        let working = async {
            while describe(&connection).await.passed_over.is_empty() {
                publisher.publish(1).await;
                published += 1;
                handled.extend(take(&mut healthy, true).await);
            }
            while (handled.len() as u64) < published {
                handled.extend(take(&mut healthy, true).await);
            }
        };
        let taking = async {
            loop {
                take(&mut silent, false).await;
            }
        };
        tokio::select! {
            ended = tokio::time::timeout(SOON, working) => ended.expect("the healthy one gets everything"),
            () = taking => {}
        }
        let info = describe(&connection).await;
        assert_eq!((info.passed_over, info.dead_lettered), (vec!["silent".to_owned()], 0));
    })
    .await;
}

#[tokio::test]
async fn an_active_consumer_without_credit_gives_its_place_to_one_that_stands_by() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let mut publisher = Publisher::to_new_topic(&connection).await;
        let options = SubscriptionOptions { order: Some(Order::Partition), ..SubscriptionOptions::default() };
        let _first = consumer(&connection, "first", &options).await;
        let mut second = consumer(&connection, "second", &options).await;
        grant(&mut second).await;
        publisher.publish(3).await;
        let got = tokio::time::timeout(SOON, take(&mut second, true)).await;
        assert_eq!(got.expect("it does not wait for the first")[0], Offset(0));
        assert_eq!(describe(&connection).await.consumers, ["second", "first"]);
    })
    .await;
}
