//! How far routes have come in each partition of their sources.

use std::collections::HashMap;

use levada_protocol::ids::{Offset, PartitionId, RouteId};
use levada_store::Store;

use crate::{
    catalogue::Catalogue,
    error::Error,
    rows::{self, RouteCursor, Row},
    shard::{draft::Draft, proposal::ProposalRefused},
};

/// The cursors of all routes that exist.
#[derive(Debug, Default)]
pub(in crate::shard) struct RouteCursors(HashMap<RouteId, Vec<Offset>>);

impl RouteCursors {
    /// Reads them. Blocks on the disk.
    pub(in crate::shard) fn load(store: &dyn Store, catalogue: &Catalogue) -> Result<Self, Error> {
        let mut cursors = HashMap::new();
        for record in catalogue.routes.values() {
            let id = RouteId(record.id);
            let cursor = |(partition, begin): (u16, &u64)| {
                let stored = rows::get::<RouteCursor>(store, &(id, PartitionId(partition)))?;
                Ok(stored.map_or(Offset(*begin), |cursor| cursor.0))
            };
            let all = (0..).zip(&record.positions).map(cursor).collect::<Result<Vec<_>, Error>>()?;
            cursors.insert(id, all);
        }
        Ok(Self(cursors))
    }

    /// Gives a new route its cursors.
    pub(in crate::shard) fn create(&mut self, id: RouteId, positions: &[u64], draft: &mut Draft) {
        let cursors: Vec<_> = positions.iter().copied().map(Offset).collect();
        for (number, cursor) in (0..).zip(&cursors) {
            draft.push(RouteCursor(*cursor).put(&(id, PartitionId(number))));
        }
        self.0.insert(id, cursors);
    }

    /// The cursors of a route, by partition.
    pub(in crate::shard) fn of_route(&self, id: RouteId) -> &[Offset] {
        self.0.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Refuses a proposal of a route that is gone, or that was made at another cursor.
    pub(in crate::shard) fn check(
        &self,
        id: RouteId,
        partition: PartitionId,
        at: Offset,
    ) -> Result<(), ProposalRefused> {
        let cursor = self.0.get(&id).and_then(|cursors| cursors.get(usize::from(partition.0)));
        match cursor {
            None => Err(ProposalRefused::Gone),
            Some(cursor) if *cursor != at => Err(ProposalRefused::Moved { cursor: *cursor }),
            Some(_) => Ok(()),
        }
    }

    /// Moves a cursor of a route that exists.
    pub(in crate::shard) fn advance(
        &mut self,
        id: RouteId,
        partition: PartitionId,
        to: Offset,
        draft: &mut Draft,
    ) {
        let cursors = self.0.get_mut(&id);
        let Some(cursor) = cursors.and_then(|cursors| cursors.get_mut(usize::from(partition.0))) else {
            return;
        };
        *cursor = to;
        draft.push(RouteCursor(to).put(&(id, partition)));
    }

    /// Drops the cursors of a route that was deleted.
    pub(in crate::shard) fn forget(&mut self, id: RouteId, draft: &mut Draft) {
        self.0.remove(&id);
        draft.push(RouteCursor::delete_range(RouteCursor::of_route(id)));
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::ids::CommitIndex;
    use levada_store::Op;

    use super::*;

    #[test]
    fn a_cursor_moves_only_from_where_it_is_and_goes_with_its_route() {
        let (mut cursors, mut draft) = (RouteCursors::default(), Draft::new(CommitIndex(1)));
        let (id, partition) = (RouteId(7), PartitionId(1));
        assert!(matches!(cursors.check(id, partition, Offset(0)), Err(ProposalRefused::Gone)));
        cursors.create(id, &[3, 5], &mut draft);
        assert!(cursors.check(id, partition, Offset(5)).is_ok());
        cursors.advance(id, partition, Offset(9), &mut draft);
        let moved = cursors.check(id, partition, Offset(5)).unwrap_err();
        assert!(matches!(moved, ProposalRefused::Moved { cursor: Offset(9) }));
        assert!(matches!(cursors.check(id, PartitionId(2), Offset(0)), Err(ProposalRefused::Gone)));
        cursors.forget(id, &mut draft);
        assert!(matches!(cursors.check(id, partition, Offset(9)), Err(ProposalRefused::Gone)));
        let ops = draft.into_ops();
        assert_eq!(ops.len(), 4);
        assert_eq!(ops[2], RouteCursor(Offset(9)).put(&(id, partition)));
        assert!(matches!(ops[3], Op::DeleteRange { .. }));
    }
}
