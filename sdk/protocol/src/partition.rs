//! Which partition an event belongs to, by the hash of its key. Never changed: a change would break order per key.

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::PartitionId;

/// The hash by which keys are compared: XXH3-64 with seed 0.
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The partition of a keyed event: [`key_hash`] of the key, modulo the topic's partitions.
///
/// An event without key but with an id hashes its id the same way, so that equal ids meet in one partition.
/// `partitions` is at least 1.
pub fn partition_of(key: &[u8], partitions: u16) -> PartitionId {
    let partition = key_hash(key) % u64::from(partitions.max(1));
    PartitionId(u16::try_from(partition).expect("a remainder of a u16 fits a u16"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes by the reference implementation of XXH3, over all its ranges of lengths.
    #[test]
    fn keys_keep_their_partition_for_ever() {
        let bytes = |len: u8| (0..len).collect::<Vec<u8>>();
        let rows: [(&[u8], u64, [u16; 4]); 9] = [
            (b"", 0x2d06_8005_38d3_94c2, [0, 1, 2, 194]),
            (b"a", 0xe6c6_32b6_1e96_4e1f, [0, 1, 3, 543]),
            (b"order-42", 0x79cc_a591_0b9a_ce3c, [0, 1, 0, 572]),
            (b"customer-7", 0xfbea_082c_2997_ee28, [0, 2, 0, 552]),
            (b"0123456789abcdef", 0x6443_9946_d8fa_212d, [0, 1, 1, 301]),
            (b"0123456789abcdefg", 0xd2e6_3ed5_466f_5c32, [0, 0, 2, 50]),
            (&bytes(129), 0xec76_42b4_31ba_3e5a, [0, 0, 2, 602]),
            (&bytes(241), 0x02e8_cd95_421c_6d02, [0, 1, 2, 258]),
            (&[b'x'; 4096], 0x854c_6670_88ef_e093, [0, 2, 3, 147]),
        ];
        for (key, hash, partitions) in rows {
            assert_eq!(key_hash(key), hash, "{key:?}");
            assert_eq!([1, 3, 4, 1024].map(|count| partition_of(key, count).0), partitions, "{key:?}");
        }
        assert_eq!(partition_of(b"a", 0), PartitionId(0), "no partitions are as one");
    }
}
