//! Waiting for something that may never come: until it is there, or until nothing changes any more.

use std::time::Duration;

use tokio::time::{self, Instant};

/// Polls `progress` every `interval` until it is `done`; returns false if it stays the same for `stalled_after` before.
///
/// # Errors
/// The first failure of `progress`.
pub async fn until<P: PartialEq>(
    interval: Duration,
    stalled_after: Duration,
    mut progress: impl AsyncFnMut() -> anyhow::Result<P>,
    done: impl Fn(&P) -> bool,
) -> anyhow::Result<bool> {
    let mut polls = time::interval(interval);
    let (mut before, mut changed) = (None, Instant::now());
    loop {
        polls.tick().await;
        let now = progress().await?;
        if done(&now) {
            return Ok(true);
        }
        if before.as_ref() != Some(&now) {
            (before, changed) = (Some(now), Instant::now());
        } else if changed.elapsed() >= stalled_after {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn waits_as_long_as_something_changes_and_no_longer() {
        let mut steps = 0..100;
        let reached = until(INTERVAL, LONG, async || Ok(steps.next().unwrap_or(100)), |at| *at == 50);
        assert!(reached.await.unwrap());
        let stalled = until(INTERVAL, 3 * INTERVAL, async || Ok(7), |at| *at == 50);
        assert!(!stalled.await.unwrap());
    }
}
