//! Publishing through losses, refusals and pressure.

use std::{collections::HashSet, future::poll_fn, pin::pin, task::Poll, time::Duration};

use bytes::Bytes;
use levada_client::{
    Error, ErrorCode, Event, Offset, PartitionId, Publisher, PublisherOptions, Refusal, Ticket,
    protocol::limits::EVENT_BYTES_MAX,
};

use crate::support::{Engine, Reaction, Seen, World};

/// One event a batch, so that tests speak of batches.
fn singly() -> PublisherOptions {
    PublisherOptions { batch_bytes: 1, in_flight: 8, ..PublisherOptions::default() }
}

async fn publish_all(publisher: &Publisher, numbers: std::ops::Range<u32>) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for number in numbers {
        tickets.push(publisher.publish(Event::new(number.to_string())).await.unwrap());
    }
    tickets
}

fn stored(world: &World, partition: u16) -> Vec<String> {
    let batches = world.log.get(&partition).into_iter().flatten();
    let payload =
        |event: levada_client::EventRef<'_>| String::from_utf8(event.payload().unwrap().to_vec()).unwrap();
    batches.flat_map(|(_, batch)| batch.events().map(payload).collect::<Vec<_>>()).collect()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn refuse(code: ErrorCode) -> Reaction {
    Reaction::Refuse(Refusal::new(code, "on demand").retry_after(1))
}

#[tokio::test]
async fn tickets_tell_partition_and_offset_of_each_event() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    for (offset, ticket) in publish_all(&publisher, 0..1_000).await.into_iter().enumerate() {
        let receipt = ticket.await.unwrap();
        assert_eq!(receipt.partition, PartitionId(0));
        assert_eq!(receipt.offset.unwrap().0, offset as u64);
        assert!(!receipt.duplicate);
    }
    assert_eq!(stored(&engine.inner.world(), 0), numbers(0..1_000));
    let stats = publisher.stats();
    assert_eq!((stats.events, stats.buffered_bytes), (1_000, 0));
    assert!(stats.batches < 100, "events share batches: {stats:?}");
    assert!(stats.wake_ups < 200, "the driver is woken seldom: {stats:?}");
}

#[tokio::test]
async fn batches_cut_off_by_a_lost_connection_are_resent_in_order_with_their_sequences() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let publisher = client.publisher("orders", singly()).await.unwrap();
    engine.inner.change(|world| {
        world.reactions.extend([Reaction::Append, Reaction::AppendAndCut, Reaction::Cut]);
    });
    let tickets = publish_all(&publisher, 0..20).await;
    publisher.flush().await.unwrap();
    let mut duplicates = 0;
    for (offset, ticket) in tickets.into_iter().enumerate() {
        let receipt = ticket.await.unwrap();
        assert_eq!(receipt.offset.unwrap().0, offset as u64);
        duplicates += u32::from(receipt.duplicate);
    }
    let world = engine.inner.world();
    assert_eq!(stored(&world, 0), numbers(0..20));
    // The first batch too, if the cut overtook its acknowledgement.
    assert!((1..=2).contains(&duplicates), "what was stored before the cut is reported as stored before");
    let producers: HashSet<u128> = world.seen.iter().map(|seen| seen.producer).collect();
    assert_eq!(producers.len(), 1, "one identity survives the reconnect");
    assert!(world.connections >= 2 && publisher.stats().streams >= 2);
}

#[tokio::test]
async fn a_refusal_for_a_while_is_retried_in_order() {
    for code in [ErrorCode::BacklogFull, ErrorCode::StorageFull, ErrorCode::OutcomeUnknown] {
        let engine = Engine::start(1);
        let client = engine.client().await;
        let publisher = client.publisher("orders", singly()).await.unwrap();
        engine.inner.change(|world| {
            world.reactions.extend([Reaction::Append, refuse(code), Reaction::Append, refuse(code)]);
        });
        let tickets = publish_all(&publisher, 0..20).await;
        publisher.flush().await.unwrap();
        for (offset, ticket) in tickets.into_iter().enumerate() {
            assert_eq!(ticket.await.unwrap().offset.unwrap().0, offset as u64, "{code}");
        }
        let world = engine.inner.world();
        assert_eq!(stored(&world, 0), numbers(0..20), "{code}");
        assert_eq!(world.seen.iter().map(|seen| seen.producer).collect::<HashSet<_>>().len(), 1);
        assert_eq!(world.connections, 1);
    }
}

