//! `levada route`: makes, shows, resumes and deletes routes.

use levada_protocol::request::{RouteInfo, RouteSpec};

use super::subscription::chain_text;
use crate::{
    args::{RouteAction, RouteArgs},
    client,
    output::{self, Output, Rows},
};

pub(super) async fn run(output: &Output, args: RouteArgs) -> anyhow::Result<()> {
    let client = client::connect(&args.client).await?;
    match args.action {
        RouteAction::Create { route, from, to, chain, start } => {
            let spec = RouteSpec {
                name: route.as_str().to_owned(),
                from: from.as_str().to_owned(),
                to: to.iter().map(|topic| topic.as_str().to_owned()).collect(),
                chain: chain.stages(),
                start,
            };
            let made = client.create_route(spec).await?;
            output.result(&made, || {
                let spec = &made.spec;
                format!("created route {}: {} -> {}", spec.name, spec.from, spec.to.join(", "))
            })?;
        }
        RouteAction::List => {
            let routes = client.list_routes().await?;
            output.rows(&routes, || table(&routes))?;
        }
        RouteAction::Delete { route } => {
            client.delete_route(route.as_str()).await?;
            let done = serde_json::json!({ "deleted": route.as_str() });
            output.result(&done, || format!("deleted route {route}"))?;
        }
        RouteAction::Resume { route } => {
            client.resume_route(route.as_str()).await?;
            let done = serde_json::json!({ "resumed": route.as_str() });
            output.result(&done, || format!("resumed route {route}"))?;
        }
    }
    client.close().await;
    Ok(())
}

fn table(routes: &[RouteInfo]) -> Rows {
    let mut rows = Rows::new(&["route", "from", "to", "lag", "dead letters", "state", "chain"]);
    for route in routes {
        rows.push([
            route.spec.name.clone(),
            route.spec.from.clone(),
            route.spec.to.join(", "),
            output::count(route.lag),
            output::count(route.dead_lettered),
            route.state.clone(),
            chain_text(&route.spec.chain),
        ]);
    }
    rows
}
