//! The failure that closed the store for writes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::failure;
use crate::Error;

/// What the last write or sync failed with that closed the store, and who is about to tell.
///
/// A write and a sync that run at the same time fail together, and only one of them learns why: RocksDB tells the other that something
/// has failed before. The cause decides whether the store heals, so the other waits until it is noted.
#[derive(Debug, Default)]
pub(super) struct Failures {
    first: Mutex<Option<Error>>,
    /// Held while a commit is written, until its failure is noted.
    writing: Mutex<()>,
    /// The same for a sync.
    syncing: Mutex<()>,
}

impl Failures {
    /// # Errors
    /// The failure that closed the store for writes, if there was one.
    pub(super) fn check(&self) -> Result<(), Error> {
        lock(&self.first).clone().map_or(Ok(()), Err)
    }

    /// Replaces the failure by that of a reopen, or by none.
    pub(super) fn replace(&self, error: Option<Error>) {
        *lock(&self.first) = error;
    }

    /// Writes a commit.
    ///
    /// # Errors
    /// The first failure of a write or sync, which may be an earlier one.
    pub(super) fn writing(&self, write: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        self.note(write, &self.writing, &self.syncing)
    }

    /// Syncs; as [`Self::writing`].
    pub(super) fn syncing(&self, sync: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        self.note(sync, &self.syncing, &self.writing)
    }

    fn note(
        &self,
        action: impl FnOnce() -> Result<(), Error>,
        own: &Mutex<()>,
        other: &Mutex<()>,
    ) -> Result<(), Error> {
        let held = lock(own);
        let Err(error) = action() else { return Ok(()) };
        if failure::is_aftermath(&error) {
            // Both may be told the same: neither waits for the other with its own lock held.
            drop(held);
            drop(lock(other));
        }
        Err(lock(&self.first).get_or_insert(error).clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    fn full() -> Error {
        Error::Full { reason: "write: No space left on device".to_owned() }
    }

    fn aftermath() -> Error {
        Error::Failed { reason: "sync: IO error: Writer has previous error.".to_owned() }
    }

    type Call = fn(&Failures, &mut dyn FnMut() -> Result<(), Error>) -> Result<(), Error>;

    /// Two calls at once: the first fails for a cause, after the second was told that something has failed.
    fn fail_together(first: Call, second: Call) -> [Result<(), Error>; 3] {
        let failures = Failures::default();
        let (begun, has_begun) = mpsc::channel();
        let (told, was_told) = mpsc::channel();
        thread::scope(|scope| {
            let failures = &failures;
            let first = scope.spawn(move || {
                first(failures, &mut || {
                    begun.send(()).unwrap();
                    was_told.recv().unwrap();
                    thread::yield_now();
                    Err(full())
                })
            });
            has_begun.recv().unwrap();
            let second = second(failures, &mut || {
                told.send(()).unwrap();
                Err(aftermath())
            });
            [first.join().unwrap(), second, failures.check()]
        })
    }

    #[test]
    fn of_a_write_and_a_sync_that_fail_together_both_name_the_cause() {
        let write: Call = |failures, action| failures.writing(action);
        let sync: Call = |failures, action| failures.syncing(action);
        for _ in 0..200 {
            for (first, second) in [(write, sync), (sync, write)] {
                assert_eq!(fail_together(first, second), [Err(full()), Err(full()), Err(full())]);
            }
        }
    }

    #[test]
    fn without_a_cause_what_both_were_told_is_kept() {
        let failures = Failures::default();
        thread::scope(|scope| {
            let write = scope.spawn(|| failures.writing(|| Err(aftermath())));
            assert_eq!(failures.syncing(|| Err(aftermath())), Err(aftermath()));
            assert_eq!(write.join().unwrap(), Err(aftermath()));
        });
        assert_eq!(failures.check(), Err(aftermath()));
        failures.replace(None);
        assert_eq!(failures.check(), Ok(()));
    }

    #[test]
    fn the_first_failure_is_kept() {
        let failures = Failures::default();
        assert_eq!(failures.writing(|| Err(full())), Err(full()));
        assert_eq!(failures.syncing(|| Err(Error::Closed)), Err(full()));
        assert_eq!(failures.check(), Err(full()));
    }
}