#[tokio::test]
async fn a_final_refusal_fails_its_batch_alone() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let publisher = client.publisher("orders", singly()).await.unwrap();
    engine.inner.change(|world| world.reactions.extend([Reaction::Append, refuse(ErrorCode::Rejected)]));
    let mut tickets = publish_all(&publisher, 0..5).await;
    assert_eq!(publisher.flush().await.unwrap_err().code(), ErrorCode::Rejected);
    let refused = tickets.remove(1);
    assert_eq!(refused.await.unwrap_err().code(), ErrorCode::Rejected);
    for ticket in tickets {
        ticket.await.unwrap();
    }
    let world = engine.inner.world();
    assert_eq!(stored(&world, 0), ["0", "2", "3", "4"]);
    let sequences: Vec<u64> = world.seen.iter().map(|seen| seen.first_sequence).collect();
    assert_eq!(sequences, [0, 1, 2, 3, 4], "the refused batch keeps its place in the sequence");
}

#[tokio::test]
async fn a_forgotten_producer_begins_anew_and_stores_each_event_once() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let publisher = client.publisher("orders", singly()).await.unwrap();
    publish_all(&publisher, 0..3).await;
    publisher.flush().await.unwrap();
    engine.inner.change(|world| world.reactions.push_back(Reaction::Forget));
    publish_all(&publisher, 3..9).await;
    publisher.flush().await.unwrap();
    let world = engine.inner.world();
    assert_eq!(stored(&world, 0), numbers(0..9));
    let producers: Vec<u128> = world.seen.iter().map(|seen| seen.producer).collect();
    let anew = world.seen.iter().find(|seen| seen.producer != producers[0]).unwrap();
    assert_eq!(anew.first_sequence, 0);
}

#[tokio::test]
async fn time_runs_out_for_an_event_that_is_refused_for_ever() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let options = PublisherOptions { delivery_timeout: Duration::from_millis(200), ..singly() };
    let publisher = client.publisher("orders", options).await.unwrap();
    engine.inner.change(|world| {
        world.reactions.extend(vec![refuse(ErrorCode::BacklogFull); 100_000]);
    });
    let ticket = publisher.publish(Event::new("late")).await.unwrap();
    let error = ticket.await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::DeadlineExceeded);
    assert!(error.has_no_side_effects(), "every answer was a clean refusal");
    engine.inner.change(|world| world.reactions.clear());
    publisher.publish(Event::new("next")).await.unwrap().await.unwrap();
    assert_eq!(stored(&engine.inner.world(), 0), ["next"]);
}

#[tokio::test]
async fn an_unknown_outcome_is_in_doubt_when_time_runs_out() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let options = PublisherOptions { delivery_timeout: Duration::from_millis(200), ..singly() };
    let publisher = client.publisher("orders", options).await.unwrap();
    engine.inner.change(|world| world.reactions.push_back(Reaction::Hold));
    let error = publisher.publish(Event::new("held")).await.unwrap().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::DeadlineExceeded);
    assert!(!error.has_no_side_effects());
}

