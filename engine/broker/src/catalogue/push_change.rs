//! Changes of where subscriptions' deliveries are pushed, decided against what there is.

use levada_protocol::{
    error::ErrorCode,
    ids::{SubscriptionId, Timestamp},
    push_secret::PushSecret,
    request::SetPush,
};

use crate::{
    error::Error,
    rows::{PreviousSecret, PushRecord},
};

/// Most events that a receiver has at a time if nothing is said.
const MAX_IN_FLIGHT: u32 = 32;
/// Milliseconds that a receiver has to respond if nothing is said.
const TIMEOUT_MS: u32 = 15_000;
/// Milliseconds for which the secret before the current one signs if nothing is said: a day.
const PREVIOUS_FOR_MS: u64 = 24 * 3_600_000;

/// A push that is to be set. What was asked for was checked.
#[derive(Debug, Clone)]
pub(crate) struct PushChange {
    pub(crate) set: SetPush,
    /// The secret to take if a new one is wanted.
    pub(crate) drawn: PushSecret,
    pub(crate) owner: String,
}

impl PushChange {
    /// The record after it, beside the one before.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` without a URL where there is no push.
    pub(super) fn decide(
        &self,
        id: SubscriptionId,
        before: Option<&PushRecord>,
        now: Timestamp,
    ) -> Result<PushRecord, Error> {
        let SetPush { url, secret, new_secret, previous_for_ms, max_in_flight, timeout_ms, .. } = &self.set;
        let given = secret.as_ref().or_else(|| new_secret.then_some(&self.drawn));
        let Some(before) = before else {
            let url = url.clone().ok_or_else(|| {
                Error::refused(ErrorCode::InvalidArgument, "there is no push yet: expected its url")
            })?;
            return Ok(PushRecord {
                subscription: id.0,
                url,
                secret: given.unwrap_or(&self.drawn).clone(),
                previous: None,
                max_in_flight: max_in_flight.unwrap_or(MAX_IN_FLIGHT),
                timeout_ms: timeout_ms.unwrap_or(TIMEOUT_MS),
                created_ms: now.0,
                owner: self.owner.clone(),
            });
        };
        let mut record = before.clone();
        if let Some(given) = given.filter(|given| **given != before.secret) {
            let until_ms = now.0.saturating_add(previous_for_ms.unwrap_or(PREVIOUS_FOR_MS));
            if let Some(previous) = before.previous_at(now).filter(|_| until_ms > now.0) {
                // Receivers may know no other yet.
                let message = format!(
                    "the secret before the present one signs until {} (milliseconds since 1970), and would be lost: rotate after that, \
                     or give both up at once with previous_for_ms 0 (`--keep 0s`)",
                    previous.until_ms
                );
                return Err(Error::refused(ErrorCode::LimitExceeded, message));
            }
            let secret = std::mem::replace(&mut record.secret, given.clone());
            record.previous = (until_ms > now.0).then_some(PreviousSecret { secret, until_ms });
        }
        if let Some(url) = url {
            record.url.clone_from(url);
        }
        record.max_in_flight = max_in_flight.unwrap_or(record.max_in_flight);
        record.timeout_ms = timeout_ms.unwrap_or(record.timeout_ms);
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> PushSecret {
        PushSecret::new(vec![byte; 32]).unwrap()
    }

    fn change(url: Option<&str>) -> PushChange {
        let set = SetPush::new("orders".parse().unwrap(), "payment".parse().unwrap(), url.map(str::to_owned));
        PushChange { set, drawn: secret(1), owner: "me".to_owned() }
    }

    fn decide(change: &PushChange, before: Option<&PushRecord>, now: u64) -> Result<PushRecord, Error> {
        change.decide(SubscriptionId(4), before, Timestamp(now))
    }

    #[test]
    fn the_first_push_needs_a_url_and_gets_a_secret_and_the_defaults() {
        assert_eq!(decide(&change(None), None, 7).unwrap_err().code(), ErrorCode::InvalidArgument);
        let first = decide(&change(Some("https://a")), None, 7).unwrap();
        assert_eq!((first.secret, first.max_in_flight, first.timeout_ms), (secret(1), 32, 15_000));
        assert_eq!((first.previous, first.created_ms, first.owner.as_str()), (None, 7, "me"));
    }

    #[test]
    fn what_is_not_given_stays_and_a_repeat_changes_nothing() {
        let first = decide(&change(Some("https://a")), None, 7).unwrap();
        let mut next = change(None);
        next.set.timeout_ms = Some(900);
        let second = decide(&next, Some(&first), 9).unwrap();
        assert_eq!(second, PushRecord { timeout_ms: 900, ..first });
        next.set.secret = Some(secret(1));
        assert_eq!(decide(&next, Some(&second), 10).unwrap(), second, "the same secret is no other");
    }

    #[test]
    fn another_secret_signs_beside_the_one_before_for_as_long_as_was_said() {
        let first = decide(&change(Some("https://a")), None, 7).unwrap();
        let mut rotate = change(None);
        rotate.drawn = secret(2);
        rotate.set.new_secret = true;
        rotate.set.previous_for_ms = Some(100);
        let second = decide(&rotate, Some(&first), 10).unwrap();
        let previous = second.previous.clone().unwrap();
        assert_eq!((second.secret.clone(), previous.secret, previous.until_ms), (secret(2), secret(1), 110));
        rotate.drawn = secret(3);
        let refused = decide(&rotate, Some(&second), 11).unwrap_err();
        assert_eq!(
            refused.code(),
            ErrorCode::LimitExceeded,
            "the secret that receivers may still have is kept"
        );
        assert!(decide(&rotate, Some(&second), 200).is_ok(), "it signs no more");
        rotate.set.previous_for_ms = Some(0);
        assert_eq!(decide(&rotate, Some(&second), 11).unwrap().previous, None, "at once");
        rotate.set.previous_for_ms = None;
        let day = decide(&rotate, Some(&second), 111).unwrap().previous.unwrap();
        assert_eq!((day.secret, day.until_ms), (secret(2), 111 + 86_400_000));
    }
}
