//! What is settled of a chunk of one partition, above a subscription's floor. After the version byte `kind u8`, then by
//! kind, whichever is smaller: 0, `count u16` and as many runs of 4 bytes in order, `first u16, last u16`, both within
//! the chunk and included; 1, a bitmap of 8,192 bytes, lowest bit first.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use levada_delivery::progress::Chunk;
use levada_protocol::ids::{PartitionId, SubscriptionId};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::KeyRange,
    progress_part::{self, PartKey},
};

const KIND_RUNS: u8 = 0;
const KIND_BITMAP: u8 = 1;
const RUN_BYTES: usize = 4;
const BITMAP_BYTES: usize = 8_192;
/// What follows the partition in the key.
const KIND: u8 = 0x01;

/// The chunks of a subscription in one partition.
pub(crate) fn of_partition(id: SubscriptionId, partition: PartitionId) -> KeyRange {
    progress_part::of_partition(KIND, id, partition)
}

impl Row for Chunk {
    const NAME: &'static str = "progress chunk";
    const FAMILY: Family = Family::Cursors;
    const VERSION: u8 = 1;
    /// The last is the chunk's index.
    type Key = PartKey;

    fn key(key: &Self::Key) -> Bytes {
        progress_part::key(KIND, key)
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        progress_part::parse_key(KIND, key)
    }

    fn len(&self) -> usize {
        1 + (2 + self.runs().len() * RUN_BYTES).min(BITMAP_BYTES)
    }

    fn write(&self, out: &mut BytesMut) {
        let runs = self.runs();
        if 2 + runs.len() * RUN_BYTES < BITMAP_BYTES {
            out.put_u8(KIND_RUNS);
            out.put_u16_le(u16::try_from(runs.len()).expect("runs take less than a bitmap"));
            for run in runs {
                out.put_u16_le(within_chunk(run.start));
                out.put_u16_le(within_chunk(run.end - 1));
            }
            return;
        }
        out.put_u8(KIND_BITMAP);
        let mut bitmap = [0u8; BITMAP_BYTES];
        for bit in runs.iter().cloned().flatten().map(|at| usize::from(within_chunk(at))) {
            bitmap[bit / 8] |= 1 << (bit % 8);
        }
        out.put_slice(&bitmap);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let runs = match fields.u8()? {
            KIND_RUNS => read_runs(fields)?,
            KIND_BITMAP => read_bitmap(&fields.array::<BITMAP_BYTES>()?),
            kind => return Err(format!("a set of kind {kind} is unknown").into()),
        };
        Self::new(runs).ok_or_else(|| "it is no set of offsets".into())
    }
}

fn read_runs(fields: &mut Fields<'_>) -> Result<Vec<Range<u64>>, Damage> {
    let count = usize::from(fields.u16()?);
    if fields.left() != count * RUN_BYTES {
        return Err(format!("{count} runs in {} bytes", fields.left()).into());
    }
    let mut runs = Vec::with_capacity(count);
    for _ in 0..count {
        let (first, last) = (u64::from(fields.u16()?), u64::from(fields.u16()?));
        runs.push(first..last + 1);
    }
    Ok(runs)
}

fn read_bitmap(bitmap: &[u8; BITMAP_BYTES]) -> Vec<Range<u64>> {
    let bits = bitmap.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
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
    runs
}

fn within_chunk(at: u64) -> u16 {
    u16::try_from(at).expect("a chunk has 65,536 offsets")
}

#[cfg(test)]
mod tests {
    use levada_delivery::progress::CHUNK_OFFSETS;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let key = (SubscriptionId(1), PartitionId(2), 3);
        let chunk = Chunk::new(vec![6..8, 65_535..65_536]).unwrap();
        check::bytes(
            &key,
            &chunk,
            "01 0000000000000001 0002 01 0000000000000003",
            "01 00 0200 0600 0700 ffff ffff",
        );
    }

    #[test]
    fn a_chunk_of_many_runs_is_a_bitmap_of_8_kib() {
        let every = |step: usize| {
            let runs = (1..CHUNK_OFFSETS).step_by(step).map(|at| at..at + 1).collect();
            Chunk::new(runs).unwrap()
        };
        let (many, few) = (every(2), every(33));
        assert_eq!((many.encode().len(), many.encode()[1], many.encode()[2]), (8_194, 1, 0b1010_1010));
        assert_eq!((few.encode().len(), few.encode()[1]), (4 + 4 * 1_986, 0));
        check::comes_back(&(SubscriptionId(1), PartitionId(0), 0), &many);
    }

    proptest! {
        #[test]
        fn it_comes_back(id in any::<u64>(), partition in any::<u16>(), index in any::<u64>(), gaps in vec((0..200u64, 1..200u64), 1..160)) {
            let mut at = 0;
            let runs = gaps.into_iter().map(|(gap, len)| {
                let run = at + gap..at + gap + len;
                at = run.end;
                run
            });
            let key = (SubscriptionId(id), PartitionId(partition), index);
            check::comes_back(&key, &Chunk::new(runs.collect()).unwrap());
            check::is_within::<Chunk>(&key, &of_partition(key.0, key.1));
        }

        #[test]
        fn garbage_is_refused_or_reads_back_as_it_was(garbage in vec(any::<u8>(), 0..40)) {
            check::garbage::<Chunk>(&garbage);
        }
    }
}
