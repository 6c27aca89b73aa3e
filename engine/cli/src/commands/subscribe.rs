//! `levada subscribe`: prints what a durable subscription delivers, and acknowledges what was printed, gives it back or rejects
//! it; says why it delivers nothing, if it is paused. How events go on to another topic is `forward.rs`.

use std::{num::NonZeroU64, pin::pin, time::Duration};

use levada_client::{
    Client, Error, ErrorCode, PauseReason, RunState, Start, SubscribeOptions, Subscribed, Subscriber,
    WaitingFor,
};
use levada_protocol::ids::TopicName;
use levada_terminal::{
    interrupted,
    output::{self, Output},
    values::DurationMs,
};
use tokio::time::{sleep, timeout};

use super::{
    attachment,
    events::Printer,
    forward::{self, Forward},
    mismatch,
    stops::{Progress, Waiting},
};
use crate::{
    args::{SubscribeArgs, Verb},
    client,
};

/// Events that the engine may send ahead of what was printed.
const CREDIT_EVENTS: u64 = 1_000;
/// How long events are held that wait for room in the topic of `--publish-to`, at most.
const FORWARDING_MAX: Duration = Duration::from_secs(7 * 86_400);
/// How often the reason why nothing comes is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn run(output: &Output, args: SubscribeArgs) -> anyhow::Result<()> {
    let Some(to) = &args.publish_to else {
        return client::with(&args.client, async |client| consume(output, client, &args).await).await;
    };
    forward::check(&args, to)?;
    let forwarding = async |client: &Client| forward(output, client, &args, to).await;
    client::with(&args.client, forwarding).await
}

async fn forward(
    output: &Output,
    client: &Client,
    args: &SubscribeArgs,
    to: &TopicName,
) -> anyhow::Result<()> {
    let mut ended = pin!(async {
        tokio::select! {
            () = interrupted() => {}
            () = output.closed() => {}
        }
    });
    let attaching = async {
        // Before a subscription is created, or anything consumed.
        let to = client.describe_topic(to.as_str()).await?;
        anyhow::Ok((to, attach(client, args).await?))
    };
    let (to, mut subscriber) = tokio::select! {
        biased;
        () = &mut ended => {
            forward::summarise(output, to, 0, 0);
            return Ok(());
        }
        attached = attaching => attached?,
    };
    report(output, args, subscriber.subscribed());
    let stop = pin!(async {
        tokio::select! {
            () = ended => {}
            () = over(args.wait) => {}
        }
    });
    let (progress, committing) = (Progress::default(), client.with_request_timeout(forward::COMMIT_TRIED));
    let forward = Forward::new(output, &committing, args, &to, &progress);
    tokio::select! {
        biased;
        ended = forward.run(&mut subscriber, stop) => ended,
        never = report_stops(output, client, args, &progress) => match never {},
    }
}

async fn consume(output: &Output, client: &Client, args: &SubscribeArgs) -> anyhow::Result<()> {
    let mut stop = pin!(interrupted());
    let mut subscriber = tokio::select! {
        biased;
        () = &mut stop => return Ok(()),
        attached = attach(client, args) => attached?,
    };
    report(output, args, subscriber.subscribed());
    let progress = Progress::default();
    let ended = tokio::select! {
        biased;
        () = &mut stop => Ok(()),
        () = output.closed() => Ok(()),
        () = over(args.wait) => Ok(()),
        ended = print_all(output, args, &mut subscriber, &progress) => ended,
        never = report_stops(output, client, args, &progress) => match never {},
    };
    // Also when stdout was closed: what was printed is done.
    confirm(output, &subscriber, args.verb.verb()).await?;
    ended
}

/// Resolves once the time is over, if there is one.
async fn over(wait: Option<DurationMs>) {
    match wait {
        Some(wait) => sleep(wait.into()).await,
        None => std::future::pending().await,
    }
}

/// An event that is given back takes later ones of its key along, which may have been printed.
fn is_expected(verb: Verb<'_>, error: &Error) -> bool {
    matches!(verb, Verb::Nack(_)) && error.code() == ErrorCode::DeliveryExpired
}

/// Waits until what was acknowledged holds. What a lost connection took along is said once: these events come again,
/// and whatever was acknowledged after that must hold all the same.
async fn confirm(output: &Output, subscriber: &Subscriber, verb: Verb<'_>) -> Result<(), Error> {
    if verb == Verb::Nothing {
        return Ok(());
    }
    match subscriber.confirmed().await {
        Err(error) if is_expected(verb, &error) => Ok(()),
        Err(error) if error.code() == ErrorCode::ConnectionLost => {
            output.remark(
                "verbs were lost with a connection: some events may have been printed twice, or come again",
            );
            subscriber
                .confirmed()
                .await
                .or_else(|error| if is_expected(verb, &error) { Ok(()) } else { Err(error) })
        }
        other => other,
    }
}

