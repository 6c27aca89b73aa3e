//! How long to wait before an event is delivered again.
//!
//! Owns the table and the jitter. It must not know why an event failed.

/// Waits that grow with the number of failed attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    steps_ms: Vec<u64>,
}

impl Backoff {
    /// Waits in milliseconds by the number of failures; the last one repeats. An empty list means no wait.
    pub fn new(steps_ms: Vec<u64>) -> Self {
        Self { steps_ms }
    }

    /// Milliseconds to wait after `attempts` failures (from 1), up to a tenth more or less by a uniformly random number:
    /// without it, what failed together would come back together every time.
    pub fn delay_ms(&self, attempts: u16, random: u64) -> u64 {
        let step = usize::from(attempts.max(1) - 1).min(self.steps_ms.len().saturating_sub(1));
        let wait = self.steps_ms.get(step).copied().unwrap_or(0);
        let permille = 900 + random % 201;
        wait / 1_000 * permille + wait % 1_000 * permille / 1_000
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::request::BACKOFF_MS;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn waits_grow_and_stay_at_the_last_step() {
        let backoff = Backoff::new(BACKOFF_MS.map(u64::from).to_vec());
        let around = |attempts: u16, seconds: u64| {
            let mut rng = Rng::new(1);
            for _ in 0..500 {
                let wait = backoff.delay_ms(attempts, rng.next());
                assert!((seconds * 900..=seconds * 1_100).contains(&wait), "{wait} ms after {attempts}");
            }
        };
        around(1, 1);
        around(2, 5);
        around(6, 120);
        around(11, 7_200);
        around(12, 7_200);
        around(u16::MAX, 7_200);
    }

    #[test]
    fn jitter_uses_its_whole_width() {
        let backoff = Backoff::new(vec![10_000]);
        let mut rng = Rng::new(2);
        let waits: Vec<u64> = (0..1_000).map(|_| backoff.delay_ms(1, rng.next())).collect();
        assert!(waits.iter().any(|wait| *wait < 9_100) && waits.iter().any(|wait| *wait > 10_900));
    }

    #[test]
    fn no_steps_mean_no_wait() {
        assert_eq!(Backoff::new(Vec::new()).delay_ms(3, 1), 0);
    }
}
