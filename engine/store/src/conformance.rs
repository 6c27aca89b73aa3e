//! What every store must do, as functions that panic where one does not. It knows a store only by its contract.
//!
//! An implementation's tests call [`run`] with a way to open stores by name: a name that was not opened before is
//! an empty store, one that was is the same store again, after it was closed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    thread,
};

use bytes::Bytes;
use levada_protocol::ids::{CommitIndex, Timestamp};

use crate::{
    Commit, Deleted, Error, Family, Op, ScanLimit, Store,
    commit::{APPLIED_KEY, AppliedRow, CommitHash, Term},
};

/// Opens the store of a name, empty if it is new.
pub type Open<'a> = &'a dyn Fn(&str) -> Arc<dyn Store>;

/// Runs every check. Panics at the first that fails.
pub fn run(open: Open<'_>) {
    an_empty_store_is_empty(&*open("empty"));
    what_was_applied_is_read_at_once(&*open("read"));
    operations_take_effect_in_order(&*open("order"));
    a_gap_is_refused_and_leaves_nothing(&*open("gap"));
    the_row_of_the_store_is_its_own(&*open("applied"));
    a_fork_is_refused_and_leaves_nothing(&*open("fork"));
    a_writer_that_was_taken_over_from_is_fenced(&*open("fenced"));
    the_last_commit_is_known_again_after_a_reopen(&*open("last commit"));
    a_replay_from_any_applied_index_changes_nothing(&*open("replay"));
    a_scan_stops_after_the_row_that_reaches_a_limit(&*open("limits"));
    the_last_row_below_is_found(&*open("last"));
    a_range_delete_takes_its_range_only(&*open("ranges"));
    a_sync_confirms_what_was_applied_before_it(&*open("sync"));
    syncs_run_beside_applies(&*open("beside"));
    a_scan_sees_whole_commits(&*open("whole"));
    reads_wait_for_a_reopen(&*open("reopen"));
    what_was_synced_survives_a_reopen(&*open("survives"));
    what_was_closed_is_there_when_opened_again(open);
    compaction_changes_nothing_that_can_be_read(&*open("compact"));
    for seed in 1..=4 {
        random_commits_do_what_a_map_does(open, seed);
    }
}

/// Commits in order, each after the one before.
struct History {
    last: AppliedRow,
}

impl History {
    fn after(store: &dyn Store) -> Self {
        Self { last: store.last() }
    }

    fn commit(&mut self, ops: Vec<Op>) -> Commit {
        let commit = self.peek(ops);
        self.last = commit.applied_row();
        commit
    }

    /// The next commit, which is not taken.
    fn peek(&self, ops: Vec<Op>) -> Commit {
        let time = Timestamp((self.last.index.0 + 1) * 400);
        Commit::after(&self.last, Term(self.last.term.0.max(1)), time, ops)
    }

    fn apply(&mut self, store: &dyn Store, ops: Vec<Op>) {
        store.apply(&self.commit(ops)).expect("a commit that follows is applied");
    }
}

fn put(family: Family, key: &[u8], value: &[u8]) -> Op {
    Op::Put { family, key: Bytes::copy_from_slice(key), value: Bytes::copy_from_slice(value) }
}

fn delete(family: Family, key: &[u8]) -> Op {
    Op::Delete { family, key: Bytes::copy_from_slice(key) }
}

fn delete_range(family: Family, from: &[u8], to: &[u8]) -> Op {
    Op::DeleteRange { family, from: Bytes::copy_from_slice(from), to: Bytes::copy_from_slice(to) }
}

/// Above every key that the suite uses.
const END: &[u8] = &[0xff; 16];

fn read(store: &dyn Store, family: Family, key: &[u8]) -> Option<Bytes> {
    store.get(family, key).expect("a row can be read")
}

fn scan(store: &dyn Store, family: Family, from: &[u8], to: &[u8], limit: ScanLimit) -> Vec<(Bytes, Bytes)> {
    store.scan(family, from, to, limit).expect("a range can be read")
}

