//! The name in a client's certificate by which a principal is known: one of its subject alternative names (RFC 5280, section
//! 4.2.1.6), exactly as it stands there. The common name is never one.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{error::ErrorCode, ids::InvalidName, limits::CERTIFICATE_NAME_BYTES_MAX};

/// `uri:spiffe://prod/payment` or `dns:payment.internal`. DNS names are compared in lower case, URIs byte by byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertificateName(Arc<str>);

const URI: &str = "uri:";
const DNS: &str = "dns:";

impl CertificateName {
    /// The name of a URI in a certificate.
    pub fn uri(uri: &str) -> Self {
        Self(format!("{URI}{uri}").into())
    }

    /// The name of a DNS name in a certificate.
    pub fn dns(name: &str) -> Self {
        Self(format!("{DNS}{}", name.to_ascii_lowercase()).into())
    }

    /// The name as text, its kind before it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CertificateName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid =
            |expected| InvalidName { kind: "certificate", got: text.chars().take(80).collect(), expected };
        let is_plain = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic());
        if text.len() > CERTIFICATE_NAME_BYTES_MAX {
            return Err(invalid("at most 512 bytes"));
        }
        if let Some(uri) = text.strip_prefix(URI) {
            let has_scheme =
                uri.split_once(':').is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
            return if is_plain(uri) && has_scheme {
                Ok(Self::uri(uri))
            } else {
                Err(invalid("a URI behind uri:, such as uri:spiffe://prod/payment"))
            };
        }
        let expected = "uri: and a URI, or dns: and a name without wildcard, as in the certificate's subject alternative names";
        match text.strip_prefix(DNS) {
            Some(name) if is_plain(name) && !name.contains(['*', '/', ':']) => Ok(Self::dns(name)),
            _ => Err(invalid(expected)),
        }
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for CertificateName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for CertificateName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format_args!("{}: {error}", ErrorCode::InvalidName)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_name_says_its_kind() {
        for (text, kept) in [
            ("uri:spiffe://prod/Payment", "uri:spiffe://prod/Payment"),
            ("dns:Payment.Internal", "dns:payment.internal"),
        ] {
            assert_eq!(text.parse::<CertificateName>().unwrap().as_str(), kept);
        }
        let long = format!("dns:{}", "a".repeat(CERTIFICATE_NAME_BYTES_MAX));
        for bad in
            ["", "payment", "cn:payment", "uri:payment", "uri:", "dns:", "dns:*.internal", "dns:a b", &long]
        {
            assert!(bad.parse::<CertificateName>().is_err(), "{bad}");
        }
    }
}
