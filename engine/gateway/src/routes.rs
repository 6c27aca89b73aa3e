//! Routes: shown, made, resumed and deleted.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use levada_broker::Principal;
use levada_protocol::{
    error::ErrorCode,
    ids::RouteName,
    request::{Request, Response as Answer, RouteInfo, RouteSpec, StageSpec},
};
use serde_json::Value;

use crate::{
    admin::{self, DeleteParams, ListParams},
    json_body,
    params::{Named, Parameters},
    principal::Caller,
    problem::{Problem, ProblemDetails},
    problems::{Problems, Refusals},
    state::Gateway,
};

/// List routes
///
/// Those that the caller may browse, in order of name, as `levada route list` prints them.
#[utoipa::path(
    get,
    path = "/v1/routes",
    tag = "administration",
    params(ListParams),
    responses(
        (status = 200, description = "The routes", headers(("Levada-Next" = String, description = "The `after` of the request that goes on; absent if this was all")),
            body = [Object], example = json!([{"spec": {"name": "large", "from": "orders", "to": ["large-orders"], "chain": []}, "lag": 0}])),
        Refusals,
    ),
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Parameters(asked): Parameters<ListParams>,
) -> Result<Response, Problem> {
    let (routes, next) = page(&gateway, &principal, asked.limit.unwrap_or(0), asked.after).await?;
    admin::listed(&routes, next)
}

/// Describe a route
///
/// What it is made of and its state, as `levada route describe` prints them.
#[utoipa::path(
    get,
    path = "/v1/routes/{route}",
    tag = "administration",
    params(("route" = String, Path, description = "The route's name", example = "large")),
    responses(
        (status = 200, description = "The route", body = Object, example = json!({"spec": {"name": "large", "from": "orders", "to": ["large-orders"], "chain": []}, "lag": 0})),
        Refusals,
    ),
)]
pub(crate) async fn describe(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Named(name): Named<RouteName>,
) -> Result<Response, Problem> {
    Ok(Json(find(&gateway, &principal, &name).await?).into_response())
}

/// Make a route
///
/// The body says where it leads, as the `spec` of a description does. A route cannot be changed: of one that exists, 200 says
/// that it is this one, wherever it began, and 409 that it is another.
#[utoipa::path(
    put,
    path = "/v1/routes/{route}",
    tag = "administration",
    params(("route" = String, Path, description = "The route's name", example = "large")),
    request_body(content = Object, content_type = "application/json", example = json!({"from": "orders", "to": ["large-orders"], "chain": [{"plugin": "json-filter", "config": "{\"keep\":\"amount > 100\"}"}]})),
    responses(
        (status = 200, description = "It was there", body = Object, example = json!({"spec": {"name": "large", "from": "orders", "to": ["large-orders"]}, "created": false})),
        (status = 201, description = "It was made", body = Object, example = json!({"spec": {"name": "large", "from": "orders", "to": ["large-orders"]}, "created": true})),
        (status = 409, description = "`ROUTE_EXISTS`: there is another one of this name", body = ProblemDetails, content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(crate) async fn put(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Named(name): Named<RouteName>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let spec: RouteSpec = json_body::receive_with(&gateway, &headers, body, ("name", name.as_str())).await?;
    match admin::ask(&gateway, &principal, Request::CreateRoute(spec.clone())).await {
        Ok(Answer::Route(made)) => Ok(admin::made(&made, true)),
        Ok(_) => Err(admin::unexpected()),
        Err(error) if error.code() == ErrorCode::RouteExists => {
            match find(&gateway, &principal, &name).await {
                Ok(found) if is_same(&found.spec, &spec) => Ok(admin::made(&found, false)),
                _ => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Delete a route
///
/// What it has made stays.
#[utoipa::path(
    delete,
    path = "/v1/routes/{route}",
    tag = "administration",
    params(("route" = String, Path, description = "The route's name", example = "large"), DeleteParams),
    responses(
        (status = 200, description = "What is gone", body = Object, example = json!({"deleted": "large", "topics": [], "subscriptions": [], "routes": ["large"], "plugins": [], "dead_letters_kept": [], "count": 1})),
        (status = 409, description = "`TOPIC_IN_USE`: something reads the dead letters that would go", body = ProblemDetails, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn delete(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Named(name): Named<RouteName>,
    Parameters(DeleteParams { force, with_dead_letters }): Parameters<DeleteParams>,
) -> Result<Response, Problem> {
    let request = Request::DeleteRoute { name: name.clone(), force, with_dead_letters };
    admin::deleted(name.as_str(), &admin::ask(&gateway, &principal, request).await?)
}

async fn page(
    gateway: &Gateway,
    principal: &Principal,
    limit: u32,
    after: Option<String>,
) -> Result<(Vec<RouteInfo>, Option<String>), Problem> {
    match admin::ask(gateway, principal, Request::ListRoutes { limit, after }).await? {
        Answer::Routes { routes, next } => Ok((routes, next)),
        _ => Err(admin::unexpected()),
    }
}

async fn find(gateway: &Gateway, principal: &Principal, name: &RouteName) -> Result<RouteInfo, Problem> {
    let mut after = None;
    loop {
        let (routes, next) = page(gateway, principal, 0, after).await?;
        if let Some(found) = routes.into_iter().find(|route| route.spec.name == *name) {
            return Ok(found);
        }
        if next.is_none() {
            return Err(Problem::new(ErrorCode::RouteNotFound, format!("there is no route {name}")));
        }
        after = next;
    }
}

/// True if both lead the same way; where they began does not matter, nor how a configuration is written.
fn is_same(has: &RouteSpec, wanted: &RouteSpec) -> bool {
    let meaning = |stage: &StageSpec| {
        let config =
            serde_json::from_str::<Value>(&stage.config).unwrap_or_else(|_| stage.config.as_str().into());
        (config, StageSpec { config: String::new(), ..stage.clone().with_defaults() })
    };
    let chain = |spec: &RouteSpec| spec.chain.iter().map(meaning).collect::<Vec<_>>();
    (&has.from, &has.to, chain(has)) == (&wanted.from, &wanted.to, chain(wanted))
}
