//! Scanning a partition a bounded stretch at a time, off the network's threads.

use std::{
    num::NonZero,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use levada_protocol::{ids::Offset, progress::Scanned};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Matcher;
use crate::{
    error::Error,
    frames::LogSlice,
    log::{Log, ReadOutcome, blocking},
};

/// The turns of all searches of an engine: half of the processors test events at a time, at least one, whoever asked
/// first. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Scans(Arc<Semaphore>);

impl Scans {
    pub(crate) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new((processors / 2).max(1))))
    }
}

/// Finds what matches in any partition.
#[derive(Debug)]
pub(crate) struct Scanner {
    matcher: Arc<Mutex<Matcher>>,
    scans: Scans,
}

/// The result of a step.
#[derive(Debug)]
pub(crate) enum Step {
    /// A stretch was scanned.
    Found(Found),
    /// The position is the durable end, or that of the range: there is nothing to scan.
    End,
    /// Retention has dropped the position; the log begins here now.
    Dropped(Offset),
}

/// What a stretch holds.
#[derive(Debug)]
pub(crate) struct Found {
    /// The events that match, with their own offsets.
    pub(crate) slices: Vec<LogSlice>,
    /// Bytes of memory that these keep: whole pieces where stored batches are shared.
    pub(crate) kept_bytes: usize,
    /// The first offset that was not scanned.
    pub(crate) reached: Offset,
    pub(crate) scanned: Scanned,
}

impl Found {
    /// Pieces of which everything is wanted.
    pub(crate) fn all(mut pieces: Vec<LogSlice>) -> Self {
        let reached = pieces.last().map_or(Offset(0), LogSlice::end);
        pieces.retain(|piece| piece.events > 0);
        let kept_bytes = pieces.iter().map(|piece| piece.run.batches.len()).sum();
        Self { slices: pieces, kept_bytes, reached, scanned: Scanned::default() }
    }
}

impl Scanner {
    pub(crate) fn new(matcher: Matcher, scans: Scans) -> Self {
        Self { matcher: Arc::new(Mutex::new(matcher)), scans }
    }

    /// Scans from the beginning of `range`, about `bytes_max` bytes but at least one record.
    ///
    /// Cancel safe; testing events ends with the batch at hand then.
    pub(crate) async fn step(
        &self,
        log: &Log,
        range: Range<Offset>,
        bytes_max: usize,
    ) -> Result<Step, Error> {
        if range.is_empty() {
            return Ok(Step::End);
        }
        match log.read_range(range.clone(), bytes_max).await? {
            ReadOutcome::Pieces(pieces) => self.scan(pieces, range).await,
            ReadOutcome::End => Ok(Step::End),
            ReadOutcome::Dropped(start) => Ok(Step::Dropped(start)),
        }
    }

    /// Scans these pieces of a partition within `range`; cancel safe as [`Scanner::step`].
    pub(crate) async fn scan(&self, pieces: Vec<LogSlice>, range: Range<Offset>) -> Result<Step, Error> {
        let Some(end) = pieces.last().map(LogSlice::end) else { return Ok(Step::End) };
        let turn = Arc::clone(&self.scans.0).acquire_owned().await.map_err(|_| Error::ShuttingDown)?;
        let (matcher, gone) = (Arc::clone(&self.matcher), CancellationToken::new());
        let _when_dropped = gone.clone().drop_guard();
        let reached = end.min(range.end);
        blocking(move || {
            let _turn = turn;
            let mut matcher = matcher.lock().unwrap_or_else(PoisonError::into_inner);
            let (slices, scanned) = matcher.cut(&pieces, &range, || gone.is_cancelled())?;
            let kept_bytes = kept(&pieces, &slices);
            Ok(Step::Found(Found { slices, kept_bytes, reached, scanned }))
        })
        .await
    }
}

/// Bytes of memory that slices cut from these pieces keep.
pub(crate) fn kept(pieces: &[LogSlice], slices: &[LogSlice]) -> usize {
    let built = slices.iter().filter(|slice| slice.built).map(|slice| slice.run.batches.len());
    let is_shared = |piece: &&LogSlice| {
        let range = piece.run.base..piece.end();
        slices.iter().any(|slice| !slice.built && range.contains(&slice.run.base))
    };
    let shared = pieces.iter().filter(is_shared).map(|piece| piece.run.batches.len());
    built.chain(shared).sum()
}
