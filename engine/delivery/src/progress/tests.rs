//! Progress against a plain set of offsets, its rows kept in a map as a store would.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use super::*;

/// A store of one partition's rows.
#[derive(Default)]
struct Rows {
    head: Option<Bytes>,
    chunks: BTreeMap<u64, Bytes>,
}

impl Rows {
    fn apply(&mut self, changes: &[RowChange]) {
        for change in changes {
            match change {
                RowChange::Head(bytes) => self.head = Some(bytes.clone()),
                RowChange::Chunk { index, bytes } => drop(self.chunks.insert(*index, bytes.clone())),
                RowChange::DropChunk { index } => drop(self.chunks.remove(index)),
            }
        }
    }

    fn restore(&self) -> Progress {
        let chunks = self.chunks.iter().map(|(index, bytes)| (*index, bytes));
        Progress::restore(self.head.as_ref().expect("a head was written"), chunks).unwrap()
    }
}

/// Settles what of `range` is open, as the subscription does; answers the parts and what is forgotten.
fn settle_open(progress: &mut Progress, range: &Range<u64>) -> (Vec<Range<u64>>, Histories) {
    let parts = progress.open_parts(range);
    let forgotten = parts.iter().flat_map(|part| progress.settle(part)).collect();
    (parts, forgotten)
}

fn chunks_in(changes: &[RowChange]) -> Vec<u64> {
    changes.iter().filter_map(RowChange::chunk).collect()
}

#[test]
fn settling_in_order_writes_the_head_alone() {
    let mut progress = Progress::new(Offset(0), 1);
    progress.take_dirty();
    for start in (0..200_000).step_by(1_000) {
        progress.settle(&(start..start + 1_000));
        let changes = progress.take_dirty();
        assert!(matches!(&changes[..], [RowChange::Head(head)] if head.len() == 24), "{changes:?}");
    }
    assert!(!progress.is_dirty() && progress.take_dirty().is_empty());
}

#[test]
fn only_dirty_chunks_are_written_and_passed_ones_are_dropped() {
    let mut progress = Progress::new(Offset(0), 1);
    progress.take_dirty();
    progress.settle(&(CHUNK_OFFSETS * 2 + 5..CHUNK_OFFSETS * 2 + 6));
    assert_eq!(chunks_in(&progress.take_dirty()), [2]);
    progress.settle(&(CHUNK_OFFSETS - 1..CHUNK_OFFSETS + 1));
    let changes = progress.take_dirty();
    assert_eq!(chunks_in(&changes), [0, 1]);
    assert!(changes.iter().all(|change| !matches!(change, RowChange::Head(_))), "the floor did not move");
    progress.settle(&(0..CHUNK_OFFSETS - 1));
    assert_eq!(progress.floor(), Offset(CHUNK_OFFSETS + 1));
    assert!(progress.take_dirty().contains(&RowChange::DropChunk { index: 0 }));
    assert_eq!(chunks_in(&progress.take_dirty()), []);
}

#[test]
fn a_chunk_of_many_runs_is_a_bitmap_of_8_kib() {
    for (step, kind) in [(2, 1), (33, 0)] {
        let mut progress = Progress::new(Offset(0), 0);
        (1..CHUNK_OFFSETS).step_by(step).for_each(|at| drop(progress.settle(&(at..at + 1))));
        let mut rows = Rows::default();
        rows.apply(&progress.take_dirty());
        assert_eq!(rows.chunks[&0][1], kind);
        assert!(rows.chunks[&0].len() <= 8_192 + 2);
        assert_eq!(rows.restore(), progress);
    }
}

#[test]
fn rows_have_these_bytes() {
    let mut progress = Progress::new(Offset(3), 9);
    let history =
        History { attempts: 2, returned: 1, first_failure_ms: 5, last_failure_ms: 6, not_before_ms: 7 };
    progress.set_history(&(3..5), history);
    progress.settle(&(6..8));
    let word = |value: u8| [value, 0, 0, 0, 0, 0, 0, 0];
    let mut head = vec![1, 0, 0, 0, 1, 0, 0, 0];
    head.extend([word(3), word(9), word(3)].concat());
    head.extend([2, 0, 0, 0, 2, 0, 1, 0]);
    head.extend([word(5), word(6), word(7)].concat());
    let chunk: &[u8] = &[1, 0, 6, 0, 7, 0];
    let expected =
        [RowChange::Head(head.into()), RowChange::Chunk { index: 0, bytes: Bytes::copy_from_slice(chunk) }];
    assert_eq!(progress.take_dirty(), expected);
}

