//! The server's certificate and keys: made on first start, renewed before they expire, kept in `DATA_DIR/tls`.
//!
//! It owns the files `ca.pem`, `ca.key`, `server.pem`, `server.key` and `reset.key`. It must not know sockets.
//!
//! All this happens at start and again every `[tls] check_interval`, so a running engine renews in time and takes files
//! that were replaced; connections that stand are not disturbed.
//! - The server's certificate covers localhost, 127.0.0.1, ::1 and the configured `[tls] names`. It is created again 90
//!   days before its end, or when a name is not in it, with a key of its own. The CA is sent behind it, so that a client
//!   that knows the CA's fingerprint can fetch it.
//! - The CA is created again a year before its end, or when that has passed, or while it is not valid yet because a
//!   clock ran ahead when it was made, with the **same name and key**: clients trust either certificate until the older
//!   one expires, and have that year to fetch `ca.pem`. The log says so, every day. To have a new key as well, remove
//!   `ca.pem`, `ca.key`, `server.pem` and `server.key`; every client must then fetch `ca.pem` at once.
//! - Without `ca.key` the certificate is not the engine's, and with a CA of another name the CA is not: those are used
//!   as they are, never renewed here and never written over, and the log warns before they end, and of configured names
//!   that are not covered. One that has ended does
//!   not keep the engine from starting: what it must do without clients goes on, and clients refuse it with
//!   `TLS_FAILED`. While the certificate or its key is missing nothing is created instead.
//! - With `[tls] certificate` and `key` those files are served, and of the directory only `reset.key` is used.
//! - With `[tls] client_ca` clients may or must show a certificate that it has signed; `client.rs` says whose it is.

mod authority;
mod concern;
mod dates;
mod error;
mod files;
mod fingerprint;
mod lifetime;
mod names;
mod served;
mod watch;

pub(crate) mod client;

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use levada_protocol::ids::Timestamp;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};

pub use self::error::Error;
use self::{
    client::ClientCa,
    concern::Concern,
    files::{CERTIFICATE_MODE, KEY_MODE, read_named},
    lifetime::{DAY, params},
    served::Credentials,
};
pub(crate) use self::{files::TlsFiles, served::Served, watch::Watch};

/// Bytes of `reset.key`: 32 for stateless reset tokens, 8 for connection ids.
const RESET_KEY_BYTES: usize = 40;
const SERVER_LIFETIME: Duration = DAY.saturating_mul(825);
/// A certificate that is valid for less than this is created again at start.
const RENEW_BEFORE: Duration = DAY.saturating_mul(90);

/// What the listeners need.
pub(crate) struct Identity {
    /// What they serve new connections with.
    pub(crate) served: Served,
    /// Signs stateless resets; the same after a restart (decision 50).
    pub(crate) reset_key: ring::hmac::Key,
    /// Marks connection ids as ours; the same after a restart, else no reset is sent for an old one.
    pub(crate) connection_id_key: u64,
    /// The CA that clients must trust, as far as it is known here.
    pub(crate) ca: Option<Ca>,
    /// Every certificate that counts: those that are served, and the CAs of clients.
    certificates: Vec<CertificateDer<'static>>,
    /// What an operator has to know about these files.
    concerns: Vec<Concern>,
}

/// The CA that clients must trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ca {
    /// A file with it. Every certificate in it may be trusted.
    pub(crate) file: PathBuf,
    /// The SHA-256 of its DER, as `sha256:` and 64 hexadecimal digits.
    pub(crate) fingerprint: String,
}

