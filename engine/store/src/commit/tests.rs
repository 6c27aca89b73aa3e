//! The bytes of a commit: there and back, golden, and never garbage.

use proptest::prelude::*;

use super::*;
use crate::Error;

fn sample() -> Commit {
    Commit {
        shard: 3,
        index: CommitIndex(8),
        previous: CommitIndex(7),
        time: Timestamp(1_700_000_000_123),
        term: Term(5),
        parent: CommitHash(0x0102_0304_0506_0708),
        ops: vec![
            Op::Put {
                family: Family::Log,
                key: Bytes::from_static(b"k"),
                value: Bytes::from_static(b"\x01v"),
            },
            Op::Delete { family: Family::Side, key: Bytes::from_static(b"gone") },
            Op::DeleteRange { family: Family::Cursors, from: Bytes::new(), to: Bytes::from_static(b"\xff") },
        ],
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    let family = (0..10u8).prop_map(|number| Family::from_number(number).unwrap());
    let bytes = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    (0..3u8, family, bytes(), bytes()).prop_map(|(kind, family, key, value)| match kind {
        0 => Op::Put { family, key, value },
        1 => Op::Delete { family, key },
        _ => Op::DeleteRange { family, from: key, to: value },
    })
}

fn any_commit() -> impl Strategy<Value = Commit> {
    let fixed = any::<(u16, u64, u64, u64, u64, u64)>();
    (fixed, prop::collection::vec(any_op(), 0..12)).prop_map(
        |((shard, index, previous, time, term, parent), ops)| {
            let (index, previous) = (CommitIndex(index), CommitIndex(previous));
            Commit {
                shard,
                index,
                previous,
                time: Timestamp(time),
                term: Term(term),
                parent: CommitHash(parent),
                ops,
            }
        },
    )
}

proptest! {
    #[test]
    fn a_commit_comes_back_as_it_went(commit in any_commit()) {
        let bytes = commit.encode();
        prop_assert_eq!(bytes.len(), commit.encoded_len());
        let hashed = [&bytes[..CHECKED_HEADER_BYTES], &bytes[COMMIT_HEADER_BYTES..]].concat();
        prop_assert_eq!(commit.hash(), CommitHash(xxhash_rust::xxh3::xxh3_64(&hashed)));
        prop_assert_eq!(Commit::decode(bytes), Ok(commit));
    }

    #[test]
    fn any_flipped_bit_is_noticed(commit in any_commit(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut bytes = commit.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Commit::decode(bytes.into()).is_err());
    }

    #[test]
    fn a_cut_or_longer_commit_is_refused(commit in any_commit(), at in any::<prop::sample::Index>()) {
        let bytes = commit.encode();
        prop_assert!(Commit::decode(bytes.slice(..at.index(bytes.len()))).is_err());
        let mut longer = bytes.to_vec();
        longer.push(0);
        prop_assert!(Commit::decode(longer.into()).is_err());
    }

    #[test]
    fn garbage_is_refused_or_says_the_same_again(garbage in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut garbage = garbage;
        if garbage.len() >= COMMIT_HEADER_BYTES {
            // Past version, length and checksum, so that the operations are reached.
            garbage[0] = COMMIT_VERSION;
            garbage[1] = 0;
            garbage[4] %= 4;
            garbage[5..8].fill(0);
            let ops_len = u32::try_from(garbage.len() - COMMIT_HEADER_BYTES).unwrap();
            garbage[48..52].copy_from_slice(&ops_len.to_le_bytes());
            let crc = checksum(&garbage);
            garbage[52..56].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(commit) = Commit::decode(Bytes::from(garbage.clone())) {
            prop_assert_eq!(commit.encode(), garbage);
        }
    }

    #[test]
    fn any_flipped_bit_of_the_applied_row_is_noticed(commit in any_commit(), at in 0..APPLIED_ROW_BYTES, bit in 0..8u8) {
        let row = commit.applied_row();
        let mut value = row.encode();
        prop_assert_eq!(AppliedRow::decode(&value), Ok(row));
        value[at] ^= 1 << bit;
        prop_assert!(AppliedRow::decode(&value).is_err());
    }
}

#[test]
fn the_bytes_are_these() {
    let golden = "02000300 03000000 0800000000000000 0700000000000000 7b68e5cf8b010000 \
                  0500000000000000 0807060504030201 2c000000 1f0b5060 \
                  01020000 01000000 02000000 6b 0176 \
                  02090000 04000000 00000000 676f6e65 \
                  03030000 00000000 01000000 ff";
    let hex: String = sample().encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden.replace(' ', ""));
    assert_eq!(sample().hash().to_string(), "37862a7d7ab1553f");
    let row: String = sample().applied_row().encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        row,
        "020003000e7483a0080000000000000007000000000000007b68e5cf8b01000005000000000000003f55b17a7d2a8637"
    );
}

#[test]
fn a_claimed_count_reserves_no_memory_beyond_the_bytes() {
    let mut bytes = Commit { ops: Vec::new(), ..sample() }.encode().to_vec();
    bytes[4..8].fill(0xff);
    let crc = checksum(&bytes);
    bytes[52..56].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(
        Commit::decode(bytes.into()),
        Err(CommitError::Op { index: 0, what: "its header is cut off" })
    );
}

#[test]
fn families_keep_their_numbers_and_names() {
    let rows: Vec<_> = Family::ALL.iter().map(|family| (family.number(), family.name())).collect();
    let expected = [
        (0, "meta"),
        (1, "catalogue"),
        (2, "log"),
        (3, "cursors"),
        (4, "producers"),
        (5, "dedup"),
        (6, "schedule"),
        (7, "prepared"),
        (8, "plugin_state"),
        (9, "side"),
    ];
    assert_eq!(rows, expected);
    assert_eq!(Family::from_number(10), None);
}

#[test]
fn an_applied_row_of_a_later_format_is_told_apart_from_a_damaged_one() {
    let mut value = sample().applied_row().encode();
    value[0] = 3;
    assert!(matches!(AppliedRow::decode(&value), Err(Error::Corrupt { .. })));
    let crc = crc32c::crc32c_append(crc32c::crc32c(&value[..4]), &value[8..]);
    value[4..8].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(AppliedRow::decode(&value), Err(Error::Newer { found: 3, supported: 2, .. })));
    assert!(matches!(AppliedRow::decode(&[]), Err(Error::Corrupt { .. })));
}