#[test]
fn damaged_and_newer_rows_are_refused() {
    let none = || std::iter::empty::<(u64, Bytes)>();
    let head = rows::encode_head(1, 1, &RunMap::default());
    assert!(Progress::restore(&head, none()).is_ok());
    let newer = |row: &[u8]| [&[2], &row[1..]].concat();
    assert_eq!(Progress::restore(&newer(&head), none()).unwrap_err().code().as_str(), "STORAGE_NEWER");
    for bad in [&[][..], &head[..23], &[&head[..], &[0]].concat()] {
        assert_eq!(Progress::restore(bad, none()).unwrap_err().code().as_str(), "STORAGE_CORRUPT");
    }
    for bad in [&[][..], &[1], &[1, 2], &[1, 0, 1, 0], &[1, 0, 5, 0, 4, 0], &[1, 1, 0], &[2, 0]] {
        assert!(Progress::restore(&head, [(0, bad)]).is_err(), "{bad:?}");
    }
    assert!(Progress::restore(&head, [(u64::MAX, [1, 0, 0, 0, 0, 0])]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn survives_commits_failed_commits_and_restarts(
        floor in 0u64..200_000,
        steps in vec((0u64..300_000, prop_oneof![1u64..5, 1u64..5, 1u64..90_000], 0u8..8), 1..40),
    ) {
        let mut progress = Progress::new(Offset(floor), 4);
        let (mut rows, mut model) = (Rows::default(), BTreeSet::new());
        rows.apply(&progress.take_dirty());
        for (at, len, what) in steps {
            let range = floor + at..floor + at + len;
            if what == 7 {
                let history = History { attempts: u16::try_from(len % 9).unwrap() + 1, ..History::default() };
                for part in progress.open_parts(&range) {
                    progress.set_history(&part, history);
                }
                rows.apply(&progress.take_dirty());
                continue;
            }
            let (before, floor_before) = (progress.clone(), progress.floor().0);
            let (parts, forgotten) = settle_open(&mut progress, &range);
            let changes = progress.take_dirty();
            let touched: BTreeSet<u64> = chunks_in(&changes).into_iter().collect();
            let passed = before.stored.iter().filter(|index| **index < progress.floor / CHUNK_OFFSETS);
            let allowed = chunks_of(&range).chain(passed.chain(&before.dirty).copied());
            prop_assert!(touched.is_subset(&allowed.collect()), "wrote {touched:?}");
            if what == 6 {
                progress.unsettle(floor_before, parts.iter(), forgotten, &chunks_in(&changes));
                prop_assert_eq!(&progress.acked, &before.acked);
                prop_assert_eq!(&progress.failures, &before.failures);
                prop_assert_eq!(progress.floor, before.floor);
            } else {
                model.extend(range);
                rows.apply(&changes);
            }
            if what == 5 {
                // What a failed commit left dirty is written before the restart that the rows must agree with.
                rows.apply(&progress.take_dirty());
                let restored = rows.restore();
                prop_assert_eq!(&restored.acked, &progress.acked);
                prop_assert_eq!(&restored.failures, &progress.failures);
                prop_assert_eq!(restored.floor, progress.floor);
                progress = restored;
            }
        }
        let expected = (floor..).find(|at| !model.contains(at)).unwrap();
        prop_assert_eq!(progress.floor().0, expected);
        prop_assert!(model.iter().all(|at| progress.is_settled(Offset(*at))));
        let open = (floor..floor + 400_000).filter(|at| !model.contains(at)).count() as u64;
        prop_assert_eq!(progress.unsettled(Offset(floor + 400_000)), open);
        prop_assert!(rows.chunks.values().all(|row| row.len() <= 8_194));
    }

    #[test]
    fn garbage_rows_never_panic(head in vec(any::<u8>(), 0..120), chunk in vec(any::<u8>(), 0..40), index: u64) {
        let head = [&[1][..], &head].concat();
        let _ = Progress::restore(&head, [(index, &chunk)]);
        let good = rows::encode_head(0, 0, &RunMap::default());
        if let Ok(progress) = Progress::restore(&good, [(0, [&[1, 0][..], &chunk].concat())]) {
            prop_assert!(progress.unsettled(Offset(CHUNK_OFFSETS)) < CHUNK_OFFSETS || chunk.is_empty());
        }
    }
}
