//! Signatures by Standard Webhooks. Pure; the time is an argument.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use levada_broker::PushRules;
use levada_protocol::{
    ids::{Offset, PartitionId, Timestamp, TopicId},
    push_secret::PushSecret,
};
use sha2::Sha256;

/// What identifies a message, the same for each attempt. It has no dot, which ends it in the signed text.
pub(crate) fn message_id(topic: TopicId, partition: PartitionId, offset: Offset) -> String {
    format!("lv_{}_{}_{}", topic.0, partition.0, offset.0)
}

/// The value of `webhook-signature` for an attempt at this time: of the current secret, and of the one before it while that
/// signs as well.
pub(crate) fn signatures(rules: &PushRules, id: &str, now: Timestamp, body: &[u8]) -> String {
    let current = signature(&rules.secret, id, now, body);
    match &rules.previous {
        Some((previous, until)) if now < *until => {
            format!("{current} {}", signature(previous, id, now, body))
        }
        _ => current,
    }
}

/// The value of `webhook-timestamp`: seconds.
pub(crate) fn seconds(now: Timestamp) -> u64 {
    now.0 / 1_000
}

fn signature(secret: &PushSecret, id: &str, now: Timestamp, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.key()).expect("a key of any length is one");
    mac.update(format!("{id}.{}.", seconds(now)).as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_has_its_signature() {
        let secret: PushSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let signed = signature(
            &secret,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            Timestamp(1_614_265_330_999),
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_id_has_no_dot() {
        assert_eq!(message_id(TopicId(7), PartitionId(0), Offset(42)), "lv_7_0_42");
    }
}
