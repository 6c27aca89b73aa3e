//! The CA that the server makes for itself: made once, renewed with the same name and key.
//!
//! It owns `ca.pem` and `ca.key`. It must not know what the CA signs.

use std::time::Duration;

use levada_protocol::ids::Timestamp;
use rcgen::{BasicConstraints, DnType, IsCa, KeyPair, KeyUsagePurpose};

use super::{
    dates::Dates,
    error::Error,
    files::{CERTIFICATE_MODE, KEY_MODE, TlsFiles},
    lifetime::{DAY, params},
};

/// The name of every CA made here, as it is printed.
const SUBJECT: &str = "CN=Levada local CA";
const COMMON_NAME: &str = "Levada local CA";
const LIFETIME: Duration = DAY.saturating_mul(3_650);
/// A CA that is valid for less than this is renewed; clients have this long to fetch it.
const RENEW_BEFORE: Duration = DAY.saturating_mul(365);

/// A new CA with a new key, both written: its certificate as PEM, and the key.
pub(super) fn make(files: &TlsFiles, now: Timestamp) -> Result<(Vec<u8>, KeyPair), Error> {
    let key = KeyPair::generate()?;
    let pem = certificate(now, &key)?;
    files.write("ca.key", KEY_MODE, key.serialize_pem().as_bytes())?;
    files.write("ca.pem", CERTIFICATE_MODE, pem.as_bytes())?;
    Ok((pem.into_bytes(), key))
}

/// The stored CA, with a new certificate in front of `ca.pem` if it is ours and ends within a year. One that has not
/// begun was made by a clock that ran ahead: it is replaced alone, and would be of no use for as long otherwise.
pub(super) fn renewed(
    files: &TlsFiles,
    now: Timestamp,
    pem: Vec<u8>,
    key: &[u8],
) -> Result<(Vec<u8>, KeyPair), Error> {
    let (key, dates) = read(files, &pem, key)?;
    let has_begun = dates.has_begun(now);
    if !is_ours(&dates) || (has_begun && !dates.has_ended(now, ms(RENEW_BEFORE))) {
        return Ok((pem, key));
    }
    let mut renewed = certificate(now, &key)?.into_bytes();
    if !has_begun {
        let begins = dates.begin();
        tracing::warn!(
            begins,
            "the CA certificate is not valid yet: it was made while the clock ran ahead, or the clock is behind now"
        );
    } else if !dates.has_ended(now, 0) {
        // Kept so that the log can go on to say when copies of it end.
        renewed.extend_from_slice(&pem);
    }
    files.write("ca.pem", CERTIFICATE_MODE, &renewed)?;
    tracing::info!(file = %files.ca_pem().display(), "the CA certificate was renewed, with the same name and key");
    Ok((renewed, key))
}

/// Refuses a stored CA that is damaged; nothing is written.
pub(super) fn check(files: &TlsFiles, pem: &[u8], key: &[u8]) -> Result<(), Error> {
    read(files, pem, key).map(|_| ())
}

/// The CA's key, and the first of its certificates with what it says.
fn read(files: &TlsFiles, pem: &[u8], key: &[u8]) -> Result<(KeyPair, Dates), Error> {
    let unusable = |name: &str, expected, got: String| files.unusable(&files.path(name), expected, got);
    let key = KeyPair::from_pem(&String::from_utf8_lossy(key))
        .map_err(|error| unusable("ca.key", "private key", error.to_string()))?;
    let stored = files.certificates(&files.ca_pem(), pem)?;
    let dates = Dates::read(&stored[0]).map_err(|got| unusable("ca.pem", "CA certificate", got))?;
    if dates.public_key != key.public_key_raw() {
        let got = "it is not the key of the certificate in ca.pem".to_owned();
        return Err(unusable("ca.key", "private key of the CA", got));
    }
    Ok((key, dates))
}

/// True for a CA that was made here.
pub(super) fn is_ours(dates: &Dates) -> bool {
    dates.subject == SUBJECT
}

fn certificate(now: Timestamp, key: &KeyPair) -> Result<String, Error> {
    let mut params = params(now, LIFETIME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    Ok(params.self_signed(key)?.pem())
}

pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
