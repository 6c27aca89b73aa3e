//! Whom the client trusts, and the messages when that fails.
//!
//! Owns the check of the CA's dates: TLS libraries check the dates of what a CA has signed, not its own.

use std::{fmt, path::PathBuf, sync::Arc};

use levada_protocol::{ids::Timestamp, version::ALPN};
use quinn::{ConnectionError, crypto::rustls::QuicClientConfig};
use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer, time::ASN1Time};

use crate::{
    config::{Ca, ClientConfig},
    credentials::Identity,
    error::Error,
};

/// Certificates that a sentence names; of more it says how many.
const NAMED_MAX: usize = 3;

/// The configured CA's certificates, whatever their dates.
#[derive(Debug, Clone)]
pub(crate) struct Authorities {
    certificates: Vec<Certificate>,
    file: Option<PathBuf>,
}

#[derive(Debug, Clone)]
struct Certificate {
    der: CertificateDer<'static>,
    subject: String,
    not_before: ASN1Time,
    not_after: ASN1Time,
}

/// What is trusted at one moment.
pub(crate) struct Trust {
    /// TLS 1.3 with the CA certificates that are valid, and no others.
    pub(crate) crypto: Arc<QuicClientConfig>,
    /// Why others are not trusted.
    left_out: Option<String>,
    shows_certificate: bool,
}

impl Authorities {
    /// Reads the configured CA.
    pub(crate) async fn load(config: &ClientConfig) -> Result<Self, Error> {
        let (pem, file) = match &config.ca {
            Some(Ca::Pem(pem)) => (pem.clone(), None),
            Some(Ca::File(path)) => {
                let read = tokio::fs::read(path).await;
                let unreadable =
                    |error| invalid(format!("cannot read the CA file {}: {error}", path.display()));
                (read.map_err(unreadable)?, Some(path.clone()))
            }
            None => return Err(invalid("no CA is given; the engine keeps its own in DATA_DIR/tls/ca.pem")),
        };
        let mut certificates = Vec::new();
        for der in CertificateDer::pem_slice_iter(&pem) {
            let der = der.map_err(|error| invalid(format!("the CA is not PEM text: {error}")))?;
            certificates.push(Certificate::read(der)?);
        }
        if certificates.is_empty() {
            return Err(invalid("the CA holds no certificate"));
        }
        Ok(Self { certificates, file })
    }

    /// What of this is to be trusted now, for a connection to `addr` on which the client shows `identity`.
    pub(crate) fn at(&self, now: Timestamp, addr: &str, identity: Option<Identity>) -> Result<Trust, Error> {
        let mut roots = RootCertStore::empty();
        let mut faults = Vec::new();
        for certificate in &self.certificates {
            match certificate.fault(now) {
                None => roots
                    .add(certificate.der.clone())
                    .map_err(|error| invalid(format!("the CA is no certificate: {error}")))?,
                Some(fault) => faults.push(fault),
            }
        }
        match self.sentence(&faults) {
            Some(what) if roots.is_empty() => Err(Error::TlsFailed { addr: addr.to_owned(), what }),
            left_out => {
                let shows_certificate = identity.is_some();
                Ok(Trust { crypto: crypto(roots, identity)?, left_out, shows_certificate })
            }
        }
    }

    fn sentence(&self, faults: &[Fault<'_>]) -> Option<String> {
        let early = faults.iter().any(|fault| matches!(fault, Fault::NotYet { .. }));
        let mut said: Vec<String> = faults.iter().take(NAMED_MAX).map(Fault::to_string).collect();
        match faults.len().saturating_sub(NAMED_MAX) {
            0 => {}
            more => said.push(format!("and so on for {more} more")),
        }
        let from = self.file.as_ref().map(|file| format!(" (from {})", file.display())).unwrap_or_default();
        let clocks = if early { "compare the clocks of both machines, or " } else { "" };
        let advice = "fetch the engine's present CA, which lies in DATA_DIR/tls/ca.pem there";
        (!said.is_empty()).then(|| format!("{}{from}; {clocks}{advice}", said.join(", ")))
    }
}

impl Certificate {
    fn read(der: CertificateDer<'static>) -> Result<Self, Error> {
        let (_, parsed) = X509Certificate::from_der(&der)
            .map_err(|error| invalid(format!("the CA is no certificate: {error}")))?;
        let (subject, dates) = (parsed.subject().to_string(), parsed.validity());
        let (not_before, not_after) = (dates.not_before, dates.not_after);
        Ok(Self { der, subject, not_before, not_after })
    }

    fn fault(&self, now: Timestamp) -> Option<Fault<'_>> {
        let now = i64::try_from(now.0 / 1_000).unwrap_or(i64::MAX);
        if now > self.not_after.timestamp() {
            return Some(Fault::Expired { subject: &self.subject, at: self.not_after });
        }
        (now < self.not_before.timestamp())
            .then_some(Fault::NotYet { subject: &self.subject, from: self.not_before })
    }
}