#[tokio::test]
async fn a_full_buffer_holds_publishers_back_and_bounds_memory() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let buffer_bytes = 64 * 1024;
    let options = PublisherOptions { buffer_bytes: Some(buffer_bytes), ..PublisherOptions::default() };
    let publisher = client.publisher("orders", options).await.unwrap();
    engine.inner.change(|world| world.reactions.extend(vec![Reaction::Hold; 8]));
    let payload = Bytes::from(vec![1; 1_000]);
    let total = 500;
    let producer = publisher.clone();
    let producing = async move {
        for _ in 0..total {
            drop(producer.publish(Event::new(payload.clone())).await.unwrap());
        }
    };
    let checking = async {
        // Everything that fits is with the engine, which answers nothing: the rest waits outside.
        engine.inner.until(|world| (world.held >= 2).then_some(())).await;
        while publisher.stats().buffered_bytes < buffer_bytes {
            tokio::task::yield_now().await;
        }
        assert!(publisher.stats().events < total);
        assert!(publisher.stats().buffered_bytes <= buffer_bytes + 1_100);
        engine.inner.change(|world| world.reactions.clear());
        engine.release();
    };
    tokio::join!(producing, checking);
    publisher.flush().await.unwrap();
    assert_eq!(publisher.stats().events, total);
    assert_eq!(stored(&engine.inner.world(), 0).len() as u64, total);
}

#[tokio::test]
async fn what_was_given_up_before_it_had_a_place_is_not_published() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    let (mut published, mut given_up) = (0, 0);
    // This task never lets others run, so that in the end it has to wait.
    for number in 0..5_000 {
        let mut publish = pin!(publisher.publish(Event::new(number.to_string())));
        match poll_fn(|context| Poll::Ready(publish.as_mut().poll(context))).await {
            Poll::Ready(ticket) => {
                drop(ticket.unwrap());
                published += 1;
            }
            Poll::Pending => given_up += 1,
        }
    }
    assert!(published > 0 && given_up > 0, "{published} published, {given_up} given up");
    assert_eq!(publisher.stats().events, published);
    publisher.flush().await.unwrap();
    assert_eq!(stored(&engine.inner.world(), 0).len() as u64, published);
}

#[tokio::test]
async fn tickets_resolve_in_whatever_order_the_answers_come() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let publisher = client.publisher("orders", singly()).await.unwrap();
    engine.inner.change(|world| world.reactions.extend(vec![Reaction::Hold; 3]));
    let mut tickets = publish_all(&publisher, 0..3).await;
    engine.inner.until(|world| (world.held == 3).then_some(())).await;
    assert!(tickets.iter().all(|ticket| ticket.try_receipt().is_none()));
    engine.release();
    for expected in (0..3).rev() {
        assert_eq!(tickets.pop().unwrap().await.unwrap().offset.unwrap().0, expected);
    }
}

#[tokio::test]
async fn a_dropped_ticket_takes_nothing_back_and_flush_waits_for_it() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let publisher = client.publisher("orders", singly()).await.unwrap();
    engine.inner.change(|world| world.reactions.push_back(Reaction::Hold));
    drop(publisher.publish(Event::new("0")).await.unwrap());
    engine.inner.until(|world| (world.held == 1).then_some(())).await;
    let mut flush = Box::pin(publisher.flush());
    assert!(tokio::time::timeout(Duration::ZERO, &mut flush).await.is_err(), "flush came back early");
    engine.release();
    flush.await.unwrap();
    assert_eq!(stored(&engine.inner.world(), 0), ["0"]);
}

#[tokio::test]
async fn a_dropped_publisher_still_sends_what_was_published() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let options = PublisherOptions { linger: Duration::from_secs(3600), ..PublisherOptions::default() };
    let publisher = client.publisher("orders", options).await.unwrap();
    let tickets = publish_all(&publisher, 0..10).await;
    drop(publisher);
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(stored(&engine.inner.world(), 0), numbers(0..10));
}

#[tokio::test]
async fn lingering_gathers_events_into_one_batch() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let options = PublisherOptions { linger: Duration::from_millis(300), ..PublisherOptions::default() };
    let publisher = client.publisher("orders", options).await.unwrap();
    let mut tickets = Vec::new();
    for number in 0..10 {
        tickets.push(publisher.publish(Event::new(number.to_string())).await.unwrap());
        tokio::task::yield_now().await;
    }
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(engine.inner.world().seen.len(), 1);
}

