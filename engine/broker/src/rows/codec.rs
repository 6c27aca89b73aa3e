//! Reading the fixed fields of a value: little endian, and never past its end.

use std::borrow::Cow;

/// What is wrong with a value.
pub(crate) type Damage = Cow<'static, str>;

/// What of a value was not read yet.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(value: &'a [u8]) -> Self {
        Self(value)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or("it is cut off")?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Damage> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Damage> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Damage> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Damage> {
        self.array().map(u64::from_le_bytes)
    }

    /// Bytes without a meaning yet, which are 0.
    pub(super) fn reserved<const N: usize>(&mut self) -> Result<(), Damage> {
        if self.array::<N>()? == [0; N] { Ok(()) } else { Err("a reserved byte is not 0".into()) }
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Damage> {
        let (head, rest) = self.0.split_at_checked(len).ok_or("it is cut off")?;
        self.0 = rest;
        Ok(head)
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Refuses bytes that nothing has read.
    pub(super) fn finish(self) -> Result<(), Damage> {
        match self.0.len() {
            0 => Ok(()),
            more => Err(format!("it has {more} bytes more than it should").into()),
        }
    }
}
