//! Numbers of JSON texts, compared by their decimal value, whatever their size and however they are written.

use std::cmp::Ordering;

/// Significant digits that need no memory of their own.
const SHORT: usize = 24;
/// Exponents of at most so many digits are kept as an integer.
const SMALL_DIGITS: usize = 18;

/// A number, exact.
///
/// Two are equal if they have the same decimal value: `1`, `1.0` and `10e-1` are.
#[derive(Debug, Clone)]
pub enum Number {
    /// An integer of 64 bits, written as one.
    Integer(i64),
    /// Every other number.
    Decimal(Decimal),
}

/// Significant digits and a power of ten.
#[derive(Debug, Clone)]
pub struct Decimal {
    negative: bool,
    /// The value is 0.d₁d₂d₃… times ten to this power.
    exponent: Exponent,
    digits: Digits,
}

/// A power of ten, of any size; each has one form.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exponent {
    /// Of at most [`SMALL_DIGITS`] digits.
    Small(i64),
    /// Of more: decimal digits, the first of them no zero.
    Huge { negative: bool, digits: Box<[u8]> },
}

/// Digits without zeros at either end; none at all for zero.
#[derive(Debug, Clone)]
enum Digits {
    Short { digits: [u8; SHORT], len: u8 },
    Long(Box<[u8]>),
}

impl Number {
    /// Reads a number as JSON writes it; leading zeros, a leading `+` and a missing zero before the point are taken
    /// too, as headers may have them. `None` if it is none.
    #[inline]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if !digits.is_empty() && digits.len() <= 18 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            let size = digits.bytes().fold(0, |sum, byte| sum * 10 + i64::from(byte - b'0'));
            return Some(Self::Integer(if digits.len() < text.len() { -size } else { size }));
        }
        text.parse().map(Self::Integer).ok().or_else(|| Decimal::parse(text).map(Self::Decimal))
    }
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent),
            None => (unsigned, "0"),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let has_point = whole.len() < mantissa.len();
        let digits = || whole.bytes().chain(fraction.bytes());
        if !digits().all(|byte| byte.is_ascii_digit())
            || fraction.is_empty() && (has_point || whole.is_empty())
        {
            return None;
        }
        let leading = digits().take_while(|byte| *byte == b'0').count();
        let trailing = digits().rev().take_while(|byte| *byte == b'0').count();
        let count = (whole.len() + fraction.len()).saturating_sub(leading + trailing);
        let point = i64::try_from(whole.len()).ok()? - i64::try_from(leading).ok()?;
        let exponent = Exponent::parse(exponent, point)?;
        Some(Self { negative, exponent, digits: Digits::of(digits().skip(leading).take(count), count) })
    }

    fn of(integer: i64) -> Self {
        let mut text = [0; 20];
        let (mut size, mut at) = (integer.unsigned_abs(), text.len());
        while size > 0 {
            at -= 1;
            text[at] = b'0' + u8::try_from(size % 10).expect("a digit is below 10");
            size /= 10;
        }
        let digits = &text[at..];
        let count = digits.len() - digits.iter().rev().take_while(|byte| **byte == b'0').count();
        let exponent = Exponent::Small(i64::try_from(digits.len()).expect("at most 20 digits"));
        Self { negative: integer < 0, exponent, digits: Digits::of(digits[..count].iter().copied(), count) }
    }

    /// -1, 0 or 1.
    fn sign(&self) -> i8 {
        match (self.digits.as_slice().is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        let signs = self.sign().cmp(&other.sign());
        if signs != Ordering::Equal || self.sign() == 0 {
            return signs;
        }
        let by_digits = || self.digits.as_slice().cmp(other.digits.as_slice());
        let sizes = self.exponent.cmp(&other.exponent).then_with(by_digits);
        if self.negative { sizes.reverse() } else { sizes }
    }
}

impl Exponent {
    /// An exponent as it is written, with its sign, and `point` more, which is a length in bytes or its negative.
    fn parse(text: &str, point: i64) -> Option<Self> {
        let negative = text.starts_with('-');
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = digits.trim_start_matches('0');
        if digits.len() <= SMALL_DIGITS {
            let size = digits.bytes().fold(0, |sum, byte| sum * 10 + i64::from(byte - b'0'));
            let sum = if negative { -size } else { size } + point;
            if sum.unsigned_abs() < 10_u64.pow(18) {
                return Some(Self::Small(sum));
            }
            return Some(Self::of(sum < 0, sum.unsigned_abs().to_string().into_bytes()));
        }
        // From the last digit on; a text in memory is far shorter than what is huge, so that the sign stays.
        let (mut digits, mut carry) = (digits.as_bytes().to_vec(), if negative { -point } else { point });
        for digit in digits.iter_mut().rev() {
            carry += i64::from(*digit - b'0');
            *digit = b'0' + u8::try_from(carry.rem_euclid(10)).expect("a digit is below 10");
            carry = carry.div_euclid(10);
        }
        if carry > 0 {
            digits.splice(0..0, carry.to_string().into_bytes());
        }
        Some(Self::of(negative, digits))
    }

    /// The one form of a number of these digits.
    fn of(negative: bool, mut digits: Vec<u8>) -> Self {
        let zeros = digits.iter().take_while(|byte| **byte == b'0').count();
        digits.drain(..zeros);
        if digits.len() > SMALL_DIGITS {
            return Self::Huge { negative, digits: digits.into() };
        }
        let size = digits.iter().fold(0, |sum, byte| sum * 10 + i64::from(byte - b'0'));
        Self::Small(if negative { -size } else { size })
    }
}

