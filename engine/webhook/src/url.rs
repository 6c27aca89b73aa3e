//! URLs that deliveries may be pushed to, as far as that can be said without resolving a name.

use std::net::IpAddr;

use http::{Uri, uri::Scheme};
use levada_broker::PushUrls;

use crate::networks::Allowed;

/// Checks URLs when a push is set.
#[derive(Debug, Clone, Default)]
pub struct UrlRules {
    allowed: Allowed,
}

impl UrlRules {
    /// Public addresses, and these networks.
    #[must_use]
    pub fn new(allowed: Allowed) -> Self {
        Self { allowed }
    }
}

impl PushUrls for UrlRules {
    fn check(&self, url: &str) -> Result<(), String> {
        let uri = parse(url)?;
        let plain = is_plain(&uri);
        if plain && !self.allowed.loopback() {
            let message = "the url begins with http://: expected https://; http is for addresses of this machine alone, if they are \
                           named in the engine's setting push.allow";
            return Err(message.to_owned());
        }
        literal(&uri).map_or(Ok(()), |address| self.allowed.check(address, plain))
    }
}

/// Reads a URL.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(url: &str) -> Result<Uri, String> {
    let invalid = |why: &str| Err(format!("{why}: expected a url such as https://shop.example/hooks"));
    let Ok(uri) = url.parse::<Uri>() else { return invalid("the url is none") };
    if ![Some(&Scheme::HTTPS), Some(&Scheme::HTTP)].contains(&uri.scheme()) {
        return invalid("the url begins neither with https:// nor with http://");
    }
    match uri.authority() {
        None => invalid("the url names no host"),
        Some(authority) if authority.host().is_empty() => invalid("the url names no host"),
        Some(authority) if authority.as_str().contains('@') => {
            invalid("the url holds a user, which would be shown; pushes are signed instead")
        }
        Some(authority) if authority.as_str() != authority.host() && authority.port_u16().is_none() => {
            invalid("the port of the url is no number up to 65535")
        }
        Some(_) if url.contains('#') => invalid("the url has a fragment, which is never sent"),
        Some(_) => Ok(uri),
    }
}

/// True for HTTP without TLS.
pub(crate) fn is_plain(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTP)
}

/// The host without the brackets of an IPv6 address, and the port.
pub(crate) fn host_and_port(uri: &Uri) -> (&str, u16) {
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (host, uri.port_u16().unwrap_or_else(|| if is_plain(uri) { 80 } else { 443 }))
}

/// The address, if the host is one.
fn literal(uri: &Uri) -> Option<IpAddr> {
    host_and_port(uri).0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &[&str], url: &str) -> Result<(), String> {
        let networks = allowed.iter().map(|text| text.parse().unwrap()).collect();
        UrlRules::new(Allowed::new(networks)).check(url)
    }

    #[test]
    fn a_url_is_https_with_a_host_that_is_not_known_to_be_private() {
        for url in ["https://shop.example/hooks", "https://1.1.1.1:8443/a?b=c", "https://[2606:4700::1]/"] {
            assert_eq!(check(&[], url), Ok(()), "{url}");
        }
        for (url, why) in [
            ("", "none"),
            ("shop.example", "neither"),
            ("/hooks", "neither"),
            ("ftp://shop.example", "neither"),
            ("file:///etc/passwd", "none"),
            ("https://", "none"),
            ("https://:443/", "no host"),
            ("https://me:secret@shop.example/", "a user"),
            ("https://shop.example/#a", "a fragment"),
            ("https://shop.example:99999/", "the port"),
            ("https://shop.example:/", "the port"),
            ("http://shop.example/", "http://"),
            ("http://127.0.0.1/", "http://"),
            ("https://127.0.0.1/", "127.0.0.1 is not an address of the public internet"),
            ("https://[::1]/", "::1 is not"),
            ("https://[::ffff:10.0.0.1]/", "is not an address of the public internet"),
            ("https://169.254.169.254/latest/meta-data", "169.254.169.254 is not"),
        ] {
            let refused = check(&[], url).unwrap_err();
            assert!(refused.contains(why) && !refused.contains("secret"), "{url}: {refused}");
            assert!(refused.contains("expected"), "{refused}");
        }
    }

    #[test]
    fn a_machine_of_ones_own_is_named_first() {
        for url in ["http://127.0.0.1:9/", "http://localhost/", "https://127.9.9.9/"] {
            assert_eq!(check(&["127.0.0.0/8"], url), Ok(()), "{url}");
        }
        assert!(check(&["127.0.0.0/8"], "http://10.0.0.1/").is_err());
        assert!(check(&["10.0.0.0/8"], "http://10.0.0.1/").is_err(), "http stays on this machine");
        assert_eq!(check(&["10.0.0.0/8"], "https://10.0.0.1/"), Ok(()));
    }
}
