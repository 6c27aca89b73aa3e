//! The server's certificate and keys: made on first start, renewed before they expire, kept in `DATA_DIR/tls`.
//!
//! It owns the files `ca.pem`, `ca.key`, `server.pem`, `server.key` and `reset.key`. It must not know sockets.
//!
//! All this happens at start and again every `tls_check_interval`, so a running engine renews in time and takes files
//! that were replaced; connections that stand are not disturbed.
//! - The server's certificate is created again 90 days before its end, with a key of its own.
//! - The CA is created again a year before its end, or when that has passed, or while it is not valid yet because a
//!   clock ran ahead when it was made, with the **same name and key**: clients trust either certificate until the older
//!   one expires, and have that year to fetch `ca.pem`. The log says so, every day. To have a new key as well, remove
//!   `ca.pem`, `ca.key`, `server.pem` and `server.key`; every client must then fetch `ca.pem` at once.
//! - Without `ca.key` the certificate is not the engine's, and with a CA of another name the CA is not: those are used
//!   as they are, never renewed here and never written over, and the log warns before they end. One that has ended does
//!   not keep the engine from starting: what it must do without clients goes on, and clients refuse it with
//!   `TLS_FAILED`. While the certificate or its key is missing nothing is created instead.

mod authority;
mod concern;
mod dates;
mod watch;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use levada_protocol::{error::ErrorCode, ids::Timestamp, version::ALPN};
use quinn::crypto::rustls::QuicServerConfig;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};

use self::concern::Concern;
pub(crate) use self::watch::Watch;
use crate::files;

/// Bytes of `reset.key`: 32 for stateless reset tokens, 8 for connection ids.
const RESET_KEY_BYTES: usize = 40;
/// Mode of files that hold keys.
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;
const DAY: Duration = Duration::from_secs(86_400);
const SERVER_LIFETIME: Duration = DAY.saturating_mul(825);
/// A certificate that is valid for less than this is created again at start.
const RENEW_BEFORE: Duration = DAY.saturating_mul(90);
/// Certificates begin this much in the past, for clients whose clocks are behind.
const BACKDATED: Duration = DAY;
/// The names under which the server may be reached.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{path} cannot be {action}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        /// The underlying error.
        #[source]
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{path} holds no usable {expected}: {got}; put the file back, or {}", remedy(path))]
    Content {
        /// The file or directory.
        path: PathBuf,
        /// The expected content.
        expected: &'static str,
        /// The mistake.
        got: String,
    },
    /// A file is missing, and what it should hold cannot be made here.
    #[error(
        "{path} holds no usable {expected}: it is missing, and without ca.pem and ca.key none can be made; put \
         server.pem and server.key in place, or remove them and ca.pem to have all created again"
    )]
    Missing {
        /// The file or directory.
        path: PathBuf,
        /// The expected content.
        expected: &'static str,
    },
    /// No certificate could be made.
    #[error("no certificate could be made")]
    Make(#[from] rcgen::Error),
    /// Certificate and key do not go together, or the library refuses them.
    #[error("{path} and server.key beside it do not go together; put both back, or {}", remedy(path))]
    Serve {
        /// The certificate's file.
        path: PathBuf,
        /// The underlying error.
        #[source]
        source: rustls::Error,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::File { .. }
            | Self::Content { .. }
            | Self::Missing { .. }
            | Self::Make(_)
            | Self::Serve { .. }
            | Self::Random(_) => ErrorCode::TlsFailed,
        }
    }
}

/// What to do about a file that cannot be put back.
fn remedy(path: &Path) -> &'static str {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("ca.pem" | "ca.key") => {
            "remove ca.pem, ca.key, server.pem and server.key to have all four created again, and give every client the new \
             ca.pem"
        }
        Some("reset.key") => "remove it to have it created again",
        _ => "remove server.pem and server.key to have both created again by the CA in ca.pem and ca.key",
    }
}

/// Where a data directory's TLS files are.
#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    dir: PathBuf,
}

impl TlsFiles {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("tls") }
    }

    /// The certificate that clients must trust.
    pub(crate) fn ca_pem(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File { path, action: "read", source }),
        }
    }

    fn write(&self, name: &str, mode: u32, content: &[u8]) -> Result<(), Error> {
        let path = self.path(name);
        files::replace(&path, mode, content).map_err(|source| Error::File { path, action: "written", source })
    }
}

/// What the listener needs.
pub(crate) struct Identity {
    /// The TLS side of QUIC: TLS 1.3, `levada/1`, no 0-RTT.
    pub(crate) crypto: Arc<QuicServerConfig>,
    /// Signs stateless resets; the same after a restart (decision 50).
    pub(crate) reset_key: ring::hmac::Key,
    /// Marks connection ids as ours; the same after a restart, else no reset is sent for an old one.
    pub(crate) connection_id_key: u64,
    /// The certificate that is served, and those behind it.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// What an operator has to know about these files.
    pub(crate) concerns: Vec<Concern>,
}

