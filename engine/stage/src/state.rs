//! The state of a stage, as calls read and change it.

use std::fmt;

use bytes::Bytes;

/// One change of a stage's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateWrite {
    /// The key, chosen by the plugin.
    pub key: Bytes,
    /// The new value; `None` deletes the key.
    pub value: Option<Bytes>,
}

/// The state of one stage at one partition of its attachment point.
///
/// It shows what is stored and, over it, every write of a call that counts; it does not change while a call runs.
pub trait StateView: fmt::Debug + Send + Sync {
    /// The value of `key`, or `None` if it has none. May block for a read of the disk: it is called on the host's
    /// own threads.
    fn get(&self, key: &[u8]) -> Option<Bytes>;
}
