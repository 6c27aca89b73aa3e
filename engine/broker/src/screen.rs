//! What events pass before a reader gets them: a mask, if its permission names one, and then a search, if it asked for one. A search
//! behind a mask sees what the mask shows, so that nobody finds out by a condition what they may not see.

use std::{ops::Range, time::Duration};

use levada_protocol::{
    ids::{Offset, PartitionId},
    progress::Scanned,
};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    error::Error,
    frames::LogSlice,
    log::{Log, ReadOutcome},
    masks::{Masked, Masking},
    search::{Found, Scanner, Step, Tally, kept},
};

/// A mask, a search, or both; with the account of what they have done.
pub(crate) struct Screen {
    /// `None` for one who may see everything.
    pub(crate) masking: Option<Masking>,
    /// `None` for one who wants everything.
    pub(crate) scanner: Option<Scanner>,
    pub(crate) tally: Tally,
}

/// What became of a stretch.
pub(crate) enum Screened {
    /// It passed, or there was none. Of these offsets the events are withheld, in order.
    Passed(Step, Vec<Offset>),
    /// Its plugins are left alone for so long; it is to be read again then.
    Paused(Duration),
}

impl Screen {
    /// A turn with the mask, if there is one now; one without a mask needs none.
    ///
    /// # Errors
    /// What to wait for.
    pub(crate) fn try_turn(&self) -> Result<Option<OwnedSemaphorePermit>, &Masking> {
        match &self.masking {
            None => Ok(None),
            Some(masking) => masking.try_turn().map(Some).ok_or(masking),
        }
    }

    /// For how long nothing can pass the mask, if nothing can now.
    ///
    /// # Errors
    /// As [`Masking::paused`].
    pub(crate) async fn paused(&mut self) -> Result<Option<Duration>, Error> {
        match &mut self.masking {
            Some(masking) => masking.paused().await,
            None => Ok(None),
        }
    }

    /// So many events were withheld from the reader.
    pub(crate) fn withheld(&mut self, events: u64) {
        self.tally.withheld(events);
        if let Some(masking) = &self.masking {
            masking.withheld(events);
        }
    }

    /// Reads on in a partition from the beginning of `range`, about `bytes_max` bytes of what is stored. The turn ends once the events
    /// have passed the mask. Cancel safe.
    pub(crate) async fn step(
        &mut self,
        (partition, log): (PartitionId, &Log),
        range: Range<Offset>,
        turn: Option<OwnedSemaphorePermit>,
        bytes_max: usize,
    ) -> Result<Screened, Error> {
        let passed = |step| Ok(Screened::Passed(step, Vec::new()));
        let Some(masking) = &mut self.masking else {
            return passed(match &self.scanner {
                Some(scanner) => scanner.step(log, range, bytes_max).await?,
                None => read(log, range, bytes_max).await?,
            });
        };
        if range.is_empty() {
            return passed(Step::End);
        }
        let pieces = match log.read_range(range.clone(), bytes_max).await? {
            ReadOutcome::Pieces(pieces) => pieces,
            ReadOutcome::End => return passed(Step::End),
            ReadOutcome::Dropped(start) => return passed(Step::Dropped(start)),
        };
        let (slices, reached, withheld) =
            match masking.apply(partition, range.clone(), pieces.clone()).await? {
                Masked::Shown { slices, reached, withheld } => (slices, reached, withheld),
                Masked::Paused(wait) => return Ok(Screened::Paused(wait)),
            };
        drop(turn);
        let found = match &self.scanner {
            Some(scanner) if !slices.is_empty() => match scanner.scan(slices, range.start..reached).await? {
                Step::Found(found) => found,
                other => return passed(other),
            },
            _ => Found::all(slices),
        };
        let scanned = Scanned { bytes: bytes_before(&pieces, reached), ..found.scanned };
        let kept_bytes = found.kept_bytes.max(kept(&pieces, &found.slices));
        let step = Step::Found(Found { reached, scanned, kept_bytes, ..found });
        Ok(Screened::Passed(step, withheld))
    }
}

/// How much is stored of what is before an offset: what a plugin leaves of events costs as much reading as all of them, and what did not
/// pass yet is read again.
fn bytes_before(pieces: &[LogSlice], reached: Offset) -> u64 {
    let of = |piece: &LogSlice| {
        let (bytes, span) = (piece.run.batches.len() as u64, u64::from(piece.span).max(1));
        let passed = reached.0.saturating_sub(piece.run.base.0).min(span);
        bytes * passed / span
    };
    pieces.iter().map(of).sum()
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