fn keys(store: &dyn Store, from: &[u8], to: &[u8]) -> Vec<Bytes> {
    scan(store, Family::Log, from, to, ScanLimit::NONE).into_iter().map(|(key, _)| key).collect()
}

fn an_empty_store_is_empty(store: &dyn Store) {
    assert_eq!(store.applied(), CommitIndex(0));
    assert_eq!(store.sync().expect("an empty store can be synced"), CommitIndex(0));
    for family in Family::ALL {
        assert_eq!(read(store, family, b""), None);
        assert_eq!(scan(store, family, b"", END, ScanLimit::NONE), vec![]);
        assert_eq!(store.last_before(family, b"", END), Ok(None));
    }
}

fn what_was_applied_is_read_at_once(store: &dyn Store) {
    let mut history = History::after(store);
    let ops = Family::ALL.map(|family| put(family, b"key", family.name().as_bytes()));
    history.apply(store, ops.to_vec());
    history.apply(store, vec![put(Family::Side, b"", b""), put(Family::Side, &[7; 4096], &[9; 100_000])]);
    history.apply(store, vec![]);
    assert_eq!(store.applied(), CommitIndex(3));
    for family in Family::ALL {
        assert_eq!(read(store, family, b"key").as_deref(), Some(family.name().as_bytes()), "{family:?}");
        assert_eq!(read(store, family, b"other"), None);
    }
    assert_eq!(read(store, Family::Side, b"").as_deref(), Some(&b""[..]));
    assert_eq!(read(store, Family::Side, &[7; 4096]).as_deref(), Some(&[9; 100_000][..]));
    assert_eq!(scan(store, Family::Side, b"", END, ScanLimit::NONE).len(), 3);
}

fn operations_take_effect_in_order(store: &dyn Store) {
    let mut history = History::after(store);
    history.apply(store, vec![put(Family::Log, b"a", b"0"), put(Family::Log, b"b", b"0")]);
    let ops = vec![
        put(Family::Log, b"a", b"1"),
        delete(Family::Log, b"a"),
        put(Family::Log, b"c", b"1"),
        delete_range(Family::Log, b"a", b"z"),
        put(Family::Log, b"b", b"2"),
        put(Family::Log, b"b", b"3"),
        delete(Family::Log, b"never there"),
    ];
    history.apply(store, ops);
    let expected = vec![(Bytes::from_static(b"b"), Bytes::from_static(b"3"))];
    assert_eq!(scan(store, Family::Log, b"", END, ScanLimit::NONE), expected);
}

fn a_gap_is_refused_and_leaves_nothing(store: &dyn Store) {
    let mut history = History::after(store);
    history.apply(store, vec![put(Family::Log, b"a", b"1")]);
    let gap = Commit {
        index: CommitIndex(3),
        previous: CommitIndex(2),
        ..history.peek(vec![put(Family::Log, b"b", b"1")])
    };
    let (index, previous, applied) = (CommitIndex(3), CommitIndex(2), CommitIndex(1));
    assert_eq!(store.apply(&gap), Err(Error::Gap { index, previous, applied }));
    assert_eq!(keys(store, b"", END).len(), 1);
    assert_eq!(store.applied(), CommitIndex(1));
    history.apply(store, vec![put(Family::Log, b"c", b"1")]);
    assert_eq!(store.applied(), CommitIndex(2), "a refused gap is no failure");
}

fn the_row_of_the_store_is_its_own(store: &dyn Store) {
    let mut history = History::after(store);
    let foreign = [
        put(Family::Meta, APPLIED_KEY, b"x"),
        delete(Family::Meta, APPLIED_KEY),
        delete_range(Family::Meta, b"a", b"b"),
    ];
    for op in foreign {
        let commit = history.peek(vec![op]);
        assert_eq!(store.apply(&commit), Err(Error::Reserved { index: commit.index }));
    }
    let commit = history.commit(vec![put(Family::Log, APPLIED_KEY, b"x")]);
    store.apply(&commit).expect("the same key in another family is free");
    let row = read(store, Family::Meta, APPLIED_KEY).expect("the row is written with the commit");
    assert_eq!(AppliedRow::decode(&row), Ok(commit.applied_row()));
}