/// Reads the files, makes those that are absent, and renews a certificate of ours that expires soon.
pub(crate) fn prepare(files: &TlsFiles, now: Timestamp) -> Result<Identity, Error> {
    files.make_dir()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (certificate, key) = server_certificate(files, now, &provider)?;
    let own = files.certificates(&files.certificate(), &certificate)?;
    let concerns = concern::all(files, &own, now)?;
    let (chain, ca) = with_ca(files, own)?;
    let clients = client::ca(files, &provider)?;
    let mut certificates = chain.clone();
    certificates.extend(clients.iter().flat_map(|clients| &clients.certificates).cloned());
    let served = serve(files, chain, &key, clients, provider)?;
    let (reset_key, connection_id_key) = reset_key(files)?;
    Ok(Identity { served, reset_key, connection_id_key, ca, certificates, concerns })
}

/// Refuses files that are damaged, before anything is made or renewed: nothing is written.
pub(crate) fn check(files: &TlsFiles) -> Result<(), Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = client::ca(files, &provider)?;
    let stored = match files.config().own_files() {
        Some(own) => Some((read_named(own.certificate)?, read_named(own.key)?)),
        None => {
            if let Some((pem, key)) = files.read("ca.pem")?.zip(files.read("ca.key")?) {
                authority::check(files, &pem, &key)?;
            }
            files.read("server.pem")?.zip(files.read("server.key")?)
        }
    };
    if let Some((pem, key)) = stored {
        let chain = files.certificates(&files.certificate(), &pem)?;
        serve(files, chain, &key, clients, provider)?;
    }
    files.read("reset.key")?.map(|stored| stored_reset_key(files, stored)).transpose()?;
    Ok(())
}

/// The server's certificate chain and key, as PEM.
fn server_certificate(
    files: &TlsFiles,
    now: Timestamp,
    provider: &Arc<CryptoProvider>,
) -> Result<(Vec<u8>, Vec<u8>), Error> {
    if let Some(own) = files.config().own_files() {
        return Ok((read_named(own.certificate)?, read_named(own.key)?));
    }
    let stored = files.read("server.pem")?.zip(files.read("server.key")?);
    let (ca_pem, ca_key) = match (files.read("ca.pem")?, files.read("ca.key")?) {
        (Some(pem), Some(key)) => authority::renewed(files, now, pem, &key)?,
        // Not the engine's.
        _ if stored.is_some() => return Ok(stored.expect("this arm has it")),
        // Perhaps they are just being replaced. What is created now would replace them for good.
        _ if ["ca.pem", "server.pem", "server.key"].iter().any(|name| files.path(name).exists()) => {
            return Err(missing(files));
        }
        _ => authority::make(files, now)?,
    };
    match stored {
        Some(stored) if is_good(files, &stored.0, &ca_pem, now, provider)? => Ok(stored),
        _ => issue(files, now, &ca_pem, &ca_key),
    }
}

/// What is wrong if there are files of others, and no certificate with its key among them.
fn missing(files: &TlsFiles) -> Error {
    let key = files.path("server.key");
    let (path, expected) =
        if key.exists() { (files.path("server.pem"), "certificate") } else { (key, "private key") };
    Error::Missing { path, expected }
}

/// The chain with the CA behind it, and that CA. An operator's certificate elsewhere is served as it is: its CA is known
/// if the chain ends with it.
fn with_ca(
    files: &TlsFiles,
    mut chain: Vec<CertificateDer<'static>>,
) -> Result<(Vec<CertificateDer<'static>>, Option<Ca>), Error> {
    let ca = |file, der: &CertificateDer<'_>| Ca { file, fingerprint: fingerprint::fingerprint(der) };
    if files.config().own_files().is_some() {
        let last = chain.last().filter(|last| dates::is_self_issued(last));
        let found = last.map(|last| ca(files.certificate(), last));
        return Ok((chain, found));
    }
    let file = files.ca_pem();
    let Some(pem) = files.read("ca.pem")? else { return Ok((chain, None)) };
    // The first is the newest.
    let first = files.certificates(&file, &pem)?.swap_remove(0);
    let found = ca(file, &first);
    if !chain.contains(&first) {
        chain.push(first);
    }
    Ok((chain, Some(found)))
}

