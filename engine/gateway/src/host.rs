//! Which hosts and origins a request may name that shows no token: while every caller may do everything, and where a certificate is
//! shown. Without that, any web page that a person opens could publish and read.

use std::net::IpAddr;

use axum::http::{HeaderMap, Uri, header};
use levada_protocol::error::ErrorCode;

use crate::problem::Problem;

/// Refuses what a browser may have been made to send by a page of another site.
pub(crate) fn check_local(headers: &HeaderMap, uri: &Uri, origins: &[String]) -> Result<(), Problem> {
    let host = match uri.host() {
        Some(host) => Some(host),
        None => headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(without_port),
    };
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(Problem::new(ErrorCode::Malformed, "expected one Host header, got several"));
    }
    if !host.is_some_and(is_loopback) {
        let got = host.map_or_else(|| "none".to_owned(), |host| format!("{host:?}"));
        let detail = format!(
            "expected localhost, 127.0.0.1 or [::1] as Host, got {got}: this engine has no identities, so that only requests \
             that are addressed to this machine are taken"
        );
        return Err(Problem::new(ErrorCode::PermissionDenied, detail));
    }
    check_origin(headers, origins)
}

/// Refuses what a page of another site has a browser send: the browser shows a client certificate, or that it is on this machine, by
/// itself, as it does cookies. A token is shown by those who know it.
pub(crate) fn check_origin(headers: &HeaderMap, origins: &[String]) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    if is_allowed(origin.as_bytes(), origins) {
        return Ok(());
    }
    let detail = format!(
        "expected no Origin or one of `http.cors_origins`, got {:?}: who shows no token is not served to pages of other sites; \
         add the origin to that list if it is yours",
        String::from_utf8_lossy(origin.as_bytes())
    );
    Err(Problem::new(ErrorCode::PermissionDenied, detail))
}

/// True for an origin of the list.
pub(crate) fn is_allowed(origin: &[u8], origins: &[String]) -> bool {
    origins.iter().any(|allowed| allowed.as_bytes() == origin)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = address.strip_suffix('.').unwrap_or(address);
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: Option<&str>, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        host.map(|host| headers.insert(header::HOST, host.parse().unwrap()));
        origin.map(|origin| headers.insert(header::ORIGIN, origin.parse().unwrap()));
        check_local(&headers, &Uri::from_static("/v1"), &["https://mine.example".to_owned()]).is_ok()
    }

    #[test]
    fn this_machine_alone_is_named() {
        for host in [
            "localhost",
            "localhost:7601",
            "LocalHost.:1",
            "127.0.0.1:7601",
            "127.8.0.1",
            "[::1]:7601",
            "[::1]",
        ] {
            assert!(check(Some(host), None), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1:7601",
            "127.0.0.1.evil.example",
            "",
            "[::2]",
            "::",
        ] {
            assert!(!check(Some(host), None), "{host}");
        }
        assert!(!check(None, None));
    }

    #[test]
    fn an_origin_must_be_one_of_the_list() {
        assert!(check(Some("localhost"), Some("https://mine.example")));
        for origin in [
            "https://evil.example",
            "null",
            "http://mine.example",
            "https://mine.example.evil",
            "http://localhost:7601",
        ] {
            assert!(!check(Some("localhost"), Some(origin)), "{origin}");
        }
    }
}
