//! How the writer takes fragments: checked whole, then applied whole.

use std::sync::Arc;

use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, Timestamp},
    request::TopicSettings,
};

use super::{
    command::{AppendTarget, FragmentAppend, FragmentRefused, Owner, RouteStep},
    group::Group,
    writer::Writer,
};
use crate::{
    catalogue::Change,
    error::Error,
    rows::{RouteCursor, Row},
};

/// How long dead letters are kept at least: 30 days, not the topic's own time.
const DEAD_LETTERS_RETAIN_MS: u64 = 30 * 24 * 3_600_000;

impl Writer {
    /// Decides whether the fragment can be applied. Changes nothing.
    pub(super) fn check_fragment(
        &self,
        owner: Owner,
        step: Option<RouteStep>,
        appends: &[FragmentAppend],
    ) -> Result<(), FragmentRefused> {
        match owner {
            Owner::Subscription(id) => {
                if !self.state.catalogue.subscriptions.values().any(|record| record.id == id.0) {
                    return Err(FragmentRefused::Gone);
                }
            }
            // The writer has a cursor for every partition of the routes that exist, and for no others.
            Owner::Route(id, partition) => match self.state.route_cursors.get(&(id, partition)) {
                None => return Err(FragmentRefused::Gone),
                Some(cursor) if step.is_some_and(|step| step.from != *cursor) => {
                    return Err(FragmentRefused::Moved { cursor: *cursor });
                }
                Some(_) => {}
            },
        }
        for append in appends {
            let AppendTarget::Topic(id) = &append.target else { continue };
            let Some(topic) = self.state.topics.get(id) else {
                let error = Error::refused(ErrorCode::TopicNotFound, "the target was deleted");
                return Err(FragmentRefused::Blocked { target: format!("topic {id}"), error });
            };
            if let Some(refusal) = self.guard.refusal() {
                let target = topic.name.to_string();
                return Err(FragmentRefused::Blocked { target, error: Error::Refused(refusal) });
            }
        }
        Ok(())
    }

    pub(super) fn step_route(&mut self, owner: Owner, step: RouteStep, group: &mut Group) {
        let Owner::Route(id, partition) = owner else { return };
        self.state.route_cursors.insert((id, partition), step.to);
        group.ops.push(RouteCursor(step.to).put(&(id, partition)));
    }

    pub(super) fn append_fragment(
        &mut self,
        append: FragmentAppend,
        group: &mut Group,
        now: Timestamp,
    ) -> Offset {
        let topic = match &append.target {
            AppendTarget::Topic(id) => {
                Arc::clone(self.state.topics.get(id).expect("checked with the fragment"))
            }
            AppendTarget::DeadLetters(name) => {
                if !self.state.catalogue.topics.contains_key(name) {
                    let settings =
                        TopicSettings { retain_for_ms: DEAD_LETTERS_RETAIN_MS, ..TopicSettings::default() };
                    let change =
                        Change::CreateTopic { name: name.clone(), settings, owner: "engine".to_owned() };
                    // The records limit must not stop a dead letter: it is part of what was accepted long ago.
                    let decided = change.decide(&self.state.catalogue, now, &self.budget, usize::MAX);
                    self.take_decided(decided.expect("an absent topic of legal settings can be made"), group);
                }
                Arc::clone(&self.state.catalogue.topics[name])
            }
        };
        self.lay(&topic, append.partition, append.batch, append.hops, group, now)
    }
}
