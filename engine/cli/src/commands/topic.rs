//! `levada topic`: makes, shows, changes and deletes topics.

use levada_client::{Client, Error};
use levada_protocol::{
    error::ErrorCode,
    request::{BacklogInfo, DedupInfo, OnFull, Retain, TopicChanges, TopicInfo, TopicSettings},
};
use levada_terminal::{
    Failure,
    output::{self, Output, Rows},
};

use super::{deleting, purge};
use crate::{
    args::{Changes, SettingsArgs, TopicAction, TopicArgs},
    client,
};

pub(super) async fn run(output: &Output, args: TopicArgs) -> anyhow::Result<()> {
    if let TopicAction::Create { settings, .. } = &args.action {
        let retain = settings.retain.into();
        check_bound(settings.max_bytes, retain)?;
        check_age(settings.retain_for.is_some(), retain)?;
        check_together(&wanted(1, settings))?;
    }
    client::with_interruptible(&args.client, async |client| act(output, client, &args.action).await).await
}

async fn act(output: &Output, client: &Client, action: &TopicAction) -> anyhow::Result<()> {
    match action {
        TopicAction::Create { topic, partitions, settings } => {
            let wanted = wanted(*partitions, settings);
            let made = match client.ensure_topic(topic.as_str(), wanted.clone()).await {
                Err(error) if error.code() == ErrorCode::TopicExists => {
                    let has = client.describe_topic(topic.as_str()).await?.settings;
                    return Err(exists_otherwise(topic.as_str(), &has, &wanted, error));
                }
                made => made?,
            };
            output.result(&super::made(&made), || match made.created {
                true => format!("created topic {}", summary(&made.found)),
                false => format!("topic {}: it exists already", summary(&made.found)),
            })?;
        }
        TopicAction::List => {
            let topics = client.list_topics().await?;
            output.rows(&topics, || table(&topics))?;
        }
        TopicAction::Describe { topic } => {
            let found = client.describe_topic(topic.as_str()).await?;
            describe(output, &found)?;
        }
        TopicAction::Set { topic, changes } => {
            let wanted = changed(changes);
            let before = client.describe_topic(topic.as_str()).await?.settings;
            let merged = wanted.of(&before);
            check_bound(changes.max_bytes.unwrap_or(0), merged.retain)?;
            check_age(changes.retain_for.is_some(), merged.retain)?;
            check_together(&merged)?;
            let changed = client.set_topic(topic.as_str(), wanted).await?;
            output.result(&changed, || format!("topic {}", summary(&changed)))?;
            if changes.on_full.is_none() && changed.settings.on_full != before.on_full {
                output.remark("without a limit of the backlog, --on-full drop-oldest is gone as well");
            }
        }
        TopicAction::Purge { topic, purge } => purge::run(output, client, topic, purge).await?,
        TopicAction::Delete { topic, how } => {
            let delete = async |how| client.delete_topic(topic.as_str(), how).await;
            deleting::delete(output, how, "topic", topic.as_str(), delete).await?;
        }
    }
    Ok(())
}

/// Refuses a bound that retention would ignore.
fn check_bound(max_bytes: u64, retain: Retain) -> Result<(), Failure> {
    if retain == Retain::TimeAndSize || max_bytes == 0 {
        return Ok(());
    }
    let retain = retain_word(retain);
    Err(Failure::usage(format!("--max-bytes has no effect on a topic with --retain {retain}"))
        .hint("--retain time-and-size drops the oldest events over --max-bytes, acknowledged or not"))
}

/// Refuses an age that retention would ignore.
fn check_age(is_given: bool, retain: Retain) -> Result<(), Failure> {
    if !is_given || retain != Retain::Compact {
        return Ok(());
    }
    let message = "--retain-for has no effect on a topic with --retain compact";
    Err(Failure::usage(message).hint("it keeps the last event of each key, however old"))
}

/// Refuses a setting that has no effect without another, as the engine does, in the words of this command line.
fn check_together(settings: &TopicSettings) -> Result<(), Failure> {
    // What contradicts compaction stays the engine's to say: a limit would not help.
    let drops = settings.on_full == OnFull::DropOldest && settings.retain != Retain::Compact;
    if drops && !settings.has_backlog_quota() {
        let message = "--on-full drop-oldest has no effect without a limit of the backlog";
        let limits = "--backlog-max-events, --backlog-max-bytes and --backlog-max-age are limits, --on-full reject needs none";
        return Err(Failure::usage(message).hint(limits));
    }
    if settings.dedup_window_ms == 0 && !settings.dedup_header.is_empty() {
        let message =
            format!("--dedup-header {} has no effect without --dedup-window", settings.dedup_header);
        return Err(Failure::usage(message)
            .hint("give --dedup-window as well; --dedup-header '' takes the header away"));
    }
    Ok(())
}

