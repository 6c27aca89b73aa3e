//! The runtime of HTTP: requests, streams and pushes have threads of their own, which go after those that take, commit and deliver events.
//! So whatever HTTP clients do, QUIC waits for no more than a time slice of theirs.

use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// One thread serves HTTP for each so many processors, and one where there are fewer than twice as many.
const PROCESSORS_PER_THREAD: usize = 4;
/// How much HTTP gives way, as of nice(2): about a third of the weight of the engine's other threads.
const NICENESS: i32 = 5;

/// The runtime; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct HttpRuntime {
    handle: Handle,
    _ends: DropGuard,
}

impl HttpRuntime {
    /// Starts its threads.
    ///
    /// # Errors
    /// If a thread or the runtime's file descriptors cannot be had.
    pub(crate) fn start() -> io::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let threads = processors / PROCESSORS_PER_THREAD;
        let mut builder =
            if threads <= 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
        if threads > 1 {
            builder.worker_threads(threads);
        }
        let runtime = builder.enable_all().thread_name("levada-http").on_thread_start(give_way).build()?;
        let (handle, ends) = (runtime.handle().clone(), CancellationToken::new());
        let ended = ends.clone();
        // It drives the runtime if that has no thread of its own, and ends it where that may block.
        thread::Builder::new().name("levada-http".to_owned()).spawn(move || {
            give_way();
            runtime.block_on(ended.cancelled());
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, _ends: ends.drop_guard() })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// Where a process has one priority and not each thread its own, nothing changes.
fn give_way() {
    if cfg!(target_os = "linux") {
        // Where this is not allowed, others only have to share more.
        let _niceness = rustix::process::nice(NICENESS);
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[tokio::test]
    async fn its_tasks_run_on_its_own_thread_which_gives_way_and_end_with_it() {
        let http = HttpRuntime::start().unwrap();
        let seen = http.handle().spawn(async {
            let niceness = getpriority_process(None).unwrap();
            (thread::current().name().map(ToOwned::to_owned), niceness)
        });
        let (name, niceness) = seen.await.unwrap();
        assert_eq!(name.as_deref(), Some("levada-http"));
        if cfg!(target_os = "linux") {
            let ours = getpriority_process(None).unwrap();
            assert_eq!(niceness, (ours + NICENESS).min(19), "ours is {ours}");
        }
        let waiting = http.handle().spawn(std::future::pending::<()>());
        drop(http);
        assert!(waiting.await.unwrap_err().is_cancelled());
    }
}
