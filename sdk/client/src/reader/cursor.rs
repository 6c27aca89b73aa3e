//! Where a search goes on: an offset per partition, as a value and as text.

use std::{collections::BTreeMap, fmt, str::FromStr};

use levada_protocol::request::Position;

/// The next offset of each partition of a search: what is before it was searched, and its matches were taken.
///
/// As text it is what the command line takes and prints.
///
/// ```
/// use levada_client::Cursor;
///
/// let cursor: Cursor = "0:1004,3:0".parse()?;
/// assert_eq!(cursor.offset(3), Some(0));
/// assert_eq!(cursor.to_string(), "0:1004,3:0");
/// # Ok::<(), levada_client::InvalidCursor>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(BTreeMap<u16, u64>);

/// A text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected PARTITION:OFFSET, several separated by commas, each partition once, got {0:?}")]
pub struct InvalidCursor(String);

impl Cursor {
    /// A cursor with these positions.
    pub(super) fn new(positions: &[Position]) -> Self {
        Self(positions.iter().map(|position| (position.partition, position.offset)).collect())
    }

    /// The next offset of this partition, if it is searched.
    pub fn offset(&self, partition: u16) -> Option<u64> {
        self.0.get(&partition).copied()
    }

    /// The partitions with their next offsets, in ascending order.
    pub fn positions(&self) -> Vec<Position> {
        self.0.iter().map(|(partition, offset)| Position { partition: *partition, offset: *offset }).collect()
    }

    /// What is before `next` was dealt with. A partition that is not searched stays out.
    pub(super) fn pass(&mut self, partition: u16, next: u64) {
        self.0.entry(partition).and_modify(|offset| *offset = next.max(*offset));
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (partition, offset)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{partition}:{offset}")?;
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let invalid = || InvalidCursor(text.to_owned());
        let mut positions = BTreeMap::new();
        for part in text.split(',') {
            let (partition, offset) = part.split_once(':').ok_or_else(invalid)?;
            let partition = partition.trim().parse().map_err(|_| invalid())?;
            let offset = offset.trim().parse().map_err(|_| invalid())?;
            if positions.insert(partition, offset).is_some() {
                return Err(invalid());
            }
        }
        Ok(Self(positions))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_map, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_is_read_back_from_its_text(positions in btree_map(any::<u16>(), any::<u64>(), 1..9)) {
            let cursor = Cursor(positions);
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "0", "0:", ":1", "0:1,", "0:1,0:2", "-1:0", "70000:1", "0:1;1:2"] {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor(text.to_owned())));
        }
    }

    #[test]
    fn a_cursor_never_goes_back() {
        let mut cursor: Cursor = "0:5".parse().unwrap();
        cursor.pass(0, 3);
        cursor.pass(1, 9);
        assert_eq!(cursor.to_string(), "0:5");
        cursor.pass(0, 6);
        assert_eq!(cursor.to_string(), "0:6");
    }
}
