//! A host's threads live as long as the host. Alone in its process, so that it can count them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use levada_plugin_host::{Host, HostConfig};

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn threads_end_with_the_last_clone_of_their_host() {
    let cache = tempfile::TempDir::new().unwrap();
    let before = threads();
    let host = Host::new(HostConfig { workers: 3, ..HostConfig::new(cache.path()) }).unwrap();
    assert_eq!(threads(), before + 6, "three workers, two for long calls and the ticker");
    let clone = host.clone();
    drop(host);
    assert_eq!(threads(), before + 6);
    drop(clone);
    // A thread that was joined may be listed for a moment longer.
    let begun = Instant::now();
    while threads() > before && begun.elapsed() < Duration::from_secs(10) {
        thread::yield_now();
    }
    assert_eq!(threads(), before);
}
