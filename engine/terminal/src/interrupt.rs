//! The user's wish to stop: SIGINT, SIGTERM, or SIGHUP of a terminal that was closed, so that what was begun is ended in
//! order.

use std::fs;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at the first SIGINT, SIGTERM or, unless it is ignored as under `nohup`, SIGHUP. Where signals cannot be
/// listened to, the system's default stays.
pub async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = hung_up() => {}
    }
}

async fn hung_up() {
    // To listen would undo that it is ignored.
    let ignored = fs::read_to_string("/proc/self/status").map_or(true, |status| is_hangup_ignored(&status));
    if ignored {
        return std::future::pending().await;
    }
    match signal(SignalKind::hangup()) {
        Ok(mut hangup) => drop(hangup.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// Reads the mask of ignored signals in `status` of proc(5); without one nothing is known, and nothing is changed.
fn is_hangup_ignored(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signal 1 is the lowest bit.
    mask.is_none_or(|mask| mask & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_that_is_ignored_stays_ignored() {
        for (status, ignored) in [
            ("Name:\tx\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n", false),
            ("SigIgn:\t0000000000001001\n", true),
            ("Name:\tx\n", true),
        ] {
            assert_eq!(is_hangup_ignored(status), ignored, "{status}");
        }
    }
}
