//! The threads that run plugins, and whose turn it is.
//!
//! Attachments take turns, however much each has queued. An attachment that overran its deadline, or has yet to
//! prove itself, gets one worker at most, and all such together leave one worker free (if there are two): plugins
//! that loop for ever delay nobody else.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::error;

use crate::{
    CallError, CallInput, Error,
    attachment::{CallResult, Shared},
};

/// Native stack of a worker: what a plugin may use, and enough for the host's own frames.
const WORKER_STACK_BYTES: usize = 2 * 1024 * 1024;

/// One call that waits.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) input: CallInput,
    pub(crate) answer: oneshot::Sender<CallResult>,
    /// Its place in the attachment's queue.
    pub(crate) _room: OwnedSemaphorePermit,
}

/// What waits and what runs.
pub(crate) struct Pool {
    state: Mutex<State>,
    work: Condvar,
    suspects_max: usize,
}

struct State {
    /// Attachments with something queued or running, the next one to be served first.
    lanes: VecDeque<Lane>,
    suspects_running: usize,
    closed: bool,
}

struct Lane {
    attachment: Arc<Shared>,
    jobs: VecDeque<Job>,
    running: usize,
}

/// A job that a worker took.
struct Taken {
    attachment: Arc<Shared>,
    job: Job,
    suspect: bool,
}

/// The worker threads; dropped, they end after the calls that they are in.
pub(crate) struct Workers {
    pool: Arc<Pool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads.
    pub(crate) fn start(count: usize) -> Result<Self, Error> {
        let state = State { lanes: VecDeque::new(), suspects_running: 0, closed: false };
        let suspects_max = count.saturating_sub(1).max(1);
        let pool = Arc::new(Pool { state: Mutex::new(state), work: Condvar::new(), suspects_max });
        let mut workers = Self { pool, threads: Vec::new() };
        for worker in 0..count {
            let pool = workers.pool.clone();
            let thread = thread::Builder::new()
                .name(format!("levada-wasm-{worker}"))
                .stack_size(WORKER_STACK_BYTES)
                .spawn(move || pool.work(worker))
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
    pub(crate) fn push(&self, attachment: &Arc<Shared>, job: Job) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        match state.lanes.iter_mut().find(|lane| Arc::ptr_eq(&lane.attachment, attachment)) {
            Some(lane) => lane.jobs.push_back(job),
            None => {
                let (attachment, jobs) = (attachment.clone(), VecDeque::from([job]));
                state.lanes.push_back(Lane { attachment, jobs, running: 0 });
            }
        }
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
    fn work(&self, worker: usize) {
        while let Some(taken) = self.take() {
            let Taken { attachment, job, suspect } = taken;
            if !job.answer.is_closed() {
                let run = AssertUnwindSafe(|| attachment.run(worker, &job.input));
                let result = catch_unwind(run).unwrap_or_else(|_| {
                    error!(worker, "plugin host panicked in a call");
                    Err(CallError::Trap("the plugin host failed".to_owned()))
                });
                self.done(&attachment, suspect);
                // A caller that went away meanwhile does not want it.
                let _unwanted = job.answer.send(result);
            } else {
                self.done(&attachment, suspect);
            }
        }
    }

    /// Waits for a job; `None` when the host shuts down.
    fn take(&self) -> Option<Taken> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(taken) = state.next(self.suspects_max) {
                return Some(taken);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// After a call: its attachment may have another one that had to wait for it.
    fn done(&self, attachment: &Arc<Shared>, suspect: bool) {
        let mut state = self.lock();
        state.suspects_running -= usize::from(suspect);
        let at = state.lanes.iter().position(|lane| Arc::ptr_eq(&lane.attachment, attachment));
        let waiting = at.is_some_and(|at| {
            let lane = &mut state.lanes[at];
            lane.running -= 1;
            if lane.running == 0 && lane.jobs.is_empty() {
                state.lanes.remove(at);
            }
            suspect && state.lanes.iter().any(|lane| !lane.jobs.is_empty())
        });
        drop(state);
        if waiting {
            self.work.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a job of the first attachment whose turn it may be, which then goes to the end.
    fn next(&mut self, suspects_max: usize) -> Option<Taken> {
        let suspects_full = self.suspects_running >= suspects_max;
        let at = self.lanes.iter().position(|lane| {
            let risky = lane.attachment.is_suspect() && (lane.running > 0 || suspects_full);
            !lane.jobs.is_empty() && !risky
        })?;
        let mut lane = self.lanes.remove(at)?;
        let job = lane.jobs.pop_front()?;
        lane.running += 1;
        let attachment = lane.attachment.clone();
        let suspect = attachment.is_suspect();
        self.suspects_running += usize::from(suspect);
        self.lanes.push_back(lane);
        Some(Taken { attachment, job, suspect })
    }
}
