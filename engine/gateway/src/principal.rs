//! On whose behalf a request is made. The one place that knows.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use levada_broker::Principal;

use crate::{problem::Problem, state::Gateway};

/// The principal of a request with these headers.
///
/// # Errors
/// A problem if who asks proves nothing, or something wrong; none while no identities can be configured.
pub(crate) fn principal_of(_gateway: &Gateway, _headers: &HeaderMap) -> Result<Principal, Problem> {
    Ok(Principal::Local)
}

/// The principal of a request, as [`principal_of`] found it when the request came.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Principal);

impl FromRequestParts<Gateway> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Problem> {
        match parts.extensions.remove::<Self>() {
            Some(caller) => Ok(caller),
            None => principal_of(gateway, &parts.headers).map(Self),
        }
    }
}