/// Why a CA certificate is not trusted.
enum Fault<'a> {
    Expired { subject: &'a str, at: ASN1Time },
    NotYet { subject: &'a str, from: ASN1Time },
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { subject, at } => {
                write!(f, "the CA certificate {subject:?} expired on {}", date(*at))
            }
            Self::NotYet { subject, from } => {
                write!(f, "the CA certificate {subject:?} is not valid before {}", date(*from))
            }
        }
    }
}

fn date(time: ASN1Time) -> String {
    let time = time.to_datetime();
    format!("{} {:02}:{:02} UTC", time.date(), time.hour(), time.minute())
}

fn crypto(roots: RootCertStore, identity: Option<Identity>) -> Result<Arc<QuicClientConfig>, Error> {
    let builder = builder()?.with_root_certificates(roots);
    quic(match identity {
        Some(Identity { chain, key }) => {
            builder.with_client_auth_cert(chain, key).map_err(|error| invalid(error.to_string()))?
        }
        None => builder.with_no_client_auth(),
    })
}

fn builder() -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| invalid(error.to_string()))
}

fn quic(mut tls: rustls::ClientConfig) -> Result<Arc<QuicClientConfig>, Error> {
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| invalid(error.to_string()))?;
    Ok(Arc::new(crypto))
}

fn invalid(what: impl Into<String>) -> Error {
    Error::Config { what: what.into() }
}

impl Trust {
    /// Trusts whoever answers: only to see the certificates that are shown. Nothing may be sent over such a connection.
    pub(crate) fn unverified() -> Result<Self, Error> {
        let verifier = Arc::new(Anybody { provider: rustls::crypto::ring::default_provider() });
        let tls = builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        Ok(Self { crypto: quic(tls)?, left_out: None, shows_certificate: false })
    }

    /// A sentence for a person, if the handshake failed over trust; `None` if something else went wrong.
    pub(crate) fn explain(&self, error: &ConnectionError) -> Option<String> {
        let (alert, reason) = alert(error)?;
        if matches!(error, ConnectionError::ConnectionClosed(_))
            && let Some(what) = self.of_own_certificate(alert, &reason)
        {
            return Some(what);
        }
        let foreign = || {
            let what =
                "its certificate is not signed by the given CA; use that engine's own DATA_DIR/tls/ca.pem";
            match &self.left_out {
                Some(left_out) => format!("{what}; left out of the given CA: {left_out}"),
                None => what.to_owned(),
            }
        };
        Some(match alert {
            45 => dates_of_server(&reason),
            // 51 comes when both CAs have the same name and differ in their keys, as those of two engines do.
            48 | 51 => foreign(),
            116 => "it requires a certificate of its clients (tls.client_auth), and this client shows none"
                .to_owned(),
            120 => "it does not speak levada/1; is this the QUIC port of an engine?".to_owned(),
            _ if reason.contains("not valid for name") => {
                format!(
                    "its certificate does not cover the name used; connect by one that it covers ({reason})"
                )
            }
            _ => format!("the handshake failed ({reason})"),
        })
    }

    /// What the engine's alert says of the client's certificate; `None` if it is about something else.
    fn of_own_certificate(&self, alert: u64, reason: &str) -> Option<String> {
        match alert {
            42..=46 | 48 | 49 | 51 if self.shows_certificate => {
                Some(format!("it does not accept this client's certificate ({reason})"))
            }
            116 => Some("it requires a client certificate, and this client has none".to_owned()),
            _ => None,
        }
    }
}

/// Takes every certificate whose key the other side has.
#[derive(Debug)]
struct Anybody {
    provider: CryptoProvider,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn dates_of_server(reason: &str) -> String {
    let state = if reason.contains("not valid yet") { "is not valid yet" } else { "has expired" };
    format!(
        "the engine's own certificate {state} ({reason}); compare the clocks of both machines, or give the engine \
         a new DATA_DIR/tls/server.pem: it renews by itself only what it has made by itself"
    )
}

/// The TLS alert that ended a handshake, and the words that came with it.
fn alert(error: &ConnectionError) -> Option<(u64, String)> {
    let (code, reason) = match error {
        ConnectionError::TransportError(error) => (u64::from(error.code), error.reason.clone()),
        ConnectionError::ConnectionClosed(close) => {
            (u64::from(close.error_code), String::from_utf8_lossy(&close.reason).into_owned())
        }
        _ => return None,
    };
    // RFC 9001, 4.8: a TLS alert is 0x100 and its number.
    let alert = code.checked_sub(0x100).filter(|alert| *alert <= 0xff)?;
    Some((alert, reason))
}
