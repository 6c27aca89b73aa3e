//! The problems that most endpoints have in common, for their descriptions.

use std::collections::BTreeMap;

use utoipa::{
    IntoResponses,
    openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder},
};

use crate::problem::PROBLEM_JSON;

/// Responses with a problem to a request that has a JSON body.
pub(crate) struct Problems;

/// Responses with a problem to any request.
pub(crate) struct Refusals;

const COMMON: [(&str, &str); 5] = [
    ("400", "Something is wrong with the path, a parameter or the body"),
    ("401", "No token of a principal, or one that is not taken"),
    ("403", "`PERMISSION_DENIED`"),
    ("404", "There is no such thing, or none that the caller may see"),
    ("503", "The engine is going away, takes no writes, or the outcome is unknown: see `happened`"),
];

const OF_BODIES: [(&str, &str); 3] = [
    ("408", "The body took too long"),
    ("413", "The body is too large"),
    ("415", "The body is no `application/json`"),
];

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        COMMON.into_iter().chain(OF_BODIES).map(response).collect()
    }
}

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        COMMON.into_iter().map(response).collect()
    }
}

fn response((status, description): (&str, &str)) -> (String, RefOr<Response>) {
    (status.to_owned(), problem(description))
}

fn problem(description: &str) -> RefOr<Response> {
    let details = Ref::from_schema_name("ProblemDetails");
    let content = ContentBuilder::new().schema(Some(details)).build();
    ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build().into()
}
