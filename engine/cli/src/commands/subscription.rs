//! `levada subscription`: makes, shows, changes, moves, pauses, resumes and deletes subscriptions.

use levada_client::{Client, Start};
use levada_protocol::request::{Alarm, LostEvents, SubscriptionInfo, SubscriptionOptions, WaitingFor};
use levada_terminal::{
    Failure,
    choices::order_word,
    output::{self, Output, Rows},
};

use super::{
    attachment::{self, Standing},
    deleting, mismatch, push,
    stored_dead_letters::StoredDeadLetters,
};
use crate::{
    args::{OptionsArgs, SubscriptionAction, SubscriptionArgs, SubscriptionPath},
    client,
};

pub(super) async fn run(output: &Output, args: SubscriptionArgs) -> anyhow::Result<()> {
    client::with_interruptible(&args.client, async |client| act(output, client, &args.action).await).await
}

/// How many events its topic held before the positions at which a subscription begins; none if that cannot be learned, for
/// it has been made.
async fn stored_before(client: &Client, made: &SubscriptionInfo) -> u64 {
    let Ok(topic) = client.describe_topic(made.topic.as_str()).await else { return 0 };
    let before = topic.partitions.iter().zip(&made.positions);
    before.map(|(partition, position)| position.offset.saturating_sub(partition.start)).sum()
}

async fn create(
    output: &Output,
    client: &Client,
    path: &SubscriptionPath,
    options: SubscriptionOptions,
    from: Start,
) -> anyhow::Result<()> {
    let (topic, name) = (path.topic.as_str(), path.name.as_str());
    let made = match client.ensure_subscription(topic, name, options.clone(), from).await {
        Ok(made) => made,
        Err(error) => return Err(mismatch::in_flags(client, (topic, name), &options, error).await),
    };
    let tells = made.created && !output.is_json();
    let passed_over = if tells { stored_before(client, &made.found).await } else { 0 };
    output.result(&super::made(&made), || {
        let at = attachment::positions_text(&made.found.positions);
        if made.created {
            let missed = attachment::missed_text(passed_over);
            format!("created subscription {topic}/{name}, beginning at {at} (partition:offset){missed}")
        } else {
            format!("subscription {topic}/{name}: it exists already, at {at} (partition:offset)")
        }
    })?;
    Ok(())
}

async fn act(output: &Output, client: &Client, action: &SubscriptionAction) -> anyhow::Result<()> {
    match action {
        SubscriptionAction::Create { subscription, from, options } => {
            create(output, client, subscription, options.options(), *from).await?;
        }
        SubscriptionAction::List { topic } => {
            let topic = topic.as_ref().map(|topic| topic.as_str());
            let found = client.list_subscriptions(topic).await?;
            let dead_letters = StoredDeadLetters::shown(output, client, topic).await?;
            output.rows(&found, || table(&found, &dead_letters))?;
            if !output.is_json() && found.iter().any(|found| !found.state.is_running()) {
                output.remark(
                    "`levada subscription describe TOPIC/SUBSCRIPTION` says in full why one is paused, \
                     `levada subscription resume TOPIC/SUBSCRIPTION` continues it",
                );
            }
            if !output.is_json() && found.iter().any(is_unattended) {
                output.remark(
                    "a subscription that nobody consumes holds back what its topic would drop: \
                     `levada subscription delete TOPIC/SUBSCRIPTION` deletes one that nobody needs, \
                     `levada subscription set TOPIC/SUBSCRIPTION --expire-after 7d` has the engine do that",
                );
            }
        }
        SubscriptionAction::Describe { subscription } => {
            let found =
                client.describe_subscription(subscription.topic.as_str(), subscription.name.as_str()).await?;
            if output.is_json() {
                output.json(&found)?;
            } else {
                let dead_letters = StoredDeadLetters::of(client, Some(found.topic.as_str())).await?;
                output.line(&describe(&found, &dead_letters))?;
            }
        }
        SubscriptionAction::Delete { subscription, how } => {
            let (topic, name) = (subscription.topic.as_str(), subscription.name.as_str());
            let delete = async |how| client.delete_subscription(topic, name, how).await;
            deleting::delete(output, how, "subscription", &format!("{topic}/{name}"), delete).await?;
        }
        SubscriptionAction::Set { subscription, options, no_plugins } => {
            set(output, client, subscription, options, *no_plugins).await?;
        }
        SubscriptionAction::Seek { subscription, to, partitions } => {
            let (topic, name) = (subscription.topic.as_str(), subscription.name.as_str());
            let found = client.seek_subscription(topic, name, *to, partitions).await?;
            output.result(&found, || {
                let at = attachment::positions_text(&found.positions);
                format!(
                    "moved subscription {topic}/{name} to {at} (partition:offset), with {} to deliver",
                    output::counted(found.lag, "event")
                )
            })?;
        }
        SubscriptionAction::Pause { subscription } => pause(output, client, subscription).await?,
        SubscriptionAction::Resume { subscription } => resume(output, client, subscription).await?,
        SubscriptionAction::Push(action) => push::act(output, client, action).await?,
    }
    Ok(())
}

