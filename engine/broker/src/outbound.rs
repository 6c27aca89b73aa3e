//! Budgets for bytes that are ready for clients and not yet taken by their streams: for each stream, for each
//! connection, and over the engine.
//!
//! Bytes are reserved before anything is read for them, and released when the stream has taken the frame. A stream
//! begins with a small window that doubles while its client keeps up, so that one whose client reads nothing holds
//! little. It must not know what the frames hold.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Duration, Instant},
};

/// What a stream may leave untaken at first.
const WINDOW_FIRST: usize = 64 * 1024;
/// What a stream may leave untaken once its client has shown that it keeps up.
const WINDOW_MAX: usize = 1024 * 1024;

/// The budgets that the streams of one connection draw on. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    connection: Arc<Semaphore>,
    engine: Arc<Semaphore>,
    connection_max: usize,
}

impl Outbound {
    /// The engine's budget, with a first connection.
    pub(crate) fn new(engine_max: usize, connection_max: usize) -> Self {
        let connection_max = connection_max.min(engine_max);
        let engine = Arc::new(Semaphore::new(engine_max));
        Self { connection: Arc::new(Semaphore::new(connection_max)), engine, connection_max }
    }

    /// A budget for another connection.
    pub(crate) fn connection(&self) -> Self {
        Self { connection: Arc::new(Semaphore::new(self.connection_max)), ..self.clone() }
    }

    /// True if little is left for this connection or for the engine.
    pub(crate) fn is_short(&self) -> bool {
        self.connection.available_permits() < WINDOW_FIRST || self.engine.available_permits() < WINDOW_FIRST
    }

    /// A new stream's window.
    pub(crate) fn window(&self) -> Arc<Window> {
        Arc::new(Window {
            bytes: Arc::new(Semaphore::new(WINDOW_FIRST)),
            size: AtomicUsize::new(WINDOW_FIRST),
            outbound: self.clone(),
            untaken: Mutex::default(),
            wanted: AtomicUsize::new(0),
            is_wanted: Notify::new(),
            stuck: AtomicBool::new(false),
        })
    }
}

/// One stream's part of the budgets.
#[derive(Debug)]
pub(crate) struct Window {
    bytes: Arc<Semaphore>,
    size: AtomicUsize,
    outbound: Outbound,
    untaken: Mutex<Untaken>,
    /// Bytes that the filling side waits for, and the signal that it does.
    wanted: AtomicUsize,
    is_wanted: Notify,
    /// Set if the filling side is to be woken when the stream takes something.
    stuck: AtomicBool,
}

/// Frames that the stream has not taken.
#[derive(Debug, Default)]
struct Untaken {
    frames: usize,
    /// When the stream last took one, or the first of these came.
    since: Option<Instant>,
}

impl Window {
    /// Bytes that may be untaken now.
    pub(crate) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// Free bytes of the window, whatever the budgets have.
    pub(crate) fn room(&self) -> usize {
        self.bytes.available_permits()
    }

    /// Reserves bytes; `None` if there is no room for them now.
    pub(crate) fn try_hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let counts = self.counts(bytes);
        let stream = Arc::clone(&self.bytes).try_acquire_many_owned(counts.stream).ok()?;
        let connection = Arc::clone(&self.outbound.connection).try_acquire_many_owned(counts.shared).ok()?;
        let engine = Arc::clone(&self.outbound.engine).try_acquire_many_owned(counts.shared).ok()?;
        Some(Held { window: Arc::clone(self), stream, connection, engine })
    }

    /// Reserves bytes, and waits in turn for room. Cancel safe.
    pub(crate) async fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        let counts = self.counts(bytes);
        let open = "the budgets are never closed";
        let stream = Arc::clone(&self.bytes).acquire_many_owned(counts.stream).await.expect(open);
        let connection = Arc::clone(&self.outbound.connection);
        let connection = connection.acquire_many_owned(counts.shared).await.expect(open);
        let engine = Arc::clone(&self.outbound.engine).acquire_many_owned(counts.shared).await.expect(open);
        Held { window: Arc::clone(self), stream, connection, engine }
    }

    /// No more is asked for than there can ever be: what is larger than all of a budget takes all of it.
    fn counts(&self, bytes: usize) -> Counts {
        let count = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Counts {
            stream: count(bytes.min(self.size())),
            shared: count(bytes.min(self.outbound.connection_max)),
        }
    }

    /// Requests bytes from [`Window::awaited`].
    pub(crate) fn want(&self, bytes: usize) {
        self.wanted.fetch_max(bytes, Ordering::Relaxed);
        self.is_wanted.notify_one();
    }

    /// The next requested bytes, once they are free. Cancel safe, except that the request is lost.
    pub(crate) async fn awaited(self: &Arc<Self>) -> Held {
        self.is_wanted.notified().await;
        self.hold(self.wanted.swap(0, Ordering::Relaxed).max(1)).await
    }

    /// True if the stream has taken nothing for `longer_than` although there is something. The next time that it
    /// takes something, [`Window::awaited`] completes.
    pub(crate) fn is_stuck(&self, longer_than: Duration) -> bool {
        let stuck = {
            let untaken = self.untaken.lock().unwrap_or_else(PoisonError::into_inner);
            untaken.since.is_some_and(|since| since.elapsed() >= longer_than)
        };
        if stuck {
            self.stuck.store(true, Ordering::Release);
        }
        stuck
    }

    fn queued(&self) {
        let mut untaken = self.untaken.lock().unwrap_or_else(PoisonError::into_inner);
        untaken.frames += 1;
        untaken.since.get_or_insert_with(Instant::now);
    }

    fn taken(&self, bytes: usize) {
        {
            let mut untaken = self.untaken.lock().unwrap_or_else(PoisonError::into_inner);
            untaken.frames -= 1;
            untaken.since = (untaken.frames > 0).then(Instant::now);
        }
        let size = self.size();
        let more = bytes.min(WINDOW_MAX.saturating_sub(size));
        if more > 0 {
            self.size.store(size + more, Ordering::Relaxed);
            self.bytes.add_permits(more);
        }
        if self.stuck.swap(false, Ordering::AcqRel) {
            self.want(1);
        }
    }
}