fn a_fork_is_refused_and_leaves_nothing(store: &dyn Store) {
    let mut history = History::after(store);
    let commits: Vec<Commit> =
        (0..5u8).map(|step| history.commit(vec![put(Family::Log, &[step], b"1")])).collect();
    for commit in &commits {
        store.apply(commit).expect("a commit that follows is applied");
    }
    let rows = keys(store, b"", END);
    let refused = |commit: &Commit, why: &str| {
        let refused = store.apply(commit);
        assert!(
            matches!(&refused, Err(Error::Diverged { index, .. }) if *index == commit.index),
            "{why}: {refused:?}"
        );
        assert_eq!((keys(store, b"", END), store.last()), (rows.clone(), history.last), "{why}");
    };
    for commit in &commits {
        let other = Commit { ops: vec![put(Family::Log, b"other", b"1")], ..commit.clone() };
        refused(&other, "other rows under an index that was applied");
        refused(&Commit { term: Term(9), ..commit.clone() }, "the same rows of another writer");
    }
    let next = history.peek(vec![put(Family::Log, b"next", b"1")]);
    refused(
        &Commit { parent: CommitHash(next.parent.0 ^ 1), ..next.clone() },
        "the next one of another history",
    );
    refused(&Commit { shard: 1, ..next.clone() }, "the next one of another shard");
    store.apply(&next).expect("a refused fork is no failure");
}

fn a_writer_that_was_taken_over_from_is_fenced(store: &dyn Store) {
    let mut history = History::after(store);
    history.apply(store, vec![put(Family::Log, b"a", b"1")]);
    let old = history.peek(vec![put(Family::Log, b"old", b"1")]);
    let taken_over = Commit { term: Term(3), ..history.peek(vec![put(Family::Log, b"new", b"1")]) };
    store.apply(&taken_over).expect("a higher term takes over");
    let late = Commit::after(&store.last(), Term(2), Timestamp(1), vec![]);
    let fenced = Error::Fenced { index: CommitIndex(3), term: Term(2), newest: Term(3) };
    assert_eq!(store.apply(&late), Err(fenced));
    let fenced = Error::Fenced { index: CommitIndex(2), term: Term(1), newest: Term(3) };
    assert_eq!(store.apply(&old), Err(fenced), "its index was given to another");
    assert_eq!((store.last(), keys(store, b"", END).len()), (taken_over.applied_row(), 2));
    let next = Commit::after(&store.last(), Term(3), Timestamp(1), vec![]);
    store.apply(&next).expect("a fenced commit is no failure");
}

fn the_last_commit_is_known_again_after_a_reopen(store: &dyn Store) {
    let mut history = History::after(store);
    let commits: Vec<Commit> =
        (0..40u8).map(|step| history.commit(vec![put(Family::Log, &[step], b"1")])).collect();
    for commit in &commits {
        store.apply(commit).expect("a commit that follows is applied");
    }
    store.sync().expect("a sync succeeds");
    store.reopen().expect("a reopen succeeds");
    assert_eq!(store.last(), history.last);
    for commit in &commits {
        store.apply(commit).expect("a commit that was applied is taken again");
        let other = Commit { time: Timestamp(commit.time.0 + 1), ..commit.clone() };
        assert!(matches!(store.apply(&other), Err(Error::Diverged { .. })), "commit {}", commit.index);
    }
    history.apply(store, vec![]);
}

