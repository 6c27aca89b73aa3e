//! The only place where the broker reads the clocks.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use levada_delivery::now::Now;
use levada_protocol::ids::Timestamp;
use tokio::time::Instant;

/// Where the broker's time comes from: the time of day, which may jump, for what people see and for what must survive a
/// restart; and a monotonic clock for everything that waits.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    started: Instant,
}

impl Clock {
    /// The system's clocks.
    pub fn system() -> Self {
        Self::of(system_time)
    }

    /// A time of day of the caller's own, as a test needs to let it jump; the monotonic clock is the system's.
    pub fn of(wall: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { wall: Arc::new(wall), started: Instant::now() }
    }

    /// The time of day, in milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> Timestamp {
        (self.wall)()
    }

    /// Both clocks.
    pub(crate) fn moment(&self) -> Now {
        Now { mono_ms: u64::try_from(self.uptime().as_millis()).unwrap_or(u64::MAX), wall: self.now() }
    }

    /// How long ago this clock was made, on the monotonic clock.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// The system's time of day, in milliseconds since the Unix epoch.
fn system_time() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this file is where the broker's time comes from")]
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
