//! The bench's clocks: one for latencies, one for CPU, one that ticks. The only file here that asks for time.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Nanoseconds since the bench began, the same in all of its threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    begun: Instant,
    begun_wall_ms: u64,
}

impl Clock {
    /// Begins now.
    pub(crate) fn start() -> Self {
        let wall = jiff::Timestamp::now().as_millisecond();
        Self { begun: Instant::now(), begun_wall_ms: u64::try_from(wall).unwrap_or(0) }
    }

    /// Nanoseconds since the beginning.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// An instant of this clock as milliseconds since the Unix epoch.
    #[inline]
    pub(crate) fn wall_ms(&self, nanoseconds: u64) -> u64 {
        self.begun_wall_ms + nanoseconds / 1_000_000
    }
}

/// CPU time of this process so far, all threads together.
pub(crate) fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "seconds and nanoseconds of a process fit 53 bits")]
    let seconds = spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9;
    seconds
}

/// Ticks at a fixed rate, to the precision of the system's timers; tokio's own tick once a millisecond.
#[derive(Debug)]
pub(crate) struct Ticker {
    timer: AsyncFd<OwnedFd>,
    begun: u64,
    interval: f64,
    passed: u64,
}

impl Ticker {
    /// Ticks so many times a second, from now on.
    pub(crate) fn start(clock: Clock, rate: f64) -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let interval = Duration::from_secs_f64(1.0 / rate).max(Duration::from_nanos(1));
        let spec = Timespec {
            tv_sec: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: interval.subsec_nanos().into(),
        };
        let begun = clock.now();
        timerfd_settime(
            &timer,
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: spec, it_value: spec },
        )?;
        #[expect(clippy::cast_precision_loss, reason = "an interval of nanoseconds")]
        let interval = interval.as_nanos() as f64;
        #[expect(
            deprecated,
            reason = "sound for a descriptor that is owned here; its successor is an unsafe function"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer, begun, interval, passed: 0 })
    }

    /// Waits for the next tick; answers how many are due, the missed ones included.
    pub(crate) async fn due(&mut self) -> io::Result<u64> {
        loop {
            let mut ready = self.timer.readable().await?;
            let mut count = [0; 8];
            let read = |timer: &AsyncFd<OwnedFd>| Ok(rustix::io::read(timer.get_ref(), &mut count)?);
            match ready.try_io(read) {
                Ok(Ok(_)) => return Ok(u64::from_ne_bytes(count)),
                Ok(Err(error)) => return Err(error),
                Err(_not_yet) => {}
            }
        }
    }

    /// When the next tick that was not asked about yet was due, on the bench's clock.
    pub(crate) fn next_time(&mut self) -> u64 {
        self.passed += 1;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive time of far less than 2^53 nanoseconds"
        )]
        let since = (self.passed as f64 * self.interval) as u64;
        self.begun + since
    }
}
