//! What is durable, and what the commit under way makes durable if it succeeds.

use levada_protocol::ids::{Offset, PartitionId};

use super::{
    super::store::Rows,
    events::Events,
    setting::PARTITIONS,
    states::{At, Past, Why},
};
use crate::progress::{Progress, RowChange};

/// The rows of all partitions, and what the model says is in them.
#[derive(Debug, Clone)]
struct Stored {
    rows: Vec<Rows>,
    /// Where a partition without rows begins.
    positions: [u64; PARTITIONS],
    pasts: Vec<Vec<Past>>,
}

impl Stored {
    fn progress(&self) -> Vec<Progress> {
        let rows = self.rows.iter().zip(self.positions);
        rows.map(|(rows, begin)| rows.restore_or(|| Progress::new(Offset(begin), 0))).collect()
    }
}

#[derive(Debug)]
pub(super) struct Disk {
    stored: Stored,
    commit: Option<(u64, Stored)>,
}

impl Disk {
    pub(super) fn new() -> Self {
        let (rows, pasts) = (vec![Rows::default(); PARTITIONS], vec![Vec::new(); PARTITIONS]);
        Self { stored: Stored { rows, positions: [0; PARTITIONS], pasts }, commit: None }
    }

    pub(super) fn is_committing(&self) -> bool {
        self.commit.is_some()
    }

    /// What is durable.
    pub(super) fn progress(&self) -> Vec<Progress> {
        self.stored.progress()
    }

    /// Begins a commit; returns what is durable if it succeeds.
    pub(super) fn begin(
        &mut self,
        id: u64,
        changes: &[(PartitionId, Vec<RowChange>)],
        events: &Events,
    ) -> Vec<Progress> {
        assert!(self.commit.is_none(), "one commit at a time");
        let mut rows = self.stored.rows.clone();
        changes.iter().for_each(|(partition, changes)| rows[usize::from(partition.0)].apply(changes));
        let pasts = (0..PARTITIONS).map(|it| events[it].iter().map(|event| event.past).collect()).collect();
        let stored = Stored { rows, pasts, positions: self.stored.positions };
        let progress = stored.progress();
        self.commit = Some((id, stored));
        progress
    }

    /// The commit under way ends; returns its id.
    pub(super) fn end(&mut self, ok: bool) -> Option<u64> {
        let (id, stored) = self.commit.take()?;
        if ok {
            self.stored = stored;
        }
        Some(id)
    }

    /// The partition has no rows any more, and begins here.
    pub(super) fn seek(&mut self, partition: usize, to: u64) {
        self.stored.rows[partition] = Rows::default();
        self.stored.pasts[partition].clear();
        self.stored.positions[partition] = to;
    }

    /// What is left of the events when the engine dies: what is durable, and nothing else.
    pub(super) fn recall(&self, events: &mut Events) {
        for (partition, progress) in self.progress().into_iter().enumerate() {
            let pasts = &self.stored.pasts[partition];
            for (offset, event) in (0..).zip(&mut events[partition]) {
                let done = progress.is_settled(Offset(offset));
                assert!(done || event.at != At::Done, "offset {offset} was settled durably");
                event.by = None;
                if done {
                    event.at = At::Done;
                    continue;
                }
                let is_dropped = matches!(
                    event.at,
                    At::Settling(Why::Dropped | Why::Lost) | At::Submitted(Why::Dropped | Why::Lost)
                );
                event.past = pasts.get(offset as usize).copied().unwrap_or_default();
                let history = progress.history_of(offset);
                assert!(
                    is_dropped || event.past.is(history),
                    "{offset} of {partition}: {event:?}, {history:?}"
                );
                let not_before = event.past.not_before_ms.0;
                event.at = if offset < progress.known_end() { At::Waiting { not_before } } else { At::Fresh };
            }
        }
    }
}
