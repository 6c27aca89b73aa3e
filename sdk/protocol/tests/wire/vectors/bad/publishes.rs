//! Publishes that are refused: the batch, one of its events, or what is asked for beside it.

use bytes::BufMut;
use levada_protocol::{
    batch::{BATCH_HEADER_BYTES, Batch, BatchBuilder, Stamp},
    error::ErrorCode::*,
    event::Event,
    frame::{FRAME_HEADER_BYTES, FrameType, frame},
    ids::{Epoch, Offset, PartitionId, ProducerId, Sequence, Timestamp},
    limits::{
        DELAY_MS_MAX, EVENT_BYTES_MAX, EVENT_ID_BYTES_MAX, HEADER_NAME_BYTES_MAX, HEADERS_BYTES_MAX,
        HEADERS_MAX, KEY_BYTES_MAX,
    },
    publish::PublishHeader,
    schedule::Due,
};

use super::{Bad, Place, bad, claims, quoted};

/// A publish frame with correlation 1, to partition 0, of any bytes for a batch.
pub(super) fn publish(batch: &[u8]) -> Vec<u8> {
    publish_with(header(), batch)
}

fn header() -> PublishHeader {
    PublishHeader {
        correlation: 1,
        partition: PartitionId(0),
        durability: None,
        expect_offset: None,
        due: None,
    }
}

fn publish_with(header: PublishHeader, batch: &[u8]) -> Vec<u8> {
    [&header.frame_prefix(batch.len())[..], batch].concat()
}

/// A sound batch of two events and no producer.
pub(super) fn sound() -> Vec<u8> {
    let first = Event::new("hello").with_key("k").with_header("h", "v").at(Timestamp(1_700_000_000_000));
    of(&[first, Event::new("x").at(Timestamp(1_700_000_000_005))])
}

fn of(events: &[Event]) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    events.iter().for_each(|event| builder.push(event).unwrap());
    builder.finish(Stamp::ENGINE).bytes().to_vec()
}

/// The checksum made true.
fn sealed(mut batch: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&batch[..20]), &batch[24..]);
    batch[20..24].copy_from_slice(&crc.to_le_bytes());
    batch
}

/// The sound batch with other bytes somewhere, and a true checksum.
fn changed(at: usize, value: &[u8]) -> Vec<u8> {
    let mut batch = sound();
    batch[at..at + value.len()].copy_from_slice(value);
    sealed(batch)
}

/// A batch around one record, given from its `key_len` on.
fn record(flags: u16, rest: &[u8]) -> Vec<u8> {
    let mut batch = vec![1, 0];
    let len = u32::try_from(4 + rest.len()).unwrap();
    batch.put_u16_le(flags);
    for field in [1, 1, len, len] {
        batch.put_u32_le(field);
    }
    batch.resize(BATCH_HEADER_BYTES, 0);
    batch.put_u32_le(len);
    batch.extend(rest);
    sealed(batch)
}

pub(super) fn batches() -> Vec<Bad> {
    let body = BATCH_HEADER_BYTES;
    let mut flipped = sound();
    *flipped.last_mut().unwrap() ^= 1;
    let mut longer = sound();
    longer.push(0);
    let rows: Vec<(&'static str, Vec<u8>)> = vec![
        ("an unknown version", changed(0, &[2])),
        ("a codec", changed(1, &[1])),
        ("unknown flags", changed(2, &[0, 128])),
        ("a count too high", changed(4, &3_u32.to_le_bytes())),
        ("a count too low", changed(4, &1_u32.to_le_bytes())),
        ("a count of none", changed(4, &0_u32.to_le_bytes())),
        ("a count over the limit", changed(4, &10_001_u32.to_le_bytes())),
        ("a span that is not the count", changed(8, &7_u32.to_le_bytes())),
        ("a body longer than it is", changed(12, &9_999_u32.to_le_bytes())),
        ("a body of 4 GiB", changed(12, &u32::MAX.to_le_bytes())),
        ("another uncompressed length", changed(16, &1_u32.to_le_bytes())),
        ("a time span before the epoch", changed(56, &[0; 8])),
        ("a flipped bit", flipped),
        ("a byte too many", longer),
        ("half a header", sound()[..40].to_vec()),
        ("no bytes", Vec::new()),
        ("a selection", quoted("selection")),
        ("an event longer than its batch", changed(body, &9_999_u32.to_le_bytes())),
        ("an event of no length", changed(body, &0_u32.to_le_bytes())),
        ("a key longer than its event", changed(body + 4, &999_u16.to_le_bytes())),
        ("more headers than fit", changed(body + 6, &60_u16.to_le_bytes())),
        ("a time outside the span", changed(body + 8, &6_u32.to_le_bytes())),
        ("a tombstone with a payload", record(0, &[0xff, 0xff, 0, 0x80, 0, 0, 0, 0, b'x'])),
        ("an id that is not UTF-8", record(2, &[0xff, 0xff, 0, 0, 0, 0, 0, 0, 1, 0, 0xff])),
        ("a header name that is not UTF-8", record(0, &[0xff, 0xff, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0xff])),
    ];
    rows.into_iter()
        .map(|(name, batch)| {
            let refused_by_its_bytes = Batch::check(batch.clone().into()).map_err(|error| error.code());
            assert!(name == "a selection" || refused_by_its_bytes == Err(BatchInvalid), "{name}");
            bad("publish", name, publish(&batch), Place::Ack, BatchInvalid)
        })
        .collect()
}

