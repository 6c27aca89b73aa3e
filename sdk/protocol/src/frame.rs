//! The frame: how anything is cut out of a QUIC stream.
//!
//! ```text
//!  0        4       5        6          8
//!  +--------+-------+--------+----------+------------------+
//!  | len u32| type  | flags  | reserved | payload          |
//!  | LE     | u8    | u8 = 0 | u16 = 0  | `len` bytes      |
//!  +--------+-------+--------+----------+------------------+
//! ```
//!
//! Flags and the reserved bytes are written as 0 and ignored when read. An unknown type is refused with
//! `UNKNOWN_FRAME`; a length over the limit of its type closes the connection with `FRAME_TOO_LARGE`.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::limits::{FRAME_BYTES_MAX, MESSAGE_DEPTH_MAX, REQUEST_BYTES_MAX};

/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 8;

/// What a frame is. The numbers are part of the protocol and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// First frame of a stream, client to engine: a MessagePack [`crate::request::Open`].
    Open = 1,
    /// The engine's answer to `Open`: a MessagePack [`crate::request::Opened`].
    Opened = 2,
    /// A part of a plugin artefact, raw, after an `Open` that announced it.
    Chunk = 3,
    /// Engine to client on the control stream: a MessagePack [`crate::request::Notice`].
    Notice = 4,
    /// Ends a stream with a reason: a MessagePack [`crate::error::Refusal`].
    Error = 5,
    /// A batch to append, see [`crate::publish`].
    Publish = 16,
    /// Acknowledgements of publishes, see [`crate::publish`].
    Ack = 17,
    /// Events to a consumer or reader, see [`crate::deliver`].
    Deliver = 32,
    /// How much more may be delivered, see [`crate::verbs`].
    Credit = 33,
    /// What a consumer says about its deliveries, see [`crate::verbs`].
    Verbs = 34,
    /// Which verbs took effect, see [`crate::verbs`].
    Settled = 35,
    /// A reader that does not follow has seen everything, see [`crate::deliver`].
    End = 36,
}

impl FrameType {
    /// The type with this number, if there is one.
    pub fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Open,
            2 => Self::Opened,
            3 => Self::Chunk,
            4 => Self::Notice,
            5 => Self::Error,
            16 => Self::Publish,
            17 => Self::Ack,
            32 => Self::Deliver,
            33 => Self::Credit,
            34 => Self::Verbs,
            35 => Self::Settled,
            36 => Self::End,
            _ => return None,
        })
    }

    /// The largest payload in bytes that a frame of this type may have.
    pub fn payload_bytes_max(self) -> usize {
        match self {
            Self::Open | Self::Notice | Self::Error | Self::Credit | Self::Verbs | Self::Settled => {
                REQUEST_BYTES_MAX
            }
            // A page of topics names every partition of each.
            Self::Opened | Self::Chunk | Self::Publish | Self::Ack | Self::Deliver | Self::End => {
                FRAME_BYTES_MAX
            }
        }
    }
}

/// A frame header that was read and is within its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What follows.
    pub kind: FrameType,
    /// How many bytes follow.
    pub len: usize,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A type that this version does not know.
    #[error("frame type {got} is unknown")]
    UnknownType {
        /// What came.
        got: u8,
    },
    /// A length over the limit.
    #[error("frame of {got} bytes is over the limit of {limit} for its type")]
    TooLarge {
        /// What came.
        got: u64,
        /// What is allowed.
        limit: usize,
    },
    /// A payload that is not what its type says.
    #[error("frame payload is malformed: {what}")]
    Payload {
        /// What does not fit.
        what: String,
    },
}

impl FrameError {
    /// A malformed payload with this explanation.
    pub fn payload(what: impl Into<String>) -> Self {
        Self::Payload { what: what.into() }
    }
}

