//! What happens around every request: its id, who asks, whether it may come from there, and the body of its problem.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    extract::Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
            ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
        },
    },
    response::{IntoResponse, Response},
};
use levada_broker::{Broker, Principal};
use levada_protocol::error::ErrorCode;
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Instrument as _, instrument::Instrumented};

use crate::{
    host,
    peer::Peer,
    principal::{Caller, principal_of},
    problem::{self, Problem},
    state::Gateway,
};

/// The header that a request's id comes and goes in.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id in bytes that is taken from a request.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// What every request passes before its route, and every response behind it. A service of its own and no function that is made one:
/// that would put each request on the heap three more times.
#[derive(Debug, Clone)]
pub(crate) struct Entry(pub(crate) Gateway);

/// A route behind the entry.
#[derive(Debug, Clone)]
pub(crate) struct Entered<S> {
    gateway: Gateway,
    route: S,
}

/// The response to come.
#[derive(Debug)]
pub(crate) struct Answering<F> {
    answer: Answer<F>,
    marks: Option<Marks>,
}

#[derive(Debug)]
enum Answer<F> {
    /// The request does not get as far as its route.
    Made(Option<Response>),
    Routed(Instrumented<F>),
}

/// What a response is told that it is to.
#[derive(Debug)]
struct Marks {
    id: HeaderValue,
    origin: Option<HeaderValue>,
}

impl<S> Layer<S> for Entry {
    type Service = Entered<S>;

    fn layer(&self, route: S) -> Entered<S> {
        Entered { gateway: self.0.clone(), route }
    }
}

impl<S> Service<Request> for Entered<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.route.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let id = request_id(&self.gateway, request.headers());
        let origin = allowed_origin(&self.gateway, request.headers());
        // A browser asks without saying for whom, and is told nothing but that it may ask.
        let answer = if origin.is_some() && is_preflight(&request) {
            Answer::Made(Some(preflight(request.headers())))
        } else {
            match admit(&self.gateway, &mut request, &id) {
                Err(problem) => Answer::Made(Some(problem.into_response())),
                Ok(()) => {
                    let (method, path) = (request.method(), request.uri().path());
                    let span =
                        tracing::debug_span!("request", id = id.to_str().unwrap_or_default(), %method, path);
                    Answer::Routed(self.route.call(request).instrument(span))
                }
            }
        };
        Answering { answer, marks: Some(Marks { id, origin }) }
    }
}

impl<F: Future<Output = Result<Response, Infallible>> + Unpin> Future for Answering<F> {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { answer, marks } = &mut *self;
        let made = match answer {
            Answer::Made(response) => response.take(),
            Answer::Routed(route) => Some(ready!(Pin::new(route).poll(context))?),
        };
        let (mut response, marks) = made.zip(marks.take()).expect("a response is awaited once");
        marks.mark(&mut response);
        Poll::Ready(Ok(response))
    }
}

impl Marks {
    fn mark(self, response: &mut Response) {
        let Self { id, origin } = self;
        problem::render(response, id.to_str().unwrap_or_default());
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, id);
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(VARY, HeaderValue::from_static("origin"));
            let exposed = HeaderValue::from_static("levada-next, levada-complete, x-request-id, retry-after");
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

/// For pages that are not the gateway's: the refusal, if who asks with these headers, over such a connection, may not browse everything.
pub fn refusal_to_browse_all(broker: &Broker, headers: &HeaderMap, peer: Option<&Peer>) -> Option<Response> {
    let checked =
        principal_of(broker, headers, peer).and_then(|principal| Ok(broker.check_browses_all(&principal)?));
    let mut response = checked.err()?.into_response();
    problem::render(&mut response, "");
    Some(response)
}

/// Finds who asks; everything behind this has its principal.
fn admit(gateway: &Gateway, request: &mut Request, id: &HeaderValue) -> Result<(), Problem> {
    let principal = principal_of(gateway.broker(), request.headers(), request.extensions().get())?;
    if principal.has_shown_a_certificate() {
        host::check_origin(request.headers(), &gateway.config().cors_origins)?;
    }
    if principal == Principal::Local {
        if !gateway.config().serves_local {
            let detail = "the engine has no principals, and serves nobody but those on its own machine";
            return Err(Problem::new(ErrorCode::Unauthenticated, detail));
        }
        host::check_local(request.headers(), request.uri(), &gateway.config().cors_origins)?;
    }
    let principal = principal.for_request(|| id.to_str().unwrap_or_default().to_owned());
    request.extensions_mut().insert(Caller(principal));
    Ok(())
}

/// The id that the request brought if it is short and visible, else one of our own.
fn request_id(gateway: &Gateway, headers: &HeaderMap) -> HeaderValue {
    let is_sane = |id: &&HeaderValue| {
        let id = id.as_bytes();
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
    };
    match headers.get(REQUEST_ID).filter(is_sane) {
        Some(id) => id.clone(),
        None => HeaderValue::try_from(gateway.unique()).expect("hexadecimal digits are visible"),
    }
}

fn allowed_origin(gateway: &Gateway, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    host::is_allowed(origin.as_bytes(), &gateway.config().cors_origins).then(|| origin.clone())
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The browser's question whether a page may call.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, DELETE"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    response
}
