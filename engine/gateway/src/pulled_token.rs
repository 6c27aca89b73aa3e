//! The token of a pulled event as text: which pull, partition, offset and delivery it is of, for one version of this form.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use levada_broker::{PullId, PulledEvent};
use levada_protocol::ids::{DeliveryToken, Offset, PartitionId};

use crate::problem::Problem;

/// The version of the form, its first byte.
const VERSION: u8 = 1;
/// Bytes of a token: version, pull, partition, offset, delivery.
const BYTES: usize = 1 + 8 + 2 + 8 + 8;

/// The token of an event, in 36 characters of a URL.
pub(crate) fn format(event: &PulledEvent) -> String {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.push(VERSION);
    bytes.extend_from_slice(&event.pull.0.to_be_bytes());
    bytes.extend_from_slice(&event.partition.0.to_be_bytes());
    bytes.extend_from_slice(&event.offset.0.to_be_bytes());
    bytes.extend_from_slice(&event.delivery.0.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a token; `None` for what [`format()`] never writes.
pub(crate) fn parse(text: &str) -> Option<PulledEvent> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let bytes: [u8; BYTES] = bytes.try_into().ok()?;
    let (version, rest) = bytes.split_first()?;
    let (pull, rest) = rest.split_first_chunk()?;
    let (partition, rest) = rest.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let event = PulledEvent {
        pull: PullId(u64::from_be_bytes(*pull)),
        partition: PartitionId(u16::from_be_bytes(*partition)),
        offset: Offset(u64::from_be_bytes(*offset)),
        delivery: DeliveryToken(u64::from_be_bytes(rest.try_into().ok()?)),
    };
    (*version == VERSION).then_some(event)
}

/// Reads the tokens of a request, at most `max`.
pub(crate) fn parse_all(tokens: &[String], max: usize) -> Result<Vec<PulledEvent>, Problem> {
    if !(1..=max).contains(&tokens.len()) {
        return Err(Problem::invalid(format!("expected 1 to {max} tokens, got {}", tokens.len())));
    }
    let token = |(index, text): (usize, &String)| {
        parse(text).ok_or_else(|| {
            let text: String = text.chars().take(60).collect();
            let detail = format!(
                "expected a token of a pulled event, such as a pull returns, got {text:?} at {index}"
            );
            Problem::invalid(detail).at(index)
        })
    };
    tokens.iter().enumerate().map(token).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_is_read_back_and_no_other_text_is_the_same_token(
            (pull, partition, offset, delivery) in any::<(u64, u16, u64, u64)>(), at in 0_usize..36, with in "[A-Za-z0-9_-]",
        ) {
            let event = PulledEvent {
                pull: PullId(pull),
                partition: PartitionId(partition),
                offset: Offset(offset),
                delivery: DeliveryToken(delivery),
            };
            let text = format(&event);
            prop_assert_eq!(parse(&text), Some(event));
            let mut other = text.clone();
            other.replace_range(at..=at, &with);
            prop_assert_eq!(parse(&other) == Some(event), other == text);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,60}") {
            let read = parse(&text);
            prop_assert!(read.is_none() || read.map(|event| format(&event)) == Some(text));
        }
    }

    #[test]
    fn the_form_is_this() {
        let event = PulledEvent {
            pull: PullId(1),
            partition: PartitionId(2),
            offset: Offset(3),
            delivery: DeliveryToken(4),
        };
        assert_eq!(format(&event), "AQAAAAAAAAABAAIAAAAAAAAAAwAAAAAAAAAE");
        for bad in [
            "",
            "AQ",
            "AgAAAAAAAAABAAIAAAAAAAAAAwAAAAAAAAAE",
            "AQAAAAAAAAABAAIAAAAAAAAAAwAAAAAAAAAE=",
            "päckchen",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