fn wanted(partitions: u16, settings: &SettingsArgs) -> TopicSettings {
    TopicSettings {
        partitions,
        durability: settings.durability.into(),
        retain: settings.retain.into(),
        retain_for_ms: settings
            .retain_for
            .map_or_else(|| TopicSettings::default().retain_for_ms, |age| age.0),
        max_bytes: settings.max_bytes,
        dedup_window_ms: settings.dedup_window,
        dedup_header: settings.dedup_header.clone(),
        backlog_max_events: settings.backlog_max_events,
        backlog_max_bytes: settings.backlog_max_bytes,
        backlog_max_age_ms: settings.backlog_max_age.0,
        on_full: settings.on_full.into(),
    }
}

/// The engine's refusal of a topic that exists with other settings, in the words of this command line.
fn exists_otherwise(topic: &str, has: &TopicSettings, wanted: &TopicSettings, error: Error) -> anyhow::Error {
    let pairs = flags(has).into_iter().zip(flags(wanted));
    let Some(((flag, has), (_, wanted))) = pairs.into_iter().find(|(has, wanted)| has != wanted) else {
        return error.into();
    };
    let hint = match flag {
        "partitions" => "the number of a topic's partitions cannot be changed".to_owned(),
        flag => format!("`levada topic set {topic} --{flag} {wanted}` changes it"),
    };
    let message = format!("topic {topic} exists with --{flag} {has}, expected {wanted}");
    Failure::new(ErrorCode::TopicExists, message).hint(hint).into()
}

