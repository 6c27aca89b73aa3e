//! Why bytes are no commit.

use super::COMMIT_VERSION;

/// Why bytes are no commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Shorter or longer than they say.
    #[error("commit is {got} bytes, expected {expected}")]
    Length {
        /// What the header says, or the least a commit can be.
        expected: usize,
        /// The length in bytes.
        got: usize,
    },
    /// A layout version that this build does not read.
    #[error("commit version is {got}, expected {COMMIT_VERSION}")]
    Version {
        /// The value that was read.
        got: u8,
    },
    /// The checksum does not match the bytes.
    #[error("commit checksum is {got:08x}, the bytes give {expected:08x}")]
    Checksum {
        /// The checksum computed from the bytes.
        expected: u32,
        /// The checksum in the header.
        got: u32,
    },
    /// A field has a value that it cannot have.
    #[error("operation {index} of the commit is malformed: {what}")]
    Op {
        /// Its index in the commit.
        index: u32,
        /// The mistake, in a few words.
        what: &'static str,
    },
    /// A reserved field is in use, or there are bytes after the last operation.
    #[error("commit is malformed: {what}")]
    Malformed {
        /// The mistake, in a few words.
        what: &'static str,
    },
}
