//! Requests about plugins: deploy, list, remove.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use levada_protocol::{
    access::Scope,
    error::ErrorCode,
    ids::PluginName,
    limits::ARTEFACT_BYTES_MAX,
    request::{PluginInfo, Response, StageSpec},
};
use levada_stage::{Artefact, AttachError, AttachSpec, AttachmentPoint, Inspected, Stage, StageStats};

use super::{
    deleting::gone,
    pages::{self, Page},
    quotes,
};
use crate::{
    access::{Principal, Viewer},
    artefacts::{hex, unhex},
    broker::Broker,
    catalogue::{Catalogue, Change},
    error::Error,
    rows::PluginRecord,
};

/// Attachments that a plugin's description names at most.
const USED_BY_MAX: usize = 1_000;

impl Broker {
    pub(super) async fn deploy_plugin(
        &self,
        principal: &Principal,
        name: PluginName,
        size: u64,
        config: Option<String>,
        artefact: Option<Bytes>,
    ) -> Result<Response, Error> {
        let artefact = artefact.unwrap_or_default();
        if artefact.len() > ARTEFACT_BYTES_MAX {
            let message =
                format!("the artefact is {} bytes, the limit is {ARTEFACT_BYTES_MAX}", artefact.len());
            return Err(Error::refused(ErrorCode::PluginTooLarge, message));
        }
        if artefact.len() as u64 != size {
            let message = format!("the artefact is {} bytes, {size} were announced", artefact.len());
            return Err(Error::refused(ErrorCode::Malformed, message));
        }
        let inspected = self.inner.chains.plugins().inspect(artefact.clone()).await;
        let inspected = inspected.map_err(|error| refused(&name, &error))?;
        if let Some(config) = config {
            self.try_config(&name, config, artefact.clone()).await?;
        }
        let (broker, owner) = (self.clone(), principal.clone());
        self.to_the_end(async move { broker.store_plugin(name, owner, artefact, inspected).await }).await
    }

    /// Attaches an artefact and drops it: a configuration that it refuses is refused before anything is stored.
    async fn try_config(&self, name: &PluginName, config: String, artefact: Bytes) -> Result<(), Error> {
        let at = AttachmentPoint::Subscription;
        self.try_attach(name, config, at, Artefact::Bytes(artefact)).await.map(drop)
    }

    async fn try_attach(
        &self,
        name: &PluginName,
        config: String,
        point: AttachmentPoint,
        artefact: Artefact,
    ) -> Result<Arc<dyn Stage>, Error> {
        let stage = StageSpec { config, ..StageSpec::default() };
        let attach = AttachSpec {
            plugin: name.to_string(),
            version: 0,
            config: stage.config.clone(),
            topic: String::new(),
            point,
            point_id: self.inner.chains.trial(),
            deadline: Duration::from_millis(u64::from(stage.deadline_ms())),
            memory_bytes_max: stage.memory_bytes_max(),
        };
        let tried = self.inner.chains.plugins().attach(artefact, attach).await;
        tried.map_err(|error| refused(name, &error))
    }

    /// Attaches an artefact as it would be to what principals read through the active version of this plugin: one that these cannot use
    /// would keep all of them from reading.
    async fn try_masks_of(&self, name: &PluginName, artefact: impl Fn() -> Artefact) -> Result<(), Error> {
        let configs = self.inner.shard.catalogue().identities.mask_configs_of(name);
        for config in configs {
            let tried = self.try_attach(name, config, AttachmentPoint::Read, artefact()).await;
            let tried = tried.and_then(|stage| {
                if !stage.is_stateful() {
                    return Ok(());
                }
                let message = format!("plugin {name}: it keeps state, of which what is read has none");
                Err(Error::refused(ErrorCode::PluginInitRefused, message))
            });
            tried.map_err(|error| {
                let message =
                    format!("permissions to read through it (`read … via {name}`) cannot use it: {error}");
                Error::refused(error.code(), message)
            })?;
        }
        Ok(())
    }

    /// Stores an artefact that was inspected as the plugin's newest version.
    async fn store_plugin(
        &self,
        name: PluginName,
        owner: Principal,
        artefact: Bytes,
        inspected: Inspected,
    ) -> Result<Response, Error> {
        let sha256 = hex(&inspected.sha256);
        let size = artefact.len() as u64;
        let _changing = self.inner.changing.lock().await;
        let artefacts = self.inner.chains.artefacts().clone();
        let (stored, hash) = (artefact.clone(), sha256.clone());
        crate::log::blocking(move || artefacts.store(&hash, &stored)).await?;
        let catalogue = self.inner.shard.catalogue();
        let mut versions = catalogue.plugins.versions(&name);
        if let Some(known) = versions.rfind(|record| record.sha256 == sha256) {
            let info = plugin_info(&self.viewer(&owner, &catalogue), known, StageStats::default());
            return Ok(Response::Plugin(PluginInfo { already_deployed: true, ..info }));
        }
        if let Err(error) = self.try_masks_of(&name, || Artefact::Bytes(artefact.clone())).await {
            self.drop_unnamed(&sha256);
            return Err(error);
        }
        let change = Change::DeployPlugin {
            name: name.clone(),
            sha256: sha256.clone(),
            size,
            interface: inspected.interface.as_str().to_owned(),
            owner: owner.as_str().to_owned(),
        };
        if let Err(error) = self.inner.shard.change(owner.actor(), change).await {
            // If the outcome is unknown, the catalogue may name it.
            if error.has_no_side_effects() {
                self.drop_unnamed(&sha256);
            }
            return Err(error);
        }
        self.reattach(|plugin| plugin == name.as_str());
        let catalogue = self.inner.shard.catalogue();
        let record = catalogue.plugins.resolve(name.as_str())?;
        Ok(Response::Plugin(plugin_info(&self.viewer(&owner, &catalogue), record, StageStats::default())))
    }

