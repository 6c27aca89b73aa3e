//! Real components, compiled once a run from the guest crates.

use std::{
    collections::HashMap,
    path::Path,
    sync::{LazyLock, Mutex, PoisonError},
};

use bytes::Bytes;
use levada_client::{Client, OnError, StageSpec};

use super::package;

/// The component of a guest crate, by its folder under the repository's root.
pub(crate) fn component(folder: &'static str) -> Bytes {
    static BUILT: LazyLock<Mutex<HashMap<&'static str, Bytes>>> = LazyLock::new(Mutex::default);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let build = || {
        let root = package().join("..");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
        let path = levada_plugin_build::build(root.join(folder), target).expect("the guest compiles");
        Bytes::from(std::fs::read(path).expect("the component is there"))
    };
    built.entry(folder).or_insert_with(build).clone()
}

/// Deploys a guest under a name.
pub(crate) async fn deploy(client: &Client, name: &str, folder: &'static str) {
    let component = tokio::task::spawn_blocking(move || component(folder));
    let component = component.await.expect("building does not panic");
    client.deploy_plugin(name, component, None).await.expect("the plugin is accepted");
}

/// Deploys the guest that does whatever an event asks for.
pub(crate) async fn deploy_hostile(client: &Client) {
    deploy(client, "hostile", "tests/guests/hostile").await;
}

/// A stage with this configuration.
pub(crate) fn stage(plugin: &str, config: &str) -> StageSpec {
    StageSpec { plugin: plugin.to_owned(), config: config.to_owned(), ..StageSpec::default() }
}

/// The hostile guest, with what happens to an event that it fails on; no retries.
pub(crate) fn hostile(on_error: OnError) -> StageSpec {
    StageSpec { on_error: Some(on_error), retries: Some(0), ..stage("hostile", "{}") }
}