struct Counts {
    stream: u32,
    shared: u32,
}

/// Bytes that are reserved until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    window: Arc<Window>,
    stream: OwnedSemaphorePermit,
    connection: OwnedSemaphorePermit,
    engine: OwnedSemaphorePermit,
}

impl Held {
    pub(crate) fn bytes(&self) -> usize {
        self.engine.num_permits()
    }

    /// Adds more of the same window.
    pub(crate) fn merge(&mut self, more: Self) {
        let Self { window: _, stream, connection, engine } = more;
        self.stream.merge(stream);
        self.connection.merge(connection);
        self.engine.merge(engine);
    }

    /// Splits off at most `bytes`.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let part = |permit: &mut OwnedSemaphorePermit| {
            let count = bytes.min(permit.num_permits());
            permit.split(count).expect("no more is split off than there is")
        };
        Self {
            window: Arc::clone(&self.window),
            stream: part(&mut self.stream),
            connection: part(&mut self.connection),
            engine: part(&mut self.engine),
        }
    }

    /// Releases what is beyond `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        drop(self.split(self.bytes().saturating_sub(bytes)));
    }

    /// These bytes are in a frame from now on.
    pub(crate) fn queued(self) -> Queued {
        self.window.queued();
        Queued(self)
    }
}

/// Bytes of a frame that its stream has not taken; dropped when it has.
#[derive(Debug)]
pub(crate) struct Queued(Held);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.window.taken(self.0.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_while_its_stream_takes_what_comes_and_not_before() {
        let window = Outbound::new(1 << 30, 1 << 30).window();
        let first = window.try_hold(WINDOW_FIRST).unwrap();
        assert!(window.try_hold(1).is_none(), "nothing was taken yet");
        drop(first.queued());
        let mut taken = 0;
        while window.size() < WINDOW_MAX {
            drop(window.try_hold(window.size()).unwrap().queued());
            taken += 1;
        }
        assert_eq!((window.room(), taken), (WINDOW_MAX, 3));
    }

    #[test]
    fn connections_and_the_engine_have_budgets_of_their_own() {
        let one = Outbound::new(100_000, 60_000);
        let other = one.connection();
        let windows = [one.window(), one.window(), other.window()];
        let held = windows[0].try_hold(50_000).unwrap();
        assert!(windows[1].try_hold(20_000).is_none(), "the connection has 10,000 left");
        let rest = windows[2].try_hold(50_000).unwrap();
        assert!(windows[2].try_hold(1_000).is_none(), "the engine has none left");
        assert!(one.is_short() && other.is_short());
        drop((held, rest));
        assert!(windows[1].try_hold(60_000).is_some());
    }

    #[tokio::test]
    async fn whoever_asked_first_gets_what_is_given_back() {
        let window = Outbound::new(100_000, 100_000).window();
        let mut held = window.try_hold(WINDOW_FIRST).unwrap();
        window.want(30_000);
        let waiting = Arc::clone(&window);
        let waiting = async move { waiting.awaited().await.bytes() };
        let giving = async {
            tokio::task::yield_now().await;
            held.shrink(30_000);
            assert!(window.try_hold(30_000).is_none(), "it is promised");
        };
        let (bytes, ()) = tokio::join!(waiting, giving);
        assert_eq!(bytes, 30_000);
    }
}
