//! What a subscription waits for, as the wire says it.

use super::queue::{Place, Queue};
use levada_delivery::{
    now::Now,
    subscription::{ConsumerId, Retry, WaitsFor},
};
use levada_protocol::request::{Holding, PauseReason, Retry as RetryInfo, WaitingFor};

/// What the rules of delivery say, with names for consumers, times of day, and events of the queue at their place in the
/// topic. Of one that was not read since the start it is not said that it is waited for.
pub(super) fn of_rules(
    waits: WaitsFor,
    now: Now,
    consumers: u64,
    name: impl Fn(ConsumerId) -> String,
    queue: &Queue,
) -> WaitingFor {
    let retry = |it: Retry| {
        let Place { partition, offset } = queue.shown(it.partition, it.offset)?;
        let at_ms = now.wall.0.saturating_add(it.wait_ms);
        Some(RetryInfo { partition: partition.0, offset: offset.0, attempts: it.attempts, at_ms })
    };
    let holding = |(partition, offset, consumer)| {
        let Place { partition, offset } = queue.shown(partition, offset)?;
        Some(Holding { partition: partition.0, offset: offset.0, consumer: name(consumer) })
    };
    match waits {
        WaitsFor::Nothing => WaitingFor::Nothing,
        WaitsFor::Events => WaitingFor::Events,
        WaitsFor::Consumer => WaitingFor::Consumer,
        WaitsFor::Credit => WaitingFor::Credit { consumers },
        WaitsFor::Streams => WaitingFor::Connection { consumers },
        WaitsFor::Acknowledgements { events, oldest } => {
            WaitingFor::Acknowledgements { events, oldest: oldest.and_then(holding) }
        }
        WaitsFor::Retry(it) => retry(it).map_or(WaitingFor::Nothing, WaitingFor::Retry),
        WaitsFor::Failures { runs, retry: it } => WaitingFor::Failures { runs, retry: it.and_then(retry) },
        WaitsFor::Window { partition, offset, retry: it } => match queue.shown(partition, offset) {
            Some(Place { partition, offset }) => {
                WaitingFor::Window { partition: partition.0, offset: offset.0, retry: it.and_then(retry) }
            }
            None => WaitingFor::Nothing,
        },
        WaitsFor::Keys { events, oldest, retry: it } => {
            WaitingFor::Keys { events, oldest: oldest.and_then(holding), retry: it.and_then(retry) }
        }
        WaitsFor::Rate { per_second } => WaitingFor::Rate { per_second },
    }
}

/// What ends a pause.
pub(super) fn of_pause(reason: &PauseReason) -> WaitingFor {
    let why = reason.to_string();
    match reason {
        PauseReason::Requested => WaitingFor::Resume { why: String::new() },
        PauseReason::Push { .. } | PauseReason::Plugin { .. } => WaitingFor::Resume { why },
        PauseReason::Breaker { .. } | PauseReason::Chain { .. } | PauseReason::Storage { .. } => {
            WaitingFor::Recovery { why }
        }
        PauseReason::Unknown => WaitingFor::Unknown,
    }
}
