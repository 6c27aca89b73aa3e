//! What an engine is known by: an id of its data directory, which the writer stores, and one of this start. And what
//! nobody else knows.

use levada_protocol::{
    error::ErrorCode,
    ids::{ProducerId, TokenId},
};
use sha2::{Digest, Sha256};

use crate::{artefacts::hex, error::Error, rows::EngineId};

/// An id for a data directory that has none yet.
pub(crate) fn new_engine_id() -> Result<EngineId, Error> {
    random().map(EngineId)
}

/// An id for this start.
pub(crate) fn new_start_id() -> Result<String, Error> {
    Ok(hex(&random::<8>()?))
}

/// An id for a producer's name that has none yet: other than 0, and with its low 32 bits 0.
pub(crate) fn new_producer_id() -> Result<ProducerId, Error> {
    let bits: [u8; 12] = random()?;
    let shared = bits.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    Ok(ProducerId(shared.max(1) << u32::BITS))
}

/// An id and a secret for a token.
pub(crate) fn new_token() -> Result<(TokenId, [u8; 32]), Error> {
    Ok((TokenId(u64::from_le_bytes(random()?)), random()?))
}

/// A key for the secret that signs pushes.
pub(crate) fn new_push_key() -> Result<[u8; 32], Error> {
    random()
}

/// The hash under which a secret is kept.
pub(crate) fn sha256_hex(secret: &[u8]) -> String {
    hex(&Sha256::digest(secret))
}

/// A secret of this process.
pub(crate) fn new_seed() -> Result<[u64; 2], Error> {
    Ok([u64::from_le_bytes(random()?), u64::from_le_bytes(random()?)])
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::refused(ErrorCode::Internal, format!("the system gives no random numbers: {error}"))
    })?;
    Ok(bytes)
}
