//! `levada subscription push`: sets, changes and ends where a subscription's events are pushed.

use std::path::Path;

use levada_client::{Client, IssuedPush, PushInfo, PushState, SetPush};
use levada_terminal::{
    Failure,
    output::{self, Output},
};
use serde::Serialize;

use crate::args::{PushAction, SubscriptionPath};

pub(super) async fn act(output: &Output, client: &Client, action: &PushAction) -> anyhow::Result<()> {
    let SubscriptionPath { topic, name } = action.subscription();
    let set = |url: &Option<String>| SetPush::new(topic.clone(), name.clone(), url.clone());
    match action {
        PushAction::Set { url, secret_file, max_in_flight, timeout, .. } => {
            let secret = read(secret_file.as_deref())?;
            if url.is_none() && secret.is_none() && max_in_flight.is_none() && timeout.is_none() {
                let message = "nothing to set was given, expected --url, or an option such as --timeout 15s";
                return Err(Failure::usage(message).into());
            }
            let set = SetPush { secret, max_in_flight: *max_in_flight, timeout_ms: *timeout, ..set(url) };
            report(output, &client.set_push(set).await?, (topic.as_str(), name.as_str()))
        }
        PushAction::Rotate { secret_file, keep, .. } => {
            let secret = read(secret_file.as_deref())?;
            let new_secret = secret.is_none();
            let set = SetPush { secret, new_secret, previous_for_ms: Some(keep.0), ..set(&None) };
            report(output, &client.set_push(set).await?, (topic.as_str(), name.as_str()))
        }
        PushAction::Remove { .. } => {
            client.remove_push(topic.as_str(), name.as_str()).await?;
            let removed = Removed { topic: topic.as_str(), subscription: name.as_str(), removed: true };
            Ok(output.result(&removed, || format!("subscription {topic}/{name} is not pushed any more"))?)
        }
    }
}

/// What is said of a push that was removed.
#[derive(Serialize)]
struct Removed<'a> {
    topic: &'a str,
    subscription: &'a str,
    removed: bool,
}

/// The secret in a file, without what surrounds it.
fn read(file: Option<&Path>) -> anyhow::Result<Option<levada_protocol::push_secret::PushSecret>> {
    let Some(file) = file else { return Ok(None) };
    let text = std::fs::read_to_string(file).map_err(|error| Failure::unreadable(file, &error))?;
    let secret = text.trim().parse();
    let secret = secret.map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    Ok(Some(secret))
}

/// Prints what was set, and the secret if the engine has made one.
fn report(output: &Output, issued: &IssuedPush, (topic, name): (&str, &str)) -> anyhow::Result<()> {
    let push = &issued.push;
    let until = push.previous_until_ms.map(output::time_ms);
    let until =
        until.map_or_else(String::new, |until| format!("; the secret before signs as well until {until}"));
    let what = format!("subscription {topic}/{name} is pushed to {}{until}", push.url);
    let Some(secret) = &issued.secret else {
        return Ok(output.result(issued, || what)?);
    };
    output.remark(&format!("{what}; its secret is shown this once:"));
    // The secret alone is the result, also with --quiet: it is not known otherwise.
    Ok(if output.is_json() { output.json(issued) } else { output.line(&secret.reveal()) }?)
}

/// Where a subscription is pushed and how that gets on, in a line.
pub(super) fn text(push: Option<&PushInfo>) -> String {
    let Some(push) = push else { return "-".to_owned() };
    let failed = push.last_failure.as_ref().filter(|_| push.state != PushState::Active);
    let failed = failed.map_or_else(String::new, |failure| {
        format!(", at {}: {}", output::time_ms(failure.at_ms), output::brief(&failure.message))
    });
    format!(
        "{}: {}{failed} ({} delivered, {} failed)",
        push.url,
        push.state.as_str(),
        output::count(push.delivered),
        output::count(push.failed)
    )
}

#[cfg(test)]
mod tests {
    use levada_client::PushFailure;

    use super::*;

    #[test]
    fn a_line_says_where_to_and_what_is_wrong_now() {
        assert_eq!(text(None), "-");
        let mut push = PushInfo::new("https://a");
        (push.state, push.delivered, push.failed) = (PushState::Failing, 1_200, 1);
        push.last_failure = Some(PushFailure { at_ms: 0, message: "status 500".to_owned() });
        let line = "https://a: failing, at 1970-01-01T00:00:00.000Z: status 500 (1,200 delivered, 1 failed)";
        assert_eq!(text(Some(&push)), line);
        push.state = PushState::Active;
        assert_eq!(text(Some(&push)), "https://a: active (1,200 delivered, 1 failed)");
    }
}