#[tokio::test]
async fn an_event_over_a_limit_is_refused_before_it_is_sent() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    for event in [Event::new(vec![0; EVENT_BYTES_MAX]), Event::new("").with_key(vec![0; 5_000])] {
        let error = publisher.publish(event).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::EventTooLarge);
        assert!(error.has_no_side_effects());
    }
    let largest = Event::new(vec![0; EVENT_BYTES_MAX - 12]);
    publisher.publish(largest).await.unwrap().await.unwrap();
    assert_eq!(engine.inner.world().seen.len(), 1);
    assert_eq!(publisher.stats().events, 1);
}

#[tokio::test]
async fn events_go_to_the_partition_of_key_or_id_or_in_turn() {
    let engine = Engine::start(4);
    let client = engine.client().await;
    let publisher = client.publisher("orders", singly()).await.unwrap();
    let mut by_key = HashSet::new();
    let mut in_turn = HashSet::new();
    for number in 0..8 {
        let keyed = Event { id: Some(number.to_string().into()), ..Event::new("").with_key("order-42") };
        by_key.insert(publisher.publish(keyed).await.unwrap().await.unwrap().partition);
        let bare = publisher.publish(Event::new("")).await.unwrap();
        in_turn.insert(bare.await.unwrap().partition);
    }
    let expected = levada_client::protocol::partition::partition_of(b"order-42", 4);
    assert_eq!(by_key, HashSet::from([expected]));
    assert_eq!(in_turn.len(), 4);
    let named = Event { id: Some("order-42".into()), ..Event::new("") };
    assert_eq!(publisher.publish(named).await.unwrap().await.unwrap().partition, expected);
    let there = publisher.publish_to(PartitionId(3), Event::new("")).await.unwrap();
    assert_eq!(there.await.unwrap().partition, PartitionId(3));
    let nowhere = publisher.publish_to(PartitionId(4), Event::new("")).await.unwrap_err();
    assert_eq!(nowhere.code(), ErrorCode::PartitionNotFound);
}

#[tokio::test]
async fn under_load_events_without_a_key_are_even_over_the_partitions() {
    let mut batches = Vec::new();
    for partitions in [1, 4] {
        let engine = Engine::start(partitions);
        let publisher = engine.client().await.publisher("orders", PublisherOptions::default()).await.unwrap();
        let tickets = publish_all(&publisher, 0..100_000).await;
        for ticket in tickets {
            ticket.await.unwrap();
        }
        batches.push(publisher.stats().batches);
        let world = engine.inner.world();
        let events = |partition| world.log[&partition].iter().map(|(_, batch)| batch.count()).sum::<u32>();
        let events: Vec<u32> = (0..partitions).map(events).collect();
        let (least, most) = (events.iter().min().unwrap(), events.iter().max().unwrap());
        assert!(most <= &(2 * least), "{events:?}");
    }
    assert!(batches[1] <= 2 * batches[0], "more partitions do not make smaller batches: {batches:?}");
}

#[tokio::test]
async fn no_more_batches_are_in_flight_than_allowed() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let options = PublisherOptions { in_flight: 3, ..singly() };
    let publisher = client.publisher("orders", options).await.unwrap();
    engine.inner.change(|world| world.reactions.extend(vec![Reaction::Hold; 3]));
    let tickets = publish_all(&publisher, 0..10).await;
    engine.inner.until(|world| (world.held == 3).then_some(())).await;
    // A request on the same connection comes after whatever the publisher has sent by now.
    client.list_topics().await.unwrap();
    assert_eq!(engine.inner.world().seen.len(), 3);
    engine.release();
    for ticket in tickets {
        ticket.await.unwrap();
    }
}

