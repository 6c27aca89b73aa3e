//! What may quote events in descriptions, and who gets it: whoever may only browse learns that something fails, and nothing that a
//! payload or key holds.

use levada_protocol::{
    access::{Action, Requirement, Scope, reading_unmasked},
    request::{PauseReason, PluginInfo, RouteInfo, RunState, SubscriptionInfo, WaitingFor},
};

use crate::access::Viewer;

/// What stands for the words of a plugin.
const WITHHELD: &str =
    "a plugin failed; what it says may quote events, and is for those who may consume or manage this";

/// A subscription's description for this viewer.
pub(super) fn of_subscription(viewer: &Viewer, info: SubscriptionInfo) -> SubscriptionInfo {
    if shows_events(viewer, &info) {
        return info;
    }
    let of = Scope::Subscription(info.topic.clone(), info.name.clone());
    let info = SubscriptionInfo { waiting_for_key: None, ..info };
    if viewer.may(&(Action::Manage, of)) || !has_words(&info.state) {
        return info;
    }
    let waiting_for = match info.waiting_for {
        WaitingFor::Resume { .. } => WaitingFor::Resume { why: WITHHELD.to_owned() },
        WaitingFor::Recovery { .. } => WaitingFor::Recovery { why: WITHHELD.to_owned() },
        other => other,
    };
    SubscriptionInfo { state: without_words(info.state), waiting_for, ..info }
}

/// True if the viewer may see the keys of the events that a subscription waits for.
pub(super) fn shows_events(viewer: &Viewer, info: &SubscriptionInfo) -> bool {
    let consuming: Requirement =
        (Action::Subscribe, Scope::Subscription(info.topic.clone(), info.name.clone()));
    viewer.may(&consuming) || viewer.may(&reading_unmasked(&info.topic))
}

/// A route's description for this viewer.
pub(super) fn of_route(viewer: &Viewer, info: RouteInfo) -> RouteInfo {
    let managing = (Action::Manage, Scope::Route(info.spec.name.clone()));
    if viewer.may(&managing) || viewer.may(&reading_unmasked(&info.spec.from)) {
        return info;
    }
    RouteInfo { state: without_words(info.state), ..info }
}

/// A plugin's description for this viewer.
pub(super) fn of_plugin(viewer: &Viewer, info: PluginInfo) -> PluginInfo {
    let deploying = (Action::Deploy, Scope::Plugin(info.name.clone()));
    let last_error = info.last_error.filter(|_| viewer.may(&deploying));
    PluginInfo { last_error, ..info }
}

/// True if a plugin has said something that is in it.
fn has_words(state: &RunState) -> bool {
    let RunState::Paused { reason } = state else { return false };
    matches!(reason, PauseReason::Plugin { .. } | PauseReason::Breaker { .. })
}

/// The same without what a plugin has said.
fn without_words(state: RunState) -> RunState {
    let reason = match state {
        RunState::Paused { reason: PauseReason::Plugin { .. } } => {
            PauseReason::Plugin { message: WITHHELD.to_owned() }
        }
        RunState::Paused { reason: PauseReason::Breaker { .. } } => {
            PauseReason::Breaker { message: WITHHELD.to_owned() }
        }
        other => return other,
    };
    RunState::Paused { reason }
}
