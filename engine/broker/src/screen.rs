//! What events pass before a reader gets them: a mask, if its permission names one, and then a search, if it asked for one. A search
//! behind a mask sees what the mask shows, so that nobody finds out by a condition what they may not see.

use std::ops::Range;

use levada_protocol::{
    ids::{Offset, PartitionId},
    progress::Scanned,
};

use crate::{
    error::Error,
    frames::LogSlice,
    log::{Log, ReadOutcome},
    masking::Masking,
    search::{Found, Scanner, Step, Tally},
};

/// A mask, a search, or both; with the account of what they have done.
pub(crate) struct Screen {
    /// `None` for one who may see everything, and always could.
    pub(crate) masking: Option<Masking>,
    /// `None` for one who wants everything.
    pub(crate) scanner: Option<Scanner>,
    pub(crate) tally: Tally,
}

impl Screen {
    /// Reads on in a partition from the beginning of `range`, about `bytes_max` bytes of what is stored. Cancel safe.
    pub(crate) async fn step(
        &mut self,
        (partition, log): (PartitionId, &Log),
        range: Range<Offset>,
        bytes_max: usize,
    ) -> Result<Step, Error> {
        let Some(masking) = &mut self.masking else {
            return match &self.scanner {
                Some(scanner) => scanner.step(log, range, bytes_max).await,
                None => read(log, range, bytes_max).await,
            };
        };
        if range.is_empty() {
            return Ok(Step::End);
        }
        let pieces = match log.read_range(range.clone(), bytes_max).await? {
            ReadOutcome::Pieces(pieces) => pieces,
            ReadOutcome::End => return Ok(Step::End),
            ReadOutcome::Dropped(start) => return Ok(Step::Dropped(start)),
        };
        // What a plugin leaves of events costs as much reading as all of them.
        let bytes = pieces.iter().map(|piece| piece.run.batches.len() as u64).sum();
        let masked = masking.apply(partition, range.clone(), pieces).await?;
        let (reached, withheld) = (masked.reached, masked.withheld);
        let found = match &self.scanner {
            Some(scanner) if !masked.slices.is_empty() => {
                match scanner.scan(masked.slices, range.start..reached).await? {
                    Step::Found(found) => found,
                    other => return Ok(other),
                }
            }
            _ => Found::all(masked.slices),
        };
        let scanned = Scanned { bytes, withheld, ..found.scanned };
        Ok(Step::Found(Found { reached, scanned, ..found }))
    }
}

/// Reads on without a screen.
pub(crate) async fn read(log: &Log, range: Range<Offset>, bytes_max: usize) -> Result<Step, Error> {
    Ok(match log.read_range(range.clone(), bytes_max).await? {
        ReadOutcome::Pieces(pieces) => {
            let reached = pieces.last().map_or(range.start, LogSlice::end).min(range.end);
            Step::Found(Found { reached, ..Found::all(pieces) })
        }
        ReadOutcome::End => Step::End,
        ReadOutcome::Dropped(start) => Step::Dropped(start),
    })
}