#[tokio::test]
async fn a_topic_that_is_gone_ends_the_publisher() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let publisher = client.publisher("orders", singly()).await.unwrap();
    engine.inner.change(|world| {
        world.reactions.push_back(Reaction::Cut);
        world.refuse_open.push_back(Refusal::new(ErrorCode::TopicNotFound, "no topic orders"));
    });
    let ticket = publisher.publish(Event::new("")).await.unwrap();
    assert_eq!(ticket.await.unwrap_err().code(), ErrorCode::TopicNotFound);
    let error = publisher.publish(Event::new("")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TopicNotFound);
    let refusal = Refusal::new(ErrorCode::TopicNotFound, "no topic orders");
    engine.inner.change(|world| world.refuse_open.push_back(refusal));
    let error = client.publisher("orders", singly()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TopicNotFound);
}

#[tokio::test]
async fn closing_the_client_fails_what_is_in_flight() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let publisher = client.publisher("orders", singly()).await.unwrap();
    engine.inner.change(|world| world.reactions.push_back(Reaction::Hold));
    let ticket = publisher.publish(Event::new("")).await.unwrap();
    engine.inner.until(|world| (world.held == 1).then_some(())).await;
    client.close().await;
    let error = ticket.await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ConnectionLost);
    assert!(!error.has_no_side_effects(), "it was sent");
    let error = publisher.publish(Event::new("")).await.unwrap_err();
    assert!(error.has_no_side_effects(), "it was not");
}

#[tokio::test]
async fn nothing_lingers_while_somebody_waits_for_room() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let options = PublisherOptions {
        linger: Duration::from_secs(3600),
        buffer_bytes: Some(1_000),
        ..PublisherOptions::default()
    };
    let publisher = client.publisher("orders", options).await.unwrap();
    for _ in 0..10 {
        drop(publisher.publish(Event::new(vec![0; 400])).await.unwrap());
    }
    publisher.flush().await.unwrap();
    assert_eq!(engine.inner.world().seen.iter().map(|seen| seen.count).sum::<u32>(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_with_one_event_each_share_batches() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let publisher = publisher.clone();
        tasks.spawn(async move {
            for _ in 0..50 {
                publisher.publish(Event::new("x")).await.unwrap().await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let world = engine.inner.world();
    let events: u32 = world.seen.iter().map(|seen: &Seen| seen.count).sum();
    assert_eq!(events, 64 * 50);
    assert!(world.seen.len() < 64 * 50 / 4, "{} batches", world.seen.len());
}

#[tokio::test]
async fn an_append_at_an_expected_offset_is_made_once_or_says_which_offset_it_found() {
    let engine = Engine::start(2);
    let client = engine.client().await;
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    let partition = PartitionId(1);
    let events = |range: std::ops::Range<u32>| range.map(|number| Event::new(number.to_string())).collect();
    let first = publisher.append_at(partition, Offset(0), events(0..3)).await.unwrap();
    let offsets: Vec<u64> = first.iter().map(|receipt| receipt.offset.unwrap().0).collect();
    assert_eq!(offsets, [0, 1, 2]);
    let error = publisher.append_at(partition, Offset(1), events(3..4)).await.unwrap_err();
    let Error::OffsetMismatch { partition: PartitionId(1), expected, found } = &error else {
        panic!("{error}")
    };
    assert_eq!((*expected, *found), (Offset(1), Offset(3)));
    assert!(!error.is_retryable() && error.has_no_side_effects());
    // It is stored, and the connection lost before the answer: the resend is known.
    engine.inner.change(|world| world.reactions.push_back(Reaction::AppendAndCut));
    let resent = publisher.append_at(partition, Offset(3), events(3..5)).await.unwrap();
    assert!(resent.iter().all(|receipt| receipt.duplicate && !receipt.same_id));
    assert_eq!(stored(&engine.inner.world(), 1), numbers(0..5));
    let none = publisher.append_at(partition, Offset(5), Vec::new()).await.unwrap_err();
    assert_eq!(none.code(), ErrorCode::ConfigInvalid);
    let nowhere = publisher.append_at(PartitionId(2), Offset(0), events(0..1)).await.unwrap_err();
    assert_eq!(nowhere.code(), ErrorCode::PartitionNotFound);
}