fn a_replay_from_any_applied_index_changes_nothing(store: &dyn Store) {
    let mut history = History::after(store);
    let commits: Vec<Commit> = (0..12u8)
        .map(|step| {
            let ops = vec![
                put(Family::Log, &[step % 5], &[step]),
                delete(Family::Log, &[step % 3]),
                delete_range(Family::Log, &[step % 4], &[step % 4 + 1]),
                put(Family::Log, &[step % 7], &[step, step]),
            ];
            history.commit(ops)
        })
        .collect();
    let state = |store: &dyn Store| scan(store, Family::Log, b"", END, ScanLimit::NONE);
    for (count, commit) in commits.iter().enumerate() {
        store.apply(commit).expect("a commit that follows is applied");
        let before = state(store);
        for first in 0..=count {
            for again in &commits[first..=count] {
                store.apply(again).expect("a commit that was applied is taken again");
            }
            assert_eq!(state(store), before, "a replay from {first} to {count} changed something");
            assert_eq!(store.applied(), commit.index);
        }
    }
}

fn a_scan_stops_after_the_row_that_reaches_a_limit(store: &dyn Store) {
    let mut history = History::after(store);
    let ops = (0..10u8).map(|key| put(Family::Log, &[key], &[key; 9])).collect();
    history.apply(store, ops);
    let count = |limit| scan(store, Family::Log, &[2], &[8], limit).len();
    assert_eq!(count(ScanLimit::NONE), 6);
    assert_eq!(count(ScanLimit::rows(4)), 4);
    assert_eq!(count(ScanLimit::rows(0)), 1, "one row is always read");
    assert_eq!(count(ScanLimit::bytes(0)), 1, "one row is always read");
    assert_eq!(count(ScanLimit::bytes(20)), 2, "two rows of ten bytes reach twenty");
    assert_eq!(count(ScanLimit::bytes(21)), 3, "the row that reaches it belongs to it");
    assert_eq!(count(ScanLimit { rows: 5, bytes: 20 }), 2);
    let first = scan(store, Family::Log, &[2], &[8], ScanLimit::rows(1));
    assert_eq!(first, vec![(Bytes::from_static(&[2]), Bytes::copy_from_slice(&[2; 9]))]);
    assert_eq!(scan(store, Family::Log, &[8], &[2], ScanLimit::NONE), vec![]);
    assert_eq!(scan(store, Family::Log, &[2], &[2], ScanLimit::NONE), vec![]);
    assert_eq!(scan(store, Family::Side, b"", END, ScanLimit::NONE), vec![]);
}

fn the_last_row_below_is_found(store: &dyn Store) {
    let mut history = History::after(store);
    history.apply(store, [2, 4, 6u8].map(|key| put(Family::Log, &[key], &[key, 1])).to_vec());
    let last = |from: u8, below: u8| {
        let row = store.last_before(Family::Log, &[from], &[below]).expect("a range can be read");
        row.map(|(key, value)| (key[0], value[0]))
    };
    assert_eq!(last(0, 9), Some((6, 6)));
    assert_eq!(last(0, 6), Some((4, 4)), "below means below");
    assert_eq!(last(4, 5), Some((4, 4)), "from belongs to it");
    assert_eq!(last(3, 4), None);
    assert_eq!(last(7, 9), None);
    assert_eq!(last(5, 3), None);
    assert_eq!(last(4, 4), None);
    history.apply(store, vec![delete_range(Family::Log, &[3], &[7])]);
    assert_eq!(last(0, 9), Some((2, 2)));
    assert_eq!(last(3, 9), None);
}

fn a_range_delete_takes_its_range_only(store: &dyn Store) {
    let mut history = History::after(store);
    let all = |family| (0..10u8).map(move |key| put(family, &[key], b"1"));
    history.apply(store, all(Family::Log).chain(all(Family::Side)).collect());
    history.apply(store, vec![delete_range(Family::Log, &[3], &[6])]);
    assert_eq!(keys(store, b"", END), [0, 1, 2, 6, 7, 8, 9u8].map(|key| Bytes::copy_from_slice(&[key])));
    history.apply(store, vec![delete_range(Family::Log, &[8], &[1]), delete_range(Family::Log, &[7], &[7])]);
    assert_eq!(keys(store, b"", END).len(), 7, "an empty or turned range deletes nothing");
    history.apply(store, vec![put(Family::Log, &[4], b"2")]);
    assert_eq!(read(store, Family::Log, &[4]).as_deref(), Some(&b"2"[..]));
    history.apply(store, vec![delete_range(Family::Log, b"", END)]);
    assert_eq!(keys(store, b"", END).len(), 0);
    assert_eq!(scan(store, Family::Side, b"", END, ScanLimit::NONE).len(), 10);
}

