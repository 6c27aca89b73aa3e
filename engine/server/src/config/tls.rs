//! Settings of certificates: the engine's own, an operator's, and those of clients.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use rustls::pki_types::{DnsName, ServerName};
use serde::{Deserialize, Serialize};

use super::{
    Error,
    section::{duration, number, require, section},
};
use crate::units;

/// Names that a certificate may be made for.
const NAMES_MAX: usize = 64;

section! {
    /// Certificates. The engine's own are in DATA_DIR/tls.
    TlsConfig {
        /// DNS names and IP addresses by which clients reach the engine, beside localhost, 127.0.0.1 and ::1, which the
        /// engine's own certificate always covers. That certificate is made again, by the same CA, when it lacks one;
        /// of an operator's certificate the log says which are missing. No wildcards.
        #[serde(with = "units::names")]
        names: Vec<TlsName> = Vec::new();
        /// An operator's own certificate: a PEM file with the chain, the engine's certificate first. Empty: the one in
        /// DATA_DIR/tls/server.pem. Used as it is, and read again when it changes.
        #[serde(with = "units::file")]
        certificate: Option<PathBuf> = None;
        /// The private key of `certificate`: a PEM file. Set both or neither.
        #[serde(with = "units::file")]
        key: Option<PathBuf> = None;
        /// The CA certificates that sign the certificates of clients: a PEM file, read again when it changes. Empty: no
        /// client is asked for a certificate.
        #[serde(with = "units::file")]
        client_ca: Option<PathBuf> = None;
        /// Whether clients show a certificate: `off`, `optional`, `required`, or `auto`, which is `optional` with a
        /// `client_ca` and else `off`. A certificate that is shown and not signed by `client_ca` is refused.
        client_auth: ClientAuth = ClientAuth::Auto;
        /// How often the files are checked: ours are renewed in time, others are reloaded when they change.
        #[serde(with = "units::duration")]
        check_interval: Duration = Duration::from_secs(3_600);
    }
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// As `Optional` if there is a CA for clients, else as `Off`.
    #[default]
    Auto,
    /// They are not asked for one.
    Off,
    /// They may show one.
    Optional,
    /// They must show one.
    Required,
}

/// A DNS name or an IP address that a certificate covers, in its usual form: lower case, addresses shortened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsName(ServerName<'static>);

impl TlsName {
    /// The name, as certificates are compared with.
    pub(crate) fn server_name(&self) -> &ServerName<'static> {
        &self.0
    }
}

impl fmt::Display for TlsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_str())
    }
}

/// What a name may be, for errors.
const EXPECTED: &str = "expected a DNS name such as engine.example.com or an IP address such as 192.0.2.1";

impl FromStr for TlsName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("{EXPECTED}, got {text:?}{why}"));
        if let Ok(address) = text.parse::<IpAddr>() {
            return if address.is_unspecified() || address.is_multicast() {
                wrong(", which is no host's address")
            } else {
                Ok(Self(ServerName::IpAddress(address.to_canonical().into())))
            };
        }
        if text.contains('*') {
            return wrong("; a wildcard covers hosts that are not the engine, name each host");
        }
        if text.contains("://") || text.contains('/') {
            return wrong("; name the host alone");
        }
        // `host:port` is what a client connects to, and an address in brackets is one too.
        if text.contains(':') || text.starts_with('[') {
            return wrong("; name the host without a port or brackets");
        }
        if text.ends_with('.') {
            return wrong("; leave the dot at the end out");
        }
        let is_number =
            text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        match DnsName::try_from(text.to_ascii_lowercase()) {
            Ok(name) if !is_number => Ok(Self(ServerName::DnsName(name))),
            _ if !text.is_ascii() => wrong("; write an international name in its xn-- form"),
            _ => wrong(""),
        }
    }
}

/// An operator's certificate outside the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnFiles<'a> {
    pub(crate) certificate: &'a Path,
    pub(crate) key: &'a Path,
}

/// What clients are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AskedOf<'a> {
    pub(crate) ca: &'a Path,
    pub(crate) is_required: bool,
}

impl TlsConfig {
    /// The operator's own certificate, if one is configured.
    pub(crate) fn own_files(&self) -> Option<OwnFiles<'_>> {
        let (certificate, key) = self.certificate.as_deref().zip(self.key.as_deref())?;
        Some(OwnFiles { certificate, key })
    }

    /// What clients are asked for, if they are asked for a certificate at all.
    pub(crate) fn asked_of_clients(&self) -> Option<AskedOf<'_>> {
        let ca = self.client_ca.as_deref()?;
        let is_required = match self.client_auth {
            ClientAuth::Off => return None,
            ClientAuth::Auto | ClientAuth::Optional => false,
            ClientAuth::Required => true,
        };
        Some(AskedOf { ca, is_required })
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        number("tls.names", self.names.len(), 0..=NAMES_MAX)?;
        let pair = |is_set| if is_set { "set alone" } else { "not set" };
        let (certificate, key) = (self.certificate.is_some(), self.key.is_some());
        require("tls.certificate", certificate || !key, pair(certificate), "a file beside tls.key")?;
        require("tls.key", key || !certificate, pair(key), "a file beside tls.certificate")?;
        let asked = match self.client_auth {
            ClientAuth::Optional => Some("optional"),
            ClientAuth::Required => Some("required"),
            ClientAuth::Auto | ClientAuth::Off => None,
        };
        require(
            "tls.client_auth",
            asked.is_none() || self.client_ca.is_some(),
            asked.unwrap_or_default(),
            "a CA for it in tls.client_ca",
        )?;
        duration("tls.check_interval", self.check_interval, Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_hosts_or_an_address_and_has_one_form() {
        for (text, expected) in [
            ("engine.example.com", "engine.example.com"),
            ("Engine.Example.COM", "engine.example.com"),
            ("engine", "engine"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(
                text.parse::<TlsName>().map(|name| name.to_string()),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_hosts_name_is_refused_with_the_reason() {
        let long = format!("{}.example", "a".repeat(64));
        for (text, why) in [
            ("*.example.com", "a wildcard covers hosts that are not the engine"),
            ("*", "a wildcard"),
            ("0.0.0.0", "which is no host's address"),
            ("::", "which is no host's address"),
            ("224.0.0.1", "which is no host's address"),
            ("engine.example.com:7600", "without a port or brackets"),
            ("[::1]", "without a port or brackets"),
            ("https://engine.example.com", "name the host alone"),
            ("10.0.0.0/8", "name the host alone"),
            ("engine.example.com.", "leave the dot at the end out"),
            ("bücher.example", "xn-- form"),
            ("", "got \"\""),
            ("two words", "got \"two words\""),
            ("-a.example", "got \"-a.example\""),
            ("192.0.2", "got \"192.0.2\""),
            ("192.0.2.256", "got \"192.0.2.256\""),
            (&long, "got \"aaa"),
        ] {
            let said = text.parse::<TlsName>().unwrap_err();
            assert!(said.starts_with(EXPECTED) && said.contains(why), "{text}: {said}");
        }
    }
}
