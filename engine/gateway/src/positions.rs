//! Positions in all partitions of a topic as a short text: `0:17,1:42`, partition and next offset.

use std::{collections::BTreeMap, fmt::Write as _};

use levada_protocol::request::Position;

/// The next offset of each partition.
pub(crate) type Positions = BTreeMap<u16, u64>;

pub(crate) fn format(positions: &Positions) -> String {
    let mut text = String::with_capacity(positions.len() * 8);
    for (partition, offset) in positions {
        let comma = if text.is_empty() { "" } else { "," };
        write!(text, "{comma}{partition}:{offset}").expect("a text grows");
    }
    text
}

/// Reads positions, each partition once; `None` for anything else.
pub(crate) fn parse(text: &str) -> Option<Vec<Position>> {
    let position = |part: &str| {
        let (partition, offset) = part.split_once(':')?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (is_number(partition) && is_number(offset)).then_some(())?;
        Some(Position { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
    };
    let positions: Vec<Position> = text.split(',').map(position).collect::<Option<_>>()?;
    let distinct: Positions = positions.iter().map(|it| (it.partition, it.offset)).collect();
    (distinct.len() == positions.len()).then_some(positions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_back() {
        for text in ["0:17", "0:17,1:42", "1023:18446744073709551615"] {
            let read = parse(text).unwrap();
            assert_eq!(format(&read.iter().map(|it| (it.partition, it.offset)).collect()), text);
        }
        for text in [
            "",
            "0",
            "0:",
            ":1",
            "0:1,",
            "0:1,0:2",
            "+0:1",
            "70000:1",
            "0:1:2",
            "12:00:00",
            "0:99999999999999999999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
