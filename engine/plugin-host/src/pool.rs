//! The threads that run plugins, and whose turn it is.
//!
//! Places share the workers: a worker that is free serves the place that has had the least time on them. A call runs
//! for one slice, about a tick of the epoch; if it has not ended then it is put aside, and the worker looks anew whose
//! turn it is. However long a place's calls run and however many it has queued, others wait for a slice of it and not
//! for a call. A place that had nothing to do for a while has no claim to the time that it did not use.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::error;

use crate::{
    CallError, CallInput, Error, Place,
    attachment::{CallResult, Shared},
    engine,
};

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

/// One call that waits for its first slice.
pub(crate) struct Job {
    pub(crate) attachment: Arc<Shared>,
    pub(crate) input: CallInput,
    pub(crate) answer: oneshot::Sender<CallResult>,
    /// Its place in the attachment's queue, which is free once it runs.
    pub(crate) room: OwnedSemaphorePermit,
}

/// One call that has begun.
struct Call {
    attachment: Arc<Shared>,
    running: Pin<Box<dyn Future<Output = CallResult> + Send>>,
    answer: oneshot::Sender<CallResult>,
}

/// What waits and what runs.
pub(crate) struct Pool {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    /// Places with something queued, put aside or running.
    lanes: Vec<Lane>,
    /// The most that a place had had when its turn came: what one that comes anew is counted as having had.
    turn: Duration,
    closed: bool,
}

struct Lane {
    share: Arc<Share>,
    /// How much time on workers the place has had.
    had: Duration,
    /// Calls that have begun and wait for their next slice.
    aside: VecDeque<Call>,
    jobs: VecDeque<Job>,
    /// Slices under way.
    running: u32,
}

/// What a worker took.
enum Taken {
    New(Job),
    Aside(Call),
}

/// The worker threads; dropped, they end after the slices that they are in.
pub(crate) struct Workers {
    pool: Arc<Pool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads.
    pub(crate) fn start(count: usize) -> Result<Self, Error> {
        let pool = Arc::new(Pool { state: Mutex::default(), work: Condvar::new() });
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
            // A worker catches what panics in it.
            let _ended = thread.join();
        }
    }
}

impl Pool {
    /// Queues a call; after the host has shut down the job is dropped, which its caller notices.
    pub(crate) fn push(&self, job: Job) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.lane(job.attachment.share()).jobs.push_back(job);
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
        while let Some(taken) = self.take() {
            let begun = Instant::now();
            let mut call = match taken {
                Taken::New(job) if job.answer.is_closed() => {
                    self.end_slice(job.attachment.share(), Duration::ZERO, None);
                    continue;
                }
                Taken::New(Job { attachment, input, answer, room }) => {
                    drop(room);
                    let running = Box::pin(Arc::clone(&attachment).run(input));
                    Call { attachment, running, answer }
                }
                Taken::Aside(call) => {
                    engine::begin_slice();
                    call
                }
            };
            let polled = catch_unwind(AssertUnwindSafe(|| {
                call.running.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            }));
            let slice = begun.elapsed();
            let share = Arc::clone(call.attachment.share());
            let answer = match polled {
                Ok(Poll::Pending) if !call.answer.is_closed() => {
                    self.end_slice(&share, slice, Some(call));
                    continue;
                }
                // Nobody wants to know how it ends.
                Ok(Poll::Pending) => None,
                Ok(Poll::Ready(answer)) => Some(answer),
                Err(_) => {
                    error!("plugin host panicked in a call");
                    Some(Err(CallError::Trap("the plugin host failed".to_owned())))
                }
            };
            self.end_slice(&share, slice, None);
            if let Some(answer) = answer {
                // A caller that went away meanwhile does not want it.
                let _unwanted = call.answer.send(answer);
            }
        }
    }

    /// Waits for something to run; `None` when the host shuts down.
    fn take(&self) -> Option<Taken> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(taken) = state.next() {
                return Some(taken);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// After a slice: counts it, and puts the call aside that has not ended.
    fn end_slice(&self, share: &Arc<Share>, slice: Duration, aside: Option<Call>) {
        let mut state = self.lock();
        if state.closed {
            // The call is dropped, and its caller told.
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
            let (aside, jobs) = (VecDeque::new(), VecDeque::new());
            self.lanes.push(Lane { share, had, aside, jobs, running: 0 });
            self.lanes.len() - 1
        });
        &mut self.lanes[at]
    }

    /// Takes something to run from the place that has had the least.
    fn next(&mut self) -> Option<Taken> {
        let waiting = self.lanes.iter_mut().filter(|lane| lane.has_work());
        let lane = waiting.min_by_key(|lane| lane.had + SLICE * lane.running)?;
        self.turn = self.turn.max(lane.had);
        lane.running += 1;
        // What has begun goes first: so no more calls of a place are under way than there are workers.
        lane.aside.pop_front().map(Taken::Aside).or_else(|| lane.jobs.pop_front().map(Taken::New))
    }
}

impl Lane {
    fn has_work(&self) -> bool {
        !self.aside.is_empty() || !self.jobs.is_empty()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}
