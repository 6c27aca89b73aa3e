//! What the writer alone owns: where every partition ends, who has published what, which owners are live.

use std::{collections::HashMap, sync::Arc};

use levada_delivery::producer::Producer;
use levada_protocol::ids::{Offset, PartitionId, ProducerId, RouteId, Timestamp, TopicId};
use levada_store::commit::AppliedRow;

use crate::{
    catalogue::Catalogue,
    rows::{EngineId, Segment},
    setback::AHEAD_MS_MAX,
    topic::Topic,
};

/// Bytes appended to a partition after which a new segment begins.
pub(crate) const SEGMENT_BYTES: u64 = 4 << 20;
/// Time after which a new segment begins at the next append, at the latest.
pub(crate) const SEGMENT_MS_MAX: u64 = 10 * 60_000;

/// The writer's state, ahead of what is durable by the groups under way.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) catalogue: Catalogue,
    pub(crate) topics: HashMap<TopicId, Arc<Topic>>,
    pub(crate) ends: HashMap<(TopicId, PartitionId), End>,
    pub(crate) producers: HashMap<(TopicId, PartitionId, ProducerId), Producer>,
    pub(crate) route_cursors: HashMap<(RouteId, PartitionId), Offset>,
    /// What the data directory is known by; `None` until the first commit.
    pub(crate) engine_id: Option<EngineId>,
    /// The commit that was written last.
    pub(crate) last: AppliedRow,
}

/// Where a partition ends in the writer's eyes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct End {
    /// The next offset.
    pub(crate) next: Offset,
    /// The newest append time. Append times never go back, but where the clock was set back by more than a little:
    /// see [`crate::setback`].
    pub(crate) append_time: Timestamp,
    /// Bytes of batches ever appended.
    pub(crate) bytes: u64,
    /// Where the newest segment began; `None` if the next event begins one.
    pub(crate) segment: Option<(Offset, Segment)>,
}

impl State {
    /// Gives new routes the cursors that they begin at, and forgets those of deleted ones.
    pub(crate) fn take_route_cursors(&mut self) {
        let routes: HashMap<u64, &Vec<u64>> =
            self.catalogue.routes.values().map(|record| (record.id, &record.positions)).collect();
        self.route_cursors.retain(|(route, _), _| routes.contains_key(&route.0));
        for (route, positions) in routes {
            for (number, begin) in (0..).zip(positions) {
                let key = (RouteId(route), PartitionId(number));
                self.route_cursors.entry(key).or_insert(Offset(*begin));
            }
        }
    }
}

impl End {
    /// True if append times would stand still for too long, as the clock was set back since the newest event.
    pub(crate) fn is_ahead_of(&self, now: Timestamp) -> bool {
        self.append_time.0.saturating_sub(now.0) > AHEAD_MS_MAX
    }

    /// True if the next record should begin a segment. `retain_for_ms` keeps short retentions precise.
    pub(crate) fn wants_segment(&self, now: Timestamp, retain_for_ms: u64) -> bool {
        let age_max = SEGMENT_MS_MAX.min(retain_for_ms / 8);
        self.segment.is_none_or(|(_, segment)| {
            self.bytes - segment.bytes_before >= SEGMENT_BYTES
                || now.0.saturating_sub(segment.append_time.0) >= age_max.max(1)
        })
    }
}
