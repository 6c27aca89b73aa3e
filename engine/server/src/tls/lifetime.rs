//! How long certificates that are made here are good for.
//!
//! It must not know what they are for.

use std::time::Duration;

use levada_protocol::ids::Timestamp;
use rcgen::CertificateParams;

pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// Certificates begin this much in the past, for clients whose clocks are behind.
const BACKDATED: Duration = DAY;

/// A certificate without a name that is valid from now on for so long.
pub(super) fn params(now: Timestamp, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let start = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(now.0).saturating_sub(BACKDATED);
    params.not_before = start;
    params.not_after = start + BACKDATED + lifetime;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}
