//! On whose behalf a request is made. The one place that knows.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use levada_broker::{Broker, Credentials, Principal};
use levada_protocol::{error::ErrorCode, token::Token};

use crate::{peer::Peer, problem::Problem, state::Gateway};

/// The principal of a request with these headers: that of the token in `Authorization: Bearer` (RFC 6750); without the header, that of
/// the certificate that its connection has shown, or the local one while there are no principals. Who shows a token means it: one
/// that is not taken is refused, whatever certificate there is.
///
/// # Errors
/// `UNAUTHENTICATED` if who asks proves nothing, or something wrong.
pub(crate) fn principal_of(
    broker: &Broker,
    headers: &HeaderMap,
    peer: Option<&Peer>,
) -> Result<Principal, Problem> {
    let token = token_of(headers).map_err(|what| Problem::new(ErrorCode::Unauthenticated, what))?;
    let certificate = peer.and_then(Peer::certificate).filter(|_| token.is_none());
    Ok(broker.authenticate(&Credentials { token, certificate, peer: peer.map(Peer::address) })?)
}

/// The token that the headers hold. What is wrong never quotes them.
fn token_of(headers: &HeaderMap) -> Result<Option<Token>, String> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(header) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err("expected one Authorization header, got several".to_owned());
    }
    let scheme_and_token = header.to_str().ok().and_then(|text| text.split_once(' '));
    match scheme_and_token {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            let token = Token::parse(token.trim_start_matches(' '));
            token.map(Some).map_err(|error| format!("the token is malformed: {error}"))
        }
        _ => Err("expected Authorization: Bearer and a token, got another scheme".to_owned()),
    }
}

/// The principal of a request, as [`principal_of`] found it when the request came.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Principal);

impl FromRequestParts<Gateway> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Problem> {
        match parts.extensions.remove::<Self>() {
            Some(caller) => Ok(caller),
            None => principal_of(gateway.broker(), &parts.headers, parts.extensions.get()).map(Self),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use levada_protocol::ids::TokenId;

    use super::*;

    fn with(values: &[&str]) -> Result<Option<Token>, String> {
        let mut headers = HeaderMap::new();
        values.iter().for_each(|value| {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        });
        token_of(&headers)
    }

    #[test]
    fn a_bearer_token_is_taken_and_anything_else_is_refused_without_quoting_it() {
        let text = Token::new(TokenId(5), [7; 32]).reveal();
        for scheme in ["Bearer", "bearer", "BEARER "] {
            let token = with(&[&format!("{scheme} {text}")]).unwrap().unwrap();
            assert_eq!(token.reveal(), text, "{scheme}");
        }
        assert!(with(&[]).unwrap().is_none());
        let bearer = format!("Bearer {text}");
        let basic = format!("Basic {text}");
        for (values, expected) in [
            (&[bearer.as_str(), &bearer][..], "got several"),
            (&[&basic], "got another scheme"),
            (&[&text], "got another scheme"),
            (&["Bearer secret"], "malformed"),
            (&[&bearer[..40]], "malformed"),
        ] {
            let error = with(values).unwrap_err();
            assert!(error.contains(expected) && !error.contains(&text[..20]), "{error}");
        }
    }
}
