//! Plugins: shown, deployed and removed.
#![expect(unused_qualifications, reason = "the macro of the description names types by their paths")]

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use levada_broker::Principal;
use levada_json::Deployment;
use levada_protocol::{
    access::Requires as _,
    error::{ErrorCode, Refusal},
    ids::PluginName,
    request::{PluginInfo, Request, Response as Answer},
};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;

use crate::{
    admin::{self, ListParams},
    body::{self, Longest},
    params::{Named, Parameters},
    peer::Peer,
    principal::Caller,
    problem::{Problem, ProblemDetails},
    problems::Refusals,
    schema::AnyBytes,
    state::Gateway,
};

/// What is deployed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeployParams {
    /// The plugin's name.
    #[param(example = "anonymise")]
    name: String,
    /// A configuration in JSON that the plugin must take before it is stored.
    config: Option<String>,
}

/// What is removed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RemoveParams {
    /// The version. Default: all.
    version: Option<u32>,
}

/// List plugins
///
/// All versions of those that the caller may browse, in order of name and version, as `levada plugin list` prints them.
#[utoipa::path(
    get,
    path = "/v1/plugins",
    tag = "administration",
    params(ListParams),
    responses(
        (status = 200, description = "The versions", headers(("Levada-Next" = String, description = "The `after` of the request that goes on; absent if this was all")),
            body = [Object], example = json!([{"name": "anonymise", "version": 1, "active": true, "size": 71_000}])),
        Refusals,
    ),
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Parameters(asked): Parameters<ListParams>,
) -> Result<Response, Problem> {
    let (plugins, next) = page(&gateway, &principal, asked.limit.unwrap_or(0), asked.after).await?;
    admin::listed(&plugins, next)
}

/// Describe a plugin
///
/// All its versions, in order.
#[utoipa::path(
    get,
    path = "/v1/plugins/{plugin}",
    tag = "administration",
    params(("plugin" = String, Path, description = "The plugin's name", example = "anonymise")),
    responses(
        (status = 200, description = "The versions", body = [Object], example = json!([{"name": "anonymise", "version": 1, "active": true, "size": 71_000}])),
        Refusals,
    ),
)]
pub(crate) async fn describe(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Named(name): Named<PluginName>,
) -> Result<Response, Problem> {
    let (mut versions, mut after) = (Vec::new(), Some(format!("{name}@0")));
    while after.is_some() {
        let (plugins, next) = page(&gateway, &principal, 0, after).await?;
        let is_over = plugins.iter().any(|plugin| plugin.name != name);
        versions.extend(plugins.into_iter().filter(|plugin| plugin.name == name));
        after = next.filter(|_| !is_over);
    }
    if versions.is_empty() {
        return Err(Problem::new(ErrorCode::PluginNotFound, format!("there is no plugin {name}")));
    }
    Ok(Json(versions).into_response())
}

/// Deploy a plugin
///
/// The body is a WebAssembly component, at most 64 MiB. It becomes the plugin's next version, which everything that uses the
/// newest version uses from then on. The body may take 60 seconds, and compiling it 60 more.
#[utoipa::path(
    post,
    path = "/v1/plugins",
    tag = "administration",
    params(DeployParams),
    request_body(content = AnyBytes, content_type = "application/wasm"),
    responses(
        (status = 200, description = "This version has the same component already", body = Object, example = json!({"name": "anonymise", "version": 1, "active": true, "deployed": false})),
        (status = 201, description = "It is the newest version", body = Object, example = json!({"name": "anonymise", "version": 2, "active": true, "deployed": true})),
        (status = 408, description = "The body took too long", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "The component is too large", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 429, description = "`LIMIT_EXCEEDED`: others are being deployed", body = ProblemDetails, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn deploy(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Parameters(DeployParams { name, config }): Parameters<DeployParams>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let name = name.parse::<PluginName>();
    let name = name.map_err(|error| Problem::new(ErrorCode::InvalidName, error.to_string()))?;
    let request = |size| Request::DeployPlugin { name: name.clone(), size, config: config.clone() };
    // Before the body: who may not deploy need not send it.
    let required = request(0).required();
    gateway.broker().check(&principal, &required)?;
    let Some(_upload) = gateway.upload() else {
        let message = "expected fewer plugins to be deployed at once: try again";
        return Err(Problem::of(Refusal::new(ErrorCode::LimitExceeded, message).retry_after(1_000)));
    };
    // Whoever got this far may take longer than others.
    let limit = gateway.config().upload_timeout;
    let until = Instant::now() + 2 * limit;
    if let Some(Extension(peer)) = &peer {
        peer.answer_by(until + gateway.config().work_max);
    }
    let artefact = body::receive_up_to(&gateway, &headers, body, Longest::ARTEFACT).await?;
    let size = artefact.len() as u64;
    let deploying = Box::pin(gateway.broker().request(&principal, request(size), Some(artefact)));
    let deployed = timeout_at(until, deploying).await.unwrap_or_else(|_| Err(admin::unknown()))?;
    let Answer::Plugin(plugin) = deployed else { return Err(admin::unexpected()) };
    let deployed = !plugin.already_deployed;
    let status = if deployed { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(Deployment { plugin: &plugin, deployed })).into_response())
}

/// Remove a plugin
///
/// One version of it, or all.
#[utoipa::path(
    delete,
    path = "/v1/plugins/{plugin}",
    tag = "administration",
    params(("plugin" = String, Path, description = "The plugin's name", example = "anonymise"), RemoveParams),
    responses(
        (status = 200, description = "What is gone", body = Object, example = json!({"deleted": "anonymise", "topics": [], "subscriptions": [], "routes": [], "plugins": ["anonymise@1"], "dead_letters_kept": [], "count": 1})),
        (status = 409, description = "`PLUGIN_IN_USE`", body = ProblemDetails, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn delete(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Named(name): Named<PluginName>,
    Parameters(RemoveParams { version }): Parameters<RemoveParams>,
) -> Result<Response, Problem> {
    let path = version.map_or_else(|| name.to_string(), |version| format!("{name}@{version}"));
    admin::deleted(&path, &admin::ask(&gateway, &principal, Request::RemovePlugin { name, version }).await?)
}

async fn page(
    gateway: &Gateway,
    principal: &Principal,
    limit: u32,
    after: Option<String>,
) -> Result<(Vec<PluginInfo>, Option<String>), Problem> {
    match admin::ask(gateway, principal, Request::ListPlugins { limit, after }).await? {
        Answer::Plugins { plugins, next } => Ok((plugins, next)),
        _ => Err(admin::unexpected()),
    }
}
