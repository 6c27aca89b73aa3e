//! `levada plugin`: deploys, lists and removes plugins.

use std::{fs, path::Path};

use bytes::Bytes;
use levada_client::Client;
use levada_protocol::{error::ErrorCode, limits::ARTEFACT_BYTES_MAX, request::PluginInfo};
use serde::Serialize;

use super::deploy_bundled;
use crate::{
    args::{PluginAction, PluginArgs},
    client,
    failure::Failure,
    output::{self, Output, Rows},
};

pub(super) async fn run(output: &Output, args: PluginArgs) -> anyhow::Result<()> {
    client::with_interruptible(&args.client, async |client| act(output, client, &args.action).await).await
}

async fn act(output: &Output, client: &Client, action: &PluginAction) -> anyhow::Result<()> {
    match action {
        PluginAction::Deploy { bundled: true, .. } => {
            for (plugin, deployed) in deploy_bundled(client).await? {
                tell(output, &plugin, deployed)?;
            }
        }
        PluginAction::Deploy { name, file, config, .. } => {
            let (Some(name), Some(file)) = (name, file) else {
                anyhow::bail!(Failure::usage("expected a name and a file, or --bundled"));
            };
            let plugin = deploy_file(client, name.as_str(), file, config.clone()).await?;
            tell(output, &plugin, !plugin.already_deployed)?;
            if plugin.already_deployed {
                tell_newer(output, client, &plugin).await?;
            }
        }
        PluginAction::List => {
            let plugins = client.list_plugins().await?;
            output.rows(&plugins, || table(&plugins))?;
        }
        PluginAction::Remove { plugin: (name, version) } => {
            client.remove_plugin(name.as_str(), *version).await?;
            let what = version.map_or_else(|| name.to_string(), |version| format!("{name}@{version}"));
            let done = serde_json::json!({ "removed": what });
            output.result(&done, || format!("removed plugin {what}"))?;
        }
    }
    Ok(())
}

async fn deploy_file(
    client: &Client,
    name: &str,
    file: &Path,
    config: Option<String>,
) -> anyhow::Result<PluginInfo> {
    let unreadable = |error| Failure::unreadable(file, &error);
    let size = fs::metadata(file).map_err(unreadable)?.len();
    if usize::try_from(size).map_or(true, |size| size > ARTEFACT_BYTES_MAX) {
        let message = format!("{} has {size} bytes, a plugin may have {ARTEFACT_BYTES_MAX}", file.display());
        anyhow::bail!(Failure::new(ErrorCode::PluginTooLarge, message));
    }
    let artefact = Bytes::from(fs::read(file).map_err(unreadable)?);
    Ok(client.deploy_plugin(name, artefact, config).await?)
}

/// A plugin version, and whether it is new.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    plugin: &'a PluginInfo,
    /// False if this version was this very artefact already.
    deployed: bool,
}

fn tell(output: &Output, plugin: &PluginInfo, deployed: bool) -> anyhow::Result<()> {
    Ok(output.result(&Told { plugin, deployed }, || {
        let what = format!("{}@{} ({})", plugin.name, plugin.version, output::bytes(plugin.size));
        if deployed { format!("deployed plugin {what}") } else { format!("already deployed as {what}") }
    })?)
}

/// Says that places use a newer version, if there is one.
async fn tell_newer(output: &Output, client: &Client, plugin: &PluginInfo) -> anyhow::Result<()> {
    let all = client.list_plugins().await?;
    let newer = all.iter().filter(|other| other.name == plugin.name && other.version > plugin.version);
    if let Some(newest) = newer.max_by_key(|other| other.version) {
        let newest = format!("{}@{}", newest.name, newest.version);
        output.remark(&format!(
            "{newest} is newer, and used where no version is named; `levada plugin remove {newest}` takes it away"
        ));
    }
    Ok(())
}

fn table(plugins: &[PluginInfo]) -> Rows {
    let headings = ["plugin", "interface", "size", "events in", "ns/event", "errors", "deployed", "used by"];
    let mut rows = Rows::new(&headings);
    for plugin in plugins {
        #[expect(clippy::cast_precision_loss, reason = "an average for people")]
        let per_event = (plugin.events_in > 0).then(|| plugin.seconds * 1e9 / plugin.events_in as f64);
        rows.push([
            format!("{}@{}", plugin.name, plugin.version),
            plugin.interface.clone(),
            output::bytes(plugin.size),
            output::count(plugin.events_in),
            per_event.map_or_else(|| "-".to_owned(), |nanos| format!("{nanos:.0}")),
            output::count(plugin.errors),
            output::time_ms(plugin.deployed_ms),
            if plugin.used_by.is_empty() { "-".to_owned() } else { plugin.used_by.join(", ") },
        ]);
    }
    rows
}
