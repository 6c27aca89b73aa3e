//! Waiting for something that may never come: until it is there, or until nothing changes any more.

use std::time::Duration;

use tokio::time::{Instant, interval};

/// Looks at `progress` every `look` until it is `done`; answers false if it did not change for `patience` before.
///
/// # Errors
/// The first failure of `progress`.
pub async fn until<P: PartialEq>(
    look: Duration,
    patience: Duration,
    mut progress: impl AsyncFnMut() -> anyhow::Result<P>,
    done: impl Fn(&P) -> bool,
) -> anyhow::Result<bool> {
    let mut looks = interval(look);
    let (mut before, mut changed) = (None, Instant::now());
    loop {
        looks.tick().await;
        let now = progress().await?;
        if done(&now) {
            return Ok(true);
        }
        if before.as_ref() != Some(&now) {
            (before, changed) = (Some(now), Instant::now());
        } else if changed.elapsed() >= patience {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn waits_as_long_as_something_changes_and_no_longer() {
        let mut steps = 0..100;
        let reached = until(LOOK, LONG, async || Ok(steps.next().unwrap_or(100)), |at| *at == 50);
        assert!(reached.await.unwrap());
        let stalled = until(LOOK, 3 * LOOK, async || Ok(7), |at| *at == 50);
        assert!(!stalled.await.unwrap());
    }
}