/// Attaches to the subscription, and creates it if there is none.
async fn attach(client: &Client, args: &SubscribeArgs) -> anyhow::Result<Subscriber> {
    let options = SubscribeOptions {
        consumer: format!("levada-cli-{}", std::process::id()),
        options: Some(args.options.options()),
        from: args.from.unwrap_or(Start::Latest),
        // What is not to be printed is not asked for: it would come back to the next consumer as a redelivery.
        credit_events: args.max.unwrap_or(CREDIT_EVENTS).min(CREDIT_EVENTS),
        ..SubscribeOptions::new(args.subscription.topic.as_str(), args.subscription.name.as_str())
    };
    let credit_bytes = args.max_bytes.map_or(u64::MAX, NonZeroU64::get).min(options.credit_bytes);
    // Events that wait for room in another topic are worked on all that time: they are not to come again meanwhile.
    let max_processing = if args.publish_to.is_some() { FORWARDING_MAX } else { options.max_processing };
    let options = SubscribeOptions { credit_bytes, max_processing, ..options };
    match client.subscribe(options).await {
        Ok(subscriber) => Ok(subscriber),
        Err(error) => {
            let path = (args.subscription.topic.as_str(), args.subscription.name.as_str());
            Err(mismatch::in_flags(client, path, &args.options.options(), error).await)
        }
    }
}

/// Prints whether the subscription was created, and what it will not see.
fn report(output: &Output, args: &SubscribeArgs, subscribed: &Subscribed) {
    let name = format!("{}/{}", args.subscription.topic, args.subscription.name);
    if subscribed.created {
        let from = match args.from.unwrap_or(Start::Latest) {
            Start::Earliest => "the oldest stored event".to_owned(),
            Start::Latest => "the events from now on".to_owned(),
            Start::Offset(offset) => format!("offset {offset}"),
            Start::Time(milliseconds) => output::time_ms(milliseconds),
        };
        let missed = attachment::missed_text(subscribed.stored_before);
        output.remark(&format!("created subscription {name}, beginning with {from}{missed}"));
    } else if args.from.is_some() {
        let positions = output::brief(&attachment::positions_text(&subscribed.positions));
        output.remark(&format!(
            "subscription {name} exists already: --from has no effect, it continues at {positions} (partition:offset)"
        ));
    }
    if subscribed.standby {
        output.remark(&format!("another consumer of {name} is active; standing by"));
    }
}

async fn print_all(
    output: &Output,
    args: &SubscribeArgs,
    subscriber: &mut Subscriber,
    progress: &Progress,
) -> anyhow::Result<()> {
    let (all, printed) = (args.max.unwrap_or(u64::MAX), &progress.done);
    let mut bytes = args.max_bytes.map_or(u64::MAX, NonZeroU64::get);
    let printer = Printer::of(args);
    while printed.get() < all && bytes > 0 {
        let next = timeout(CHECK_INTERVAL, subscriber.next_delivery()).await;
        progress.note(subscriber.interruption());
        let Ok(next) = next else { continue };
        let Some(delivery) = next? else { return Ok(()) };
        let left = all - printed.get();
        let now = printer.print(output, &delivery, left, bytes)?;
        printed.set(printed.get() + now.count);
        bytes = bytes.saturating_sub(now.bytes);
        let Some(last) = now.last else { continue };
        let range = delivery.first()..=last;
        match args.verb.verb() {
            Verb::Ack => delivery.ack_range(range),
            Verb::Nack(delay) => delivery.nack(range, delay),
            Verb::Reject(reason) => delivery.reject(range, reason),
            Verb::Nothing => {}
        }
    }
    Ok(())
}

/// While nothing comes: says that the subscription is paused, and when it continues; or that there is no connection.
async fn report_stops(
    output: &Output,
    client: &Client,
    args: &SubscribeArgs,
    progress: &Progress,
) -> std::convert::Infallible {
    let (topic, name) = (args.subscription.topic.as_str(), args.subscription.name.as_str());
    let waiting = Waiting {
        output,
        client,
        addr: &args.client.reach.addr,
        what: format!("subscription {topic}/{name}"),
    };
    let ask = async || {
        if let Some(refusal) = progress.refused.borrow().clone() {
            let what = format!("the engine does not serve this consumer of {topic}/{name} now: {refusal}");
            return Ok(Some(format!("{what}; trying again")));
        }
        let found = client.describe_subscription(topic, name).await?;
        if let WaitingFor::Failures { .. } | WaitingFor::Window { .. } = found.waiting_for {
            return Ok(Some(format!("subscription {topic}/{name} waits for {}", found.waiting_for)));
        }
        let on_request = RunState::Paused { reason: PauseReason::Requested };
        let fixed = if found.state == on_request { "" } else { "once that is fixed, " };
        Ok((!found.state.is_running()).then(|| {
            format!(
                "subscription {topic}/{name} is {}; {fixed}`levada subscription resume {topic}/{name}` continues it",
                found.state
            )
        }))
    };
    waiting.report_stops(|| progress.done.get(), ask).await
}
