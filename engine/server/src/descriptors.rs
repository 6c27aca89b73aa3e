//! File descriptors: as many as the process may have, and what is set so that they suffice.
//!
//! It must not know what they are used for beyond that.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::ServerConfig;

/// HTTP connections hold a descriptor each, and get at most one part in 4 of all.
const HTTP_PART: u64 = 4;

/// Raises the soft limit to the hard one, and bounds what takes descriptors by what then is allowed.
pub(crate) fn fit(mut config: ServerConfig) -> ServerConfig {
    let Some(limit) = raise() else { return config };
    let http_max = usize::try_from(limit / HTTP_PART).unwrap_or(usize::MAX).max(1);
    if config.http.connections_max > http_max {
        tracing::warn!(
            limit,
            wanted = config.http.connections_max,
            taken = http_max,
            "the limit of open files is low, fewer HTTP connections are taken at once"
        );
        config.http.connections_max = http_max;
    }
    config
}

/// The limit in force after it was raised as far as that is allowed; `None` if there is none.
fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let before = current?;
    if maximum.is_some_and(|maximum| maximum <= before) {
        return Some(before);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => {
            tracing::debug!(before, now = ?maximum, "the limit of open files was raised");
            maximum
        }
        Err(error) => {
            tracing::debug!(%error, limit = before, "the limit of open files stays as it is");
            Some(before)
        }
    }
}
