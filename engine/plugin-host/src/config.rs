//! The settings of a host.

use std::{path::PathBuf, thread, time::Duration};

/// How a host runs plugins.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Threads that run calls which begin; by default as many as the machine has cores. Calls that were put aside have
    /// one thread fewer, but at least one.
    pub workers: usize,
    /// Where compiled plugins are kept. The engine's alone: made with mode 0700.
    pub cache_dir: PathBuf,
    /// How often a running call is put aside for others and its deadline is checked; 1 ms by default. A call may
    /// take this much longer than its deadline.
    pub tick: Duration,
    /// Most calls of one attachment that wait for a worker; by default 16. One more waits in its future.
    pub queue_calls_max: usize,
    /// How much processor time making an instance may take, `init` included; by default 2 s. It is counted as a call's:
    /// see [`levada_stage::AttachSpec::deadline`].
    pub init_deadline: Duration,
}

impl HostConfig {
    /// The defaults, with compiled plugins in `cache_dir`.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            workers: thread::available_parallelism().map_or(1, usize::from),
            cache_dir: cache_dir.into(),
            tick: Duration::from_millis(1),
            queue_calls_max: 16,
            init_deadline: Duration::from_secs(2),
        }
    }
}
