//! The text of a secret that signs pushes, as Standard Webhooks has it: `whsec_` and the key in Base64.
//!
//! Owns the form. Must not know what is signed.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How every such secret begins: by it scanners of source text find one that was left there.
pub const PUSH_SECRET_PREFIX: &str = "whsec_";
/// Bytes of the shortest key.
pub const PUSH_SECRET_BYTES_MIN: usize = 24;
/// Bytes of the longest key.
pub const PUSH_SECRET_BYTES_MAX: usize = 64;

/// A secret that a subscription's pushes are signed with, and that their receiver verifies them with.
#[derive(Clone, PartialEq, Eq)]
pub struct PushSecret(Vec<u8>);

/// Why a text is no secret. Says nothing of the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPushSecret {
    /// It begins with something else.
    #[error("not a secret of pushes: expected text that begins with {PUSH_SECRET_PREFIX}")]
    Kind,
    /// What follows is no Base64.
    #[error("what follows {PUSH_SECRET_PREFIX} is not Base64 with its padding: it was mistyped or cut off")]
    Base64,
    /// The key is too long or too short.
    #[error(
        "the key of a secret of pushes has {bytes} bytes, expected {PUSH_SECRET_BYTES_MIN} to {PUSH_SECRET_BYTES_MAX}"
    )]
    Length {
        /// Its bytes.
        bytes: usize,
    },
}

impl PushSecret {
    /// A secret of this key.
    ///
    /// # Errors
    /// `Length` unless it has 24 to 64 bytes.
    pub fn new(key: Vec<u8>) -> Result<Self, InvalidPushSecret> {
        if (PUSH_SECRET_BYTES_MIN..=PUSH_SECRET_BYTES_MAX).contains(&key.len()) {
            Ok(Self(key))
        } else {
            Err(InvalidPushSecret::Length { bytes: key.len() })
        }
    }

    /// The key of the HMAC: never to be logged.
    pub fn key(&self) -> &[u8] {
        &self.0
    }

    /// The text: for who is given the secret, and for nobody else.
    pub fn reveal(&self) -> String {
        format!("{PUSH_SECRET_PREFIX}{}", STANDARD.encode(&self.0))
    }
}

impl FromStr for PushSecret {
    type Err = InvalidPushSecret;

    fn from_str(text: &str) -> Result<Self, InvalidPushSecret> {
        let key = text.strip_prefix(PUSH_SECRET_PREFIX).ok_or(InvalidPushSecret::Kind)?;
        Self::new(STANDARD.decode(key).map_err(|_| InvalidPushSecret::Base64)?)
    }
}

/// Shows nothing of it.
impl fmt::Debug for PushSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PushSecret(..)")
    }
}

impl Serialize for PushSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.reveal())
    }
}

impl<'de> Deserialize<'de> for PushSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn the_secret_of_the_specification_has_this_key() {
        let text = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let secret: PushSecret = text.parse().unwrap();
        assert_eq!((secret.key().len(), secret.key()[0], secret.reveal()), (24, 0x31, text.to_owned()));
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_shown() {
        for (text, why) in [
            ("", InvalidPushSecret::Kind),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", InvalidPushSecret::Kind),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", InvalidPushSecret::Base64),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", InvalidPushSecret::Base64),
            ("whsec_MfKQ9r8G", InvalidPushSecret::Length { bytes: 6 }),
        ] {
            let error = text.parse::<PushSecret>().unwrap_err();
            assert_eq!(error, why, "{text:?}");
            assert!(!error.to_string().contains("MfKQ"), "{error}");
        }
        let secret: PushSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "PushSecret(..)");
    }

    proptest! {
        #[test]
        fn a_key_of_any_length_that_may_be_is_read_back(key in vec(any::<u8>(), 0..80)) {
            let length = key.len();
            match PushSecret::new(key.clone()) {
                Ok(secret) => {
                    prop_assert_eq!(secret.reveal().parse::<PushSecret>(), Ok(secret));
                }
                Err(error) => prop_assert_eq!(error, InvalidPushSecret::Length { bytes: length }),
            }
            prop_assert_eq!((24..=64).contains(&length), PushSecret::new(key).is_ok());
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "whsec_\\PC{0,90}|\\PC{0,90}") {
            if let Ok(secret) = text.parse::<PushSecret>() {
                prop_assert_eq!(secret.reveal(), text);
            }
        }
    }
}
