//! The only file that reads clocks, and the only one that draws random numbers.

use levada_protocol::ids::{ProducerId, Timestamp};

use crate::error::Error;

/// A point on the monotonic clock; a paused tokio clock pauses it too.
pub(crate) use tokio::time::Instant;

/// The wall clock, for event times.
#[expect(clippy::disallowed_methods, reason = "this is the crate's clock")]
pub(crate) fn wall() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Now, on the monotonic clock.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A unique identity.
pub(crate) fn producer_id() -> Result<ProducerId, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::Config { what: format!("the system gives no randomness: {error}") })?;
    // 0 is the engine's own.
    Ok(ProducerId(u128::from_le_bytes(bytes).max(1)))
}

/// A number from 0 up to but without `below`, for jitter and for spreading; not for secrets.
pub(crate) fn random_below(below: u32) -> u32 {
    let random = getrandom::u32().unwrap_or(below / 2);
    random.checked_rem(below).unwrap_or(0)
}
