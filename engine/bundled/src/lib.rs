//! The plugins that the binary `levada` carries, compiled by the build script, and how they come to an engine.

use bytes::Bytes;
use levada_client::{Client, Error};
use levada_protocol::request::PluginInfo;
use sha2::{Digest as _, Sha256};

/// Name of the plugin that filters by a condition over JSON fields and headers.
pub const JSON_FILTER: &str = "json-filter";
/// Name of the plugin that keeps, drops and renames JSON fields.
pub const JSON_PROJECT: &str = "json-project";
/// Name of the plugin that chooses a target topic by a JSON field.
pub const CONTENT_ROUTER: &str = "content-router";
/// Name of the plugin that does next to nothing.
pub const SAMPLE: &str = "sample";

macro_rules! artefact {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".wasm"))
    };
}

const BUNDLED: [(&str, &[u8]); 4] = [
    (JSON_FILTER, artefact!("json-filter")),
    (JSON_PROJECT, artefact!("json-project")),
    (CONTENT_ROUTER, artefact!("content-router")),
    (SAMPLE, artefact!("sample")),
];

/// Deploys all of them; a plugin whose newest version is this very artefact stays as it is. Returns each one, and
/// whether it was deployed now.
///
/// # Errors
/// The first refusal of the engine; the plugins before it are deployed.
pub async fn deploy_all(client: &Client) -> Result<Vec<(PluginInfo, bool)>, Error> {
    let there = client.list_plugins().await?;
    let mut plugins = Vec::with_capacity(BUNDLED.len());
    for (name, artefact) in BUNDLED {
        let newest = there.iter().filter(|plugin| plugin.name == name).max_by_key(|plugin| plugin.version);
        plugins.push(match newest {
            Some(newest) if newest.sha256 == hash(artefact) => {
                (PluginInfo { already_deployed: true, ..newest.clone() }, false)
            }
            _ => (client.deploy_plugin(name, Bytes::from_static(artefact), None).await?, true),
        });
    }
    Ok(plugins)
}

fn hash(artefact: &[u8]) -> String {
    Sha256::digest(artefact).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bundled_plugin_is_a_component() {
        for (name, artefact) in BUNDLED {
            // The magic, then version 13 of layer 1: a component, not a core module.
            assert_eq!(artefact.get(..8), Some(&b"\0asm\x0d\0\x01\0"[..]), "{name}");
        }
    }
}
