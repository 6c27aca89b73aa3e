//! What subscriptions and routes have in common as attachments of plugins: how a chain is shown, and the check that a
//! resumed one runs. Knows no requests.

use std::time::Duration;

use levada_protocol::{
    error::ErrorCode,
    ids::TopicName,
    request::{OnError, Position, RunState, StageSpec},
};
use levada_terminal::{
    Failure,
    output::{self, Output},
};
use serde::Serialize;
use tokio::time::sleep;

use super::stops;

/// Checks after which a resumed attachment must have made progress: about two seconds.
const CHECKS: u32 = 40;
/// The pause between two checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// A chain for a table: stages as they are typed, in order.
pub(super) fn chain_cell(chain: &[StageSpec]) -> String {
    if chain.is_empty() {
        return "-".to_owned();
    }
    output::brief(&chain.iter().map(typed).collect::<Vec<_>>().join(" | "))
}

/// A chain in full: a stage a line, with what holds for it.
pub(super) fn chain_lines(chain: &[StageSpec]) -> String {
    let line = |stage: &StageSpec| {
        format!(
            "{} (on error {}, {} retries, deadline {}, memory {})",
            typed(stage),
            on_error_word(stage.on_error()),
            stage.retries(),
            output::duration_ms(stage.deadline_ms().into()),
            output::bytes(stage.memory_bytes_max()),
        )
    };
    match chain.is_empty() {
        true => "-".to_owned(),
        false => chain.iter().map(line).collect::<Vec<_>>().join("\n"),
    }
}

fn typed(stage: &StageSpec) -> String {
    match stage.config.as_str() {
        "{}" => stage.plugin.clone(),
        config => format!("{}:{config}", stage.plugin),
    }
}

/// What happens to an event that a plugin fails on, as it is typed.
pub(super) fn on_error_word(on_error: OnError) -> &'static str {
    match on_error {
        OnError::DeadLetter => "dead-letter",
        OnError::Skip => "skip",
        OnError::Pause => "pause",
        OnError::Pass => "pass",
    }
}

/// Names of topics with commas between.
pub(super) fn topics_text(topics: &[TopicName]) -> String {
    topics.iter().map(TopicName::as_str).collect::<Vec<_>>().join(", ")
}

/// The end of a sentence that says where a subscription begins, if its topic holds events before that.
pub(super) fn missed_text(stored_before: u64) -> String {
    match stored_before {
        0 => String::new(),
        stored => {
            let events = if stored == 1 { "event" } else { "events" };
            format!("; --from earliest would have read {} stored {events} more", output::count(stored))
        }
    }
}

/// Positions as `PARTITION:OFFSET`.
pub(super) fn positions_text(positions: &[Position]) -> String {
    let text = |position: &Position| format!("{}:{}", position.partition, position.offset);
    positions.iter().map(text).collect::<Vec<_>>().join(" ")
}

/// Whether a subscription or route runs and makes progress.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// How it is stopped; `None` while it runs.
    pub(super) stopped: Option<RunState>,
    /// Counters of which one changes when it makes progress.
    pub(super) marks: Vec<u64>,
    /// Nothing would change now even if it runs, and why.
    pub(super) idle: Option<&'static str>,
}

/// The result of resuming an attachment.
#[derive(Debug, Serialize)]
struct Resumed<'a> {
    resumed: &'a str,
    /// False if it ran before.
    was_stopped: bool,
}

/// Resumes an attachment, checks that it runs, and prints the result.
///
/// # Errors
/// `CHAIN_PAUSED` if it is still paused, or again.
pub(super) async fn resume(
    output: &Output,
    kind: &str,
    name: &str,
    mut check: impl AsyncFnMut() -> anyhow::Result<Standing>,
    resume: impl AsyncFnOnce() -> Result<(), levada_client::Error>,
) -> anyhow::Result<()> {
    let before = check().await?;
    resume().await?;
    let was_stopped = before.stopped.is_some();
    let after = if was_stopped { settle(&before, CHECKS, check).await? } else { before };
    if let Some(stopped) = after.stopped {
        let message = format!("{kind} {name} was resumed, and is {stopped}");
        return Err(Failure::new(ErrorCode::ChainPaused, message).hint(stops::cure(&stopped)).into());
    }
    output.result(&Resumed { resumed: name, was_stopped }, || match (was_stopped, after.idle) {
        (false, _) => format!("{kind} {name} was not paused"),
        (true, None) => format!("resumed {kind} {name}"),
        (true, Some(idle)) => format!("resumed {kind} {name}; {idle}"),
    })?;
    Ok(())
}

/// The standing once it makes progress, or at the last of `checks` checks.
async fn settle(
    before: &Standing,
    checks: u32,
    mut check: impl AsyncFnMut() -> anyhow::Result<Standing>,
) -> anyhow::Result<Standing> {
    let mut left = checks;
    loop {
        let now = check().await?;
        left = left.saturating_sub(1);
        let goes_on = now.stopped.is_none() && (now.idle.is_some() || now.marks != before.marks);
        if goes_on || left == 0 {
            return Ok(now);
        }
        sleep(CHECK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(is_running: bool, mark: u64) -> Standing {
        let blocked = RunState::Blocked { target: None, code: ErrorCode::StorageFull };
        Standing { stopped: (!is_running).then_some(blocked), marks: vec![mark], idle: None }
    }

    #[tokio::test]
    async fn an_attachment_that_runs_for_a_moment_and_stops_again_counts_as_stopped() {
        let before = standing(false, 0);
        let mut checks = 0;
        let settled = settle(&before, 2, async || {
            checks += 1;
            Ok(if checks == 1 { standing(true, 0) } else { standing(false, 0) })
        });
        assert_eq!(settled.await.unwrap(), before);
    }

    #[tokio::test]
    async fn an_attachment_that_moves_counts_as_resumed() {
        let (before, mut checks) = (standing(false, 0), 0);
        let settled = settle(&before, 3, async || {
            checks += 1;
            Ok(if checks < 3 { standing(false, 0) } else { standing(true, 1) })
        });
        assert_eq!(settled.await.unwrap(), standing(true, 1));
    }

    #[test]
    fn a_chain_is_brief_in_tables_and_whole_in_descriptions() {
        let config = format!("{{\"where\":\n\"{}\"}}", "x".repeat(100));
        let stage = StageSpec { plugin: "p".to_owned(), config: config.clone(), ..StageSpec::default() };
        let cell = chain_cell(std::slice::from_ref(&stage));
        assert!(cell.ends_with('…') && !cell.contains('\n'), "{cell}");
        let lines = chain_lines(&[stage]);
        assert!(lines.contains(&config) && lines.contains("deadline 100ms, memory 32.0 MiB"), "{lines}");
    }
}
