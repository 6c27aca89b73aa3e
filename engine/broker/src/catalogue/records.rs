//! The catalogue's stored records: a version byte, then a MessagePack map, so that fields can be added.

use bytes::Bytes;
use levada_protocol::{
    error::ErrorCode,
    request::{RouteSpec, SubscriptionOptions, TopicSettings},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::Error;

const RECORD_VERSION: u8 = 1;

/// A topic, as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TopicRecord {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) settings: TopicSettings,
    pub(crate) created_ms: u64,
    pub(crate) owner: String,
}

/// A subscription, as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SubscriptionRecord {
    pub(crate) id: u64,
    pub(crate) topic_id: u32,
    pub(crate) topic: String,
    pub(crate) name: String,
    pub(crate) options: SubscriptionOptions,
    /// Where each partition began.
    pub(crate) positions: Vec<u64>,
    pub(crate) created_ms: u64,
    pub(crate) owner: String,
}

/// A plugin version, as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PluginRecord {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) sha256: String,
    pub(crate) size: u64,
    pub(crate) interface: String,
    pub(crate) created_ms: u64,
    pub(crate) owner: String,
}

/// Which version numbers of a plugin were given, as stored once its newest version is removed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PluginNumbers {
    pub(crate) name: String,
    /// The last one.
    pub(crate) last: u32,
}

/// A route, as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RouteRecord {
    pub(crate) id: u64,
    pub(crate) source_id: u32,
    pub(crate) spec: RouteSpec,
    /// Where each source partition began.
    pub(crate) positions: Vec<u64>,
    pub(crate) created_ms: u64,
    pub(crate) owner: String,
}

/// A record's stored bytes.
pub(crate) fn encode(record: &impl Serialize) -> Bytes {
    let mut bytes = vec![RECORD_VERSION];
    rmp_serde::encode::write_named(&mut bytes, record).expect("our own record types serialise");
    Bytes::from(bytes)
}

/// Reads a record's stored bytes.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let damaged = |what: String| Error::Store { code: ErrorCode::StorageCorrupt, message: what };
    match bytes.split_first() {
        Some((&RECORD_VERSION, rest)) => rmp_serde::from_slice(rest)
            .map_err(|error| damaged(format!("a catalogue record does not decode: {error}"))),
        Some((version, _)) => Err(Error::Store {
            code: ErrorCode::StorageNewer,
            message: format!("a catalogue record has version {version}, expected {RECORD_VERSION}"),
        }),
        None => Err(damaged("a catalogue record is empty".to_owned())),
    }
}
