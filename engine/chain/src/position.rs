//! Positions: what identifies an event inside a chain.
//!
//! A stored event has an offset, an event that is being published has none. Inside a chain both have a position;
//! only the edge of the crate turns positions into offsets and back.

use levada_protocol::ids::Offset;

/// Where an event is in the input of a run, counted from 0. Positions rise with the events; stored events keep the
/// distances of their offsets, so filtered inputs have gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Position(pub(crate) u64);

impl Position {
    /// The position `n` behind this one.
    #[inline]
    pub(crate) fn plus(self, n: u64) -> Self {
        Self(self.0 + n)
    }
}

/// The offset that position 0 has outside. Where events have no offsets yet, it is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Origin(pub(crate) Offset);

impl Origin {
    /// The offset of a position.
    #[inline]
    pub(crate) fn offset(self, position: Position) -> Offset {
        self.0.plus(position.0)
    }

    /// The position of an offset; 0 for every offset before the origin.
    #[inline]
    pub(crate) fn position(self, offset: Offset) -> Position {
        Position(offset.0.saturating_sub(self.0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_positions_and_come_back() {
        let origin = Origin(Offset(1_000));
        assert_eq!(origin.position(Offset(1_000)), Position(0));
        assert_eq!(origin.position(Offset(999)), Position(0));
        for offset in [1_000, 1_001, u64::MAX] {
            assert_eq!(origin.offset(origin.position(Offset(offset))), Offset(offset));
        }
        assert_eq!(Origin::default().offset(Position(7)), Offset(7), "without offsets a position is its own");
    }
}
