//! The text of a token: `lv1_`, an id, `_`, a secret and a checksum, so that scanners find tokens that leak, and one that was
//! mistyped or cut off is known without asking an engine. Nothing of how tokens are kept.
//!
//! ```text
//! lv1_ IIIIIIIIIII _ SSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSS CCCCCC
//!      id: u64       secret: 256 bits, big endian               CRC32C of all before it
//! ```
//!
//! Numbers are in base 62 (`0-9A-Za-z`), with leading zeros to 11, 43 and 6 characters.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    error::ErrorCode,
    ids::{InvalidName, TokenId},
};

const PREFIX: &str = "lv1_";
const ID_LEN: usize = 11;
const SECRET_LEN: usize = 43;
const CHECKSUM_LEN: usize = 6;
const LEN: usize = PREFIX.len() + ID_LEN + 1 + SECRET_LEN + CHECKSUM_LEN;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A token: whoever has it acts for its principal.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    id: TokenId,
    secret: [u8; 32],
}

/// Why a text is no token. It never quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It does not begin as one.
    #[error("expected a text that begins with {PREFIX}, as `levada token create` prints it")]
    Kind,
    /// It is too short or too long.
    #[error("expected {LEN} characters, got {got}: it was cut off, or something was added")]
    Length {
        /// Its length in bytes.
        got: usize,
    },
    /// It has characters that no token has, or they are not those that belong together.
    #[error("it is mistyped: its checksum does not match")]
    Checksum,
}

impl Token {
    /// A token of this id and secret.
    pub fn new(id: TokenId, secret: [u8; 32]) -> Self {
        Self { id, secret }
    }

    /// Reads a token's text.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let rest = text.strip_prefix(PREFIX).ok_or(InvalidToken::Kind)?;
        if text.len() != LEN {
            return Err(InvalidToken::Length { got: text.len() });
        }
        Self::read(text, rest).ok_or(InvalidToken::Checksum)
    }

    fn read(text: &str, rest: &str) -> Option<Self> {
        let (id, secret) = rest.split_once('_').filter(|(id, _)| id.len() == ID_LEN)?;
        let secret = secret.get(..SECRET_LEN)?;
        let id = u64::from_be_bytes(from_base62::<8>(id)?);
        let token = Self { id: TokenId(id), secret: from_base62(secret)? };
        (token.reveal() == text).then_some(token)
    }

    /// Which of all tokens it is. No secret.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// What proves that one has it.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The whole text, secret included.
    pub fn reveal(&self) -> String {
        let mut text = format!("{PREFIX}{}_{}", self.id, to_base62::<SECRET_LEN>(&self.secret));
        let checksum = crc32c::crc32c(text.as_bytes());
        text.push_str(&to_base62::<CHECKSUM_LEN>(&checksum.to_be_bytes()));
        text
    }
}

impl fmt::Debug for Token {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_base62::<ID_LEN>(&self.0.to_be_bytes()))
    }
}

impl FromStr for TokenId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let bytes = (text.len() == ID_LEN).then(|| from_base62::<8>(text)).flatten();
        bytes.map(|bytes| Self(u64::from_be_bytes(bytes))).ok_or_else(|| InvalidName {
            kind: "token",
            // What is given instead of an id may be a whole token.
            got: text.chars().take(PREFIX.len()).collect(),
            expected: "an id of 11 characters, as `levada token list` prints it",
        })
    }
}

impl Serialize for TokenId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format_args!("{}: {error}", ErrorCode::InvalidName)))
    }
}

/// A number, big endian, in `LEN` digits of base 62. It must fit.
fn to_base62<const LEN: usize>(bytes: &[u8]) -> String {
    let mut number = bytes.to_vec();
    let mut digits = [b'0'; LEN];
    for digit in digits.iter_mut().rev() {
        // One step of long division by 62.
        let mut rest = 0_u16;
        for byte in &mut number {
            let part = rest << 8 | u16::from(*byte);
            *byte = u8::try_from(part / 62).expect("the rest is below 62, so the quotient below 256");
            rest = part % 62;
        }
        *digit = DIGITS[usize::from(rest)];
    }
    debug_assert!(number.iter().all(|byte| *byte == 0), "{LEN} digits are enough");
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// The number of `LEN` bytes, big endian, that these digits are; `None` if they are none, or more than fit.
fn from_base62<const LEN: usize>(text: &str) -> Option<[u8; LEN]> {
    let mut number = [0_u8; LEN];
    for digit in text.bytes() {
        let mut carry = u16::try_from(DIGITS.iter().position(|known| *known == digit)?).ok()?;
        for byte in number.iter_mut().rev() {
            let part = u16::from(*byte) * 62 + carry;
            [_, *byte] = part.to_be_bytes();
            carry = part >> 8;
        }
        if carry > 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_texts_are_these() {
        let zeros = Token::new(TokenId(0), [0; 32]).reveal();
        assert_eq!(zeros.len(), LEN);
        assert!(zeros.starts_with("lv1_00000000000_0000000000000000000000000000000000000000000"), "{zeros}");
        assert_eq!(TokenId(u64::MAX).to_string(), "LygHa16AHYF");
        assert_eq!(TokenId(61).to_string(), "0000000000z");
        assert_eq!("LygHa16AHYF".parse(), Ok(TokenId(u64::MAX)));
        assert!("LygHa16AHYG".parse::<TokenId>().is_err(), "one more than fits");
        assert!("zzzzzzzzzzz".parse::<TokenId>().is_err());
    }

    #[test]
    fn what_is_wrong_is_said_without_the_text() {
        let token = Token::new(TokenId(5), [7; 32]);
        let text = token.reveal();
        assert_eq!(Token::parse("secret"), Err(InvalidToken::Kind));
        assert_eq!(Token::parse(&text[..LEN - 1]), Err(InvalidToken::Length { got: LEN - 1 }));
        assert_eq!(Token::parse(&format!("{text}\n")), Err(InvalidToken::Length { got: LEN + 1 }));
        assert!(!format!("{token:?}").contains(&text[16..30]), "{token:?}");
        let as_id = text.parse::<TokenId>().unwrap_err().to_string();
        assert!(!as_id.contains(&text[..20]), "{as_id}");
        let wide = format!("lv1_0000000000é_{}", &text[17..]);
        assert!(Token::parse(&wide).is_err());
    }

    proptest! {
        #[test]
        fn a_token_is_read_back_and_no_other_is_read_from_its_text(
            id in any::<u64>(),
            secret in any::<[u8; 32]>(),
            at in 4_usize..LEN,
            digit in 0_usize..62,
        ) {
            let token = Token::new(TokenId(id), secret);
            let text = token.reveal();
            prop_assert_eq!(Token::parse(&text), Ok(token.clone()));
            prop_assert_eq!(token.id().to_string().parse(), Ok(token.id()));
            let mut changed = text.clone().into_bytes();
            changed[at] = DIGITS[digit];
            let changed = String::from_utf8(changed).unwrap();
            if changed != text {
                prop_assert_eq!(Token::parse(&changed), Err(InvalidToken::Checksum));
            }
        }
    }
}
