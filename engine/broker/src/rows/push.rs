//! Where a subscription's deliveries are pushed: a record under the subscription's id. It holds the secrets themselves, which
//! sign every request.

use levada_protocol::{
    ids::{SubscriptionId, Timestamp},
    push_secret::PushSecret,
};
use serde::{Deserialize, Serialize};

use super::{record::Record, tag};

/// A push, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PushRecord {
    /// The id of the subscription.
    pub(crate) subscription: u64,
    pub(crate) url: String,
    pub(crate) secret: PushSecret,
    pub(crate) previous: Option<PreviousSecret>,
    pub(crate) max_in_flight: u32,
    pub(crate) timeout_ms: u32,
    pub(crate) created_ms: u64,
    pub(crate) owner: String,
}

/// The secret before the current one, which signs as well for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PreviousSecret {
    pub(crate) secret: PushSecret,
    pub(crate) until_ms: u64,
}

impl PushRecord {
    /// The secret before the current one, if it signs at this time.
    pub(crate) fn previous_at(&self, now: Timestamp) -> Option<&PreviousSecret> {
        self.previous.as_ref().filter(|previous| now.0 < previous.until_ms)
    }
}

impl Record for PushRecord {
    const NAME: &'static str = "push";
    const TAG: u8 = tag::CATALOGUE_PUSH;
    type Key = SubscriptionId;
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::rows::check;

    fn record(subscription: u64, previous: Option<(Vec<u8>, u64)>) -> PushRecord {
        let previous = previous.map(|(key, until_ms)| {
            let secret = PushSecret::new(key).unwrap();
            PreviousSecret { secret, until_ms }
        });
        PushRecord {
            subscription,
            url: "https://a".to_owned(),
            secret: PushSecret::new(vec![0; 24]).unwrap(),
            previous,
            max_in_flight: 32,
            timeout_ms: 100,
            created_ms: 7,
            owner: "me".to_owned(),
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let expected = "01 88 ac737562736372697074696f6e 04 a375726c a968747470733a2f2f61 \
                        a6736563726574 d92677687365635f4141414141414141414141414141414141414141414141414141414141414141 \
                        a870726576696f7573 c0 ad6d61785f696e5f666c69676874 20 aa74696d656f75745f6d73 64 \
                        aa637265617465645f6d73 07 a56f776e6572 a26d65";
        check::bytes(&SubscriptionId(4), &record(4, None), "08 0000000000000004", expected);
    }

    #[test]
    fn the_secret_before_signs_until_its_time_is_over() {
        let push = record(1, Some((vec![1; 24], 9)));
        assert!(push.previous_at(Timestamp(8)).is_some());
        assert_eq!(push.previous_at(Timestamp(9)), None);
        assert!(!format!("{push:?}").contains("AAAA"), "{push:?}");
    }

    proptest! {
        #[test]
        fn it_comes_back(id in any::<u64>(), key in vec(any::<u8>(), 24..=64), until_ms in any::<u64>()) {
            check::comes_back(&SubscriptionId(id), &record(id, Some((key, until_ms))));
        }
    }
}
