//! A host's threads live as long as the host. Alone in its process, so that it can count them.

use std::fs;

use levada_plugin_host::{Host, HostConfig};

fn threads_of_hosts() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("levada-")).count()
}

#[test]
fn threads_end_with_the_last_clone_of_their_host() {
    let cache = tempfile::TempDir::new().unwrap();
    let host = Host::new(HostConfig { workers: 3, ..HostConfig::new(cache.path()) }).unwrap();
    assert_eq!(threads_of_hosts(), 4);
    let clone = host.clone();
    drop(host);
    assert_eq!(threads_of_hosts(), 4);
    drop(clone);
    assert_eq!(threads_of_hosts(), 0);
}
