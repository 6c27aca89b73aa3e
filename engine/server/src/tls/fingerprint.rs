//! By what people compare a certificate.

use std::fmt::Write as _;

use ring::digest;
use rustls::pki_types::CertificateDer;

/// The SHA-256 of a certificate's DER: `sha256:` and 64 hexadecimal digits.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let mut text = "sha256:".to_owned();
    for byte in digest::digest(&digest::SHA256, certificate).as_ref() {
        write!(text, "{byte:02x}").expect("texts take what is written");
    }
    text
}
