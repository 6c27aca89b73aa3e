//! What the tests of every row ask of it.

use std::fmt::Debug;

use super::{KeyRange, Row, RowError};

/// Key and value have these bytes, in hexadecimal; blanks are for the eye.
pub(super) fn bytes<R: Row + PartialEq + Debug>(key: &R::Key, row: &R, key_hex: &str, value_hex: &str)
where
    R::Key: PartialEq + Debug,
{
    let plain = |hex: &str| hex.replace(char::is_whitespace, "");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&R::key(key)), plain(key_hex), "the key");
    assert_eq!(hex(&row.encode()), plain(value_hex), "the value");
    comes_back(key, row);
}

/// The bytes of hexadecimal digits; blanks are for the eye.
pub(super) fn from_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// What was written is read again, and nothing that is shorter, longer or of another version.
pub(super) fn comes_back<R: Row + PartialEq + Debug>(key: &R::Key, row: &R)
where
    R::Key: PartialEq + Debug,
{
    let (key_bytes, value) = (R::key(key), row.encode());
    assert_eq!(R::parse_key(&key_bytes).as_ref(), Some(key));
    assert_eq!(R::decode(&value).as_ref(), Ok(row));
    let cuts = (0..value.len()).filter(|cut| *cut < 300 || cut + 300 > value.len());
    for cut in cuts {
        assert!(R::decode(&value[..cut]).is_err(), "{cut} of {} bytes were read", value.len());
    }
    assert!(matches!(R::decode(&[&value[..], &[0]].concat()), Err(RowError::Damaged { .. })));
    let newer = [&[R::VERSION + 1], &value[1..]].concat();
    assert!(matches!(R::decode(&newer), Err(RowError::Newer { .. })));
    let older = [&[R::VERSION_MIN - 1], &value[1..]].concat();
    assert!(matches!(R::decode(&older), Err(RowError::Damaged { .. })));
}

/// Bytes of anybody's are refused, or are what the row that they are read as has.
pub(super) fn garbage<R: Row + PartialEq + Debug>(garbage: &[u8]) {
    let value = [&[R::VERSION], garbage].concat();
    if let Ok(row) = R::decode(&value) {
        assert_eq!(R::decode(&row.encode()), Ok(row));
    }
}

/// The key is in the range, and one that differs in its first bytes does not.
pub(super) fn is_within<R: Row>(key: &R::Key, (from, to): &KeyRange) {
    let key = R::key(key);
    assert!(*from <= key && key < *to);
    let other = [&[key[0] ^ 1], &key[1..]].concat();
    assert!(other[..] < from[..] || other[..] >= to[..]);
}
