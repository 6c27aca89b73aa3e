//! CAs that are not the engine's, and what they sign.

use std::{fs, path::Path};

use levada_protocol::ids::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// From the first of January of one year to that of another.
pub(crate) type Years = (i32, i32);
/// From 2001 to 3001.
pub(crate) const NOW: Years = (2001, 3001);
/// In 2001.
pub(crate) const PAST: Years = (2001, 2002);

/// A CA with its key.
pub(crate) struct OtherCa {
    pem: String,
    key: KeyPair,
}

/// A certificate with its key.
pub(crate) struct Signed {
    pub(crate) pem: String,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: KeyPair,
}

fn params(name: &str, years: Years) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) =
        (rcgen::date_time_ymd(years.0, 1, 1), rcgen::date_time_ymd(years.1, 1, 1));
    params
}

/// A URI as an alternative name.
pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A DNS name as an alternative name.
pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

impl OtherCa {
    pub(crate) fn new(name: &str, years: Years) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name, years);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { pem: params.self_signed(&key).unwrap().pem(), key }
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn write(&self, file: &Path) {
        fs::write(file, &self.pem).unwrap();
    }

    /// A certificate with this common name and these alternative names.
    pub(crate) fn sign(&self, name: &str, alternatives: Vec<SanType>, years: Years) -> Signed {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name, years);
        params.subject_alt_names = alternatives;
        let issuer = Issuer::from_ca_cert_pem(&self.pem, &self.key).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Signed { pem: certificate.pem(), chain: vec![certificate.der().clone()], key }
    }
}

impl Signed {
    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

/// The last millisecond of a certificate of these years.
pub(crate) fn end_of(years: Years) -> Timestamp {
    let seconds = rcgen::date_time_ymd(years.1, 1, 1).unix_timestamp();
    Timestamp(u64::try_from(seconds).unwrap() * 1_000 + 999)
}
