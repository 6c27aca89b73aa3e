//! The text of a bearer token: `lv1_`, the id, `_`, the secret, and a checksum, by which what was mistyped or cut off is
//! told from what is unknown.
//!
//! Owns the form. Must not know how an engine stores tokens, nor what they allow.

use std::fmt;

use crate::{base62, ids::TokenId};

/// How every token begins: by it scanners of source text find one that was left there.
pub const TOKEN_PREFIX: &str = "lv1_";
/// Characters of a token.
pub const TOKEN_CHARS: usize = SECRET_END + CHECKSUM_DIGITS;

const PREFIX_CHARS: usize = TOKEN_PREFIX.len();
const ID_END: usize = PREFIX_CHARS + TokenId::DIGITS;
const SECRET_START: usize = ID_END + 1;
const SECRET_END: usize = SECRET_START + SECRET_DIGITS;
const SECRET_DIGITS: usize = 43;
const CHECKSUM_DIGITS: usize = 6;

/// A bearer token: its id, which may be shown, and its secret, which is the proof.
#[derive(Clone)]
pub struct Token {
    id: TokenId,
    secret: [u8; 32],
}

/// Why a text is no token. Says nothing of the text but its length and the place of a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It begins with something else.
    #[error("not a token: expected text that begins with {TOKEN_PREFIX}")]
    Kind,
    /// It is too long or too short.
    #[error(
        "a token has {TOKEN_CHARS} characters, this text has {chars}: it was cut off, or something was added"
    )]
    Length {
        /// Its characters.
        chars: usize,
    },
    /// A character cannot be where it is.
    #[error(
        "character {position} of the token cannot be there: after {TOKEN_PREFIX} it has letters and digits of ASCII, and one _ \
         before the secret"
    )]
    Character {
        /// The first such character, counted from 1.
        position: usize,
    },
    /// The checksum does not fit.
    #[error("the token's checksum does not fit: it was mistyped or cut off")]
    Checksum,
}

impl Token {
    /// A token of this id and secret.
    #[must_use]
    pub fn new(id: TokenId, secret: [u8; 32]) -> Self {
        Self { id, secret }
    }

    /// Parses a token's text, which must have nothing around it.
    ///
    /// # Errors
    /// What is wrong with it, see [`InvalidToken`].
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        if !text.starts_with(TOKEN_PREFIX) {
            return Err(InvalidToken::Kind);
        }
        let fits = |(index, char): (usize, char)| match index {
            0..PREFIX_CHARS => true,
            ID_END => char == '_',
            _ => u8::try_from(char).is_ok_and(base62::is_digit),
        };
        let chars = text.chars().count();
        if chars != TOKEN_CHARS {
            return Err(InvalidToken::Length { chars });
        }
        if let Some(index) = text.chars().enumerate().position(|char| !fits(char)) {
            return Err(InvalidToken::Character { position: index + 1 });
        }
        // All are ASCII: characters are bytes.
        let (body, checksum) = text.split_at(SECRET_END);
        let id = base62::decode(&body[PREFIX_CHARS..ID_END]);
        let secret = base62::decode(&body[SECRET_START..]);
        match (id, secret) {
            (Some(id), Some(secret)) if checksum == checksum_of(body) => {
                Ok(Self { id: TokenId(u64::from_be_bytes(id)), secret })
            }
            _ => Err(InvalidToken::Checksum),
        }
    }

    /// What names the token.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// What proves that the bearer was given the token: never to be stored, logged or compared as it is.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The token's text, secret included: for who is given the token, and for nobody else.
    pub fn reveal(&self) -> String {
        let mut text = format!("{TOKEN_PREFIX}{}_{}", self.id, base62::encode(&self.secret, SECRET_DIGITS));
        text.push_str(&checksum_of(&text));
        text
    }
}

fn checksum_of(body: &str) -> String {
    base62::encode(&crc32c::crc32c(body.as_bytes()).to_be_bytes(), CHECKSUM_DIGITS)
}

