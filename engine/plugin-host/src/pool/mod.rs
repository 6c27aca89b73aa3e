//! The threads that run plugins, and their schedule.
//!
//! Attachment points share the workers: a free worker serves the one that has had the least time on workers of its
//! class. Work, a call or the making of an instance, runs for one slice, one or two ticks of the epoch; if it has not
//! ended then it is put aside, and the worker chooses again. However long the calls of an attachment point run and
//! however many it has queued, others wait for one slice of it and not for a call. One that had nothing to do for a
//! while has no claim to the time that it did not use.
//!
//! Work that was put aside is long, and so is all work of an attachment point whose last slice was far over its end:
//! some instructions run on for as long as they have memory to fill, and cannot be interrupted. Long work has workers
//! of its own, one fewer than there are others but at least one, and these give way to the threads that take and commit
//! events. So work that has begun never keeps a worker from work that begins; only first slices do that.
//!
//! It must not know what the work is.

mod turns;

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use levada_stage::AttachmentPoint;
use tokio::sync::oneshot;
use tracing::error;

use self::turns::{Class, Ended, State, Taken};
use crate::{Error, engine};

/// How much long work gives way to the threads that take and commit events, as of nice(2): these go first even while
/// plugins keep all cores busy.
const LONG_NICENESS: i32 = 5;
/// Native stack of a worker. Plugins run on stacks of their own.
const WORKER_STACK_BYTES: usize = 2 * 1024 * 1024;

/// The share of the workers of one attachment point, which all plugins attached there have in common.
#[derive(Debug)]
pub(crate) struct Share {
    pool: Arc<Pool>,
    /// The index of its lane.
    lane: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.pool.lock().abandon(self.lane);
    }
}

/// The shares of all attachment points with attached plugins.
#[derive(Debug, Default)]
pub(crate) struct Shares(Mutex<HashMap<(AttachmentPoint, u64), Weak<Share>>>);

impl Shares {
    /// The share of an attachment point.
    pub(crate) fn of(&self, pool: &Arc<Pool>, point: AttachmentPoint, id: u64) -> Arc<Share> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&(point, id)).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let lane = pool.lock().new_lane();
        let share = Arc::new(Share { pool: Arc::clone(pool), lane });
        shares.insert((point, id), Arc::downgrade(&share));
        share
    }
}

/// Something to run: pending at the end of each slice, and polled again at its next turn.
pub(crate) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Work that sends its result, or ends at once when the receiver is dropped. `panicked` is the result if the host
/// itself fails in it.
pub(crate) fn answering<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
    mut answer: oneshot::Sender<T>,
    panicked: fn() -> T,
) -> Work {
    Box::pin(async move {
        let ended = {
            let mut work = pin!(work);
            poll_fn(|context| {
                if answer.poll_closed(context).is_ready() {
                    return Poll::Ready(None);
                }
                match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
                    Ok(polled) => polled.map(Ok).map(Some),
                    Err(panic) => Poll::Ready(Some(Err(panic))),
                }
            })
            .await
        };
        let ended = match ended {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => {
                error!("plugin host panicked");
                panicked()
            }
            None => return,
        };
        // The receiver may have been dropped meanwhile.
        let _unwanted = answer.send(ended);
    })
}

/// What waits and what runs.
pub(crate) struct Pool {
    state: Mutex<State>,
    quick: Condvar,
    long: Condvar,
    /// A slice that used more of the processor than this is far over its end.
    slice_max: Duration,
}

/// The worker threads; dropped, they end after their current slices.
pub(crate) struct Workers {
    pool: Arc<Pool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads, and those for long work. A slice that uses more of the processor than `slice_max` is far
    /// over its end.
    pub(crate) fn start(count: usize, slice_max: Duration) -> Result<Self, Error> {
        let state = Mutex::new(State::new(count));
        let pool = Arc::new(Pool { state, quick: Condvar::new(), long: Condvar::new(), slice_max });
        let mut workers = Self { pool, threads: Vec::new() };
        for worker in 0..count {
            workers.spawn(format!("levada-wasm-{worker}"), Class::Quick)?;
        }
        for worker in 0..count.saturating_sub(1).max(1) {
            workers.spawn(format!("levada-long-{worker}"), Class::Long)?;
        }
        Ok(workers)
    }

    fn spawn(&mut self, name: String, class: Class) -> Result<(), Error> {
        let pool = Arc::clone(&self.pool);
        let thread = thread::Builder::new().name(name).stack_size(WORKER_STACK_BYTES);
        let thread =
            thread.spawn(move || pool.work(class)).map_err(|error| Error::Unavailable(error.to_string()))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Where attachments queue their calls.
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.pool.close();
        for thread in self.threads.drain(..) {
            // What may panic in it is caught.
            let _ended = thread.join();
        }
    }
}

impl Pool {
    /// Queues work of an attachment point; after the host has shut down it is dropped, and with it its result's sender.
    pub(crate) fn push(&self, share: &Share, work: Work) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.queue(share.lane, work);
        let wanted = Class::ALL.map(|class| wanted(&state, share.lane, class));
        drop(state);
        wanted.into_iter().flatten().for_each(|class| self.wake(class));
    }

    fn wake(&self, class: Class) {
        match class {
            Class::Quick => self.quick.notify_one(),
            Class::Long => self.long.notify_one(),
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let lanes = std::mem::take(&mut state.lanes);
        drop(state);
        self.quick.notify_all();
        self.long.notify_all();
        drop(lanes);
    }

    /// A worker's loop.
    fn work(&self, class: Class) {
        if class == Class::Long {
            engine::give_way(LONG_NICENESS);
        }
        let mut context = Context::from_waker(Waker::noop());
        let mut ended = None;
        while let Some(Taken { lane, mut work, has_begun }) = self.turn(class, ended.take()) {
            let begun = Instant::now();
            if has_begun {
                engine::begin_slice();
            }
            let aside = work.as_mut().poll(&mut context).is_pending().then_some(work);
            let overran = engine::take_longest_slice() > self.slice_max;
            ended = Some(Ended { lane, class, slice: begun.elapsed(), overran, aside });
        }
    }

    /// Counts the slice that ended, and waits for something to run; `None` when the host shuts down.
    fn turn(&self, class: Class, mut ended: Option<Ended>) -> Option<Taken> {
        let mut state = self.lock();
        if !state.closed
            && let Some(ended) = ended.take()
        {
            let lane = ended.lane;
            state.end_slice(ended);
            // What is next there may be for workers of the other class; those of this one check below.
            let others = Class::ALL.into_iter().filter(|other| *other != class);
            others.filter_map(|other| wanted(&state, lane, other)).for_each(|other| self.wake(other));
        }
        loop {
            if state.closed {
                // Work is dropped without the lock: that may drop its share.
                drop(state);
                drop(ended);
                return None;
            }
            if let Some(taken) = state.next(class) {
                // The end of a slice may have left more to run than one worker can take.
                let more = state.waiting.of(class) > 0 && state.has_more(class);
                drop(state);
                if more {
                    self.wake(class);
                }
                return Some(taken);
            }
            *state.waiting.of_mut(class) += 1;
            let condition = match class {
                Class::Quick => &self.quick,
                Class::Long => &self.long,
            };
            state = condition.wait(state).unwrap_or_else(PoisonError::into_inner);
            *state.waiting.of_mut(class) -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The class, if one of its workers waits and could run something of this lane.
fn wanted(state: &State, lane: usize, class: Class) -> Option<Class> {
    (state.waiting.of(class) > 0 && state.is_runnable(lane, class)).then_some(class)
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
