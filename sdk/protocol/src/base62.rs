//! Numbers in base 62 with a fixed count of digits: 0-9, A-Z, a-z, the most significant first. Texts of one length sort
//! as their numbers do.

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The number, big endian, in this many digits; they must be enough for any number of its length.
pub(crate) fn encode(number: &[u8], digits: usize) -> String {
    let mut number = number.to_vec();
    let mut reversed = Vec::with_capacity(digits);
    for _ in 0..digits {
        let mut remainder = 0;
        for byte in &mut number {
            let dividend = remainder << 8 | u16::from(*byte);
            *byte = u8::try_from(dividend / 62).unwrap_or(u8::MAX);
            remainder = dividend % 62;
        }
        reversed.push(char::from(DIGITS[usize::from(remainder)]));
    }
    debug_assert!(number.iter().all(|byte| *byte == 0), "too few digits");
    reversed.into_iter().rev().collect()
}

/// The number, big endian; `None` if a character is no digit, or the number has more than `N` bytes.
pub(crate) fn decode<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut number = [0; N];
    for digit in digits.bytes() {
        let mut carry = u16::from(value(digit)?);
        for byte in number.iter_mut().rev() {
            let product = u16::from(*byte) * 62 + carry;
            let [high, low] = product.to_be_bytes();
            *byte = low;
            carry = u16::from(high);
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

/// True if this is one of the 62 digits.
pub(crate) fn is_digit(byte: u8) -> bool {
    value(byte).is_some()
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'Z' => Some(digit - b'A' + 10),
        b'a'..=b'z' => Some(digit - b'a' + 36),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_texts_that_division_gives() {
        for (number, text) in
            [(0, "00000000000"), (61, "0000000000z"), (62, "00000000010"), (3843, "000000000zz")]
        {
            let bytes = u64::to_be_bytes(number);
            assert_eq!(encode(&bytes, 11), text);
            assert_eq!(decode(text), Some(bytes));
        }
    }

    #[test]
    fn a_number_with_too_many_bytes_is_none() {
        let largest = encode(&u64::MAX.to_be_bytes(), 11);
        assert_eq!(largest, "LygHa16AHYF");
        assert_eq!(decode(&largest), Some(u64::MAX.to_be_bytes()));
        assert_eq!(decode::<8>("LygHa16AHYG"), None);
        assert_eq!(decode::<8>("zzzzzzzzzzz"), None);
    }

    #[test]
    fn other_characters_are_no_digits() {
        for byte in 0..=u8::MAX {
            assert_eq!(is_digit(byte), byte.is_ascii_alphanumeric(), "{byte}");
        }
        assert_eq!(decode::<8>("0000000000-"), None);
    }
}
