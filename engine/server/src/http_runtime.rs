//! The runtime of HTTP: requests, streams and pushes have threads of their own, which go after those that take, commit and deliver events.
//! So whatever HTTP clients do, QUIC waits for no more than a time slice of theirs.

use std::{io, thread, time::Duration};

use rustix::process::{getpriority_process, setpriority_process};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// One thread serves HTTP for each so many processors, and one where there are fewer than twice as many.
const PROCESSORS_PER_THREAD: usize = 4;
/// How much HTTP gives way, as of nice(2): about a third of the weight of the engine's other threads.
const NICENESS: i32 = 5;
/// Nothing gives way more.
const NICENESS_MAX: i32 = 19;

/// How long its end waits for work that blocks.
const BLOCKING_MAX: Duration = Duration::from_secs(1);

/// The runtime; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct HttpRuntime {
    handle: Handle,
    ends: DropGuard,
    ended: oneshot::Receiver<()>,
}

impl HttpRuntime {
    /// Starts its threads.
    ///
    /// # Errors
    /// If a thread or the runtime's file descriptors cannot be had.
    pub(crate) fn start() -> io::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let threads = processors / PROCESSORS_PER_THREAD;
        let niceness = getpriority_process(None).unwrap_or(0).saturating_add(NICENESS).min(NICENESS_MAX);
        let mut builder =
            if threads <= 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
        if threads > 1 {
            builder.worker_threads(threads);
        }
        let runtime = builder
            .enable_all()
            .thread_name("levada-http")
            .on_thread_start(move || give_way(niceness))
            .build()?;
        let (handle, ends) = (runtime.handle().clone(), CancellationToken::new());
        let (until, (tell, ended)) = (ends.clone(), oneshot::channel());
        // It drives the runtime if that has no thread of its own, and ends it where that may block.
        thread::Builder::new().name("levada-http".to_owned()).spawn(move || {
            give_way(niceness);
            runtime.block_on(until.cancelled());
            runtime.shutdown_timeout(BLOCKING_MAX);
            // Nobody waits for it where it was dropped.
            let _ = tell.send(());
        })?;
        Ok(Self { handle, ends: ends.drop_guard(), ended })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends it with all that runs on it, and waits for that.
    pub(crate) async fn stop(self) {
        let Self { ends, ended, .. } = self;
        drop(ends);
        // It fails if the thread has panicked, and has ended then.
        let _ = ended.await;
    }
}

/// Gives this thread this niceness: not so much more than it has, as threads begin with that of the one that starts them. Where a process
/// has one priority and not each thread its own, nothing changes.
fn give_way(niceness: i32) {
    if cfg!(target_os = "linux") {
        // Where this is not allowed, others only have to share more.
        let _ = setpriority_process(None, niceness);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_tasks_run_on_its_own_thread_which_gives_way_and_end_with_it() {
        let http = HttpRuntime::start().unwrap();
        let seen = || {
            let niceness = getpriority_process(None).unwrap();
            (thread::current().name().map(ToOwned::to_owned), niceness)
        };
        let tasks = http.handle().spawn(async move { seen() });
        // A thread for work that blocks is started by one that gives way already.
        let blocking = http.handle().spawn(async move { tokio::task::spawn_blocking(seen).await.unwrap() });
        for (name, niceness) in [tasks.await.unwrap(), blocking.await.unwrap()] {
            assert_eq!(name.as_deref(), Some("levada-http"));
            if cfg!(target_os = "linux") {
                let ours = getpriority_process(None).unwrap();
                assert_eq!(niceness, (ours + NICENESS).min(NICENESS_MAX), "ours is {ours}");
            }
        }
        let waiting = http.handle().spawn(std::future::pending::<()>());
        http.stop().await;
        assert!(waiting.is_finished() && waiting.await.unwrap_err().is_cancelled());
    }
}
