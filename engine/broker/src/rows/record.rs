//! The catalogue's records: after the version byte a MessagePack map, so that fields can be added with a default.

use bytes::BytesMut;
use serde::{Serialize, de::DeserializeOwned};

use super::codec::{Damage, Fields};

/// Room that a record usually needs.
pub(super) const LEN: usize = 255;

pub(super) fn write(record: &impl Serialize, out: &mut BytesMut) {
    let bytes = rmp_serde::to_vec_named(record).expect("our own record types serialise");
    out.extend_from_slice(&bytes);
}

pub(super) fn read<T: DeserializeOwned>(fields: &mut Fields<'_>) -> Result<T, Damage> {
    let mut rest = fields.rest();
    let record = rmp_serde::from_read(&mut rest).map_err(|error| Damage::from(error.to_string()))?;
    Fields::new(rest).finish()?;
    Ok(record)
}
