//! Topics: shown, made, changed and deleted.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use levada_broker::{Error, Principal};
use levada_protocol::{
    error::ErrorCode,
    ids::TopicName,
    request::{Request, Response as Answer, TopicChanges, TopicInfo, TopicSettings},
};

use crate::{
    admin::{self, DeleteParams, ListParams},
    json_body,
    params::{Parameters, Topic},
    principal::Caller,
    problem::{Problem, ProblemDetails},
    problems::{Problems, Refusals},
    state::Gateway,
};

/// List topics
///
/// Those that the caller may browse, in order of name, as `levada topic list` prints them.
#[utoipa::path(
    get,
    path = "/v1/topics",
    tag = "administration",
    params(ListParams),
    responses(
        (status = 200, description = "The topics", headers(("Levada-Next" = String, description = "The `after` of the request that goes on; absent if this was all")),
            body = [Object], example = json!([{"name": "orders", "id": 1, "settings": {"partitions": 4}, "partitions": []}])),
        Refusals,
    ),
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Parameters(asked): Parameters<ListParams>,
) -> Result<Response, Problem> {
    let request = Request::ListTopics { limit: asked.limit.unwrap_or(0), after: asked.after };
    match admin::ask(&gateway, &principal, request).await? {
        Answer::Topics { topics, next } => admin::listed(&topics, next),
        _ => Err(admin::unexpected()),
    }
}

/// Describe a topic
///
/// Its settings and state, as `levada topic describe` prints them.
#[utoipa::path(
    get,
    path = "/v1/topics/{topic}",
    tag = "administration",
    params(("topic" = String, Path, description = "The topic's name", example = "orders")),
    responses(
        (status = 200, description = "The topic", body = Object, example = json!({"name": "orders", "id": 1, "settings": {"partitions": 4}, "partitions": [{"partition": 0, "start": 0, "end": 17, "bytes": 2100}]})),
        Refusals,
    ),
)]
pub(crate) async fn describe(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Topic(name): Topic,
) -> Result<Response, Problem> {
    let found = found(admin::ask(&gateway, &principal, Request::DescribeTopic { name }).await?)?;
    Ok(Json(found).into_response())
}

/// Make or change a topic
///
/// The body holds settings, as a description shows them. A topic that is made has the default for those that are absent; of one
/// that exists, they stay as they are. The number of partitions cannot be changed. The same request again changes nothing.
#[utoipa::path(
    put,
    path = "/v1/topics/{topic}",
    tag = "administration",
    params(("topic" = String, Path, description = "The topic's name", example = "orders")),
    request_body(content = Object, content_type = "application/json", example = json!({"partitions": 4, "retain_for_ms": 86_400_000})),
    responses(
        (status = 200, description = "It was there, and has these settings", body = Object, example = json!({"name": "orders", "id": 1, "settings": {"partitions": 4}, "created": false})),
        (status = 201, description = "It was made", body = Object, example = json!({"name": "orders", "id": 1, "settings": {"partitions": 4}, "created": true})),
        Problems,
    ),
)]
pub(crate) async fn put(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Topic(name): Topic,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let changes: TopicChanges = json_body::receive(&gateway, &headers, body).await?;
    match set(&gateway, &principal, &name, &changes).await {
        Err(error) if error.code() == ErrorCode::TopicNotFound => {}
        changed => return Ok(admin::made(&found(changed?)?, false)),
    }
    let settings = changes.of(&TopicSettings::default());
    let request = Request::CreateTopic { name: name.clone(), settings };
    match admin::ask(&gateway, &principal, request).await {
        // Somebody else has made it in the meantime.
        Err(error) if error.code() == ErrorCode::TopicExists => {
            Ok(admin::made(&found(set(&gateway, &principal, &name, &changes).await?)?, false))
        }
        made => Ok(admin::made(&found(made?)?, true)),
    }
}

/// Delete a topic
///
/// With its subscriptions and the routes from it, if that is forced.
#[utoipa::path(
    delete,
    path = "/v1/topics/{topic}",
    tag = "administration",
    params(("topic" = String, Path, description = "The topic's name", example = "orders"), DeleteParams),
    responses(
        (status = 200, description = "What is gone", body = Object, example = json!({"deleted": "orders", "topics": ["orders"], "subscriptions": [], "routes": [], "plugins": [], "dead_letters_kept": [], "count": 1})),
        (status = 409, description = "`TOPIC_IN_USE`: something would go with it, or needs it", body = ProblemDetails, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn delete(
    State(gateway): State<Gateway>,
    Caller(principal): Caller,
    Topic(name): Topic,
    Parameters(DeleteParams { force, with_dead_letters }): Parameters<DeleteParams>,
) -> Result<Response, Problem> {
    let request = Request::DeleteTopic { name: name.clone(), force, with_dead_letters };
    admin::deleted(name.as_str(), &admin::ask(&gateway, &principal, request).await?)
}

async fn set(
    gateway: &Gateway,
    principal: &Principal,
    name: &TopicName,
    changes: &TopicChanges,
) -> Result<Answer, Error> {
    let request = Request::SetTopic { name: name.clone(), settings: changes.clone() };
    admin::ask(gateway, principal, request).await
}

fn found(answer: Answer) -> Result<TopicInfo, Problem> {
    match answer {
        Answer::Topic(found) => Ok(found),
        _ => Err(admin::unexpected()),
    }
}
