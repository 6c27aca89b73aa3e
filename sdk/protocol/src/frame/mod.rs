//! The frame: the unit that everything on a QUIC stream is made of.
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

mod decoder;
mod message;

use bytes::{BufMut, Bytes, BytesMut};

pub use self::{
    decoder::{Buffering, Frame, FrameDecoder},
    message::{message, message_bytes, read_message},
};
use crate::{
    error::ErrorCode,
    limits::{FRAME_BYTES_MAX, REQUEST_BYTES_MAX},
};

/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 8;

/// Makes the enum and its two tables. Columns: number on the wire, variant, largest payload in bytes, meaning.
macro_rules! frame_types {
    ($($number:literal $kind:ident $limit:ident $meaning:literal;)+) => {
        /// What a frame is. The numbers are part of the protocol and never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum FrameType {
            $(#[doc = $meaning] $kind = $number,)+
        }

        impl FrameType {
            /// The type with this number; `None` for a number that this version does not know.
            pub fn from_u8(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$kind),)+
                    _ => None,
                }
            }

            /// The largest payload in bytes that a frame of this type may have.
            pub fn payload_bytes_max(self) -> usize {
                match self {
                    $(Self::$kind => $limit,)+
                }
            }
        }
    };
}

frame_types! {
    1 Open REQUEST_BYTES_MAX "First frame of a stream, client to engine: a MessagePack [`crate::request::Open`].";
    // A page of topics names every partition of each.
    2 Opened FRAME_BYTES_MAX "The engine's answer to `Open`: a MessagePack [`crate::request::Opened`].";
    3 Chunk FRAME_BYTES_MAX "A part of a plugin artefact, raw, after an `Open` that announced it.";
    4 Notice REQUEST_BYTES_MAX "Engine to client on the control stream: a MessagePack [`crate::request::Notice`].";
    5 Error REQUEST_BYTES_MAX "Ends a stream with a reason: a MessagePack [`crate::error::Refusal`].";
    16 Publish FRAME_BYTES_MAX "A batch to append, see [`crate::publish`].";
    17 Ack FRAME_BYTES_MAX "Acknowledgements of publishes, see [`crate::publish`].";
    32 Deliver FRAME_BYTES_MAX "Events to a consumer or reader, see [`crate::deliver`].";
    33 Credit REQUEST_BYTES_MAX "How much more may be delivered, see [`crate::verbs`].";
    34 Verbs REQUEST_BYTES_MAX "What a consumer decided about its deliveries, see [`crate::verbs`].";
    35 Settled REQUEST_BYTES_MAX "Which verbs took effect, see [`crate::verbs`].";
    36 End FRAME_BYTES_MAX "A reader that does not follow has seen everything, see [`crate::deliver`].";
    37 Progress REQUEST_BYTES_MAX "How far a search has come, see [`crate::progress`].";
    48 CheckBack REQUEST_BYTES_MAX "Asks whether a prepared transaction is committed: a MessagePack [`crate::request::CheckBack`].";
}

/// A frame header whose type is known and whose length is within the limit of that type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The type of the payload.
    pub kind: FrameType,
    /// The payload's length in bytes.
    pub len: usize,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A type that this version does not know.
    #[error("frame type {got} is unknown")]
    UnknownType {
        /// The number that arrived.
        got: u8,
    },
    /// A length over the limit.
    #[error("frame of {got} bytes is over the limit of {limit} for its type")]
    TooLarge {
        /// The length in the header.
        got: u64,
        /// The largest length that the type allows.
        limit: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended after {got} bytes of a frame")]
    Truncated {
        /// Bytes of the frame that arrived, its header among them.
        got: usize,
    },
    /// A name in a message that does not obey its grammar.
    #[error("{what}")]
    Name {
        /// The name, and what was expected.
        what: String,
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

    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownType { .. } => ErrorCode::UnknownFrame,
            Self::TooLarge { .. } => ErrorCode::FrameTooLarge,
            Self::Name { .. } => ErrorCode::InvalidName,
            Self::Truncated { .. } | Self::Payload { .. } => ErrorCode::Malformed,
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            FrameType::Progress,
            FrameType::CheckBack,
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
        assert_eq!(all_types().count(), 14);
    }

    #[test]
    fn flags_and_reserved_bytes_are_ignored() {
        let plain = FrameHeader::bytes(FrameType::Ack, 64);
        let mut marked = plain;
        marked[5..].fill(0xff);
        assert_eq!(FrameHeader::read(&marked), FrameHeader::read(&plain));
    }
}
