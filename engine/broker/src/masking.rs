//! Masks: what one who reads may see of a topic's events, by the permissions at the time of each read.
//!
//! Nothing here knows readers, searches or frames. Events keep their offsets; one that a plugin drops is not there for the reader,
//! and one on which a plugin fails is withheld and counted, so that a faulty plugin never shows what it should hide.

use std::{ops::Range, sync::Arc};

use levada_chain::{Input, Source};
use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId, TopicName},
    request::StageSpec,
};
use levada_stage::AttachmentPoint;

use crate::{
    access::{Principal, View},
    authentication::Authentication,
    catalogue::Catalogue,
    chains::{Attached, Chains},
    error::Error,
    frames::LogSlice,
    shard::ShardHandle,
};

/// The mask of one reader, if it has one now.
pub(crate) struct Masking {
    principal: Principal,
    topic: TopicName,
    shard: ShardHandle,
    authentication: Arc<Authentication>,
    chains: Chains,
    current: Option<Current>,
}

/// A mask as it is attached.
struct Current {
    view: Vec<StageSpec>,
    /// The ids of the plugins' versions, in order: a name without a version means another one once that is deployed.
    versions: Vec<u64>,
    attached: Attached,
}

/// What is shown of a stretch.
pub(crate) struct Masked {
    pub(crate) slices: Vec<LogSlice>,
    /// The first offset that did not pass the mask yet.
    pub(crate) reached: Offset,
    /// Events on which a plugin failed.
    pub(crate) withheld: u64,
}

impl Masking {
    /// For one who reads a topic; nothing is attached yet.
    pub(crate) fn new(
        principal: &Principal,
        topic: &TopicName,
        shard: ShardHandle,
        authentication: Arc<Authentication>,
        chains: Chains,
    ) -> Self {
        let (principal, topic) = (principal.clone(), topic.clone());
        Self { principal, topic, shard, authentication, chains, current: None }
    }

    /// Attaches what the permissions name now, unless it is attached already; true if there is a mask.
    ///
    /// # Errors
    /// That the topic may not be read, or `PLUGIN_NOT_FOUND` or another refusal of a plugin.
    pub(crate) async fn refresh(&mut self) -> Result<bool, Error> {
        let View::Masked(view) = self.authentication.view(&self.principal, &self.topic)? else {
            self.current = None;
            return Ok(false);
        };
        let catalogue = self.shard.catalogue();
        let versions = versions(&catalogue, &view)?;
        let is_current = |current: &Current| current.view == view && current.versions == versions;
        if !self.current.as_ref().is_some_and(is_current) {
            let (topic, point) = (self.topic.as_str(), AttachmentPoint::Read);
            let attached = self.chains.attach(&catalogue, &view, topic, point, self.chains.trial()).await?;
            self.current = Some(Current { view, versions, attached });
        }
        Ok(true)
    }

    /// Passes the events of `range` in these pieces through the mask. Not all may have passed: see [`Masked::reached`].
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Masking::refresh`]; `PLUGIN_FAILED` if the plugins fail so often that they are left alone for a while.
    pub(crate) async fn apply(
        &mut self,
        partition: PartitionId,
        range: Range<Offset>,
        pieces: Vec<LogSlice>,
    ) -> Result<Masked, Error> {
        self.refresh().await?;
        let end = pieces.last().map_or(range.start, LogSlice::end).min(range.end);
        let Some(Current { attached, .. }) = &self.current else {
            return Ok(Masked { slices: pieces, reached: end, withheld: 0 });
        };
        let sources = pieces.into_iter().map(Source::of).collect::<Result<Vec<_>, _>>()?;
        let input = Input { partition, offsets: range.start..end, sources: &sources };
        let filtered = attached.chain.filter(input).await;
        let progress = filtered.progress;
        match progress.paused {
            Some(paused) if progress.reached <= range.start => Err(self.paused(&paused.why)),
            _ => Ok(Masked {
                slices: filtered.passed,
                reached: progress.reached,
                withheld: progress.dead_letters.len() as u64,
            }),
        }
    }

    /// What a plugin says may quote what it is to hide, and is for the log alone.
    fn paused(&self, why: &str) -> Error {
        let (topic, principal) = (&self.topic, self.principal.as_str());
        tracing::warn!(%topic, principal, why, "a mask is left alone for a while");
        let message = format!(
            "topic {topic} cannot be read now: principal {principal} reads it through plugins, and they fail too often or cannot run; \
             try again later"
        );
        Error::refused(ErrorCode::PluginFailed, message)
    }
}

/// The ids of the versions that these stages mean now.
fn versions(catalogue: &Catalogue, view: &[StageSpec]) -> Result<Vec<u64>, Error> {
    view.iter().map(|stage| Ok(catalogue.plugins.resolve(&stage.plugin)?.id)).collect()
}