fn a_sync_confirms_what_was_applied_before_it(store: &dyn Store) {
    let mut history = History::after(store);
    for index in 1..=5 {
        history.apply(store, vec![put(Family::Log, b"k", &[1])]);
        assert_eq!(store.sync().expect("a sync succeeds"), CommitIndex(index));
    }
    assert_eq!(store.sync().expect("a sync of nothing succeeds"), CommitIndex(5));
}

fn syncs_run_beside_applies(store: &dyn Store) {
    const COMMITS: u64 = 300;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut history = History::after(store);
            for step in 0..COMMITS {
                history.apply(store, vec![put(Family::Log, &step.to_be_bytes(), &[7; 500])]);
            }
        });
        let mut confirmed = CommitIndex(0);
        while confirmed < CommitIndex(COMMITS) {
            let before = store.applied();
            let now = store.sync().expect("a sync succeeds");
            assert!(now >= before && now >= confirmed, "a sync confirmed {now}, {before} was applied");
            confirmed = now;
            thread::yield_now();
        }
    });
    assert_eq!(keys(store, b"", END).len(), 300);
}

fn a_scan_sees_whole_commits(store: &dyn Store) {
    const COMMITS: u64 = 200;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut history = History::after(store);
            for step in 0..COMMITS {
                let value = step.to_be_bytes();
                history.apply(store, vec![put(Family::Log, b"a", &value), put(Family::Log, b"b", &value)]);
            }
        });
        while store.applied() < CommitIndex(COMMITS) {
            let rows = scan(store, Family::Log, b"a", b"c", ScanLimit::NONE);
            assert!(rows.is_empty() || rows.len() == 2 && rows[0].1 == rows[1].1, "half a commit was seen");
        }
    });
}

fn reads_wait_for_a_reopen(store: &dyn Store) {
    let mut history = History::after(store);
    history.apply(store, vec![put(Family::Log, b"k", b"v")]);
    store.sync().expect("a sync succeeds");
    let done = Mutex::new(false);
    let is_done = || *done.lock().expect("no reader panicked");
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_done() {
                    assert_eq!(read(store, Family::Log, b"k").as_deref(), Some(&b"v"[..]));
                    assert_eq!(keys(store, b"", END).len(), 1);
                    assert_eq!(store.applied(), CommitIndex(1));
                    let _cheap = store.stats();
                }
            });
        }
        for _ in 0..5 {
            store.reopen().expect("a reopen succeeds");
        }
        *done.lock().expect("no reader panicked") = true;
    });
}

fn what_was_synced_survives_a_reopen(store: &dyn Store) {
    let mut history = History::after(store);
    for step in 0..20u8 {
        history.apply(store, vec![put(Family::Log, &[step], &[step; 5000])]);
    }
    store.sync().expect("a sync succeeds");
    history.apply(store, vec![put(Family::Log, &[20], &[20])]);
    store.reopen().expect("a reopen succeeds");
    let applied = store.applied();
    assert!((20..=21).contains(&applied.0), "20 were synced and 21 applied, {applied} are there");
    assert_eq!(keys(store, b"", END).len() as u64, applied.0);
    let mut history = History::after(store);
    history.apply(store, vec![put(Family::Log, &[99], b"on")]);
    assert_eq!(store.sync().expect("a sync succeeds"), CommitIndex(applied.0 + 1));
}