/// Reads the files, makes those that are absent, and renews a certificate of ours that expires soon.
pub(crate) fn prepare(files: &TlsFiles, now: Timestamp) -> Result<Identity, Error> {
    files::private_dir(&files.dir).map_err(|source| Error::File {
        path: files.dir.clone(),
        action: "written",
        source,
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (certificate, key) = server_certificate(files, now, &provider)?;
    let chain = certificates(&files.path("server.pem"), &certificate)?;
    let crypto = tls_config(files, chain.clone(), &key, provider)?;
    let (reset_key, connection_id_key) = reset_key(files)?;
    let concerns = concern::all(files, &chain, now)?;
    Ok(Identity { crypto, reset_key, connection_id_key, chain, concerns })
}

/// Refuses files that are damaged, before anything is made or renewed: nothing is written.
pub(crate) fn check(files: &TlsFiles) -> Result<(), Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    if let Some((pem, key)) = files.read("ca.pem")?.zip(files.read("ca.key")?) {
        authority::check(files, &pem, &key)?;
    }
    if let Some((pem, key)) = files.read("server.pem")?.zip(files.read("server.key")?) {
        let chain = certificates(&files.path("server.pem"), &pem)?;
        tls_config(files, chain, &key, provider)?;
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

/// True if the certificate is the CA's, names us, and is valid now and for a while.
fn is_good(
    files: &TlsFiles,
    certificate: &[u8],
    ca_pem: &[u8],
    now: Timestamp,
    provider: &Arc<CryptoProvider>,
) -> Result<bool, Error> {
    let chain = certificates(&files.path("server.pem"), certificate)?;
    let mut roots = RootCertStore::empty();
    for ca in certificates(&files.ca_pem(), ca_pem)? {
        roots.add(ca).map_err(|error| Error::Content {
            path: files.ca_pem(),
            expected: "CA certificate",
            got: error.to_string(),
        })?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| Error::Content {
            path: files.ca_pem(),
            expected: "CA certificate",
            got: error.to_string(),
        })?;
    let name = ServerName::try_from(NAMES[0]).expect("localhost is a DNS name");
    let at = |time: Duration| {
        verifier
            .verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::since_unix_epoch(time))
            .is_ok()
    };
    let now = Duration::from_millis(now.0);
    Ok(at(now) && at(now + RENEW_BEFORE))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let content = |got: String| Error::Content { path: path.to_owned(), expected: "certificate", got };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| content(error.to_string()))?;
    if chain.is_empty() { Err(content("it has no CERTIFICATE section".to_owned())) } else { Ok(chain) }
}

fn issue(
    files: &TlsFiles,
    now: Timestamp,
    ca_pem: &[u8],
    ca_key: &KeyPair,
) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let issuer = Issuer::from_ca_cert_pem(&String::from_utf8_lossy(ca_pem), ca_key).map_err(|error| {
        Error::Content { path: files.ca_pem(), expected: "CA certificate", got: error.to_string() }
    })?;
    let key = KeyPair::generate()?;
    let mut params = params(now, SERVER_LIFETIME);
    params.subject_alt_names = CertificateParams::new(NAMES.map(str::to_owned))?.subject_alt_names;
    params.distinguished_name.push(DnType::CommonName, "Levada server");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let pem = params.signed_by(&key, &issuer)?.pem().into_bytes();
    let key = key.serialize_pem().into_bytes();
    // The key first: a crash between the two leaves a pair that does not fit, and `tls_config` notices. Removing
    // the old certificate before makes that state one that the next start repairs.
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

fn params(now: Timestamp, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let start = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(now.0).saturating_sub(BACKDATED);
    params.not_before = start;
    params.not_after = start + BACKDATED + lifetime;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

fn tls_config(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    key: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<QuicServerConfig>, Error> {
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| Error::Content {
        path: files.path("server.key"),
        expected: "private key",
        got: error.to_string(),
    })?;
    let unfit = |source| Error::Serve { path: files.path("server.pem"), source };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unfit)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // What arrives in 0-RTT can be replayed by anybody who saw it (decision 50).
    config.max_early_data_size = 0;
    let quic = QuicServerConfig::try_from(config)
        .expect("the ring provider has the cipher suite of QUIC's initials");
    Ok(Arc::new(quic))
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
    stored.try_into().map_err(|stored: Vec<u8>| Error::Content {
        path: files.path("reset.key"),
        expected: "key of 40 bytes",
        got: format!("it has {} bytes", stored.len()),
    })
}

#[cfg(test)]
mod tests;
