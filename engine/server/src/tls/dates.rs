//! What a certificate says about itself: whose it is, and from when until when.
//!
//! It must not know what that means for the server.

use levada_protocol::ids::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, time::ASN1Time};

/// A certificate's name, key and dates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dates {
    pub(super) subject: String,
    pub(super) public_key: Vec<u8>,
    not_before: ASN1Time,
    not_after: ASN1Time,
}

impl Dates {
    /// What this certificate says, or why it is none.
    pub(super) fn read(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let validity = parsed.validity();
        Ok(Self {
            subject: parsed.subject().to_string(),
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
            not_before: validity.not_before,
            not_after: validity.not_after,
        })
    }

    /// Whether its time has come.
    pub(super) fn has_begun(&self, now: Timestamp) -> bool {
        self.not_before.timestamp() <= seconds(now.0)
    }

    /// Whether it has expired this many milliseconds from now.
    pub(super) fn has_ended(&self, now: Timestamp, in_ms: u64) -> bool {
        self.not_after.timestamp() < seconds(now.0.saturating_add(in_ms))
    }

    /// From its first second to its last, in milliseconds.
    pub(super) fn lifetime_ms(&self) -> u64 {
        let seconds = self.not_after.timestamp().saturating_sub(self.not_before.timestamp());
        u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000)
    }

    /// Its first minute, for a person.
    pub(super) fn begin(&self) -> String {
        minute(self.not_before)
    }

    /// Its last minute, for a person.
    pub(super) fn end(&self) -> String {
        minute(self.not_after)
    }
}

/// True for a certificate that names itself as its issuer, as roots do.
pub(super) fn is_self_issued(der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, parsed)| parsed.subject() == parsed.issuer())
}

fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1_000).unwrap_or(i64::MAX)
}

fn minute(time: ASN1Time) -> String {
    let time = time.to_datetime();
    format!("{} {:02}:{:02} UTC", time.date(), time.hour(), time.minute())
}
