//! Fragments that ride in whichever group comes next: owners leave them here, the writer takes them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::command::Fragment;

/// The fragments that wait for a group.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    fragments: Vec<Fragment>,
    /// There is no writer any more.
    ended: bool,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a fragment; true if it is the first, and so somebody must see to it that a group comes. Without a writer
    /// it is dropped, which its owner notices.
    pub(super) fn push(&self, fragment: Fragment) -> bool {
        let mut inner = self.lock();
        if inner.ended {
            return false;
        }
        inner.fragments.push(fragment);
        inner.fragments.len() == 1
    }

    /// Takes all that wait.
    pub(super) fn take(&self) -> Vec<Fragment> {
        std::mem::take(&mut self.lock().fragments)
    }

    /// Drops what waits and what will come: nobody takes it any more.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        drop(self.take());
    }
}