impl PartialOrd for Exponent {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Exponent {
    fn cmp(&self, other: &Self) -> Ordering {
        let of_huge = |negative: bool| if negative { Ordering::Less } else { Ordering::Greater };
        match (self, other) {
            (Self::Small(left), Self::Small(right)) => left.cmp(right),
            (Self::Huge { negative, .. }, Self::Small(_)) => of_huge(*negative),
            (Self::Small(_), Self::Huge { negative, .. }) => of_huge(*negative).reverse(),
            (Self::Huge { negative: true, .. }, Self::Huge { negative: false, .. }) => Ordering::Less,
            (Self::Huge { negative: false, .. }, Self::Huge { negative: true, .. }) => Ordering::Greater,
            (Self::Huge { negative, digits: left }, Self::Huge { digits: right, .. }) => {
                let sizes = left.len().cmp(&right.len()).then_with(|| left.cmp(right));
                if *negative { sizes.reverse() } else { sizes }
            }
        }
    }
}

impl Digits {
    fn of(digits: impl Iterator<Item = u8>, count: usize) -> Self {
        if count > SHORT {
            return Self::Long(digits.collect());
        }
        let mut short = [0; SHORT];
        short.iter_mut().zip(digits).for_each(|(to, digit)| *to = digit);
        Self::Short { digits: short, len: u8::try_from(count).expect("at most SHORT") }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short { digits, len } => &digits[..usize::from(*len)],
            Self::Long(digits) => digits,
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(left), Self::Integer(right)) => left.cmp(right),
            (Self::Integer(left), Self::Decimal(right)) => Decimal::of(*left).compare(right),
            (Self::Decimal(left), Self::Integer(right)) => left.compare(&Decimal::of(*right)),
            (Self::Decimal(left), Self::Decimal(right)) => left.compare(right),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn numbers_compare_by_their_decimal_value() {
        for (left, right) in [
            ("18446744073709551614", "18446744073709551615"),
            ("9223372036854775807", "9223372036854775808"),
            ("9007199254740992.0", "9007199254740993"),
            ("0.1", "0.10000000000000000000000000000000000000001"),
            ("-1e400", "-1e399"),
            ("1e-400", "2e-400"),
            ("-0.1", "0"),
            ("99", "1e2"),
            ("-1", "0e9"),
            ("1e18", "1e99999999999999999999998"),
            ("1e99999999999999999999998", "1e99999999999999999999999"),
            ("1e-99999999999999999999999", "1e-99999999999999999999998"),
            ("1e-99999999999999999999999", "1e-5"),
            ("-1e99999999999999999999999", "-1e99999999999999999999998"),
        ] {
            assert!(number(left) < number(right), "{left} {right}");
            assert!(number(right) > number(left), "{right} {left}");
        }
        for (left, right) in [
            ("1", "1.0"),
            ("10e-1", "1"),
            ("0", "-0.0"),
            ("0e5", "0"),
            ("1E+2", "100"),
            ("120e-1", "12.00"),
            ("1e1000000000000000000000000", "10e999999999999999999999999"),
            ("0e1000000000000000000000000", "0"),
        ] {
            assert_eq!(number(left), number(right), "{left} {right}");
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        for none in
            ["", "-", "+", ".", "1.", "e5", "1e", "1e+", "inf", "NaN", "0x1", "1 ", "1e5.5", "--1", "1,5"]
        {
            assert!(Number::parse(none).is_none(), "{none}");
        }
    }

    /// The value as a whole number of billionths.
    fn billionths(whole: i64, fraction: u32) -> i128 {
        let fraction = i128::from(fraction);
        i128::from(whole) * 1_000_000_000 + if whole < 0 { -fraction } else { fraction }
    }

    proptest! {
        #[test]
        fn agrees_with_whole_numbers_of_a_small_unit(
            a: i64, b: i64, equal: bool, f in 0_u32..1_000_000_000, g in 0_u32..1_000_000_000, shift in 0_i32..30,
        ) {
            let b = if equal { a } else { b };
            let texts = [(a, f), (b, g)].map(|(whole, fraction)| format!("{whole}.{fraction:09}"));
            let expected = billionths(a, f).cmp(&billionths(b, g));
            prop_assert_eq!(number(&texts[0]).cmp(&number(&texts[1])), expected);
            // The same moved by a power of ten.
            let moved = texts.each_ref().map(|text| number(&format!("{text}e{shift}")));
            prop_assert_eq!(moved[0].cmp(&moved[1]), expected);
        }

        /// About the bound between the two forms, and far beyond it.
        #[test]
        fn exponents_of_any_size_count(
            bound in prop_oneof![Just(10_i128.pow(18)), Just(10_i128.pow(19)), Just(10_i128.pow(30))],
            negative: bool, a in -50_i128..50, b in -50_i128..50, zeros in 0_usize..40, fraction in 0_usize..40,
        ) {
            let bound = if negative { -bound } else { bound };
            let left = number(&format!("1{}e{}", "0".repeat(zeros), bound + a));
            let right = number(&format!("0.{}1e{}", "0".repeat(fraction), bound + b));
            let (left_power, right_power) = (a + zeros as i128, b - fraction as i128 - 1);
            prop_assert_eq!(left.cmp(&right), left_power.cmp(&right_power));
        }

        #[test]
        fn integers_of_any_length_compare_as_such(a in "[1-9][0-9]{0,60}", b in "[1-9][0-9]{0,60}") {
            let expected = a.len().cmp(&b.len()).then_with(|| a.cmp(&b));
            prop_assert_eq!(number(&a).cmp(&number(&b)), expected);
            prop_assert_eq!(number(&format!("{a}.0")).cmp(&number(&b)), expected);
        }
    }
}