async fn pause(output: &Output, client: &Client, path: &SubscriptionPath) -> anyhow::Result<()> {
    let (topic, name) = (path.topic.as_str(), path.name.as_str());
    client.pause_subscription(topic, name).await?;
    let found = client.describe_subscription(topic, name).await?;
    output.result(&found, || {
        format!(
            "paused subscription {topic}/{name}, with {} in flight; \
             `levada subscription resume {topic}/{name}` continues it",
            output::counted(found.in_flight, "event")
        )
    })?;
    Ok(())
}

async fn set(
    output: &Output,
    client: &Client,
    path: &SubscriptionPath,
    options: &OptionsArgs,
    no_plugins: bool,
) -> anyhow::Result<()> {
    let (topic, name) = (path.topic.as_str(), path.name.as_str());
    let mut options = options.options();
    if no_plugins {
        options.chain = Some(Vec::new());
    }
    if options == SubscriptionOptions::default() {
        let message =
            "nothing to change was given, expected an option such as --rate 100 or --max-attempts 5";
        return Err(Failure::usage(message).into());
    }
    let found = client.set_subscription(topic, name, options).await?;
    output.result(&found, || {
        format!("changed subscription {topic}/{name}; `levada subscription describe {topic}/{name}` shows its options")
    })?;
    Ok(())
}

async fn resume(output: &Output, client: &Client, path: &SubscriptionPath) -> anyhow::Result<()> {
    let (topic, name) = (path.topic.as_str(), path.name.as_str());
    let check = async || Ok(standing(&client.describe_subscription(topic, name).await?));
    let resume = async || client.resume_subscription(topic, name).await;
    attachment::resume(output, "subscription", &format!("{topic}/{name}"), check, resume).await
}

fn standing(found: &SubscriptionInfo) -> Standing {
    let mut marks: Vec<u64> = found.positions.iter().map(|position| position.offset).collect();
    marks.extend([found.in_flight, found.dead_lettered, found.redelivered, found.redriven]);
    let idle = match (found.consumers.is_empty(), found.lag + found.redriven) {
        (true, _) => Some("no consumer is attached"),
        (false, 0) => Some("nothing is left to deliver"),
        (false, _) => None,
    };
    Standing { stopped: (!found.state.is_running()).then(|| found.state.clone()), marks, idle }
}

fn table(subscriptions: &[SubscriptionInfo], dead_letters: &StoredDeadLetters) -> Rows {
    let expire = subscriptions.iter().any(|found| found.options.expire_after_ms().is_some());
    let mut headings =
        vec!["subscription", "order", "consumers", "lag", "in flight", "oldest unacked", "dead letters"];
    headings.extend(expire.then_some("expire after"));
    headings.extend(["state", "chain"]);
    let mut rows = Rows::new(&headings);
    for found in subscriptions {
        let options = &found.options;
        let mut cells = vec![
            format!("{}/{}", found.topic, found.name),
            order_word(options.order()).to_owned(),
            consumers_cell(found),
            output::count(found.lag),
            output::count(found.in_flight),
            output::age_ms(found.oldest_unacked_age_ms),
            output::count(dead_letters.count(found.topic.as_str(), found.name.as_str())),
        ];
        if expire {
            cells.push(options.expire_after_ms().map_or_else(|| "-".to_owned(), output::duration_ms));
        }
        cells.extend([output::brief(&found.state.to_string()), attachment::chain_cell(options.chain())]);
        rows.push(cells);
    }
    rows
}

/// How many consumers it has, or for how long none if that is an alarm.
fn consumers_cell(found: &SubscriptionInfo) -> String {
    match unattended(found) {
        Some(without) if is_unattended(found) => format!("none{without} (alarm)"),
        _ => found.consumers.len().to_string(),
    }
}

