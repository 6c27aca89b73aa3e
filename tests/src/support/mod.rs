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

use std::{future::Future, time::Duration};

/// Longer than anything here may take on a busy machine; what takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at that nothing announces.
const LOOK: Duration = Duration::from_millis(5);

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