    pub(super) fn list_plugins(
        &self,
        viewer: &Viewer,
        limit: u32,
        after: Option<&str>,
    ) -> Result<Response, Error> {
        let catalogue = viewer.catalogue();
        let after = after.map(plugin_version).transpose()?;
        let mut stats: HashMap<u64, StageStats> = HashMap::new();
        let subscriptions = self.inner.owner_tasks.subscriptions();
        let routes = self.inner.owner_tasks.routes();
        let costs_of_all = subscriptions.iter().map(crate::subscription::SubscriptionHandle::costs);
        let costs_of_all = costs_of_all.chain(routes.iter().map(crate::route::RouteHandle::costs));
        for (plugin, more) in
            costs_of_all.map(levada_chain::Costs::read).chain([self.inner.masks.costs()]).flatten()
        {
            stats.entry(plugin).or_default().add(&more);
        }
        let describe = |record: &Arc<PluginRecord>| {
            plugin_info(viewer, record, stats.get(&record.id).cloned().unwrap_or_default())
        };
        let mut page = Page::new(limit);
        for (name, record) in catalogue.plugins.after(after) {
            if !viewer.sees(&Scope::Plugin(name.clone())) {
                continue;
            }
            if !page.add(format_args!("{name}@{}", record.version), describe(record)) {
                break;
            }
        }
        let (plugins, next) = page.finish();
        Ok(Response::Plugins { plugins, next })
    }

    pub(super) async fn remove_plugin(
        &self,
        principal: &Principal,
        name: PluginName,
        version: Option<u32>,
    ) -> Result<Response, Error> {
        let (broker, principal) = (self.clone(), principal.clone());
        self.to_the_end(async move {
            let _changing = broker.inner.changing.lock().await;
            let before = broker.inner.shard.catalogue();
            let viewer = broker.viewer(&principal, &before);
            let going = before.removable(&name, version, |attachment| viewer.sees(attachment))?;
            broker.try_masks_without(&before, &name, &going).await?;
            let by = principal.actor();
            broker.inner.shard.change(by, Change::RemovePlugin { name: name.clone(), version }).await?;
            for record in before.plugins.versions(&name) {
                if version.is_none_or(|version| version == record.version) {
                    broker.drop_unnamed(&record.sha256);
                }
            }
            broker.reattach(|plugin| plugin == name.as_str());
            Ok(Response::Deleted(gone(&before, &broker.inner.shard.catalogue())))
        })
        .await
    }

    /// If the active version goes, masks go on with the newest that is left: tries that.
    async fn try_masks_without(
        &self,
        before: &Catalogue,
        name: &PluginName,
        gone: &[Arc<PluginRecord>],
    ) -> Result<(), Error> {
        let is_gone = |record: &PluginRecord| gone.iter().any(|gone| gone.id == record.id);
        let left = before.plugins.versions(name).rfind(|record| !is_gone(record));
        let Some(left) = left.filter(|_| gone.iter().any(|gone| before.plugins.is_active(gone))) else {
            return Ok(());
        };
        let Some(sha256) = unhex(&left.sha256) else { return Ok(()) };
        let path = self.inner.chains.artefacts().path(&left.sha256);
        self.try_masks_of(name, || Artefact::File { path: path.clone(), sha256 }).await
    }

    /// Removes an artefact's file unless the catalogue names it.
    fn drop_unnamed(&self, sha256: &str) {
        let catalogue = self.inner.shard.catalogue();
        if !catalogue.plugins.after(None).any(|(_, record)| record.sha256 == sha256) {
            self.inner.chains.artefacts().remove(sha256);
        }
    }
}

fn refused(name: &PluginName, error: &AttachError) -> Error {
    Error::refused(error.code(), format!("plugin {name}: {error}"))
}

/// The version that `name@version` means.
fn plugin_version(path: &str) -> Result<(PluginName, u32), Error> {
    let parts = path.split_once('@').and_then(|(name, version)| Some((name, version.parse().ok()?)));
    let (name, version) = parts.ok_or_else(|| pages::not_a_page(path, "plugin@version"))?;
    Ok((name.parse()?, version))
}

fn plugin_info(viewer: &Viewer, record: &PluginRecord, stats: StageStats) -> PluginInfo {
    let catalogue = viewer.catalogue();
    let mut used_by = catalogue.users_of(record, |attachment| viewer.sees(attachment));
    let used_by_count = used_by.len() as u64;
    used_by.truncate(USED_BY_MAX);
    let info = PluginInfo {
        name: record.name.clone(),
        version: record.version,
        active: catalogue.plugins.is_active(record),
        sha256: record.sha256.clone(),
        size: record.size,
        interface: record.interface.as_str().into(),
        deployed_ms: record.created_ms,
        already_deployed: false,
        used_by,
        used_by_count,
        calls: stats.calls,
        events_in: stats.events,
        errors: stats.errors,
        last_error: stats.last_error.map(|error| error.text.to_string()),
        memory_restarts: stats.memory_restarts,
        seconds: stats.busy.as_secs_f64(),
    };
    quotes::of_plugin(viewer, info)
}