fn what_was_closed_is_there_when_opened_again(open: Open<'_>) {
    let store = open("closed");
    let mut history = History::after(&*store);
    history.apply(&*store, vec![put(Family::Log, b"k", b"v")]);
    store.close().expect("a close succeeds");
    assert_eq!(store.get(Family::Log, b"k"), Err(Error::Closed));
    assert_eq!(store.sync(), Err(Error::Closed));
    assert_eq!(store.apply(&history.commit(vec![])), Err(Error::Closed));
    assert_eq!(store.compact(Family::Log, b"", END, Deleted::Some), Err(Error::Closed));
    assert_eq!(store.flush(), Err(Error::Closed));
    assert_eq!(store.reopen(), Err(Error::Closed));
    assert_eq!(store.close(), Err(Error::Closed));
    drop(store);
    let store = open("closed");
    assert_eq!(store.applied(), CommitIndex(1));
    assert_eq!(read(&*store, Family::Log, b"k").as_deref(), Some(&b"v"[..]));
}

fn compaction_changes_nothing_that_can_be_read(store: &dyn Store) {
    let mut history = History::after(store);
    for step in 0..50u8 {
        history.apply(store, vec![put(Family::Log, &[step], &[step; 6000])]);
    }
    history.apply(store, vec![delete_range(Family::Log, &[10], &[40])]);
    let before = scan(store, Family::Log, b"", END, ScanLimit::NONE);
    assert_eq!(before.len(), 20);
    store.compact(Family::Log, b"", END, Deleted::Some).expect("a compaction succeeds");
    store.compact(Family::Log, &[50], &[10], Deleted::All).expect("a compaction of nothing succeeds");
    store.flush().expect("a flush succeeds");
    assert_eq!(scan(store, Family::Log, b"", END, ScanLimit::NONE), before);
}

/// Few keys and few lengths, so that operations meet; values on both sides of the size that is stored apart.
fn random_commits_do_what_a_map_does(open: Open<'_>, seed: u64) {
    let name = format!("random {seed}");
    let mut store = open(&name);
    let mut history = History::after(&*store);
    let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    let mut random = Random(seed);
    for step in 0..120 {
        let ops: Vec<Op> = (0..random.below(6)).map(|_| random.op()).collect();
        for op in &ops {
            change(&mut model, op);
        }
        history.apply(&*store, ops);
        match random.below(20) {
            0 => {
                let (from, to) = ([random.byte(16)], [random.byte(16)]);
                store.compact(Family::Log, &from, &to, Deleted::Some).expect("it compacts");
            }
            1 => {
                store.sync().expect("a sync succeeds");
                store.reopen().expect("a reopen succeeds");
            }
            2 => {
                store.close().expect("a close succeeds");
                drop(store);
                store = open(&name);
            }
            _ => {}
        }
        let (from, to) = ([random.byte(16)], [random.byte(16)]);
        let expected: Vec<_> = model
            .iter()
            .filter(|(key, _)| from[..] <= key[..] && key[..] < to[..])
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let last = store.last_before(Family::Log, &from, &to).expect("a range can be read");
        assert_eq!(last, expected.last().cloned(), "seed {seed}, step {step}");
        let rows = scan(&*store, Family::Log, &from, &to, ScanLimit::NONE);
        assert!(rows == expected, "seed {seed}, step {step}: a scan differs from the map");
    }
}

fn change(model: &mut BTreeMap<Bytes, Bytes>, op: &Op) {
    match op {
        Op::Put { key, value, .. } => {
            model.insert(key.clone(), value.clone());
        }
        Op::Delete { key, .. } => {
            model.remove(key);
        }
        Op::DeleteRange { from, to, .. } => model.retain(|key, _| key < from || key >= to),
    }
}

/// A small generator (xorshift), so that the suite needs no other crate and a seed is enough to repeat a run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % bound
    }

    fn byte(&mut self, bound: u8) -> u8 {
        u8::try_from(self.below(u64::from(bound))).expect("it is below a byte")
    }

    fn op(&mut self) -> Op {
        let (key, other) = ([self.byte(16)], [self.byte(16)]);
        match self.below(5) {
            0 => delete(Family::Log, &key),
            1 => delete_range(Family::Log, &key, &other),
            _ => {
                let len = [1, 100, 4095, 4096, 20_000][usize::from(self.byte(5))];
                put(Family::Log, &key, &vec![self.byte(255); len])
            }
        }
    }
}
