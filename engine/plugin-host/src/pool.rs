//! The threads that run plugins, and whose turn it is.
//!
//! Places share the workers: a worker that is free serves the place that has had the least time on them. Work, a call or
//! the making of an instance, runs for one slice, one or two ticks of the epoch; if it has not ended then it is put
//! aside, and the worker looks anew whose turn it is. However long a place's calls run and however many it has queued,
//! others wait for a slice of it and not for a call. A place that had nothing to do for a while has no claim to the time
//! that it did not use.
//!
//! What was put aside is long. Long work leaves one worker free, if there are two, for work that begins: so a quick call
//! finds a worker at once, and the rest of the engine a processor.
//!
//! It must not know what the work is.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tracing::error;

use crate::{Error, Place, engine};

/// How much plugins give way to the threads that take and commit events, as of nice(2): these go first even while
/// plugins keep all cores busy.
const WORKER_NICENESS: i32 = 5;
/// Native stack of a worker. Plugins run on stacks of their own.
const WORKER_STACK_BYTES: usize = 2 * 1024 * 1024;
/// What a slice that is running is counted as until it ends.
const SLICE: Duration = Duration::from_millis(1);

/// One place's share of the workers, which its attachments have in common.
#[derive(Debug, Default)]
pub(crate) struct Share {
    /// How much time it has had when it last had nothing more to do; see [`Lane::had`].
    had: Mutex<Duration>,
}

/// The shares of all places that have attachments.
#[derive(Debug, Default)]
pub(crate) struct Shares(Mutex<HashMap<(Place, u64), Weak<Share>>>);

impl Shares {
    /// The share of a place.
    pub(crate) fn of(&self, place: Place, id: u64) -> Arc<Share> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&(place, id)).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::<Share>::default();
        shares.insert((place, id), Arc::downgrade(&share));
        share
    }
}

/// Something to run: pending at the end of each slice, and to be polled again whenever it has its turn.
pub(crate) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Work that ends in an answer, or ends at once when nobody waits for that any more. `panicked` is the answer if the
/// host itself fails in it.
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
        // Whoever asked may have gone meanwhile.
        let _unwanted = answer.send(ended);
    })
}

/// What waits and what runs.
pub(crate) struct Pool {
    state: Mutex<State>,
    work: Condvar,
    /// How many workers long work may have.
    long_max: usize,
}

#[derive(Default)]
struct State {
    /// Places with something queued, put aside or running.
    lanes: Vec<Lane>,
    /// The most that a place had had when its turn came: what one that comes anew is counted as having had.
    turn: Duration,
    /// Slices of long work under way.
    long_running: usize,
    closed: bool,
}

struct Lane {
    share: Arc<Share>,
    /// How much time on workers the place has had.
    had: Duration,
    /// What has begun and waits for its next slice.
    aside: VecDeque<Work>,
    queued: VecDeque<Work>,
    /// Slices under way.
    running: u32,
}

/// What a worker took.
struct Taken {
    share: Arc<Share>,
    work: Work,
    is_long: bool,
}

/// The worker threads; dropped, they end after the slices that they are in.
pub(crate) struct Workers {
    pool: Arc<Pool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads.
    pub(crate) fn start(count: usize) -> Result<Self, Error> {
        let long_max = count.saturating_sub(1).max(1);
        let pool = Arc::new(Pool { state: Mutex::default(), work: Condvar::new(), long_max });
        let mut workers = Self { pool, threads: Vec::new() };
        for worker in 0..count {
            let pool = workers.pool.clone();
            let thread = thread::Builder::new()
                .name(format!("levada-wasm-{worker}"))
                .stack_size(WORKER_STACK_BYTES)
                .spawn(move || pool.work())
                .map_err(|error| Error::Unavailable(error.to_string()))?;
            workers.threads.push(thread);
        }
        Ok(workers)
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
    /// Queues work of a place; after the host has shut down it is dropped, which whoever waits for it notices.
    pub(crate) fn push(&self, share: &Arc<Share>, work: Work) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.lane(share).queued.push_back(work);
        drop(state);
        self.work.notify_one();
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let lanes = std::mem::take(&mut state.lanes);
        drop(state);
        self.work.notify_all();
        drop(lanes);
    }

    /// A worker's life.
    fn work(&self) {
        engine::give_way(WORKER_NICENESS);
        let mut context = Context::from_waker(Waker::noop());
        while let Some(Taken { share, mut work, is_long }) = self.take() {
            let begun = Instant::now();
            engine::begin_slice();
            let aside = work.as_mut().poll(&mut context).is_pending().then_some(work);
            self.end_slice(&share, begun.elapsed(), is_long, aside);
        }
    }

    /// Waits for something to run; `None` when the host shuts down.
    fn take(&self) -> Option<Taken> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(taken) = state.next(self.long_max) {
                return Some(taken);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// After a slice: counts it, and puts the work aside that has not ended.
    fn end_slice(&self, share: &Arc<Share>, slice: Duration, was_long: bool, aside: Option<Work>) {
        let mut state = self.lock();
        state.long_running -= usize::from(was_long);
        if state.closed {
            // The work is dropped, which whoever waits for it notices.
            return;
        }
        let Some(at) = state.lanes.iter().position(|lane| Arc::ptr_eq(&lane.share, share)) else { return };
        let lane = &mut state.lanes[at];
        lane.running -= 1;
        lane.had += slice;
        lane.aside.extend(aside);
        if lane.running == 0 && !lane.has_work() {
            *lane.share.had.lock().unwrap_or_else(PoisonError::into_inner) = lane.had;
            state.lanes.swap_remove(at);
        }
        let left = was_long && state.lanes.iter().any(|lane| !lane.aside.is_empty());
        drop(state);
        if left {
            // This worker may find something else that has its turn.
            self.work.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The lane of a place, made if it has none.
    fn lane(&mut self, share: &Arc<Share>) -> &mut Lane {
        let at = self.lanes.iter().position(|lane| Arc::ptr_eq(&lane.share, share));
        let at = at.unwrap_or_else(|| {
            let had = *share.had.lock().unwrap_or_else(PoisonError::into_inner);
            let (share, had) = (Arc::clone(share), had.max(self.turn));
            let (aside, queued) = (VecDeque::new(), VecDeque::new());
            self.lanes.push(Lane { share, had, aside, queued, running: 0 });
            self.lanes.len() - 1
        });
        &mut self.lanes[at]
    }

    /// Takes something to run from the place that has had the least.
    fn next(&mut self, long_max: usize) -> Option<Taken> {
        let room = self.long_running < long_max;
        let waiting = self.lanes.iter_mut().filter(|lane| lane.has_work() && (room || lane.aside.is_empty()));
        let lane = waiting.min_by_key(|lane| lane.had + SLICE * lane.running)?;
        self.turn = self.turn.max(lane.had);
        // What has begun goes first: so no more calls of a place are under way than there are workers.
        let is_long = !lane.aside.is_empty();
        let work = lane.aside.pop_front().or_else(|| lane.queued.pop_front())?;
        lane.running += 1;
        self.long_running += usize::from(is_long);
        Some(Taken { share: Arc::clone(&lane.share), work, is_long })
    }
}

impl Lane {
    fn has_work(&self) -> bool {
        !self.aside.is_empty() || !self.queued.is_empty()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}
