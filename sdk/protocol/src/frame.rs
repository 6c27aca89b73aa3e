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
            // A listing of topics names every partition of each.
            Self::Opened | Self::Chunk | Self::Publish | Self::Ack | Self::Deliver | Self::End => FRAME_BYTES_MAX,
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

/// Reads a MessagePack payload, nested at most [`MESSAGE_DEPTH_MAX`] deep.
pub fn read_message<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(payload);
    reader.set_max_depth(MESSAGE_DEPTH_MAX);
    T::deserialize(&mut reader).map_err(|error| FrameError::payload(error.to_string()))
}
