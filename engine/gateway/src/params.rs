//! What a path and a query say.

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::request::Parts,
};
use levada_json::time;
use levada_protocol::{
    error::ErrorCode,
    ids::{InvalidName, SubscriptionName, TopicName},
    request::{Position, Start},
};
use serde::de::DeserializeOwned;
use std::{str::FromStr, time::Duration};

use crate::{positions, problem::Problem};

/// The topic of a path.
#[derive(Debug)]
pub(crate) struct Topic(pub(crate) TopicName);

impl<S: Send + Sync> FromRequestParts<S> for Topic {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|error| Problem::new(ErrorCode::InvalidName, error.body_text()))?;
        let topic = TopicName::parse_any(&name);
        topic.map(Self).map_err(|error| Problem::new(ErrorCode::InvalidName, error.to_string()))
    }
}

/// The topic and subscription of a path.
#[derive(Debug)]
pub(crate) struct Subscription(pub(crate) TopicName, pub(crate) SubscriptionName);

impl<S: Send + Sync> FromRequestParts<S> for Subscription {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let invalid = |what: String| Problem::new(ErrorCode::InvalidName, what);
        let Path((topic, name)) = path.map_err(|error| invalid(error.body_text()))?;
        let topic = TopicName::parse_any(&topic).map_err(|error| invalid(error.to_string()))?;
        let name = name.parse().map_err(|error: InvalidName| invalid(error.to_string()))?;
        Ok(Self(topic, name))
    }
}

/// The only name of a path.
#[derive(Debug)]
pub(crate) struct Named<N>(pub(crate) N);

impl<N: FromStr<Err = InvalidName>, S: Send + Sync> FromRequestParts<S> for Named<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|error| Problem::new(ErrorCode::InvalidName, error.body_text()))?;
        name.parse().map(Self).map_err(|error| Problem::new(ErrorCode::InvalidName, error.to_string()))
    }
}

/// The parameters of a query; unknown ones are refused.
#[derive(Debug)]
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(query)| Self(query)).map_err(|error| Problem::invalid(error.body_text()))
    }
}

/// Where reading begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Begin {
    /// The same in every partition.
    Start(Start),
    /// These offsets; partitions that are not named begin at the earliest event.
    Positions(Vec<Position>),
}

impl Begin {
    /// Reads `earliest`, `latest`, an offset, positions such as `0:17,1:42`, or a time.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let start = match text {
            "earliest" => Start::Earliest,
            "latest" => Start::Latest,
            _ if let Ok(offset) = text.parse() => Start::Offset(offset),
            _ if let Some(found) = positions::parse(text) => return Ok(Self::Positions(found)),
            _ => match time::parse(text) {
                Ok(time) => Start::Time(time.0),
                Err(_) => {
                    return Err(Problem::invalid(format!(
                        "expected earliest, latest, an offset, positions such as 0:17,1:42, or a time such as \
                         2026-01-31T12:00:00Z as from, got {text:?}"
                    )));
                }
            },
        };
        Ok(Self::Start(start))
    }
}

/// A list of partitions, such as `0,3`.
pub(crate) fn partitions(text: &str) -> Result<Vec<u16>, Problem> {
    let numbers: Result<Vec<u16>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    numbers.map_err(|_| {
        Problem::invalid(format!("expected partitions such as 0 or 0,3 as partition, got {text:?}"))
    })
}

/// A duration such as `500ms` or `20s`.
pub(crate) fn duration(name: &str, text: &str) -> Result<Duration, Problem> {
    humantime::parse_duration(text).map_err(|error| {
        Problem::invalid(format!("expected a duration such as 500ms or 5s as {name}, got {text:?}: {error}"))
    })
}
