//! Files that a recovery left behind when it failed or was killed. RocksDB takes them away only after a recovery
//! that succeeded, so on a full disk each try would leave less room to the next.
//!
//! Before a recovery a note says which manifest counts, how long it is, the highest number of a file, and how much
//! room the recovery may need. As long as that manifest counts and has not grown, no later file can be known to the
//! database.
//!
//! ```text
//!  0         1          4        8          16             24          32               40
//!  +---------+----------+--------+----------+--------------+-----------+----------------+
//!  | version | reserved | crc32c | manifest | manifest_len | last_file | recovery_bytes |
//!  | u8 = 1  | 3 bytes  | u32    | u64      | u64          | u64       | u64            |
//!  +---------+----------+--------+----------+--------------+-----------+----------------+
//! ```
//! All numbers are little endian; `crc32c` covers the 4 bytes before it and the 32 after it.

use std::{fs, path::Path};

use bytes::{Buf, BufMut};

const VERSION: u8 = 1;
const MANIFEST: &str = "MANIFEST-";
/// The kinds of files that a recovery writes rows to.
const ROWS: [&str; 2] = ["sst", "blob"];

/// The state of the database's files before a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    manifest: u64,
    manifest_len: u64,
    last_file: u64,
    /// How much room the recovery may need.
    pub(super) recovery_bytes: u64,
}

impl Note {
    pub(super) const BYTES: usize = 40;

    /// The state now; `None` if there is no database yet.
    pub(super) fn take(folder: &Path, recovery_bytes: u64) -> Option<Self> {
        let current = fs::read_to_string(folder.join("CURRENT")).ok()?;
        let name = current.trim_end();
        let manifest = name.strip_prefix(MANIFEST)?.parse().ok()?;
        let manifest_len = fs::metadata(folder.join(name)).ok()?.len();
        let numbers = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| number(&entry.path()));
        Some(Self { manifest, manifest_len, last_file: numbers.max().unwrap_or(0), recovery_bytes })
    }

    /// True if no recovery has ended well since.
    pub(super) fn is_current(&self, folder: &Path) -> bool {
        Self::take(folder, 0)
            .is_some_and(|now| (now.manifest, now.manifest_len) == (self.manifest, self.manifest_len))
    }

    /// Takes away what a recovery that began with this note has left behind, if it has not ended well since.
    /// The caller holds the data directory's lock.
    pub(super) fn clear_leftovers(&self, folder: &Path) {
        if !self.is_current(folder) {
            return;
        }
        let Ok(entries) = fs::read_dir(folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let holds_rows = path.extension().is_some_and(|kind| ROWS.iter().any(|rows| kind == *rows));
            if holds_rows && number(&path).is_some_and(|number| number > self.last_file) {
                tracing::info!(path = %path.display(), "an unfinished recovery left this file, it is removed");
                // What stays is removed by RocksDB when a recovery succeeds.
                let _ = fs::remove_file(path);
            }
        }
    }

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = VERSION;
        let mut rest = &mut bytes[8..];
        rest.put_u64_le(self.manifest);
        rest.put_u64_le(self.manifest_len);
        rest.put_u64_le(self.last_file);
        rest.put_u64_le(self.recovery_bytes);
        let crc = checksum(&bytes);
        (&mut bytes[4..8]).put_u32_le(crc);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        if bytes[0] != VERSION || (&bytes[4..8]).get_u32_le() != checksum(bytes) {
            return None;
        }
        let mut rest = &bytes[8..];
        Some(Self {
            manifest: rest.get_u64_le(),
            manifest_len: rest.get_u64_le(),
            last_file: rest.get_u64_le(),
            recovery_bytes: rest.get_u64_le(),
        })
    }
}

/// The number that a file of RocksDB has in its name.
fn number(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.rsplit('-').next()?.parse().ok()
}

fn checksum(bytes: &[u8; Note::BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..4]), &bytes[8..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTE: Note =
        Note { manifest: 5, manifest_len: 258, last_file: 0x0102_0304, recovery_bytes: 4 << 20 };

    #[test]
    fn has_its_golden_bytes() {
        let golden = [
            [1, 0, 0, 0, 0, 0, 0, 0],
            [5, 0, 0, 0, 0, 0, 0, 0],
            [2, 1, 0, 0, 0, 0, 0, 0],
            [4, 3, 2, 1, 0, 0, 0, 0],
            [0, 0, 64, 0, 0, 0, 0, 0],
        ];
        let mut encoded = NOTE.encode();
        assert_eq!(Note::decode(&encoded), Some(NOTE));
        encoded[4..8].fill(0);
        assert_eq!(encoded, golden.concat().as_slice());
    }

    proptest! {
        #[test]
        fn a_damaged_note_is_none(byte in 0..Note::BYTES, change in 1..=255_u8) {
            let mut bytes = NOTE.encode();
            bytes[byte] ^= change;
            prop_assert_eq!(Note::decode(&bytes), None);
        }

        #[test]
        fn comes_back_as_it_was(manifest: u64, manifest_len: u64, last_file: u64, recovery_bytes: u64) {
            let note = Note { manifest, manifest_len, last_file, recovery_bytes };
            prop_assert_eq!(Note::decode(&note.encode()), Some(note));
        }
    }

    #[test]
    fn only_later_files_with_rows_are_taken_away_and_only_while_the_manifest_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &str| fs::write(dir.path().join(name), bytes).unwrap();
        write("CURRENT", "MANIFEST-000004\n");
        write("MANIFEST-000004", "some");
        write("000007.sst", "old");
        let note = Note::take(dir.path(), 9).unwrap();
        assert_eq!(note, Note { manifest: 4, manifest_len: 4, last_file: 7, recovery_bytes: 9 });
        for name in ["000008.sst", "000009.blob", "000010.log", "MANIFEST-000011"] {
            write(name, "new");
        }
        write("MANIFEST-000004", "some more");
        note.clear_leftovers(dir.path());
        assert!(dir.path().join("000008.sst").exists(), "the manifest may know it");
        write("MANIFEST-000004", "some");
        note.clear_leftovers(dir.path());
        let there = ["000007.sst", "000008.sst", "000009.blob", "000010.log"]
            .map(|name| dir.path().join(name).exists());
        assert_eq!(there, [true, false, false, true]);
        write("000008.sst", "new");
        write("CURRENT", "MANIFEST-000011\n");
        note.clear_leftovers(dir.path());
        assert!(dir.path().join("000008.sst").exists(), "a recovery has ended well since");
    }
}
