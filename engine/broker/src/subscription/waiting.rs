//! What a subscription waits for, as the wire says it.

use levada_delivery::{
    now::Now,
    subscription::{ConsumerId, Retry, WaitsFor},
};
use levada_protocol::request::{Holding, PauseReason, Retry as RetryInfo, WaitingFor};

/// What the rules of delivery say, with names for consumers and times of day.
pub(super) fn of_rules(
    waits: WaitsFor,
    now: Now,
    consumers: u64,
    name: impl Fn(ConsumerId) -> String,
) -> WaitingFor {
    let retry = |it: Retry| RetryInfo {
        partition: it.partition.0,
        offset: it.offset.0,
        attempts: it.attempts,
        at_ms: now.wall.0.saturating_add(it.wait_ms),
    };
    match waits {
        WaitsFor::Nothing => WaitingFor::Nothing,
        WaitsFor::Events => WaitingFor::Events,
        WaitsFor::Consumer => WaitingFor::Consumer,
        WaitsFor::Credit => WaitingFor::Credit { consumers },
        WaitsFor::Streams => WaitingFor::Connection { consumers },
        WaitsFor::Acknowledgements { events, oldest } => {
            let oldest = oldest.map(|(partition, offset, consumer)| Holding {
                partition: partition.0,
                offset: offset.0,
                consumer: name(consumer),
            });
            WaitingFor::Acknowledgements { events, oldest }
        }
        WaitsFor::Retry(it) => WaitingFor::Retry(retry(it)),
        WaitsFor::Window { partition, offset, retry: it } => {
            WaitingFor::Window { partition: partition.0, offset: offset.0, retry: it.map(retry) }
        }
        WaitsFor::Keys { events, retry: it } => WaitingFor::Keys { events, retry: it.map(retry) },
        WaitsFor::Rate { per_second } => WaitingFor::Rate { per_second },
    }
}

/// What ends a pause.
pub(super) fn of_pause(reason: &PauseReason) -> WaitingFor {
    let why = reason.to_string();
    match reason {
        PauseReason::Requested => WaitingFor::Resume { why: String::new() },
        PauseReason::Plugin { .. } => WaitingFor::Resume { why },
        PauseReason::Breaker { .. } | PauseReason::Chain { .. } | PauseReason::Storage { .. } => {
            WaitingFor::Recovery { why }
        }
        PauseReason::WindowFull { partition, offset } => {
            WaitingFor::Window { partition: *partition, offset: *offset, retry: None }
        }
        PauseReason::Unknown => WaitingFor::Unknown,
    }
}