/// Every setting as it is typed. Ages that compaction ignores are left out.
fn flags(settings: &TopicSettings) -> Vec<(&'static str, String)> {
    let TopicSettings {
        partitions,
        durability,
        retain,
        retain_for_ms,
        max_bytes,
        dedup_window_ms,
        dedup_header,
        backlog_max_events,
        backlog_max_bytes,
        backlog_max_age_ms,
        on_full,
    } = settings;
    let on_full = match on_full {
        OnFull::DropOldest => "drop-oldest",
        OnFull::Reject | OnFull::Unknown => "reject",
    };
    let window = match dedup_window_ms {
        0 => "off".to_owned(),
        window => output::duration_ms(*window),
    };
    let age = match retain {
        Retain::Compact => None,
        _ => Some(("retain-for", output::duration_ms(*retain_for_ms))),
    };
    [
        Some(("partitions", partitions.to_string())),
        Some(("durability", durability.to_string())),
        Some(("retain", retain_word(*retain).to_owned())),
        age,
        Some(("max-bytes", max_bytes.to_string())),
        Some(("dedup-window", window)),
        Some(("dedup-header", format!("{dedup_header:?}"))),
        Some(("backlog-max-events", backlog_max_events.to_string())),
        Some(("backlog-max-bytes", backlog_max_bytes.to_string())),
        Some(("backlog-max-age", output::duration_ms(*backlog_max_age_ms))),
        Some(("on-full", on_full.to_owned())),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn changed(changes: &Changes) -> TopicChanges {
    TopicChanges {
        partitions: None,
        durability: changes.durability.map(Into::into),
        retain: changes.retain.map(Into::into),
        retain_for_ms: changes.retain_for.map(|retain_for| retain_for.0),
        max_bytes: changes.max_bytes,
        dedup_window_ms: changes.dedup_window,
        dedup_header: changes.dedup_header.clone(),
        backlog_max_events: changes.backlog_max_events,
        backlog_max_bytes: changes.backlog_max_bytes,
        backlog_max_age_ms: changes.backlog_max_age.map(|age| age.0),
        on_full: changes.on_full.map(Into::into),
    }
}

fn retain_word(retain: Retain) -> &'static str {
    match retain {
        Retain::TimeAndAcked => "time-and-acked",
        Retain::TimeAndSize => "time-and-size",
        Retain::UntilAcked => "until-acked",
        Retain::Compact => "compact",
    }
}

fn summary(topic: &TopicInfo) -> String {
    let settings = &topic.settings;
    let partitions = match settings.partitions {
        1 => "1 partition".to_owned(),
        many => format!("{many} partitions"),
    };
    let bound = match size_bound(settings) {
        None => "no size bound".to_owned(),
        Some(bytes) => format!("at most {}", output::bytes(bytes)),
    };
    let retain = match settings.retain {
        Retain::Compact => "the last event of each key".to_owned(),
        Retain::UntilAcked => {
            let alone = output::duration_ms(settings.retain_for_ms);
            format!("until-acked, and for {alone} while there is no subscription or route")
        }
        retain => format!("{} for {}", retain_word(retain), output::duration_ms(settings.retain_for_ms)),
    };
    let dedup = match (settings.dedup_window_ms, settings.dedup_header.as_str()) {
        (0, _) => String::new(),
        (window_ms, "") => format!(", dedup window {} by id", output::duration_ms(window_ms)),
        (window_ms, header) => {
            format!(", dedup window {} by id and header {header}", output::duration_ms(window_ms))
        }
    };
    format!(
        "{}: {partitions}, durability {}, retain {retain}, {bound}{dedup}{}",
        topic.name,
        settings.durability,
        quota(settings),
    )
}

/// The bound on a topic's size, if its retention goes by one.
fn size_bound(settings: &TopicSettings) -> Option<u64> {
    Some(settings.max_bytes).filter(|bytes| *bytes > 0 && settings.retain == Retain::TimeAndSize)
}

/// The limits of the backlog, behind a comma; nothing without any.
fn quota(settings: &TopicSettings) -> String {
    if !settings.has_backlog_quota() {
        return String::new();
    }
    let limit = |limit: u64, text: &dyn Fn(u64) -> String| (limit > 0).then(|| text(limit));
    let limits = [
        limit(settings.backlog_max_events, &|events| output::counted(events, "event")),
        limit(settings.backlog_max_bytes, &output::bytes),
        limit(settings.backlog_max_age_ms, &output::duration_ms),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    let then = match settings.on_full {
        OnFull::DropOldest => "drops the oldest",
        OnFull::Reject | OnFull::Unknown => "rejects",
    };
    format!(", backlog of at most {}, then {then}", limits.join(" and "))
}

/// What of a limited backlog there is.
fn backlog(info: &BacklogInfo) -> String {
    let BacklogInfo { events, bytes, oldest_age_ms, slowest, refused, dropped } = info;
    let held = match slowest.as_str() {
        "" => "backlog: none, as the topic has no subscription and no route".to_owned(),
        _ if *events == 0 => "backlog: none".to_owned(),
        slowest => format!(
            "backlog: {} and {} to acknowledge, the oldest for {}; the most: {slowest}",
            output::counted(*events, "event"),
            output::bytes(*bytes),
            output::age_ms(*oldest_age_ms),
        ),
    };
    let since = match (refused, dropped) {
        (0, 0) => return held,
        (refused, 0) => format!("{} refused", output::counted(*refused, "event")),
        (0, dropped) => format!("{} dropped", output::counted(*dropped, "event")),
        (refused, dropped) => {
            format!("{} refused and {} dropped", output::counted(*refused, "event"), output::count(*dropped))
        }
    };
    format!("{held}; {since} since the engine's start")
}

fn table(topics: &[TopicInfo]) -> Rows {
    let mut rows = Rows::new(&[
        "topic",
        "partitions",
        "durability",
        "retain",
        "retain for",
        "max bytes",
        "events",
        "bytes",
        "backlog",
    ]);
    for topic in topics {
        let settings = &topic.settings;
        let events: u64 = topic.partitions.iter().map(|part| part.end.saturating_sub(part.start)).sum();
        let bytes: u64 = topic.partitions.iter().map(|part| part.bytes).sum();
        rows.push([
            topic.name.to_string(),
            settings.partitions.to_string(),
            settings.durability.to_string(),
            retain_word(settings.retain).to_owned(),
            match settings.retain {
                Retain::Compact => "-".to_owned(),
                _ => output::duration_ms(settings.retain_for_ms),
            },
            size_bound(settings).map_or_else(|| "-".to_owned(), output::bytes),
            output::count(events),
            output::bytes(bytes),
            topic.backlog.as_ref().map_or_else(|| "-".to_owned(), |backlog| output::count(backlog.events)),
        ]);
    }
    rows
}

/// What the topic's dedup window holds, and whether it is as long as it should be.
fn dedup(topic: &TopicInfo) -> String {
    let DedupInfo { ids, duplicates, forgotten_early, window_ms } = topic.dedup;
    let held = format!(
        "dedup: {} held, {} since the engine's start",
        output::counted(ids, "id"),
        output::counted(duplicates, "duplicate"),
    );
    if window_ms < topic.settings.dedup_window_ms {
        return format!(
            "{held}; the window is {} at present: the engine holds no more than publish.dedup_ids_max ids, and {} \
             were forgotten before their time",
            output::duration_ms(window_ms),
            output::count(forgotten_early),
        );
    }
    held
}

fn describe(output: &Output, topic: &TopicInfo) -> anyhow::Result<()> {
    if output.is_json() {
        return Ok(output.json(topic)?);
    }
    output.line(&format!("{}; made {}", summary(topic), output::time_ms(topic.created_ms)))?;
    if topic.settings.dedup_window_ms > 0 {
        output.line(&dedup(topic))?;
    }
    if topic.scheduled > 0 {
        output.line(&format!("waiting for their time: {} delayed", output::count(topic.scheduled)))?;
    }
    if let Some(info) = &topic.backlog {
        output.line(&backlog(info))?;
    }
    let mut rows = Rows::new(&["partition", "first offset", "next offset", "events", "bytes"]);
    for part in &topic.partitions {
        rows.push([
            part.partition.to_string(),
            part.start.to_string(),
            part.end.to_string(),
            output::count(part.end.saturating_sub(part.start)),
            output::bytes(part.bytes),
        ]);
    }
    Ok(output.line(&rows.render())?)
}