/// `, for 2d3h`: how long it has had no consumer, in whole seconds, if it has none.
fn unattended(found: &SubscriptionInfo) -> Option<String> {
    found.unattended_for_ms.map(|for_ms| format!(", for {}", output::age_ms(for_ms / 1_000 * 1_000)))
}

/// True if it has had no consumer for so long that this is an alarm.
fn is_unattended(found: &SubscriptionInfo) -> bool {
    found.alarms.contains(&Alarm::Unattended)
}

/// What somebody should look at.
fn alarms(found: &SubscriptionInfo) -> String {
    let text = |alarm: &Alarm| match alarm {
        Alarm::Unattended => {
            let without = unattended(found).unwrap_or_default();
            format!("no consumer is attached{without}; it holds back what its topic would drop")
        }
        Alarm::Unknown => "something that this version does not know".to_owned(),
    };
    match found.alarms.as_slice() {
        [] => "-".to_owned(),
        some => some.iter().map(text).collect::<Vec<_>>().join("; "),
    }
}

/// After how long without a consumer it is deleted, and when that is.
fn expires(found: &SubscriptionInfo) -> String {
    match (found.options.expire_after_ms(), found.unattended_since_ms) {
        (None, _) => "-".to_owned(),
        (Some(after), None) => format!("{} after its last consumer leaves", output::duration_ms(after)),
        (Some(after), Some(since)) => {
            let at = output::time_ms(since.saturating_add(after));
            format!("at {at}, after {} without a consumer, unless one attaches", output::duration_ms(after))
        }
    }
}

/// What it waits for, of which key that is, and until when if that is known.
fn waiting_for(found: &SubscriptionInfo) -> String {
    let waiting = &found.waiting_for;
    let until =
        waiting.until_ms().map_or_else(String::new, |until| format!(", due at {}", output::time_ms(until)));
    let without = match waiting {
        WaitingFor::Consumer => unattended(found).unwrap_or_default(),
        _ => String::new(),
    };
    let key = found.waiting_for_key.as_deref();
    let key = key.map_or_else(String::new, |key| format!("; its key is {}", output::brief(key)));
    format!("{waiting}{without}{until}{key}")
}

fn backoff(waits: &[u32]) -> String {
    if waits.is_empty() {
        return "none".to_owned();
    }
    waits.iter().map(|wait| output::duration_ms((*wait).into())).collect::<Vec<_>>().join(", ")
}

/// How many events were lost, and of each partition which were last.
fn events_lost(found: &SubscriptionInfo) -> String {
    let count = output::count(found.events_lost);
    let range = |lost: &LostEvents| {
        let offsets = match (lost.first, lost.last) {
            (first, last) if first == last => format!("offset {first}"),
            (first, last) => format!("offsets {first} to {last}"),
        };
        let earlier = match lost.earlier {
            0 => String::new(),
            earlier => format!(", and {} before", output::count(earlier)),
        };
        format!("partition {}, {offsets}{earlier}", lost.partition)
    };
    match found.lost.as_slice() {
        [] => count,
        some => format!("{count}: {}", some.iter().map(range).collect::<Vec<_>>().join("; ")),
    }
}

/// The lag, how it moves, and when it is gone.
fn lag(found: &SubscriptionInfo) -> String {
    let lag = output::count(found.lag);
    let (arriving, settling) = (output::rate(found.arriving_per_s), output::rate(found.settling_per_s));
    let when = match found.clears_in_ms {
        _ if found.lag == 0 => return lag,
        Some(clears) => format!("cleared in about {}", output::age_ms(clears.max(1_000) / 1_000 * 1_000)),
        None if found.consumers.is_empty() => "no consumer is attached".to_owned(),
        None => "not shrinking".to_owned(),
    };
    format!("{lag} ({arriving}/s arrive, {settling}/s are done with: {when})")
}

