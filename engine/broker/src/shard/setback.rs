//! The writer's look at the clock: partitions whose append times are ahead of it begin anew.

use std::collections::BTreeSet;

use levada_protocol::ids::Timestamp;

use super::{group::Group, writer::Writer};
use crate::rows::{Row, Setback};

/// Topics that are named in the log; of more there is the count alone.
const NAMED_MAX: usize = 10;

impl Writer {
    /// Notes a set-back in every partition whose newest append time is too far ahead: from the next event on append
    /// times are of `now` again. A new segment begins there, so that retention sees both sides.
    pub(super) fn check_clock(&mut self, group: &mut Group, now: Timestamp) {
        let (mut topics, mut partitions, mut ahead_ms_max) = (BTreeSet::new(), 0_u64, 0);
        for ((topic, partition), end) in &mut self.state.ends {
            if !end.is_ahead_of(now) {
                continue;
            }
            let setback = Setback { time: now, before: end.append_time };
            group.ops.push(setback.put(&(*topic, *partition, end.next)));
            topics.extend(self.state.topics.get(topic).map(|topic| topic.name.as_str()));
            partitions += 1;
            ahead_ms_max = ahead_ms_max.max(end.append_time.0 - now.0);
            (end.append_time, end.segment) = (now, None);
        }
        if partitions > 0 {
            let named: Vec<_> = topics.iter().take(NAMED_MAX).copied().collect();
            tracing::warn!(
                topics = topics.len(),
                named = named.join(", "),
                partitions,
                ahead_ms_max,
                "the clock was set back: events were stored while it ran ahead, they count as appended now"
            );
        }
    }
}
