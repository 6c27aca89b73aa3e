use bytes::Bytes;

use super::*;
use crate::{
    event::Event,
    ids::{Epoch, Offset, ProducerId, Sequence, Timestamp},
};

fn stamp() -> Stamp {
    Stamp { producer_id: ProducerId(7), epoch: Epoch(1), first_sequence: Sequence(9) }
}

fn events() -> Vec<Event> {
    vec![
        Event::new("a").with_key("k").at(Timestamp(1_000)),
        Event { payload: None, ..Event::default() }.with_header("h", "v").at(Timestamp(900)),
        Event { id: Some("id-1".into()), ttl_ms: Some(5), ..Event::new("") }.at(Timestamp(1_100)),
        Event::new("").with_key("").at(Timestamp(1_000)),
    ]
}

#[test]
fn what_is_pushed_is_read_back() {
    let mut builder = BatchBuilder::new();
    for event in events() {
        builder.push(&event).unwrap();
    }
    let batch = Batch::check(builder.finish(stamp()).bytes().clone()).unwrap();
    let read: Vec<Event> = batch.events().map(|event| event.to_event(&batch)).collect();
    assert_eq!(read, events());
    assert_eq!(batch.header().first_sequence, 9);
    assert_eq!(batch.events().last().unwrap().offset(Offset(10)), Offset(13));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut builder = BatchBuilder::new();
    for event in events() {
        builder.push(&event).unwrap();
    }
    let good = builder.finish(stamp()).bytes().to_vec();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Batch::check(Bytes::from(bad)).is_err(), "bit {bit}");
    }
    for len in 0..good.len() {
        assert!(Batch::check(Bytes::copy_from_slice(&good[..len])).is_err(), "cut to {len}");
    }
}

#[test]
fn a_borrowed_walk_reads_the_same_events() {
    let mut builder = BatchBuilder::new();
    let mut bytes = Vec::new();
    for event in events() {
        builder.push(&event).unwrap();
    }
    let batch = builder.finish(stamp());
    bytes.extend_from_slice(batch.bytes());
    bytes.extend_from_slice(batch.bytes());
    let mut rest = &bytes[..];
    for _ in 0..2 {
        let borrowed = BatchRef::split_first(&mut rest).unwrap();
        assert_eq!(borrowed.header(), batch.header());
        let records: Vec<&[u8]> = borrowed.events().map(|event| event.record()).collect();
        assert_eq!(records, batch.events().map(|event| event.record()).collect::<Vec<_>>());
    }
    assert!(BatchRef::split_first(&mut rest).is_none());
    assert!(BatchRef::split_first(&mut &bytes[..batch.bytes().len() - 1]).is_none());
}
