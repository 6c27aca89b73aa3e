//! `levada route`: makes, shows, resumes and deletes routes.

use levada_client::Client;
use levada_protocol::{
    error::ErrorCode,
    ids::RouteName,
    request::{RouteInfo, RouteSpec},
};
use levada_terminal::{
    Failure,
    output::{self, Output, Rows},
};

use super::{
    attachment::{self, Standing},
    deleting,
    stored_dead_letters::StoredDeadLetters,
};
use crate::{
    args::{RouteAction, RouteArgs},
    client,
};

pub(super) async fn run(output: &Output, args: RouteArgs) -> anyhow::Result<()> {
    client::with_interruptible(&args.client, async |client| act(output, client, args.action).await).await
}

async fn act(output: &Output, client: &Client, action: RouteAction) -> anyhow::Result<()> {
    match action {
        RouteAction::Create { route, from, to, chain, start } => {
            let spec = RouteSpec { chain: chain.stages(), start, ..RouteSpec::new(route, from, to) };
            let made = client.ensure_route(spec).await?;
            output.result(&super::made(&made), || {
                let spec = &made.found.spec;
                let what =
                    format!("route {}: {} -> {}", spec.name, spec.from, attachment::topics_text(&spec.to));
                if made.created { format!("created {what}") } else { format!("{what}: it exists already") }
            })?;
        }
        RouteAction::List => {
            let routes = client.list_routes().await?;
            let dead_letters = StoredDeadLetters::shown(output, client, None).await?;
            output.rows(&routes, || table(&routes, &dead_letters))?;
            if !output.is_json() && routes.iter().any(|route| !route.state.is_running()) {
                output.remark(
                    "`levada route describe ROUTE` says in full why one is paused or blocked; a paused one continues \
                     with `levada route resume ROUTE`, a blocked one once its target takes events",
                );
            }
        }
        RouteAction::Describe { route } => {
            let found = find(client, &route).await?;
            if output.is_json() {
                output.json(&found)?;
            } else {
                let dead_letters = StoredDeadLetters::of(client, Some(found.spec.from.as_str())).await?;
                output.line(&describe(&found, &dead_letters))?;
            }
        }
        RouteAction::Delete { route, how } => {
            let delete = async |how| client.delete_route(route.as_str(), how).await;
            deleting::delete(output, &how, "route", route.as_str(), delete).await?;
        }
        RouteAction::Resume { route } => {
            let check = async || Ok(standing(&find(client, &route).await?));
            let resume = async || client.resume_route(route.as_str()).await;
            attachment::resume(output, "route", route.as_str(), check, resume).await?;
        }
    }
    Ok(())
}

async fn find(client: &Client, route: &RouteName) -> anyhow::Result<RouteInfo> {
    let found = client.list_routes().await?.into_iter().find(|found| found.spec.name == *route);
    found.ok_or_else(|| Failure::new(ErrorCode::RouteNotFound, format!("there is no route {route}")).into())
}

fn standing(found: &RouteInfo) -> Standing {
    let mut marks: Vec<u64> = found.positions.iter().map(|position| position.offset).collect();
    marks.push(found.dead_lettered);
    Standing {
        stopped: (!found.state.is_running()).then(|| found.state.clone()),
        marks,
        idle: (found.lag == 0).then_some("nothing is left to take"),
    }
}

/// The name that its dead letters have.
fn dead_letters_name(route: &RouteInfo) -> String {
    format!("route-{}", route.spec.name)
}

fn table(routes: &[RouteInfo], dead_letters: &StoredDeadLetters) -> Rows {
    let mut rows = Rows::new(&["route", "from", "to", "lag", "dead letters", "state", "chain"]);
    for route in routes {
        rows.push([
            route.spec.name.to_string(),
            route.spec.from.to_string(),
            attachment::topics_text(&route.spec.to),
            output::count(route.lag),
            output::count(dead_letters.count(route.spec.from.as_str(), &dead_letters_name(route))),
            output::brief(&route.state.to_string()),
            attachment::chain_cell(&route.spec.chain),
        ]);
    }
    rows
}

fn describe(found: &RouteInfo, dead_letters: &StoredDeadLetters) -> String {
    output::fields([
        ("route", found.spec.name.to_string()),
        ("made", output::time_ms(found.created_ms)),
        ("state", found.state.to_string()),
        ("from", found.spec.from.to_string()),
        ("to", attachment::topics_text(&found.spec.to)),
        ("chain", attachment::chain_lines(&found.spec.chain)),
        ("positions", attachment::positions_text(&found.positions)),
        ("lag", output::count(found.lag)),
        (
            "dead letters",
            dead_letters.text(found.spec.from.as_str(), &dead_letters_name(found), found.dead_lettered),
        ),
        ("events expired", output::count(found.events_expired)),
    ])
}
