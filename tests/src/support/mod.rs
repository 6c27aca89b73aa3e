//! What the tests stand on: engines, clients, bytes by hand, components, and stores that misbehave.
//!
//! It must not know what any one test is about.

pub(crate) mod cut_store;
pub(crate) mod engine;
pub(crate) mod events;
pub(crate) mod guests;
pub(crate) mod machine;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod rng;

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

/// The folder of this package: where it is now, not where it was compiled, as several clones may share one build folder.
pub(crate) fn package() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests").into()
}

/// Longer than anything here may take on a busy machine; what takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at that nothing announces.
const LOOK: Duration = Duration::from_millis(5);

/// An address for one engine, for its restarts too: the port is below those that systems give to whoever asks for any
/// (from 32768 on in Linux, from 16000 on in gVisor), and no other test of this process gets it.
pub(crate) fn own_address() -> SocketAddr {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 6_000;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let offset = u16::try_from(std::process::id() % u32::from(COUNT)).expect("less than the count");
    loop {
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(taken < COUNT, "no port is free");
        let port = FIRST + (offset + taken) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// Waits until an engine that has ended has freed its port. The child processes that other tests start have a copy of
/// every socket of this process, until they execute their program.
pub(crate) async fn freed(address: SocketAddr) {
    until("a free port", async || UdpSocket::bind(address).ok()).await;
}

/// The future's answer; a panic that names the wait if it does not come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(answer) => answer,
        Err(_) => panic!("{what}: nothing within {PATIENCE:?}"),
    }
}

/// Asks again and again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            looks.tick().await;
        }
    };
    within(what, asking).await
}
