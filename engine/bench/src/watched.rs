//! Showing how far work is while it runs.

use std::{future::Future, time::Duration};

use indicatif::ProgressBar;
use tokio::time::interval;

/// How often a progress bar is moved.
const LOOK: Duration = Duration::from_millis(100);

/// Runs `work` to its end and keeps the bar at `position`. Cancel safe as far as `work` is.
pub(crate) async fn watched<T>(
    bar: &ProgressBar,
    position: impl Fn() -> u64,
    work: impl Future<Output = T>,
) -> T {
    tokio::pin!(work);
    let mut looks = interval(LOOK);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                bar.finish_and_clear();
                return done;
            }
            _ = looks.tick() => bar.set_position(position()),
        }
    }
}
