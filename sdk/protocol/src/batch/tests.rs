//! The batch: what is pushed is read back, and nothing else is taken for one.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*, sample::subsequence};

use super::*;
use crate::{
    error::ErrorCode,
    event::{Event, EventTooLarge},
    ids::{Epoch, Offset, ProducerId, Sequence, Timestamp},
    limits::{
        BATCH_BODY_BYTES_MAX, BATCH_EVENTS_MAX, EVENT_BYTES_MAX, EVENT_ID_BYTES_MAX, HEADER_NAME_BYTES_MAX,
        HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX,
    },
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

/// Any event within the limits. An empty id and a time to live of 0 are left out: they mean none.
fn any_event() -> impl Strategy<Value = Event> {
    let header = ("[a-zé]{0,12}", vec(any::<u8>(), 0..20));
    (
        option::of(vec(any::<u8>(), 0..40)),
        vec(header, 0..5),
        option::of(vec(any::<u8>(), 0..200)),
        prop_oneof![any::<u32>().prop_map(u64::from), any::<u64>()],
        option::weighted(0.2, "[a-zé-]{1,20}"),
        option::weighted(0.2, 1..=u32::MAX),
    )
        .prop_map(|(key, headers, payload, time, id, ttl_ms)| Event {
            key: key.map(Bytes::from),
            headers: headers.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect(),
            payload: payload.map(Bytes::from),
            time: Some(Timestamp(time)),
            id: id.map(Into::into),
            ttl_ms,
        })
}

fn read_back(batch: &Batch) -> Vec<Event> {
    batch.events().map(|event| event.to_event(batch)).collect()
}

proptest! {
    #[test]
    fn any_mix_of_events_is_read_back_as_it_was(events in vec(any_event(), 1..40), stamp in any::<(u128, u32, u64)>()) {
        let stamp =
            Stamp { producer_id: ProducerId(stamp.0), epoch: Epoch(stamp.1), first_sequence: Sequence(stamp.2) };
        let mut builder = BatchBuilder::new();
        let mut batches = Vec::new();
        for event in &events {
            if builder.push(event) == Err(BatchFull::Full) {
                // Their times lie too far apart for one batch.
                batches.push(builder.finish(stamp));
                prop_assert_eq!(builder.push(event), Ok(()));
            }
        }
        batches.push(builder.finish(stamp));
        let mut stored = Vec::new();
        let mut read = Vec::new();
        for batch in &batches {
            let checked = Batch::check(batch.bytes().clone());
            prop_assert_eq!(checked.as_ref(), Ok(batch));
            let header = batch.header();
            prop_assert_eq!((header.producer_id, header.epoch), (stamp.producer_id.0, stamp.epoch.0));
            prop_assert_eq!(header.first_sequence, stamp.first_sequence.0);
            prop_assert_eq!((header.span, header.total_len()), (header.count, batch.bytes().len()));
            read.extend(read_back(batch));
            stored.extend_from_slice(batch.bytes());
        }
        prop_assert_eq!(&read, &events);
        let mut count = 0;
        for placed in Batches::new(Offset(50), Bytes::from(stored)) {
            let (base, batch) = placed.unwrap();
            prop_assert_eq!(base, Offset(50 + count));
            count += u64::from(batch.count());
        }
        prop_assert_eq!(count, events.len() as u64);
    }

    #[test]
    fn a_selection_keeps_events_and_offsets(
        events in vec(any_event(), 12),
        chosen in subsequence((0..12_usize).collect::<Vec<_>>(), 1..12),
        stride in 1_u32..1_000_000,
    ) {
        let mut builder = BatchBuilder::selection();
        let mut expected = Vec::new();
        for index in chosen {
            // Times of one year, so that they fit one batch.
            let event = Event { time: events[index].time.map(|time| Timestamp(time.0 % 0x8000_0000)), ..events[index].clone() };
            let delta = u32::try_from(index).unwrap() * stride;
            let mut plain = BatchBuilder::new();
            plain.push(&event).unwrap();
            let plain = plain.finish(stamp());
            builder.push_ref(delta, &plain.events().next().unwrap()).unwrap();
            expected.push((Offset(7 + u64::from(delta)), event));
        }
        let batch = Batch::check(builder.finish(Stamp::ENGINE).bytes().clone()).unwrap();
        prop_assert!(batch.header().is_selection());
        let last = expected[expected.len() - 1].0;
        prop_assert_eq!(Offset(6 + u64::from(batch.span())), last);
        let read: Vec<(Offset, Event)> =
            batch.events().map(|event| (event.offset(Offset(7)), event.to_event(&batch))).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn a_header_around_garbage_is_refused_or_holds_what_it_says(
        body in vec(any::<u8>(), 0..120), flags in 0_u16..16, count in 0_u32..4, span in 0_u32..5,
    ) {
        if let Ok(batch) = Batch::check(raw(flags, count, span, &body)) {
            prop_assert_eq!(batch.events().count(), count as usize);
            read_back(&batch);
        }
    }
}

/// A batch with a true checksum around any body; its times are 0.
fn raw(flags: u16, count: u32, span: u32, body: &[u8]) -> Bytes {
    let len = u32::try_from(body.len()).unwrap();
    let mut bytes = vec![BATCH_VERSION, 0];
    bytes.extend(flags.to_le_bytes());
    [count, span, len, len].iter().for_each(|field| bytes.extend(field.to_le_bytes()));
    bytes.resize(BATCH_HEADER_BYTES, 0);
    bytes.extend(body);
    resealed(bytes)
}

fn resealed(mut bytes: Vec<u8>) -> Bytes {
    let crc = checksum(&bytes);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    bytes.into()
}

/// A record: `len`, the rest of the fixed part, then whatever follows it.
fn record(key_len: u16, headers: u16, time_delta: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(EVENT_HEADER_BYTES + rest.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(key_len.to_le_bytes());
    bytes.extend(headers.to_le_bytes());
    bytes.extend(time_delta.to_le_bytes());
    bytes.extend(rest);
    bytes
}

#[test]
fn what_a_header_claims_must_be_so() {
    let plain = record(NO_KEY, 0, 0, b"x");
    let good = raw(0, 1, 1, &plain);
    assert!(Batch::check(good.clone()).is_ok());
    let changed = |at: usize, value: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = value;
        Batch::check(resealed(bytes)).unwrap_err()
    };
    assert_eq!(changed(0, 2), BatchError::Version { got: 2 });
    assert_eq!(changed(1, 1), BatchError::Unsupported { field: "codec", got: 1 });
    assert_eq!(changed(2, 16), BatchError::Unsupported { field: "flags", got: 16 });
    for (at, value, name) in
        [(4, 0, "count"), (8, 2, "span"), (16, 1, "uncompressed_len"), (44, 1, "time_span_ms")]
    {
        let error = changed(at, value);
        assert!(matches!(error, BatchError::Field { field, .. } if field == name), "{name}: {error}");
    }
    assert!(matches!(changed(12, 12), BatchError::Length { .. } | BatchError::Field { .. }));
    let two = [&plain[..], &plain].concat();
    assert_eq!(Batch::check(raw(0, 1, 1, &two)), Err(BatchError::Count { expected: 1, got: 2 }));
    assert_eq!(Batch::check(raw(0, 3, 3, &two)), Err(BatchError::Count { expected: 3, got: 2 }));
}

#[test]
fn malformed_events_are_refused_by_their_fault() {
    let mut short = record(NO_KEY, 0, 0, b"");
    short[0] = 11;
    let mut long = record(NO_KEY, 0, 0, b"");
    long[0] = 13;
    let delta = |deltas: &[u32]| -> Vec<u8> {
        deltas.iter().flat_map(|delta| record(NO_KEY, 0, 0, &delta.to_le_bytes())).collect()
    };
    let rows: &[(&str, u16, u32, u32, Vec<u8>)] = &[
        ("its length is cut off", 0, 1, 1, vec![0; 3]),
        ("its length goes past", 0, 1, 1, long),
        ("less than its fixed part", 0, 1, 1, short),
        ("less than its fixed part", FLAG_TTLS, 1, 1, record(NO_KEY, 0, 0, b"123")),
        ("its time is outside", 0, 1, 1, record(NO_KEY, 0, 1, b"")),
        ("its key goes past", 0, 1, 1, record(2, 0, 0, b"k")),
        ("its id goes past", FLAG_IDS, 1, 1, record(NO_KEY, 0, 0, &[2, 0, b'i'])),
        ("its id is not UTF-8", FLAG_IDS, 1, 1, record(NO_KEY, 0, 0, &[1, 0, 0xff])),
        ("a header is cut off", 0, 1, 1, record(NO_KEY, 1, 0, &[0, 0])),
        ("a header goes past", 0, 1, 1, record(NO_KEY, 1, 0, &[1, 1, 0, b'n'])),
        ("name is not UTF-8", 0, 1, 1, record(NO_KEY, 1, 0, &[1, 0, 0, 0xff])),
        ("has no payload, and has one", 0, 1, 1, record(NO_KEY, NO_PAYLOAD, 0, b"x")),
        ("does not rise", FLAG_SELECTION, 2, 2, delta(&[1, 0])),
        ("does not rise", FLAG_SELECTION, 2, 2, delta(&[1, 1])),
        ("outside the span", FLAG_SELECTION, 1, 1, delta(&[1])),
        ("the last offset delta + 1", FLAG_SELECTION, 1, 3, delta(&[1])),
    ];
    for (fault, flags, count, span, body) in rows {
        let error = Batch::check(raw(*flags, *count, *span, body)).unwrap_err().to_string();
        assert!(error.contains(fault), "expected {fault:?}, got {error:?}");
    }
}

/// An event with one header whose name and value are this long.
fn with_header(name: usize, value: usize) -> Event {
    Event::new("").with_header("n".repeat(name), vec![0; value])
}

#[test]
fn every_limit_of_an_event_is_obeyed_and_enforced() {
    let headers = |count| (0..count).fold(Event::new(""), |event, _| event.with_header("n", ""));
    let id = |len| Event { id: Some("i".repeat(len).into()), ..Event::new("") };
    let value_max = HEADERS_BYTES_MAX - 3 - 1;
    let rows = [
        (
            "key",
            Event::new("").with_key(vec![0; KEY_BYTES_MAX]),
            Event::new("").with_key(vec![0; KEY_BYTES_MAX + 1]),
        ),
        ("id", id(EVENT_ID_BYTES_MAX), id(EVENT_ID_BYTES_MAX + 1)),
        ("header count", headers(HEADERS_MAX), headers(HEADERS_MAX + 1)),
        ("header name", with_header(HEADER_NAME_BYTES_MAX, 0), with_header(HEADER_NAME_BYTES_MAX + 1, 0)),
        ("headers", with_header(1, value_max), with_header(1, value_max + 1)),
        (
            "size",
            Event::new(vec![0; EVENT_BYTES_MAX - EVENT_HEADER_BYTES]),
            Event::new(vec![0; EVENT_BYTES_MAX - EVENT_HEADER_BYTES + 1]),
        ),
    ];
    for (name, good, bad) in rows {
        let mut builder = BatchBuilder::new();
        let error = builder.push(&bad).unwrap_err();
        let is_named = matches!(error, BatchFull::TooLarge(EventTooLarge { part, got, limit, .. })
            if part == name && got == limit + 1);
        assert!(is_named, "{name}: {error}");
        assert_eq!(builder.push(&good), Ok(()), "{name}");
        let batch = Batch::check(builder.finish(stamp()).bytes().clone()).unwrap();
        assert_eq!(read_back(&batch), [good.at(Timestamp(0))], "{name}");
    }
}

#[test]
fn a_publisher_gives_no_header_of_the_engines_own() {
    let before = Event::new("before").at(Timestamp(0));
    let forged = Event::new("x").with_header("own", "1").with_header("lv-dlq-reason", "made up");
    let forged = forged.at(Timestamp(0));
    let mut builder = BatchBuilder::new();
    builder.push(&before).unwrap();
    let error = builder.push(&forged).unwrap_err();
    assert!(
        matches!(&error, BatchFull::HeaderReserved(reserved) if reserved.name == "lv-dlq-reason"),
        "{error}"
    );
    assert_eq!(builder.count(), 1, "it took no room");
    let mut engine = BatchBuilder::of_engine();
    engine.push(&before).unwrap();
    engine.push(&forged).unwrap();
    let batch = engine.finish(stamp());
    let error = Batch::check(batch.bytes().clone()).unwrap_err();
    assert!(matches!(error, BatchError::HeaderReserved { index: 1, .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::HeaderReserved);
    let read = Batch::check_first(&mut batch.bytes().clone()).unwrap();
    assert_eq!(read_back(&read), [before, forged]);
    builder.push(&Event::new("").with_header("lv", "1").with_header("LV-x", "2")).unwrap();
}

#[test]
fn a_batch_that_holds_an_event_over_a_limit_is_refused() {
    let header = |name: usize, value: usize| {
        let mut bytes = vec![u8::try_from(name).unwrap()];
        bytes.extend(u16::try_from(value).unwrap().to_le_bytes());
        bytes.resize(3 + name + value, b'n');
        bytes
    };
    let id = [&129_u16.to_le_bytes()[..], &[b'i'; 129]].concat();
    let rows = [
        ("key", 0, record(4_097, 0, 0, &[0; 4_097])),
        ("id", FLAG_IDS, record(NO_KEY, 0, 0, &id)),
        ("header count", 0, record(NO_KEY, 65, 0, &header(0, 0).repeat(65))),
        ("header name", 0, record(NO_KEY, 1, 0, &header(129, 0))),
        ("headers", 0, record(NO_KEY, 1, 0, &header(1, 16 * 1024 - 3))),
    ];
    for (name, flags, body) in rows {
        match Batch::check(raw(flags, 1, 1, &body)) {
            Err(BatchError::TooLarge { index: 0, source }) => assert_eq!(source.part, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let large = record(NO_KEY, 0, 0, &vec![0; EVENT_BYTES_MAX - EVENT_HEADER_BYTES + 1]);
    let small = record(NO_KEY, 0, 0, b"");
    for (index, body) in [(0, large.clone()), (1, [small, large.clone()].concat())] {
        let error = Batch::check(raw(0, index + 1, index + 1, &body)).unwrap_err();
        let source =
            EventTooLarge { part: "size", got: EVENT_BYTES_MAX + 1, limit: EVENT_BYTES_MAX, unit: "bytes" };
        assert_eq!(error, BatchError::TooLarge { index, source });
        assert_eq!(error.code(), ErrorCode::EventTooLarge);
    }
    // Too long together, or in its claims alone: no single event is the cause.
    let half = record(NO_KEY, 0, 0, &[0; EVENT_BYTES_MAX / 2]);
    let mut lying = large;
    lying[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    for body in [half.repeat(3), lying] {
        let error = Batch::check(raw(0, 3, 3, &body)).unwrap_err();
        assert!(matches!(error, BatchError::Field { field: "body_len", .. }), "{error}");
        assert_eq!(error.code(), ErrorCode::BatchInvalid);
    }
}

#[test]
fn a_full_batch_takes_no_more_and_is_sound() {
    let mut builder = BatchBuilder::new();
    for _ in 0..BATCH_EVENTS_MAX {
        builder.push(&Event::new("")).unwrap();
    }
    assert_eq!(builder.push(&Event::new("")), Err(BatchFull::Full));
    assert!(Batch::check(builder.finish(stamp()).bytes().clone()).is_ok());
    let body = record(NO_KEY, 0, 0, b"").repeat(BATCH_EVENTS_MAX + 1);
    let error = Batch::check(raw(0, 10_001, 10_001, &body)).unwrap_err();
    assert!(matches!(error, BatchError::Field { field: "count", got: 10_001, .. }), "{error}");

    let half = Event::new(vec![0; BATCH_BODY_BYTES_MAX / 2 - EVENT_HEADER_BYTES]);
    builder.push(&half).unwrap();
    builder.push(&half).unwrap();
    assert_eq!(builder.push(&Event::new("")), Err(BatchFull::Full));
    let batch = builder.finish(stamp());
    assert_eq!(batch.header().body_len as usize, BATCH_BODY_BYTES_MAX);
    assert!(Batch::check(batch.bytes().clone()).is_ok());
}

#[test]
fn times_of_one_batch_lie_within_32_bits() {
    let mut builder = BatchBuilder::new();
    let at = |time| Event::new("").at(Timestamp(time));
    let far = 5_000 + u64::from(u32::MAX);
    builder.push(&at(far)).unwrap();
    assert_eq!(builder.push(&at(4_999)), Err(BatchFull::Full));
    builder.push(&at(5_000)).unwrap();
    assert_eq!(builder.push(&at(far + 1)), Err(BatchFull::Full));
    let batch = Batch::check(builder.finish(stamp()).bytes().clone()).unwrap();
    assert_eq!(read_back(&batch), [at(far), at(5_000)]);
}

#[test]
fn optional_fields_come_and_go_with_the_batch() {
    let tagged = Event { id: Some("id".into()), ttl_ms: Some(9), ..Event::new("x") };
    let mut builder = BatchBuilder::new();
    builder.push(&tagged).unwrap();
    assert_eq!(builder.finish(stamp()).header().flags, FLAG_IDS | FLAG_TTLS);
    builder.push(&Event::new("x")).unwrap();
    assert_eq!(builder.finish(stamp()).header().flags, 0);

    // Late fields widen what was pushed before; where that does not fit, the batch stays as it was.
    let half = Event::new(vec![7; BATCH_BODY_BYTES_MAX / 2 - EVENT_HEADER_BYTES]).at(Timestamp(0));
    builder.push(&half).unwrap();
    builder.push(&half).unwrap();
    assert_eq!(builder.push(&tagged), Err(BatchFull::Full));
    assert_eq!(read_back(&builder.finish(stamp())), [half.clone(), half]);
}

#[test]
fn a_walk_over_unchecked_bytes_ends() {
    let bytes = raw(0, 1, 1, &[0; 24]);
    let mut rest = &bytes[..];
    let borrowed = BatchRef::split_first(&mut rest).unwrap();
    assert_eq!(borrowed.events().count(), 2);
}

proptest! {
    #[test]
    fn what_is_left_is_what_was_not_taken_out(
        events in vec((option::of("[a-z]{1,4}"), 1_000..9_000_u64, any::<bool>(), any::<bool>()), 1..40),
    ) {
        let mut builder = BatchBuilder::new();
        let made: Vec<(Event, bool)> = events
            .into_iter()
            .map(|(id, time, traced, out)| {
                let event = Event { id: id.map(Into::into), ..Event::new("x") }.at(Timestamp(time));
                (if traced { event.with_header("traceparent", "00") } else { event }, out)
            })
            .collect();
        made.iter().for_each(|(event, _)| builder.push(event).unwrap());
        let whole = builder.finish(stamp());
        let left: Vec<Event> = made.iter().filter(|(_, out)| !out).map(|(event, _)| event.clone()).collect();
        let batch = whole.without(|index| made[index as usize].1);
        prop_assert_eq!(batch.is_some(), !left.is_empty());
        let Some(batch) = batch else { return Ok(()) };
        prop_assert_eq!(Batch::check(batch.bytes().clone()), Ok(batch.clone()));
        let read: Vec<Event> = batch.events().map(|event| event.to_event(&batch)).collect();
        let newest = left.iter().filter_map(|event| event.time).max();
        prop_assert_eq!(Some(Timestamp(batch.header().max_event_time)), newest);
        prop_assert_eq!(batch.header().first_sequence, 9);
        prop_assert_eq!(read, left);
    }
}
