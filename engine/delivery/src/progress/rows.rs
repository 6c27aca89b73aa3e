//! The bytes of a partition's progress.
//!
//! Owns the layout of its rows, little endian. It must not know how they are keyed or when they are written.
//!
//! Head row: 24 bytes, then one entry of 40 bytes per run of failed offsets, in order.
//!
//! ```text
//!  0         1          4        8         16           24
//!  +---------+----------+--------+---------+------------+---------+
//!  | version | reserved | count  | floor   | generation | entries |
//!  | u8 = 1  | 3 bytes  | u32    | u64     | u64        |         |
//!  +---------+----------+--------+---------+------------+---------+
//!
//!  0       8      12         14         15         16              24             32           40
//!  +-------+------+----------+----------+----------+---------------+--------------+------------+
//!  | first | len  | attempts | returned | reserved | first_failure | last_failure | not_before |
//!  | u64   | u32  | u16      | u8       | u8       | u64 (ms)      | u64 (ms)     | u64 (ms)   |
//!  +-------+------+----------+----------+----------+---------------+--------------+------------+
//! ```
//!
//! Chunk row: `version u8 = 1, kind u8`, then by kind, whichever is smaller: 0, runs of 4 bytes in order,
//! `first u16, last u16`, both within the chunk and included; 1, a bitmap of 8,192 bytes, lowest bit first.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::error::ErrorCode;

use super::{CHUNK_OFFSETS, History};
use crate::{
    fields::Fields,
    ranges::{RangeSet, RunMap},
};

/// Why a stored row cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// A later release wrote it.
    #[error("{row} row has version {found}, expected at most {supported}")]
    Newer {
        /// Which kind of row.
        row: &'static str,
        /// The version that came.
        found: u8,
        /// The newest version that this build reads.
        supported: u8,
    },
    /// It is not as this crate writes it.
    #[error("{row} row is damaged: {detail}")]
    Damaged {
        /// Which kind of row.
        row: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

impl RowError {
    /// The stable code that a client sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Newer { .. } => ErrorCode::StorageNewer,
            Self::Damaged { .. } => ErrorCode::StorageCorrupt,
        }
    }

    pub(crate) fn damaged(row: &'static str, detail: impl Into<String>) -> Self {
        Self::Damaged { row, detail: detail.into() }
    }

    pub(crate) fn check_version(
        row: &'static str,
        fields: &mut Fields<'_>,
        supported: u8,
    ) -> Result<(), Self> {
        match fields.u8() {
            Some(found) if found == supported => Ok(()),
            Some(found) if found > supported => Err(Self::Newer { row, found, supported }),
            Some(found) => Err(Self::damaged(row, format!("version {found} never was"))),
            None => Err(Self::damaged(row, "it is empty")),
        }
    }
}

pub(super) struct Head {
    pub(super) floor: u64,
    pub(super) generation: u64,
    pub(super) failures: RunMap<History>,
}

pub(super) fn encode_head(floor: u64, generation: u64, failures: &RunMap<History>) -> Bytes {
    let mut row = BytesMut::with_capacity(HEAD_BYTES + failures.runs_len() * ENTRY_BYTES);
    row.put_u8(VERSION);
    row.put_bytes(0, 3);
    row.put_u32_le(u32::try_from(failures.runs_len()).expect("runs lie within two windows"));
    row.put_u64_le(floor);
    row.put_u64_le(generation);
    for (run, history) in failures.iter() {
        row.put_u64_le(run.start);
        row.put_u32_le(u32::try_from(run.end - run.start).expect("runs lie within two windows"));
        row.put_u16_le(history.attempts);
        row.put_u8(history.returned);
        row.put_u8(0);
        row.put_u64_le(history.first_failure_ms);
        row.put_u64_le(history.last_failure_ms);
        row.put_u64_le(history.not_before_ms);
    }
    row.freeze()
}

pub(super) fn decode_head(row: &[u8]) -> Result<Head, RowError> {
    let mut fields = Fields(row);
    RowError::check_version(HEAD, &mut fields, VERSION)?;
    let head = (|| {
        let _reserved = (fields.u8()?, fields.u16()?);
        Some((fields.u32()?, fields.u64()?, fields.u64()?))
    })();
    let (count, floor, generation) = head.ok_or_else(|| RowError::damaged(HEAD, "it is cut off"))?;
    let expected = usize::try_from(count).ok().and_then(|count| count.checked_mul(ENTRY_BYTES));
    if expected != Some(fields.0.len()) {
        let detail = format!("{count} entries in {} bytes", fields.0.len());
        return Err(RowError::damaged(HEAD, detail));
    }
    let mut failures = RunMap::default();
    while !fields.is_empty() {
        let (run, history) = decode_entry(&mut fields)
            .filter(|(run, _)| !run.is_empty() && failures.end().is_none_or(|end| end <= run.start))
            .ok_or_else(|| RowError::damaged(HEAD, "failed offsets are out of order"))?;
        failures.insert(run, history);
    }
    Ok(Head { floor, generation, failures })
}

