//! Progress against a plain set of offsets, its rows kept in a map as a store would.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use super::*;

/// A store of one partition's rows.
#[derive(Default)]
struct Rows {
    head: Option<Head>,
    chunks: BTreeMap<u64, Chunk>,
    failures: BTreeMap<u64, Failures>,
}

impl Rows {
    fn apply(&mut self, changes: &[RowChange]) {
        for change in changes {
            match change {
                RowChange::Head(head) => self.head = Some(head.clone()),
                RowChange::Chunk { index, chunk } => drop(self.chunks.insert(*index, chunk.clone())),
                RowChange::DropChunk { index } => drop(self.chunks.remove(index)),
                RowChange::Failures { index, failures } => {
                    drop(self.failures.insert(*index, failures.clone()));
                }
                RowChange::DropFailures { index } => drop(self.failures.remove(index)),
            }
        }
    }

    fn restore(&self) -> Progress {
        let head = self.head.clone().expect("a head was written");
        Progress::restore(head, self.chunks.clone(), self.failures.clone()).unwrap()
    }
}

/// Settles what of `range` is open, as the subscription does; returns the parts and what is forgotten.
fn settle_open(progress: &mut Progress, range: &Range<u64>) -> (Vec<Range<u64>>, Histories) {
    let parts = progress.open_parts(range);
    let forgotten = parts.iter().flat_map(|part| progress.settle(part)).collect();
    (parts, forgotten)
}

fn ids(changes: &[RowChange]) -> Vec<RowId> {
    changes.iter().map(RowChange::id).collect()
}

fn chunks_in(changes: &[RowChange]) -> Vec<u64> {
    let chunk = |id| if let RowId::Chunk(index) = id { Some(index) } else { None };
    ids(changes).into_iter().filter_map(chunk).collect()
}

#[test]
fn settling_in_order_writes_the_head_alone() {
    let mut progress = Progress::new(Offset(0), 1);
    progress.take_dirty();
    for start in (0..200_000).step_by(1_000) {
        progress.settle(&(start..start + 1_000));
        let changes = progress.take_dirty();
        assert!(matches!(&changes[..], [RowChange::Head(head)] if head.failures().is_empty()), "{changes:?}");
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
    assert!(chunks_in(&progress.take_dirty()).is_empty());
}

#[test]
fn rows_that_no_progress_could_have_written_are_not_made() {
    let ranges = |runs: &[(u64, u64)]| runs.iter().map(|(start, end)| *start..*end).collect::<Vec<_>>();
    let head = |runs| {
        let failed = ranges(runs).into_iter().map(|run| (run, History::default()));
        Head::new(1, 1, failed.collect())
    };
    let chunk = |runs| Chunk::new(ranges(runs));
    assert!(head(&[(2, 3), (3, 9)]).is_some());
    assert!(chunk(&[(0, 1), (1, CHUNK_OFFSETS)]).is_some());
    for runs in [&[(3, 3)][..], &[(5, 6), (2, 3)], &[(2, 5), (4, 6)]] {
        assert!(head(runs).is_none() && chunk(runs).is_none(), "{runs:?}");
    }
    assert!(chunk(&[]).is_none() && chunk(&[(0, CHUNK_OFFSETS + 1)]).is_none());
    let (head, chunk) = (head(&[]).unwrap(), chunk(&[(0, 1)]).unwrap());
    let row = |runs| {
        let failed = ranges(runs).into_iter().map(|run| (run, History::default()));
        Failures::new(failed.collect())
    };
    assert!(
        row(&[]).is_none() && row(&[(0, FAILURES_OFFSETS + 1)]).is_none() && row(&[(2, 5), (4, 6)]).is_none()
    );
    let row = row(&[(0, FAILURES_OFFSETS)]).unwrap();
    let past = "past the last offset";
    assert!(Progress::restore(head.clone(), [(u64::MAX, chunk)], []).is_none(), "{past}");
    assert!(Progress::restore(head, [], [(u64::MAX, row)]).is_none(), "{past}");
}

#[test]
fn a_failure_rewrites_the_row_of_its_neighbours_and_no_other() {
    let mut progress = Progress::new(Offset(0), 1);
    progress.take_dirty();
    let failed = |attempts| History { attempts, ..History::default() };
    for offset in (0..10 * FAILURES_OFFSETS).step_by(2) {
        progress.set_history(&(offset..offset + 1), failed(1));
    }
    assert_eq!(ids(&progress.take_dirty()), (0..10).map(RowId::Failures).collect::<Vec<_>>());
    let at = 3 * FAILURES_OFFSETS;
    progress.set_history(&(at..at + 1), failed(2));
    let changes = progress.take_dirty();
    assert!(
        matches!(&changes[..], [RowChange::Failures { index: 3, failures }] if failures.runs().len() == 512)
    );
    progress.set_history(&(at - 1..at + 1), failed(3));
    assert_eq!(ids(&progress.take_dirty()), [RowId::Failures(2), RowId::Failures(3)]);
    progress.settle(&(0..FAILURES_OFFSETS));
    assert_eq!(progress.take_dirty()[1..], [RowChange::DropFailures { index: 0 }]);
}

#[test]
fn failures_that_an_earlier_version_kept_in_the_head_get_rows() {
    let failed = |attempts| History { attempts, ..History::default() };
    let head = Head::new(5, 1, vec![(3..7, failed(1)), (9..2_000, failed(2))]).unwrap();
    let mut progress = Progress::restore(head, [], []).unwrap();
    assert_eq!(progress.histories(&(5..10)), [(5..7, failed(1)), (7..9, failed(0)), (9..10, failed(2))]);
    let mut rows = Rows::default();
    rows.apply(&progress.take_dirty());
    assert!(rows.head.as_ref().is_some_and(|head| head.failures().is_empty()) && rows.failures.len() == 2);
    assert_eq!(rows.restore().failures, progress.failures);
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
            let passed = before.chunks.stored.iter();
            let passed = passed.filter(|index| **index < progress.floor / CHUNK_OFFSETS);
            let touches = rows_of(&range, CHUNK_OFFSETS);
            let allowed = touches.chain(passed.chain(&before.chunks.dirty).copied());
            prop_assert!(touched.is_subset(&allowed.collect()), "wrote {touched:?}");
            if what == 6 {
                progress.unsettle(floor_before, parts.iter(), forgotten, &ids(&changes));
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
    }
}
