//! MessagePack payloads: maps with text keys, nested to a limit, with nothing behind them.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{FrameError, FrameType, frame};
use crate::{error::ErrorCode, limits::MESSAGE_DEPTH_MAX};

/// A whole frame around a MessagePack map.
///
/// # Panics
/// If the value does not serialise or is over the limit: our types do, and callers bound their texts.
pub fn message(kind: FrameType, value: &impl Serialize) -> Bytes {
    frame(kind, &rmp_serde::to_vec_named(value).expect("our own message types serialise"))
}

/// The length in bytes of a value as a MessagePack map.
///
/// # Panics
/// If the value does not serialise: our types do.
pub fn message_bytes(value: &impl Serialize) -> usize {
    struct Counted(usize);
    impl std::io::Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counted = Counted(0);
    rmp_serde::encode::write_named(&mut counted, value).expect("our own message types serialise");
    counted.0
}

/// Reads a MessagePack payload, nested at most [`MESSAGE_DEPTH_MAX`] deep, with nothing behind it.
///
/// # Errors
/// [`FrameError::Name`] for a name that does not obey its grammar, [`FrameError::Payload`] for anything else.
pub fn read_message<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    let mut rest = payload;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    // It counts one level more than there are.
    reader.set_max_depth(MESSAGE_DEPTH_MAX + 1);
    let value = T::deserialize(&mut reader).map_err(refused)?;
    if rest.is_empty() {
        return Ok(value);
    }
    Err(FrameError::payload(format!("{} bytes follow the message", rest.len())))
}

/// A name's error keeps its code: it is the text's beginning, see [`crate::ids`].
fn refused(error: rmp_serde::decode::Error) -> FrameError {
    let text = match error {
        rmp_serde::decode::Error::Syntax(text) => text,
        other => other.to_string(),
    };
    let name = text.strip_prefix(ErrorCode::InvalidName.as_str()).and_then(|rest| rest.strip_prefix(": "));
    match name {
        Some(what) => FrameError::Name { what: what.to_owned() },
        None => FrameError::payload(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Refusal,
        request::{Open, Request, RequestEnvelope},
    };

    #[test]
    fn nothing_may_lie_behind_a_message() {
        let mut payload = message(FrameType::Error, &Refusal::new(ErrorCode::Internal, "x"))[8..].to_vec();
        assert!(read_message::<Refusal>(&payload).is_ok());
        payload.push(0xc0);
        assert!(read_message::<Refusal>(&payload).is_err());
    }

    #[test]
    fn nesting_has_a_limit() {
        // A refusal with a field that this version does not know, nested so deep.
        let nested = |depth: usize| {
            let mut payload = vec![0x82, 0xa4];
            payload.extend(b"code\x14\xa1x");
            payload.extend(vec![0x91; depth - 1]);
            payload.push(0xc0);
            read_message::<Refusal>(&payload)
        };
        assert_eq!(nested(MESSAGE_DEPTH_MAX).unwrap().code, ErrorCode::TopicNotFound);
        assert!(nested(MESSAGE_DEPTH_MAX + 1).is_err());
        assert!(nested(200_000).is_err());
    }

    #[test]
    fn a_name_against_its_grammar_is_told_from_what_is_malformed() {
        let open = |name: &str| {
            let open = serde_json::json!({
                "kind": "request", "id": 1, "request": { "kind": "describe_topic", "name": name },
            });
            read_message::<Open>(&rmp_serde::to_vec_named(&open).unwrap())
        };
        let request = Request::DescribeTopic { name: "orders".parse().unwrap() };
        let envelope = RequestEnvelope { id: 1, deadline_ms: 0, trace: None, request };
        assert_eq!(open("orders"), Ok(Open::Request(envelope)));
        let error = open("Orders").unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidName);
        assert!(error.to_string().starts_with("topic name \"Orders\" is invalid: expected "), "{error}");
        let nothing = read_message::<Open>(
            &rmp_serde::to_vec_named(&serde_json::json!({ "kind": "publish" })).unwrap(),
        );
        assert_eq!(nothing.unwrap_err().code(), ErrorCode::Malformed);
    }
}
