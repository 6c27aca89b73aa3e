//! Requests about routes.

use std::sync::Arc;

use levada_protocol::{
    access::Scope,
    error::ErrorCode,
    ids::{RouteId, RouteName},
    limits::ROUTE_TARGETS_MAX,
    request::{Response, RouteSpec, StageSpec},
};
use levada_stage::AttachmentPoint;

use super::{pages::Page, quotes};
use crate::{
    access::{Principal, Viewer},
    broker::Broker,
    catalogue::{Catalogue, Change},
    error::Error,
    log::blocking,
    route::RouteHandle,
};

impl Broker {
    pub(super) async fn create_route(
        &self,
        principal: &Principal,
        spec: RouteSpec,
    ) -> Result<Response, Error> {
        let chain = spec.chain.into_iter().map(StageSpec::with_defaults).collect();
        let spec = RouteSpec { chain, ..spec };
        let name = spec.name.clone();
        if spec.to.is_empty() || spec.to.len() > ROUTE_TARGETS_MAX {
            let message =
                format!("the route has {} targets, expected 1 to {ROUTE_TARGETS_MAX}", spec.to.len());
            return Err(Error::refused(ErrorCode::InvalidArgument, message));
        }
        for target in &spec.to {
            if target.is_internal() {
                let message = format!("topic {target} is the engine's own and no target");
                return Err(Error::refused(ErrorCode::InvalidArgument, message));
            }
        }
        let catalogue = self.inner.shard.catalogue();
        let source = spec.from.clone();
        catalogue.topic(&source)?;
        self.try_chain(&catalogue, &spec.chain, &source, AttachmentPoint::Route).await?;
        let (broker, by) = (self.clone(), principal.actor());
        let id = self
            .to_the_end(async move {
                let _changing = broker.inner.changing.lock().await;
                let shard = &broker.inner.shard;
                let positions = broker.positions(&shard.topic(&source)?, spec.start).await?;
                let of = name.clone();
                let owner = by.principal.clone();
                shard.change(by, Change::CreateRoute { spec, name: of, positions, owner }).await?;
                let record = Arc::clone(shard.catalogue().route(&name)?);
                let (broker, created) = (broker.clone(), Arc::clone(&record));
                blocking(move || broker.match_route(&broker.inner.shard.catalogue(), &created)).await?;
                Ok(RouteId(record.id))
            })
            .await?;
        let handle = self.inner.owner_tasks.route(id);
        handle.map(|handle| Response::Route(handle.info())).ok_or(Error::ShuttingDown)
    }

    pub(super) fn list_routes(
        &self,
        viewer: &Viewer,
        limit: u32,
        after: Option<&str>,
    ) -> Result<Response, Error> {
        let after = after.map(str::parse::<RouteName>).transpose()?;
        let name = |route: &RouteHandle| route.record().spec.name.clone();
        let mut routes = self.inner.owner_tasks.routes();
        routes.retain(|route| after.as_ref().is_none_or(|after| name(route) > *after));
        routes.retain(|route| viewer.sees(&Scope::Route(name(route))));
        routes.sort_by_cached_key(name);
        let mut page = Page::new(limit);
        for route in &routes {
            if !page.add(name(route), quotes::of_route(viewer, route.info())) {
                break;
            }
        }
        let (routes, next) = page.finish();
        Ok(Response::Routes { routes, next })
    }

    pub(super) fn resume_route(&self, catalogue: &Catalogue, name: &RouteName) -> Result<Response, Error> {
        let record = catalogue.route(name)?;
        if let Some(handle) = self.inner.owner_tasks.route(RouteId(record.id)) {
            handle.resume();
        }
        Ok(Response::Done)
    }
}
