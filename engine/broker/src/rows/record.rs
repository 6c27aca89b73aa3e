//! The catalogue's records: after the version byte a MessagePack map, so that fields can be added with a default. A
//! kind of record says its name, its tag and what its key holds; everything else is the same for all.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use levada_protocol::ids::{PluginName, PrincipalId, RouteId, SubscriptionId, TokenId, TopicId};
use levada_store::Family;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields},
};

/// Room that a record usually needs.
const LEN: usize = 255;

/// A kind of record.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// Its name in error messages.
    const NAME: &'static str;
    /// The first byte of its keys.
    const TAG: u8;
    /// What the key holds behind the tag.
    type Key: RecordKey;
}

/// What distinguishes one record of a kind from another.
pub(crate) trait RecordKey: Debug + Sized {
    /// Adds it to a key.
    fn put(&self, key: KeyBuilder) -> KeyBuilder;

    /// Reads it, all that is left of a key.
    fn take(fields: KeyFields<'_>) -> Option<Self>;
}

impl<R: Record> Row for R {
    const NAME: &'static str = R::NAME;
    const FAMILY: Family = Family::Catalogue;
    const VERSION: u8 = 1;
    type Key = R::Key;

    fn key(key: &Self::Key) -> Bytes {
        key.put(KeyBuilder::new(9).u8(R::TAG)).finish()
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        R::Key::take(KeyFields::after(&[R::TAG], key)?)
    }

    fn len(&self) -> usize {
        LEN
    }

    fn write(&self, out: &mut BytesMut) {
        let bytes = rmp_serde::to_vec_named(self).expect("our own record types serialise");
        out.extend_from_slice(&bytes);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let mut rest = fields.rest();
        let record = rmp_serde::from_read(&mut rest).map_err(|error| Damage::from(error.to_string()))?;
        Fields::new(rest).finish()?;
        Ok(record)
    }
}

impl RecordKey for TopicId {
    fn put(&self, key: KeyBuilder) -> KeyBuilder {
        key.u32(self.0)
    }

    fn take(mut fields: KeyFields<'_>) -> Option<Self> {
        let id = Self(fields.u32()?);
        fields.finish(id)
    }
}

impl RecordKey for u64 {
    fn put(&self, key: KeyBuilder) -> KeyBuilder {
        key.u64(*self)
    }

    fn take(mut fields: KeyFields<'_>) -> Option<Self> {
        let id = fields.u64()?;
        fields.finish(id)
    }
}

impl RecordKey for SubscriptionId {
    fn put(&self, key: KeyBuilder) -> KeyBuilder {
        self.0.put(key)
    }

    fn take(fields: KeyFields<'_>) -> Option<Self> {
        u64::take(fields).map(Self)
    }
}

impl RecordKey for RouteId {
    fn put(&self, key: KeyBuilder) -> KeyBuilder {
        self.0.put(key)
    }

    fn take(fields: KeyFields<'_>) -> Option<Self> {
        u64::take(fields).map(Self)
    }
}

impl RecordKey for PrincipalId {
    fn put(&self, key: KeyBuilder) -> KeyBuilder {
        self.0.put(key)
    }

    fn take(fields: KeyFields<'_>) -> Option<Self> {
        u64::take(fields).map(Self)
    }
}

impl RecordKey for TokenId {
    fn put(&self, key: KeyBuilder) -> KeyBuilder {
        self.0.put(key)
    }

    fn take(fields: KeyFields<'_>) -> Option<Self> {
        u64::take(fields).map(Self)
    }
}

impl RecordKey for PluginName {
    fn put(&self, key: KeyBuilder) -> KeyBuilder {
        key.bytes(self.as_str().as_bytes())
    }

    fn take(fields: KeyFields<'_>) -> Option<Self> {
        std::str::from_utf8(fields.rest()).ok()?.parse().ok()
    }
}
