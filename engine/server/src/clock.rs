//! The only place where the server reads the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use levada_protocol::ids::Timestamp;

/// Milliseconds since the Unix epoch, by the system's clock.
pub(crate) fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this file is where the server's time comes from")]
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