/// Shows the id alone.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counting() -> Token {
        Token::new(TokenId(0x0123_4567_89ab_cdef), std::array::from_fn(|index| u8::try_from(index).unwrap()))
    }

    #[test]
    fn tokens_have_these_texts() {
        for (token, text) in [
            (
                Token::new(TokenId(0), [0; 32]),
                "lv1_00000000000_00000000000000000000000000000000000000000000tlSGz",
            ),
            (
                Token::new(TokenId(u64::MAX), [0xff; 32]),
                "lv1_LygHa16AHYF_yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp13E90zJ",
            ),
            (counting(), "lv1_063UfDVRKBz_003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf3BR7Gl"),
        ] {
            assert_eq!(token.reveal(), text);
            let parsed = Token::parse(text).unwrap();
            assert_eq!((parsed.id(), parsed.secret()), (token.id(), token.secret()));
        }
    }

    #[test]
    fn every_change_of_one_character_is_refused() {
        let text = counting().reveal();
        for index in 0..text.len() {
            for byte in (0..=0x7f).filter(|byte| *byte != text.as_bytes()[index]) {
                let mut changed = text.clone().into_bytes();
                changed[index] = byte;
                let changed = String::from_utf8(changed).unwrap();
                let error = Token::parse(&changed).unwrap_err();
                let expected = match index {
                    0..PREFIX_CHARS => InvalidToken::Kind,
                    ID_END => InvalidToken::Character { position: index + 1 },
                    _ if byte.is_ascii_alphanumeric() => InvalidToken::Checksum,
                    _ => InvalidToken::Character { position: index + 1 },
                };
                assert_eq!(error, expected, "character {index} as {byte:#x}");
            }
        }
    }

    #[test]
    fn what_was_cut_off_or_surrounded_is_refused_with_its_length() {
        let text = counting().reveal();
        for end in PREFIX_CHARS..text.len() {
            assert_eq!(Token::parse(&text[..end]).unwrap_err(), InvalidToken::Length { chars: end });
        }
        assert_eq!(Token::parse(&format!("{text}\n")).unwrap_err(), InvalidToken::Length { chars: 66 });
        for other in ["", "lv1", "secret", &format!(" {text}"), &text.to_uppercase()] {
            assert_eq!(Token::parse(other).unwrap_err(), InvalidToken::Kind, "{other:?}");
        }
    }

    #[test]
    fn a_number_beyond_its_bytes_is_refused_though_the_checksum_fits() {
        let valid = |body: String| format!("{body}{}", checksum_of(&body));
        let (id, secret) = ("0".repeat(11), "0".repeat(43));
        assert!(Token::parse(&valid(format!("lv1_{id}_{secret}"))).is_ok());
        for (id, secret) in [("z".repeat(11), secret), (id, "z".repeat(43))] {
            let text = valid(format!("lv1_{id}_{secret}"));
            assert_eq!(Token::parse(&text).unwrap_err(), InvalidToken::Checksum, "{text}");
        }
    }

    #[test]
    fn neither_debug_nor_an_error_shows_the_secret() {
        let text = counting().reveal();
        let secret = &text[SECRET_START..];
        let shown = format!("{:?}", counting());
        assert!(!shown.contains(&secret[..4]) && shown.contains("81985529216486895"), "{shown}");
        for wrong in [&text[1..], &text[..64], &text.replace("_0", "-0"), &format!("{}0", &text[..64])] {
            let said = Token::parse(wrong).unwrap_err();
            assert!(!format!("{said} {said:?}").contains(&secret[..4]), "{said}");
        }
    }

    proptest! {
        #[test]
        fn a_text_is_parsed_as_what_it_was_made_of(id: u64, secret: [u8; 32]) {
            let text = Token::new(TokenId(id), secret).reveal();
            prop_assert_eq!(text.len(), TOKEN_CHARS);
            let parsed = Token::parse(&text).unwrap();
            prop_assert_eq!((parsed.id(), parsed.secret()), (TokenId(id), &secret));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "lv1_\\PC{0,70}|\\PC{0,70}") {
            if let Ok(token) = Token::parse(&text) {
                prop_assert_eq!(token.reveal(), text);
            }
        }
    }
}
