//! Fetching the CA of an engine on another machine: whoever knows its fingerprint need not copy the file.
//!
//! Owns what is compared. Nothing is said to an engine that is not trusted yet.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use quinn::VarInt;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use crate::{config::ClientConfig, error::Error, session::Connector, target::Target, tls::Trust};

/// Characters of a line of PEM.
const PEM_LINE: usize = 64;

/// The SHA-256 of a certificate's DER: `sha256:` and 64 hexadecimal digits. It is read in upper case and with colons
/// between the bytes, too, as other tools print it.
///
/// ```
/// # use levada_client::CaFingerprint;
/// let text = format!("sha256:{}", "0a".repeat(32));
/// assert_eq!(text.parse::<CaFingerprint>()?.to_string(), text);
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaFingerprint([u8; SHA256_OUTPUT_LEN]);

impl CaFingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(bytes)
    }
}

impl fmt::Display for CaFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for CaFingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected sha256: and 64 hexadecimal digits, got {text:?}");
        let digits: Vec<u8> = text
            .strip_prefix("sha256:")
            .ok_or_else(wrong)?
            .chars()
            .filter(|digit| *digit != ':')
            .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        let is_whole = digits.len() == 2 * SHA256_OUTPUT_LEN;
        bytes.try_into().ok().filter(|_| is_whole).map(Self).ok_or_else(wrong)
    }
}

/// The CA of the engine at `addr` as PEM text, if it is the one with this fingerprint, and if the engine's certificate is
/// signed by it for the host of `addr`. The engine prints the fingerprint when it starts.
///
/// # Errors
/// `TLS_FAILED` if the engine shows another CA or its certificate does not cover the host; else as
/// [`Client::connect`](crate::Client::connect).
pub async fn fetch_ca(addr: &str, expected: &CaFingerprint) -> Result<String, Error> {
    let config = ClientConfig::new(addr);
    let chain = shown(&config).await?;
    let Some(ca) = chain.iter().find(|certificate| CaFingerprint::of(certificate) == *expected) else {
        let other = root(&chain)
            .map_or_else(|| "shows none".to_owned(), |root| format!("shows {}", CaFingerprint::of(root)));
        let what = format!(
            "expected a CA with the fingerprint {expected}, and it {other}; is this the engine that printed it, and \
             has it a new CA since?"
        );
        return Err(Error::TlsFailed { addr: addr.to_owned(), what });
    };
    let pem = pem(ca);
    // Now as any client does, so that all is checked: dates, signatures and the name.
    let connector = Connector::new(config.ca_pem(pem.clone())).await?;
    let (endpoint, connection) = connector.connect_bare(connector.config().connect_timeout).await?;
    connection.close(VarInt::from_u32(0), b"");
    endpoint.wait_idle().await;
    Ok(pem)
}

/// The fingerprint of the CA that the engine at `addr` shows. Nothing is verified: anybody on the way may have shown it.
/// It is of use only to a person who compares it with what the engine has printed.
///
/// # Errors
/// `TLS_FAILED` if it shows no CA; else as [`Client::connect`](crate::Client::connect).
pub async fn shown_ca(addr: &str) -> Result<CaFingerprint, Error> {
    let chain = shown(&ClientConfig::new(addr)).await?;
    root(&chain).map(CaFingerprint::of).ok_or_else(|| Error::TlsFailed {
        addr: addr.to_owned(),
        what: "it shows no CA certificate; ask who made its certificate for the CA".to_owned(),
    })
}

/// The certificates that an engine shows, its own first.
async fn shown(config: &ClientConfig) -> Result<Vec<CertificateDer<'static>>, Error> {
    let target = Target::new(config)?;
    let trust = Trust::unverified()?;
    let (endpoint, connection) = target.within(config.connect_timeout, target.reach(&trust)).await?;
    let identity = connection.peer_identity();
    connection.close(VarInt::from_u32(0), b"");
    endpoint.wait_idle().await;
    let chain = identity.and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    Ok(chain.map(|chain| *chain).unwrap_or_default())
}

/// The last certificate that has issued itself.
fn root<'a, 'b>(chain: &'a [CertificateDer<'b>]) -> Option<&'a CertificateDer<'b>> {
    let is_root = |der: &&CertificateDer<'_>| {
        X509Certificate::from_der(der).is_ok_and(|(_, parsed)| parsed.subject() == parsed.issuer())
    };
    chain.iter().rev().find(is_root)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for at in (0..text.len()).step_by(PEM_LINE) {
        writeln!(pem, "{}", &text[at..text.len().min(at + PEM_LINE)]).expect("texts take what is written");
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    proptest! {
        #[test]
        fn a_fingerprint_is_read_as_it_and_others_print_it(bytes: [u8; SHA256_OUTPUT_LEN]) {
            let fingerprint = CaFingerprint(bytes);
            let text = fingerprint.to_string();
            prop_assert_eq!(text.len(), 71);
            prop_assert_eq!(text.parse(), Ok(fingerprint));
            let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            prop_assert_eq!(format!("sha256:{}", pairs.join(":")).parse(), Ok(fingerprint));
        }

        #[test]
        fn pem_text_is_read_back_as_the_same_certificate(der in proptest::collection::vec(any::<u8>(), 1..400)) {
            let der = CertificateDer::from(der);
            let text = pem(&der);
            prop_assert!(text.lines().all(|line| line.len() <= PEM_LINE));
            prop_assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).unwrap(), der);
        }

        #[test]
        fn no_text_makes_a_fingerprint_panic(text: String) {
            let _ = text.parse::<CaFingerprint>();
            let _ = format!("sha256:{text}").parse::<CaFingerprint>();
        }
    }

    #[test]
    fn what_is_no_fingerprint_is_refused_with_what_is_expected() {
        let digits = "0a".repeat(32);
        for text in [
            String::new(),
            digits.clone(),
            format!("sha1:{digits}"),
            format!("sha256:{}", &digits[1..]),
            format!("sha256:{digits}0"),
            format!("sha256:{digits}00"),
            format!("sha256:{}g", &digits[1..]),
        ] {
            let said = text.parse::<CaFingerprint>().unwrap_err();
            assert!(said.starts_with("expected sha256: and 64 hexadecimal digits, got "), "{said}");
        }
    }
}
