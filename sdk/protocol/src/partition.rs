//! Which partition an event belongs to. Stable for ever: a change would break order per key.

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::PartitionId;

/// The partition of a keyed event: XXH3-64 (seed 0) of the key, modulo the topic's partitions.
///
/// An event without key but with an id hashes its id the same way, so that a repeated id meets its first.
/// `partitions` is at least 1.
pub fn partition_of(key: &[u8], partitions: u16) -> PartitionId {
    let partition = xxh3_64(key) % u64::from(partitions.max(1));
    PartitionId(u16::try_from(partition).expect("a remainder of a u16 fits a u16"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_partition_for_ever() {
        for (key, partitions, expected) in [("", 16, 0x2d06_8005_38d3_94c2_u64 % 16), ("order-42", 1, 0)] {
            assert_eq!(u64::from(partition_of(key.as_bytes(), partitions).0), expected, "{key}");
        }
    }
}