fn decode_entry(fields: &mut Fields<'_>) -> Option<(Range<u64>, History)> {
    let (first, len) = (fields.u64()?, fields.u32()?);
    let (attempts, returned, _) = (fields.u16()?, fields.u8()?, fields.u8()?);
    let (first_failure_ms, last_failure_ms, not_before_ms) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let history = History { attempts, returned, first_failure_ms, last_failure_ms, not_before_ms };
    Some((first..first.checked_add(u64::from(len))?, history))
}

/// The row of the settled offsets in a chunk; `None` if there are none.
pub(super) fn encode_chunk(index: u64, acked: &RangeSet) -> Option<Bytes> {
    let within = chunk_range(index)?;
    let runs: Vec<Range<u64>> =
        acked.runs_in(&within).map(|run| run.start - within.start..run.end - within.start).collect();
    if runs.is_empty() {
        return None;
    }
    let as_runs = runs.len() * RUN_BYTES < BITMAP_BYTES;
    let mut row = BytesMut::with_capacity(2 + if as_runs { runs.len() * RUN_BYTES } else { BITMAP_BYTES });
    row.put_u8(VERSION);
    if as_runs {
        row.put_u8(KIND_RUNS);
        for run in runs {
            row.put_u16_le(within_chunk(run.start));
            row.put_u16_le(within_chunk(run.end - 1));
        }
    } else {
        row.put_u8(KIND_BITMAP);
        let mut bitmap = [0u8; BITMAP_BYTES];
        for bit in runs.into_iter().flatten().map(|at| usize::from(within_chunk(at))) {
            bitmap[bit / 8] |= 1 << (bit % 8);
        }
        row.put_slice(&bitmap);
    }
    Some(row.freeze())
}

pub(super) fn decode_chunk(index: u64, row: &[u8]) -> Result<Vec<Range<u64>>, RowError> {
    let mut fields = Fields(row);
    RowError::check_version(CHUNK, &mut fields, VERSION)?;
    let base = chunk_range(index)
        .ok_or_else(|| RowError::damaged(CHUNK, format!("chunk {index} is past the last offset")))?
        .start;
    let runs = match fields.u8() {
        Some(KIND_RUNS) => decode_runs(fields.0),
        Some(KIND_BITMAP) => decode_bitmap(fields.0),
        _ => None,
    };
    let runs = runs
        .ok_or_else(|| RowError::damaged(CHUNK, format!("chunk {index}, {} bytes, is no set", row.len())))?;
    Ok(runs.into_iter().map(|run| base + run.start..base + run.end).collect())
}

fn decode_runs(row: &[u8]) -> Option<Vec<Range<u64>>> {
    let (mut fields, mut runs) = (Fields(row), Vec::<Range<u64>>::new());
    while !fields.is_empty() {
        let (first, last) = (u64::from(fields.u16()?), u64::from(fields.u16()?));
        if first > last || runs.last().is_some_and(|run| run.end > first) {
            return None;
        }
        runs.push(first..last + 1);
    }
    Some(runs)
}

fn decode_bitmap(row: &[u8]) -> Option<Vec<Range<u64>>> {
    if row.len() != BITMAP_BYTES {
        return None;
    }
    let bits = row.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    let (mut runs, mut start) = (Vec::new(), None);
    for (at, set) in (0u64..).zip(bits.chain([false])) {
        match (set, start) {
            (true, None) => start = Some(at),
            (false, Some(first)) => {
                runs.push(first..at);
                start = None;
            }
            _ => {}
        }
    }
    Some(runs)
}

fn chunk_range(index: u64) -> Option<Range<u64>> {
    let start = index.checked_mul(CHUNK_OFFSETS)?;
    Some(start..start.checked_add(CHUNK_OFFSETS)?)
}

fn within_chunk(at: u64) -> u16 {
    u16::try_from(at).expect("a chunk has 65,536 offsets")
}

const HEAD: &str = "progress head";
const CHUNK: &str = "progress chunk";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 24;
const ENTRY_BYTES: usize = 40;
const KIND_RUNS: u8 = 0;
const KIND_BITMAP: u8 = 1;
const RUN_BYTES: usize = 4;
const BITMAP_BYTES: usize = 8_192;
