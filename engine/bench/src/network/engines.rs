//! Engines to measure, and principals of theirs.

use std::path::Path;

use anyhow::Context as _;
use levada_client::{Client, CreatePrincipal, NewToken, Quotas};
use levada_rig::Sandbox;

/// The engine's command: as `levada serve`, with a receiver of pushes on this machine.
const SERVE: [&str; 6] =
    ["serve", "--http", "127.0.0.1:0", "--until-stdin-closes", "--push-allow", "127.0.0.1/32"];

/// An engine of its own: what one measure leaves stored is not there for the next.
pub(super) async fn start(dir: &Path) -> anyhow::Result<Sandbox> {
    Sandbox::start_command(&SERVE, "levada-bench-", dir, None).await
}

/// Makes a principal with these permissions and returns its token. The first one must be an administrator.
pub(super) async fn principal(
    client: &Client,
    name: &str,
    permissions: &[&str],
    quotas: Quotas,
) -> anyhow::Result<String> {
    let permissions = permissions.iter().map(|line| line.parse()).collect::<Result<_, _>>()?;
    let token = Some(NewToken::default());
    let made = CreatePrincipal { name: name.parse()?, permissions, certificates: Vec::new(), quotas, token };
    let (_, issued) = client.create_principal(made).await?;
    Ok(issued.context("the engine issued no token")?.token)
}
