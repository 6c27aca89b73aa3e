//! The routes as each connection gets them: with who is at the other end.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use axum::{
    Router, extract::Request, response::Response, routing::future::RouteFuture, serve::IncomingStream,
};
use levada_gateway::Peer;
use tower_service::Service;

use super::connections::Limited;

/// All routes, made once: by itself a router is copied for each connection, with all of its routes.
#[derive(Debug, Clone)]
pub(super) struct Routes(Router);

/// The routes of one connection.
#[derive(Debug, Clone)]
pub(super) struct RoutesOf {
    routes: Router,
    peer: Peer,
}

impl Routes {
    pub(super) fn new(routes: Router) -> Self {
        Self(routes.with_state(()))
    }
}

impl Service<IncomingStream<'_, Limited>> for Routes {
    type Response = RoutesOf;
    type Error = Infallible;
    type Future = Ready<Result<RoutesOf, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, connection: IncomingStream<'_, Limited>) -> Self::Future {
        ready(Ok(RoutesOf { routes: self.0.clone(), peer: connection.io().peer().clone() }))
    }
}

impl Service<Request> for RoutesOf {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.routes, context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        self.routes.call(request)
    }
}