fn describe(found: &SubscriptionInfo, dead_letters: &StoredDeadLetters) -> String {
    let options = &found.options;
    let consumers = match found.consumers.as_slice() {
        [] => unattended(found)
            .map_or_else(|| "-".to_owned(), |without| format!("no consumer is attached{without}")),
        some => some.join(", "),
    };
    let passed_over = match found.passed_over.as_slice() {
        [] => "-".to_owned(),
        some => format!("{} (deliveries timed out again and again)", some.join(", ")),
    };
    output::fields([
        ("subscription", format!("{}/{}", found.topic, found.name)),
        ("made", output::time_ms(found.created_ms)),
        ("state", found.state.to_string()),
        ("waiting for", waiting_for(found)),
        ("push", push::text(found.push.as_deref())),
        ("order", order_word(options.order()).to_owned()),
        ("chain", attachment::chain_lines(options.chain())),
        ("ack timeout", output::duration_ms(options.ack_timeout_ms().into())),
        ("max attempts", options.max_attempts().to_string()),
        ("backoff", backoff(options.backoff_ms())),
        ("max in flight", output::count(options.max_in_flight().into())),
        (
            "rate",
            options
                .rate()
                .map_or_else(|| "-".to_owned(), |rate| format!("{} events/s", output::count(rate.into()))),
        ),
        ("expired", if options.dead_letter_expired() { "dead letters" } else { "passed over" }.to_owned()),
        ("expires", expires(found)),
        ("consumers", consumers),
        ("alarms", alarms(found)),
        ("passed over", passed_over),
        ("positions", attachment::positions_text(&found.positions)),
        ("lag", lag(found)),
        ("redriven", output::count(found.redriven)),
        ("oldest unacked", output::age_ms(found.oldest_unacked_age_ms)),
        ("in flight", output::count(found.in_flight)),
        ("redelivered", output::count(found.redelivered)),
        ("dead letters", dead_letters.text(found.topic.as_str(), found.name.as_str(), found.dead_lettered)),
        ("events lost", events_lost(found)),
        ("events expired", output::count(found.events_expired)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_named_partition_by_partition() {
        let mut found = SubscriptionInfo::new("orders".parse().unwrap(), "s".parse().unwrap());
        assert_eq!(events_lost(&found), "0");
        let lost =
            |partition, first, last, events, earlier| LostEvents { partition, first, last, events, earlier };
        (found.events_lost, found.lost) = (100, vec![lost(0, 0, 99, 100, 0)]);
        assert_eq!(events_lost(&found), "100: partition 0, offsets 0 to 99");
        found.events_lost += 31;
        found.lost.push(lost(2, 40, 40, 31, 30));
        assert_eq!(
            events_lost(&found),
            "131: partition 0, offsets 0 to 99; partition 2, offset 40, and 30 before"
        );
    }

    #[test]
    fn a_table_says_after_how_long_each_expires_if_any_does() {
        let mut found =
            ["a", "b"].map(|name| SubscriptionInfo::new("t".parse().unwrap(), name.parse().unwrap()));
        let rendered = |found: &[SubscriptionInfo]| table(found, &StoredDeadLetters::default()).render();
        assert!(!rendered(&found).contains("EXPIRE"));
        found[1].options.expire_after_ms = Some(7 * 86_400_000);
        let text = rendered(&found);
        let mut lines = text.lines();
        assert!(lines.next().unwrap().contains("DEAD LETTERS  EXPIRE AFTER  STATE"), "{text}");
        let cells: Vec<Option<&str>> = lines.map(|line| line.split_whitespace().nth(7)).collect();
        assert_eq!(cells, [Some("-"), Some("7d")], "{text}");
    }

    #[test]
    fn one_that_nobody_consumes_says_for_how_long_and_when_it_expires_and_from_a_day_on_that_it_is_an_alarm()
    {
        let mut found = SubscriptionInfo::new("orders".parse().unwrap(), "s".parse().unwrap());
        found.waiting_for = WaitingFor::Consumer;
        (found.unattended_since_ms, found.unattended_for_ms) = (Some(86_400_000), Some(3 * 3_600_000 + 999));
        let shown = |found: &SubscriptionInfo| (consumers_cell(found), alarms(found), expires(found));
        let nothing = || "-".to_owned();
        assert_eq!(shown(&found), ("0".to_owned(), nothing(), nothing()));
        assert_eq!(waiting_for(&found), "a consumer: none is attached, for 3h");
        (found.unattended_for_ms, found.alarms) = (Some(51 * 3_600_000), vec![Alarm::Unattended]);
        found.options.expire_after_ms = Some(7 * 86_400_000);
        let expected = [
            "none, for 2d3h (alarm)",
            "no consumer is attached, for 2d3h; it holds back what its topic would drop",
            "at 1970-01-09T00:00:00.000Z, after 7d without a consumer, unless one attaches",
        ];
        let (cell, alarm, expiry) = shown(&found);
        assert_eq!([cell, alarm, expiry], expected);
        found.consumers.push("a".to_owned());
        (found.unattended_since_ms, found.unattended_for_ms, found.alarms) = (None, None, Vec::new());
        let expiry = "7d after its last consumer leaves".to_owned();
        assert_eq!(shown(&found), ("1".to_owned(), nothing(), expiry));
    }
}