/// Events over each limit, and what else is refused of an event.
pub(super) fn events() -> Vec<Bad> {
    let no_key = [0xff, 0xff];
    let zeros = [0; 4];
    let key_len = u16::try_from(KEY_BYTES_MAX + 1).unwrap().to_le_bytes();
    let id_len = u16::try_from(EVENT_ID_BYTES_MAX + 1).unwrap().to_le_bytes();
    let count = u16::try_from(HEADERS_MAX + 1).unwrap().to_le_bytes();
    let name_len = u8::try_from(HEADER_NAME_BYTES_MAX + 1).unwrap();
    let value_len = u16::try_from(HEADERS_BYTES_MAX - 3).unwrap().to_le_bytes();
    let parts = |parts: &[&[u8]]| parts.concat();
    let rows: Vec<(&'static str, u16, Vec<u8>)> = vec![
        ("a key over the limit", 0, parts(&[&key_len, &[0, 0], &zeros, &[b'k'; KEY_BYTES_MAX + 1]])),
        (
            "an id over the limit",
            2,
            parts(&[&no_key, &[0, 0], &zeros, &id_len, &[b'i'; EVENT_ID_BYTES_MAX + 1]]),
        ),
        ("a header too many", 0, parts(&[&no_key, &count, &zeros, &[0; 3 * (HEADERS_MAX + 1)]])),
        (
            "a header name over the limit",
            0,
            parts(&[&no_key, &[1, 0], &zeros, &[name_len, 0, 0], &[b'n'; HEADER_NAME_BYTES_MAX + 1]]),
        ),
        (
            "headers over the limit together",
            0,
            parts(&[&no_key, &[1, 0], &zeros, &[1], &value_len, &[b'n'; HEADERS_BYTES_MAX - 2]]),
        ),
    ];
    let mut all: Vec<Bad> = rows
        .into_iter()
        .map(|(name, flags, rest)| {
            let batch = record(flags, &rest);
            assert_eq!(
                Batch::check(batch.clone().into()).map_err(|error| error.code()),
                Err(EventTooLarge),
                "{name}"
            );
            bad("publish", name, publish(&batch), Place::Ack, EventTooLarge)
        })
        .collect();
    // Its payload is all zeros, which the file leaves out.
    let payload = EVENT_BYTES_MAX + 1 - 12;
    let whole = publish(&record(0, &parts(&[&no_key, &[0, 0], &zeros, &vec![0; payload]])));
    let head = &whole[..whole.len() - payload];
    let large = bad("publish", "an event over the limit", head, Place::Ack, EventTooLarge);
    all.push(Bad { zeros: payload, ..large });
    let mut forged = BatchBuilder::of_engine();
    forged.push(&Event::new("x").with_header("lv-dlq-reason", "made up")).unwrap();
    let forged = publish(forged.finish(Stamp::ENGINE).bytes());
    all.push(bad("publish", "a header of the engine's own", forged, Place::Ack, HeaderReserved));
    all
}

pub(super) fn publishes() -> Vec<Bad> {
    let ack = |name, bytes, code| bad("publish", name, bytes, Place::Ack, code);
    let error = |name, bytes: Vec<u8>, code| bad("publish", name, bytes, Place::Error, code);
    let changed_header = |at: usize, value: u8| {
        let mut bytes = publish(&sound());
        bytes[FRAME_HEADER_BYTES + at] = value;
        bytes
    };
    let expecting = PublishHeader { expect_offset: Some(Offset(99)), ..header() };
    let delayed_expecting = PublishHeader { due: Some(Due::After(1)), ..expecting };
    let late = PublishHeader { due: Some(Due::After(DELAY_MS_MAX + 1)), ..header() };
    let mut due_of_unknown_kind = changed_header(16, 1);
    due_of_unknown_kind[FRAME_HEADER_BYTES + 7] = 2;
    let elsewhere = PublishHeader { partition: PartitionId(4), ..header() };
    let mut unknown = BatchBuilder::new();
    unknown.push(&Event::new("x")).unwrap();
    let stamp = Stamp { producer_id: ProducerId(9), epoch: Epoch(0), first_sequence: Sequence(7) };
    let unknown = unknown.finish(stamp);
    vec![
        ack("a partition that does not exist", publish_with(elsewhere, &sound()), PartitionNotFound),
        ack("an expectation that does not hold", publish_with(expecting, &sound()), OffsetMismatch),
        ack("a producer that is not known above sequence 0", publish(unknown.bytes()), ProducerUnknown),
        error("half a publish header", frame(FrameType::Publish, &[0; 23]).to_vec(), Malformed),
        error("an unknown durability", changed_header(6, 3), Malformed),
        error("a delivery time of an unknown kind", due_of_unknown_kind, Malformed),
        ack("a delay and an expectation", publish_with(delayed_expecting, &sound()), InvalidArgument),
        ack("a delay of more than 365 days", publish_with(late, &sound()), DelayTooLong),
        error("credit from a publisher", frame(FrameType::Credit, &[0; 16]).to_vec(), Malformed),
        error("an unknown frame type behind an open", claims(99, 0), UnknownFrame),
        bad("publish", "half a batch, and the end", &publish(&sound())[..60], Place::Error, Malformed)
            .finished(),
    ]
}