/// True if the certificate is the CA's, has all our names, and is valid now and for a while.
fn is_good(
    files: &TlsFiles,
    certificate: &[u8],
    ca_pem: &[u8],
    now: Timestamp,
    provider: &Arc<CryptoProvider>,
) -> Result<bool, Error> {
    let chain = files.certificates(&files.certificate(), certificate)?;
    let unusable = |got: String| files.unusable(&files.ca_pem(), "CA certificate", got);
    let mut roots = RootCertStore::empty();
    for ca in files.certificates(&files.ca_pem(), ca_pem)? {
        roots.add(ca).map_err(|error| unusable(error.to_string()))?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    let localhost = ServerName::try_from("localhost").expect("localhost is a DNS name");
    let at = |time: Duration| {
        verifier
            .verify_server_cert(&chain[0], &chain[1..], &localhost, &[], UnixTime::since_unix_epoch(time))
            .is_ok()
    };
    let now = Duration::from_millis(now.0);
    let covers_all = names::not_covered(files.config(), &chain[0]).is_empty();
    Ok(covers_all && at(now) && at(now + RENEW_BEFORE))
}

fn issue(
    files: &TlsFiles,
    now: Timestamp,
    ca_pem: &[u8],
    ca_key: &KeyPair,
) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let issuer = Issuer::from_ca_cert_pem(&String::from_utf8_lossy(ca_pem), ca_key)
        .map_err(|error| files.unusable(&files.ca_pem(), "CA certificate", error.to_string()))?;
    let key = KeyPair::generate()?;
    let mut params = params(now, SERVER_LIFETIME);
    params.subject_alt_names = CertificateParams::new(names::all(files.config()))?.subject_alt_names;
    params.distinguished_name.push(DnType::CommonName, "Levada server");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let pem = params.signed_by(&key, &issuer)?.pem().into_bytes();
    let key = key.serialize_pem().into_bytes();
    // The key first: a crash between the two leaves a pair that does not fit, and `serve` notices. Removing the old
    // certificate before makes that state one that the next start repairs.
    match fs::remove_file(files.path("server.pem")) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(Error::File { path: files.path("server.pem"), action: "written", source });
        }
        _ => {}
    }
    files.write("server.key", KEY_MODE, &key)?;
    files.write("server.pem", CERTIFICATE_MODE, &pem)?;
    Ok((pem, key))
}

fn serve(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    key: &[u8],
    clients: Option<ClientCa>,
    provider: Arc<CryptoProvider>,
) -> Result<Served, Error> {
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| files.unusable(&files.key(), "private key", error.to_string()))?;
    let clients = clients.map(|clients| clients.verifier);
    Credentials { chain, key, clients, provider }.serve().map_err(|source| {
        let (certificate, key) = (files.certificate(), files.key());
        Error::Serve { remedy: files.remedy(&certificate), certificate, key, source: Box::new(source) }
    })
}

fn reset_key(files: &TlsFiles) -> Result<(ring::hmac::Key, u64), Error> {
    let bytes: [u8; RESET_KEY_BYTES] = match files.read("reset.key")? {
        Some(stored) => stored_reset_key(files, stored)?,
        None => {
            let mut fresh = [0; RESET_KEY_BYTES];
            getrandom::fill(&mut fresh).map_err(Error::Random)?;
            files.write("reset.key", KEY_MODE, &fresh)?;
            fresh
        }
    };
    let (reset, id) = bytes.split_at(RESET_KEY_BYTES - size_of::<u64>());
    let id = u64::from_le_bytes(id.try_into().expect("8 of 40 bytes are left"));
    Ok((ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset), id))
}

fn stored_reset_key(files: &TlsFiles, stored: Vec<u8>) -> Result<[u8; RESET_KEY_BYTES], Error> {
    stored.try_into().map_err(|stored: Vec<u8>| {
        files.unusable(&files.path("reset.key"), "key of 40 bytes", format!("it has {} bytes", stored.len()))
    })
}

#[cfg(test)]
mod tests;
