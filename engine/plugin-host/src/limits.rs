//! What one plugin instance may take of the machine's memory.

use wasmtime::{Error, ResourceLimiter, Result, bail};

/// Native stack of a running plugin in bytes.
pub(crate) const STACK_BYTES: usize = 512 * 1024;
/// Core instances, tables and memories that one component may be made of; language runtimes need about ten.
const PARTS_MAX: usize = 100;
/// What a table's element is counted as.
const ELEMENT_BYTES: usize = 16;

/// Counts the memory and tables of one instance against its cap. Growth beyond it is a trap: a guest that got −1
/// instead would panic, without a useful message.
#[derive(Debug)]
pub(crate) struct MemoryCap {
    bytes_max: usize,
    bytes: usize,
    exceeded: bool,
}

impl MemoryCap {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX), bytes: 0, exceeded: false }
    }

    /// How much the instance has. It never gives memory back, so this is its high-water mark.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// True if it wanted more than its cap.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.exceeded
    }

    fn grow(&mut self, more: usize) -> Result<bool> {
        let bytes = self.bytes.saturating_add(more);
        if bytes > self.bytes_max {
            self.exceeded = true;
            bail!("memory over the cap of {} bytes", self.bytes_max);
        }
        self.bytes = bytes;
        Ok(true)
    }
}

impl ResourceLimiter for MemoryCap {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        self.grow(desired.saturating_sub(current))
    }

    fn memory_grow_failed(&mut self, error: Error) -> Result<()> {
        self.exceeded = true;
        Err(error)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        self.grow(desired.saturating_sub(current).saturating_mul(ELEMENT_BYTES))
    }

    fn table_grow_failed(&mut self, error: Error) -> Result<()> {
        self.exceeded = true;
        Err(error)
    }

    fn instances(&self) -> usize {
        PARTS_MAX
    }

    fn tables(&self) -> usize {
        PARTS_MAX
    }

    fn memories(&self) -> usize {
        PARTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_share_one_cap() {
        let mut cap = MemoryCap::new(1 << 20);
        assert!(cap.memory_growing(0, 1 << 19, None).unwrap());
        assert!(cap.memory_growing(0, 1 << 18, None).unwrap());
        assert!(cap.table_growing(0, (1 << 18) / ELEMENT_BYTES, None).unwrap());
        assert!(!cap.is_exceeded());
        assert!(cap.table_growing(0, 1, None).is_err());
        assert!(cap.is_exceeded());
        assert_eq!(cap.bytes(), 1 << 20);
    }
}
