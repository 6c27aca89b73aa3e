//! How far a search has come, or one who reads through a mask.
//!
//! `Progress` payload: 48 bytes, then one entry of 16 bytes per partition, as in `End`.
//!
//! ```text
//!  0         8        16        24            32         40      41         48
//!  +---------+--------+---------+-------------+----------+-------+----------+---------+
//!  | scanned | events | matched | undecodable | withheld | state | reserved | entries |
//!  | u64     | u64    | u64     | u64         | u64      | u8    | 7 bytes  |         |
//!  +---------+--------+---------+-------------+----------+-------+----------+---------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    deliver::EndEntry,
    frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameType},
    wire::Reader,
};

/// Bytes before the entries.
const PROGRESS_HEADER_BYTES: usize = 48;

/// What one stream's search or mask has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scanned {
    /// Stored bytes that were scanned.
    pub bytes: u64,
    /// Events that were scanned.
    pub events: u64,
    /// Events of them that match.
    pub matched: u64,
    /// Events of them whose payload is no JSON although the condition names a field of it; they do not match.
    pub undecodable: u64,
    /// Events that were not shown, because a plugin of the mask failed on them.
    pub withheld: u64,
}

/// Whether a search goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchState {
    /// It does.
    Running,
    /// It has scanned everything that was stored when it began. `End` follows.
    Complete,
    /// It has scanned as many bytes, or delivered as many events, as it may, and there is more. `End` follows.
    Limited,
}

/// A `Progress` frame. What it covers was delivered before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What was done since the stream began.
    pub scanned: Scanned,
    /// Whether the search goes on.
    pub state: SearchState,
    /// Per partition, the first offset that was not searched, or matched and was not delivered.
    pub positions: Vec<EndEntry>,
}

impl Progress {
    /// The whole frame.
    pub fn frame(&self) -> Bytes {
        let len = PROGRESS_HEADER_BYTES + EndEntry::len_of(&self.positions);
        let mut bytes = BytesMut::with_capacity(FRAME_HEADER_BYTES + len);
        bytes.put_slice(&FrameHeader::bytes(FrameType::Progress, len));
        let Scanned { bytes: scanned, events, matched, undecodable, withheld } = self.scanned;
        for count in [scanned, events, matched, undecodable, withheld] {
            bytes.put_u64_le(count);
        }
        bytes.put_u8(match self.state {
            SearchState::Running => 0,
            SearchState::Complete => 1,
            SearchState::Limited => 2,
        });
        bytes.put_bytes(0, 7);
        EndEntry::put_all(&self.positions, &mut bytes);
        bytes.freeze()
    }

    /// Reads a `Progress` frame's payload.
    ///
    /// # Errors
    /// If it is cut off, or the state is none.
    pub fn read(payload: &[u8]) -> Result<Self, FrameError> {
        let Some((header, entries)) = payload.split_at_checked(PROGRESS_HEADER_BYTES) else {
            return Err(FrameError::payload("progress is shorter than its 48 bytes"));
        };
        let mut reader = Reader::new(header);
        let mut count = || reader.u64().unwrap_or_default();
        let scanned = Scanned {
            bytes: count(),
            events: count(),
            matched: count(),
            undecodable: count(),
            withheld: count(),
        };
        let state = match reader.u8() {
            Some(0) => SearchState::Running,
            Some(1) => SearchState::Complete,
            Some(2) => SearchState::Limited,
            other => {
                let got = other.unwrap_or_default();
                return Err(FrameError::payload(format!("expected a search's state of 0 to 2, got {got}")));
            }
        };
        Ok(Self { scanned, state, positions: EndEntry::read_all(entries)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;
    use crate::ids::{Offset, PartitionId};

    proptest! {
        #[test]
        fn progress_is_read_back_and_no_part_of_it_is(
            counts in any::<[u64; 5]>(),
            state in select(vec![SearchState::Running, SearchState::Complete, SearchState::Limited]),
            positions in vec(any::<(u16, u64)>(), 0..5),
        ) {
            let [bytes, events, matched, undecodable, withheld] = counts;
            let positions = positions
                .into_iter()
                .map(|(partition, next)| EndEntry { partition: PartitionId(partition), next: Offset(next) })
                .collect();
            let progress =
                Progress { scanned: Scanned { bytes, events, matched, undecodable, withheld }, state, positions };
            let frame = progress.frame();
            let payload = &frame[FRAME_HEADER_BYTES..];
            prop_assert_eq!(Progress::read(payload), Ok(progress));
            for len in 0..payload.len() {
                let whole = len >= PROGRESS_HEADER_BYTES && (len - PROGRESS_HEADER_BYTES).is_multiple_of(16);
                prop_assert_eq!(Progress::read(&payload[..len]).is_ok(), whole, "cut to {}", len);
            }
        }
    }

    #[test]
    fn a_state_that_is_none_is_refused() {
        let mut payload = [0; PROGRESS_HEADER_BYTES];
        payload[40] = 2;
        assert!(Progress::read(&payload).is_ok());
        payload[40] = 3;
        assert!(Progress::read(&payload).is_err());
    }
}
