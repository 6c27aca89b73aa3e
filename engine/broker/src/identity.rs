//! What an engine is known by: an id of its data directory, which the writer stores, and one of this start. And what
//! nobody else knows.

use levada_protocol::error::ErrorCode;

use crate::{artefacts::hex, error::Error, rows::EngineId};

/// An id for a data directory that has none yet.
pub(crate) fn new_engine_id() -> Result<EngineId, Error> {
    random().map(EngineId)
}

/// An id for this start.
pub(crate) fn new_start_id() -> Result<String, Error> {
    Ok(hex(&random()?))
}

/// A secret of this process.
pub(crate) fn new_seed() -> Result<[u64; 2], Error> {
    Ok([u64::from_le_bytes(random()?), u64::from_le_bytes(random()?)])
}

fn random() -> Result<[u8; 8], Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::refused(ErrorCode::Internal, format!("the system gives no random numbers: {error}"))
    })?;
    Ok(bytes)
}
