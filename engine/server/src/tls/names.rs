//! The names by which clients reach the engine.
//!
//! Pure.

use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName},
    server::ParsedCertificate,
};

use crate::config::TlsConfig;

/// The names under which the server may be reached, whatever is configured.
const ALWAYS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Every name that the engine's own certificate is made for.
pub(super) fn all(config: &TlsConfig) -> Vec<String> {
    let mut names = ALWAYS.map(str::to_owned).to_vec();
    for name in config.names.iter().map(ToString::to_string) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The configured names by which clients do not accept this certificate.
pub(super) fn not_covered(config: &TlsConfig, certificate: &CertificateDer<'_>) -> Vec<String> {
    let names = config.names.iter().filter(|name| !covers(certificate, name.server_name()));
    names.map(ToString::to_string).collect()
}

fn covers(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    let parsed = ParsedCertificate::try_from(certificate);
    parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
}
