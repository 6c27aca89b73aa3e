//! A token: its record under its id. It holds a hash of the secret, which is 256 random bits: that needs no slow hash, as a
//! password would.

use levada_protocol::{
    ids::{Timestamp, TokenId},
    request::TokenState,
};
use serde::{Deserialize, Serialize};

use super::{record::Record, tag};

/// The time of the last use is kept to the hour, so that a token costs a commit an hour at most.
const HOUR_MS: u64 = 3_600_000;

/// A token, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    pub(crate) id: u64,
    /// Whose it is, by id.
    pub(crate) principal: u64,
    /// SHA-256 of the secret, in hexadecimal.
    pub(crate) secret_sha256: String,
    pub(crate) description: String,
    pub(crate) created_ms: u64,
    pub(crate) owner: String,
    /// Until when it is valid; `None`: for ever.
    pub(crate) expires_ms: Option<u64>,
    pub(crate) revoked_ms: Option<u64>,
    /// The hour in which it was used last.
    pub(crate) used_ms: Option<u64>,
}

impl TokenRecord {
    /// Whether it is taken at this time.
    pub(crate) fn state(&self, now: Timestamp) -> TokenState {
        match (self.revoked_ms, self.expires_ms) {
            (Some(_), _) => TokenState::Revoked,
            (None, Some(end)) if end <= now.0 => TokenState::Expired,
            (None, _) => TokenState::Active,
        }
    }

    pub(crate) fn is_active(&self, now: Timestamp) -> bool {
        self.state(now) == TokenState::Active
    }

    /// The hour of a use, as it is stored.
    pub(crate) fn hour_of(now: Timestamp) -> u64 {
        now.0 / HOUR_MS * HOUR_MS
    }

    /// True if a use at this time is not noted yet.
    pub(crate) fn is_use_news(&self, now: Timestamp) -> bool {
        self.used_ms.is_none_or(|used| Self::hour_of(now) > used)
    }

    /// When it ended, if it has.
    pub(crate) fn ended_ms(&self, now: Timestamp) -> Option<u64> {
        self.revoked_ms.or(self.expires_ms).filter(|_| !self.is_active(now))
    }
}

impl Record for TokenRecord {
    const NAME: &'static str = "token";
    const TAG: u8 = tag::CATALOGUE_TOKEN;
    type Key = TokenId;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    fn record(id: u64, revoked_ms: Option<u64>) -> TokenRecord {
        TokenRecord {
            id,
            principal: 4,
            secret_sha256: "ab".to_owned(),
            description: String::new(),
            created_ms: 7,
            owner: "me".to_owned(),
            expires_ms: Some(8),
            revoked_ms,
            used_ms: None,
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let expected = "01 89 a26964 05 a97072696e636970616c 04 ad7365637265745f736861323536 a26162 ab6465736372697074696f6e a0 \
                        aa637265617465645f6d73 07 a56f776e6572 a26d65 aa657870697265735f6d73 08 aa7265766f6b65645f6d73 c0 \
                        a7757365645f6d73 c0";
        check::bytes(&TokenId(5), &record(5, None), "07 0000000000000005", expected);
    }

    #[test]
    fn a_token_is_active_until_it_is_revoked_or_its_time_is_over() {
        let mut token = record(1, None);
        assert_eq!((token.state(Timestamp(7)), token.ended_ms(Timestamp(7))), (TokenState::Active, None));
        assert_eq!((token.state(Timestamp(8)), token.ended_ms(Timestamp(8))), (TokenState::Expired, Some(8)));
        token.expires_ms = None;
        assert!(token.is_active(Timestamp(u64::MAX)));
        token.revoked_ms = Some(3);
        assert_eq!((token.state(Timestamp(9)), token.ended_ms(Timestamp(9))), (TokenState::Revoked, Some(3)));
    }

    proptest! {
        #[test]
        fn it_comes_back(id in any::<u64>(), revoked_ms in any::<Option<u64>>()) {
            check::comes_back(&TokenId(id), &record(id, revoked_ms));
        }
    }
}
