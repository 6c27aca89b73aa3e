//! Bytes from anywhere: every reader answers with a value or an error, and never with a panic.

use bytes::Bytes;
use levada_protocol::{
    batch::{Batch, BatchHeader, BatchRef, Batches},
    deliver::{DeliverHeader, EndEntry, RunRef, Runs, checked_batches},
    error::Refusal,
    frame::{FRAME_HEADER_BYTES, FrameHeader, read_message},
    ids::Offset,
    progress::Progress,
    publish::{Ack, PublishHeader},
    request::{Notice, Open, Opened},
    verbs::{Credit, Settled, Verbs},
    verdict::Verdicts,
};
use proptest::{collection::vec, prelude::*};

use crate::golden;

/// Gives the bytes to every reader of this crate.
fn read_as_everything(bytes: &[u8]) {
    let shared = Bytes::copy_from_slice(bytes);
    if let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() {
        drop(FrameHeader::read(header));
    }
    drop(PublishHeader::read(&mut shared.clone()));
    drop(Ack::read_all(bytes));
    drop(DeliverHeader::read(&mut shared.clone()));
    drop(Runs::new(shared.clone()).collect::<Vec<_>>());
    RunRef::split_first(&mut &bytes[..]);
    drop(checked_batches(shared.clone()));
    drop(EndEntry::read_all(bytes));
    drop(Progress::read(bytes));
    drop(Credit::read(bytes));
    drop(Verbs::read(bytes));
    drop(Settled::read(bytes));
    drop(Verdicts::new(bytes).collect::<Vec<_>>());
    read_as_batches(&shared);
    drop(read_message::<Open>(bytes));
    drop(read_message::<Opened>(bytes));
    drop(read_message::<Notice>(bytes));
    drop(read_message::<Refusal>(bytes));
}

fn read_as_batches(bytes: &Bytes) {
    BatchHeader::read(bytes);
    BatchRef::split_first(&mut &bytes[..]);
    drop(Batch::check(bytes.clone()));
    drop(Batch::check_first(&mut bytes.clone()));
    if let Ok(batch) = Batch::read_first(&mut bytes.clone()) {
        drop(batch.verify());
    }
    drop(Batches::new(Offset(u64::MAX), bytes.clone()).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..300)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn small_numbers_are_read_without_panic(bytes in vec(0_u8..6, 0..300)) {
        // Lengths and counts of this kind lead further into a reader than random ones.
        read_as_everything(&bytes);
    }

    #[test]
    fn known_frames_with_any_change_are_read_without_panic(
        which in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let frames: Vec<Vec<u8>> = golden::all().into_iter().map(|(_, bytes, _)| bytes).collect();
        let mut bytes = frames[which.index(frames.len())].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read_as_everything(&bytes);
        read_as_everything(bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default());
    }
}

#[test]
fn every_cut_of_every_known_frame_is_read_without_panic() {
    for (_, bytes, _) in golden::all() {
        for len in 0..bytes.len() {
            read_as_everything(&bytes[..len]);
            read_as_everything(bytes[..len].get(FRAME_HEADER_BYTES..).unwrap_or_default());
        }
    }
}

#[test]
fn claimed_sizes_reserve_no_memory() {
    // Maps, arrays and strings of four milliards of items, nested and not, in a handful of bytes.
    for marker in [0xdb, 0xc6, 0xdd, 0xdf, 0xc9] {
        let one = [marker, 0xff, 0xff, 0xff, 0xff];
        for payload in [one.to_vec(), one.repeat(1_000), [&b"\x81\xa4kind"[..], &one.repeat(20)].concat()] {
            read_as_everything(&payload);
            assert!(read_message::<Open>(&payload).is_err());
        }
    }
}
