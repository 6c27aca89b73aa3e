//! What the commands that delete have in common: they ask before they delete anything else along, and print what was
//! deleted.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use levada_client::{DeleteOptions, Error};
use levada_protocol::{error::ErrorCode, request::Deleted};
use levada_terminal::{Failure, output::Output};
use serde::Serialize;

use crate::args::DeleteArgs;

/// A deletion as it is printed.
#[derive(Serialize)]
struct Printed<'a> {
    /// What was named.
    deleted: &'a str,
    #[serde(flatten)]
    gone: &'a Deleted,
}

/// Deletes, and prints what was deleted. If something else would be deleted with it or needs it, the user is asked on a
/// terminal, and the deletion is forced if they agree.
pub(super) async fn delete(
    output: &Output,
    args: &DeleteArgs,
    kind: &str,
    name: &str,
    ask_engine: impl AsyncFn(DeleteOptions) -> Result<Deleted, Error>,
) -> anyhow::Result<()> {
    let options = DeleteOptions { force: args.force, with_dead_letters: args.with_dead_letters };
    let mut shown: Option<String> = None;
    loop {
        match ask_engine(options).await {
            Err(refused) if !options.force && is_in_use(refused.code()) && asks(output) => {
                let refusal = refused.to_string();
                // Only what the user agreed to is deleted: it may be more by now.
                if shown.as_ref() == Some(&refusal) {
                    let gone = ask_engine(DeleteOptions { force: true, ..options }).await?;
                    return report(output, kind, name, &gone);
                }
                if !confirmed(&refusal, "Delete it all the same?").await? {
                    let message = format!("{kind} {name} was not deleted");
                    return Err(Failure::new(refused.code(), message)
                        .hint("y deletes it, and --force does not ask")
                        .into());
                }
                shown = Some(refusal);
            }
            other => return report(output, kind, name, &other?),
        }
    }
}

/// Prints what was deleted, and which dead letters stay.
pub(super) fn report(output: &Output, kind: &str, name: &str, gone: &Deleted) -> anyhow::Result<()> {
    output.result(&Printed { deleted: name, gone }, || text(kind, name, gone))?;
    if !output.is_json() && !gone.dead_letters_kept.is_empty() {
        let kept = gone.dead_letters_kept.join(", ");
        output.remark(&format!("dead letters stay: `levada topic delete` deletes {kept}"));
    }
    Ok(())
}

fn is_in_use(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::TopicInUse | ErrorCode::SubscriptionInUse)
}

/// True if a person can be asked.
pub(super) fn asks(output: &Output) -> bool {
    !output.is_json() && io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks whether to continue; anything but a yes is a no.
pub(super) async fn confirmed(refusal: &str, question: &str) -> anyhow::Result<bool> {
    let question = format!("{refusal}\n{question} [y/N] ");
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = String::new();
        write!(io::stderr(), "{question}")?;
        io::stdin().lock().read_line(&mut answer).map(|_| answer)
    });
    Ok(is_yes(&answer.await??))
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes"].iter().any(|yes| answer.trim().eq_ignore_ascii_case(yes))
}

fn text(kind: &str, name: &str, gone: &Deleted) -> String {
    let along = |kind: &str, names: &[String]| {
        let others: Vec<&str> = names.iter().map(String::as_str).filter(|gone| *gone != name).collect();
        let plural = if others.len() == 1 { "" } else { "s" };
        (!others.is_empty()).then(|| format!("{kind}{plural} {}", others.join(", ")))
    };
    let lists = [
        along("version", &gone.plugins),
        along("subscription", &gone.subscriptions),
        along("route", if kind == "route" { &[] } else { &gone.routes }),
        along("topic", if kind == "topic" { &[] } else { &gone.topics }),
        along("dead-letter topic", if kind == "topic" { &gone.topics } else { &[] }),
    ];
    let mut lists: Vec<String> = lists.into_iter().flatten().collect();
    // A response names some of each kind, and counts all.
    let named = gone.topics.len() + gone.subscriptions.len() + gone.routes.len() + gone.plugins.len();
    let more = gone.count.saturating_sub(named as u64);
    if more > 0 {
        lists.push(format!("{more} more"));
    }
    match lists.is_empty() {
        true => format!("deleted {kind} {name}"),
        false => format!("deleted {kind} {name} with {}", lists.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, yes) in
            [("y\n", true), (" Yes \n", true), ("\n", false), ("n\n", false), ("yea", false), ("", false)]
        {
            assert_eq!(is_yes(answer), yes, "{answer:?}");
        }
    }

    #[test]
    fn what_went_along_is_named() {
        let texts = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let gone = Deleted {
            topics: texts(&["dlq.orders.s", "orders"]),
            subscriptions: texts(&["orders/s", "orders/t"]),
            routes: texts(&["r"]),
            count: 5,
            ..Deleted::default()
        };
        let expected = "deleted topic orders with subscriptions orders/s, orders/t and route r and dead-letter topic dlq.orders.s";
        assert_eq!(text("topic", "orders", &gone), expected);
        let alone = Deleted { subscriptions: texts(&["orders/s"]), count: 1, ..Deleted::default() };
        assert_eq!(text("subscription", "orders/s", &alone), "deleted subscription orders/s");
    }
}
