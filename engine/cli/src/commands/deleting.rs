//! What the commands that delete have in common: they ask before they delete anything else along, and print what was
//! deleted.

use levada_client::{DeleteOptions, Error};
use levada_json::Deletion;
use levada_protocol::{error::ErrorCode, request::Deleted};
use levada_terminal::output::Output;

use super::asking::{self, Question};
use crate::args::DeleteArgs;

/// Deletes, and prints what was deleted. If something else would be deleted with it or needs it, the user is asked on a
/// terminal, and the deletion is forced if they agree.
pub(super) async fn delete(
    output: &Output,
    args: &DeleteArgs,
    kind: &str,
    name: &str,
    ask_engine: impl AsyncFn(DeleteOptions) -> Result<Deleted, Error>,
) -> anyhow::Result<()> {
    let question = Question {
        overruled: &[ErrorCode::TopicInUse, ErrorCode::SubscriptionInUse],
        question: "Delete it all the same?",
        declined: format!("{kind} {name} was not deleted"),
        hint: "y deletes it, and --force does not ask",
    };
    let delete =
        async |force| ask_engine(DeleteOptions { force, with_dead_letters: args.with_dead_letters }).await;
    let gone = asking::unless_refused(output, args.force, &question, delete).await?;
    report(output, kind, name, &gone)
}

/// Prints what was deleted, and which dead letters stay.
pub(super) fn report(output: &Output, kind: &str, name: &str, gone: &Deleted) -> anyhow::Result<()> {
    output.result(&Deletion { deleted: name, gone }, || text(kind, name, gone))?;
    if !output.is_json() && !gone.dead_letters_kept.is_empty() {
        let kept = gone.dead_letters_kept.join(", ");
        output.remark(&format!("dead letters stay: `levada topic delete` deletes {kept}"));
    }
    Ok(())
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
