//! Publishers with a name: they keep it, and stop for good when another has taken it over.

use levada_client::{
    Error, ErrorCode, Event, PartitionId, Publisher, PublisherOptions, Refusal, Request, Ticket,
};

use crate::support::{Engine, Reaction, streams::NAMED};

/// One event a batch.
fn importer() -> PublisherOptions {
    let producer = Some("importer".parse().unwrap());
    PublisherOptions { batch_bytes: 1, producer, ..PublisherOptions::default() }
}

async fn publish_to(publisher: &Publisher, partition: u16, count: u32) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for number in 0..count {
        let event = Event::new(number.to_string());
        tickets.push(publisher.publish_to(PartitionId(partition), event).await.unwrap());
    }
    tickets
}

fn is_fenced<T>(result: Result<T, Error>, doubted: bool) -> bool {
    let Err(error) = result else { return false };
    assert!(!error.is_retryable() && error.has_no_side_effects() != doubted, "{error:?}");
    matches!(error, Error::Fenced { in_doubt, .. } if in_doubt == doubted)
}

/// How often the name was opened, as the engine was asked.
fn openings(engine: &Engine) -> usize {
    let world = engine.inner.world();
    let opens = |request: &&Request| match request {
        Request::OpenProducer { topic, name } => (topic.as_str(), name.as_str()) == ("orders", "importer"),
        _ => false,
    };
    world.requests.iter().filter(opens).count()
}

#[tokio::test]
async fn a_name_is_opened_once_and_kept_over_reconnects_and_forgotten_sequences() {
    let engine = Engine::start(2);
    let client = engine.client().await;
    let publisher = client.publisher("orders", importer()).await.unwrap();
    let cuts = [Reaction::Append, Reaction::AppendAndCut, Reaction::Cut];
    for (partition, first, reactions) in [(0, 0, &cuts[..]), (0, 9, &[Reaction::Forget]), (1, 0, &[])] {
        engine.inner.change(|world| world.reactions.extend(reactions.iter().cloned()));
        for (offset, ticket) in (first..).zip(publish_to(&publisher, partition, 9).await) {
            assert_eq!(ticket.await.unwrap().offset.unwrap().0, offset);
        }
    }
    assert_eq!(openings(&engine), 1);
    let world = engine.inner.world();
    assert!(world.connections >= 2);
    assert!(world.seen.iter().all(|seen| seen.epoch == 1));
    // A number of its own choice, where the engine had forgotten the one before.
    let first = NAMED.0;
    assert!(world.seen.iter().all(|seen| (first..first + 3).contains(&seen.producer)), "{:?}", world.seen);
    assert!(world.seen.iter().any(|seen| seen.producer > first));
}

#[tokio::test]
async fn a_publisher_whose_name_was_taken_over_stops_in_every_partition_for_good() {
    let engine = Engine::start(2);
    let client = engine.client().await;
    let publisher = client.publisher("orders", importer()).await.unwrap();
    for ticket in publish_to(&publisher, 0, 1).await {
        ticket.await.unwrap();
    }
    let successor = client.publisher("orders", importer()).await.unwrap();
    for ticket in publish_to(&publisher, 1, 5).await {
        assert!(is_fenced(ticket.await, false));
    }
    let seen = engine.inner.world().seen.len();
    assert!(is_fenced(publisher.publish_to(PartitionId(0), Event::new("late")).await, false));
    assert!(is_fenced(publisher.flush().await, false));
    let appended = publisher.append_at(PartitionId(0), levada_client::Offset(1), vec![Event::new("late")]);
    assert!(is_fenced(appended.await, false));
    for ticket in publish_to(&successor, 1, 5).await {
        ticket.await.unwrap();
    }
    assert_eq!(openings(&engine), 2, "it does not take its name back");
    let world = engine.inner.world();
    let later: Vec<u32> = world.seen[seen..].iter().map(|seen| seen.epoch).collect();
    assert_eq!(later, [2; 5], "nothing is sent again");
    let (first, base) = (&world.seen[1..seen], NAMED.0);
    assert!(first.iter().all(|seen| (seen.producer, seen.epoch) == (base, 1)), "{first:?}");
}

#[tokio::test]
async fn what_was_sent_before_a_loss_is_in_doubt_once_the_name_is_another_s() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let publisher = client.publisher("orders", importer()).await.unwrap();
    engine.inner.change(|world| world.reactions.push_back(Reaction::AppendAndTakeOver));
    for ticket in publish_to(&publisher, 0, 1).await {
        assert!(is_fenced(ticket.await, true));
    }
    assert!(is_fenced(publisher.publish(Event::new("late")).await, false), "nobody has sent this one");
    assert_eq!(engine.inner.world().log[&0].len(), 1);
}

#[tokio::test]
async fn a_publisher_whose_name_is_forgotten_stops_after_one_try_under_another_number() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let publisher = client.publisher("orders", importer()).await.unwrap();
    let unknown = || Reaction::Refuse(Refusal::new(ErrorCode::ProducerUnknown, "open it again"));
    engine.inner.change(|world| world.reactions.extend([Reaction::Append, unknown(), unknown()]));
    for ticket in publish_to(&publisher, 0, 1).await {
        ticket.await.unwrap();
    }
    for ticket in publish_to(&publisher, 0, 1).await {
        assert_eq!(ticket.await.unwrap_err().code(), ErrorCode::ProducerUnknown);
    }
    let late = publisher.publish(Event::new("late")).await.unwrap_err();
    assert_eq!(late.code(), ErrorCode::ProducerUnknown);
    let world = engine.inner.world();
    let numbers: Vec<u128> = world.seen.iter().map(|seen| seen.producer - NAMED.0).collect();
    assert_eq!(numbers, [0, 0, 1]);
}

#[tokio::test]
async fn an_opening_whose_answer_is_lost_is_repeated() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    engine.inner.change(|world| world.cut_openings = 1);
    let publisher = client.publisher("orders", importer()).await.unwrap();
    for ticket in publish_to(&publisher, 0, 1).await {
        ticket.await.unwrap();
    }
    assert_eq!(engine.inner.world().seen[0].epoch, 2);
}

#[tokio::test]
async fn options_that_are_refused_shut_nobody_out() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let refused = client.publisher("orders", PublisherOptions { in_flight: 0, ..importer() }).await;
    assert_eq!(refused.unwrap_err().code(), ErrorCode::ConfigInvalid);
    assert_eq!(engine.inner.world().openings, 0);
}