impl FrameHeader {
    /// Reads and checks a header.
    pub fn read(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, FrameError> {
        let kind = FrameType::from_u8(bytes[4]).ok_or(FrameError::UnknownType { got: bytes[4] })?;
        let len = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let limit = kind.payload_bytes_max();
        match usize::try_from(len) {
            Ok(len) if len <= limit => Ok(Self { kind, len }),
            _ => Err(FrameError::TooLarge { got: u64::from(len), limit }),
        }
    }

    /// The header's bytes.
    ///
    /// # Panics
    /// If `len` is over the limit of the type: the sender's mistake.
    pub fn bytes(kind: FrameType, len: usize) -> [u8; FRAME_HEADER_BYTES] {
        assert!(len <= kind.payload_bytes_max(), "a {kind:?} frame of {len} bytes is over its limit");
        let len = u32::try_from(len).expect("limits fit 32 bits").to_le_bytes();
        [len[0], len[1], len[2], len[3], kind as u8, 0, 0, 0]
    }
}

/// A whole frame around one payload.
pub fn frame(kind: FrameType, payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(FRAME_HEADER_BYTES + payload.len());
    bytes.put_slice(&FrameHeader::bytes(kind, payload.len()));
    bytes.put_slice(payload);
    bytes.freeze()
}

/// A whole frame around a MessagePack map.
///
/// # Panics
/// If the value does not serialise or is over the limit: our types do, and callers bound their texts.
pub fn message(kind: FrameType, value: &impl Serialize) -> Bytes {
    frame(kind, &rmp_serde::to_vec_named(value).expect("our own message types serialise"))
}

/// How many bytes a value takes as a MessagePack map.
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
pub fn read_message<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    let mut rest = payload;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    // It counts one level more than there are.
    reader.set_max_depth(MESSAGE_DEPTH_MAX + 1);
    let value = T::deserialize(&mut reader).map_err(|error| FrameError::payload(error.to_string()))?;
    if rest.is_empty() {
        return Ok(value);
    }
    Err(FrameError::payload(format!("{} bytes lie behind the message", rest.len())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::{ErrorCode, Refusal};

    fn all_types() -> impl Iterator<Item = FrameType> {
        (0..=u8::MAX).filter_map(FrameType::from_u8)
    }

    proptest! {
        #[test]
        fn a_header_is_read_back_or_refused_for_its_type_or_length(bytes in any::<[u8; FRAME_HEADER_BYTES]>()) {
            let len = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            match (FrameHeader::read(&bytes), FrameType::from_u8(bytes[4])) {
                (Ok(header), Some(kind)) => {
                    prop_assert_eq!((header.kind, header.len), (kind, len as usize));
                    prop_assert_eq!(&FrameHeader::bytes(kind, header.len)[..5], &bytes[..5]);
                }
                (Err(FrameError::TooLarge { got, limit }), Some(kind)) => {
                    prop_assert_eq!((got, limit), (u64::from(len), kind.payload_bytes_max()));
                    prop_assert!(len as usize > limit);
                }
                (Err(FrameError::UnknownType { got }), None) => prop_assert_eq!(got, bytes[4]),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn every_type_has_its_limit_obeyed_and_enforced() {
        let small = [
            FrameType::Open,
            FrameType::Notice,
            FrameType::Error,
            FrameType::Credit,
            FrameType::Verbs,
            FrameType::Settled,
        ];
        for kind in all_types() {
            let limit = if small.contains(&kind) { 256 * 1024 } else { 2 * 1024 * 1024 };
            assert_eq!(kind.payload_bytes_max(), limit, "{kind:?}");
            let mut header = FrameHeader::bytes(kind, limit);
            assert_eq!(FrameHeader::read(&header), Ok(FrameHeader { kind, len: limit }));
            header[..4].copy_from_slice(&u32::try_from(limit + 1).unwrap().to_le_bytes());
            assert_eq!(
                FrameHeader::read(&header),
                Err(FrameError::TooLarge { got: limit as u64 + 1, limit })
            );
        }
        assert_eq!(all_types().count(), 12);
    }

    #[test]
    fn flags_and_reserved_bytes_are_ignored() {
        let plain = FrameHeader::bytes(FrameType::Ack, 64);
        let mut marked = plain;
        marked[5..].fill(0xff);
        assert_eq!(FrameHeader::read(&marked), FrameHeader::read(&plain));
    }

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
}
