//! `levada subscribe`: prints what a durable subscription delivers, and acknowledges what was printed; says why it
//! delivers nothing, if it is paused.

use std::{cell::Cell, pin::pin, time::Duration};

use levada_client::{Client, ErrorCode, Start, SubscribeOptions, Subscribed, Subscriber};
use tokio::time::sleep;

use super::events;
use crate::{
    args::SubscribeArgs,
    client,
    interrupt::interrupted,
    output::{self, Output},
};

/// Events that the engine may send ahead of what was printed.
const CREDIT_EVENTS: u64 = 1_000;
/// How soon after attaching it is asked whether the subscription is paused.
const LOOK_FIRST: Duration = Duration::from_millis(200);
/// And how often then, at most, while nothing comes.
const LOOK_LAST: Duration = Duration::from_secs(5);

pub(super) async fn run(output: &Output, args: SubscribeArgs) -> anyhow::Result<()> {
    client::with(&args.client, async |client| consume(output, client, &args).await).await
}

async fn consume(output: &Output, client: &Client, args: &SubscribeArgs) -> anyhow::Result<()> {
    let mut stop = pin!(interrupted());
    let mut subscriber = tokio::select! {
        biased;
        () = &mut stop => return Ok(()),
        attached = attach(client, args) => attached?,
    };
    tell(output, args, subscriber.subscribed());
    let printed = Cell::new(0);
    let ended = tokio::select! {
        biased;
        () = &mut stop => Ok(()),
        ended = print_all(output, args, &mut subscriber, &printed) => ended,
        never = tell_stops(output, client, args, &printed) => match never {},
    };
    if !args.no_ack {
        // Also when stdout was closed: what was printed is done.
        subscriber.confirmed().await?;
    }
    ended
}

/// Attaches to the subscription, and makes it if there is none.
///
/// Without flags that say what it is like an existing one is taken as it is.
async fn attach(client: &Client, args: &SubscribeArgs) -> Result<Subscriber, levada_client::Error> {
    let mut options = SubscribeOptions {
        consumer: format!("levada-cli-{}", std::process::id()),
        from: args.from,
        // What is not to be printed is not asked for: it would come back to the next consumer as a redelivery.
        credit_events: args.max.unwrap_or(CREDIT_EVENTS).min(CREDIT_EVENTS),
        ..SubscribeOptions::new(args.topic.as_str(), args.subscription.as_str())
    };
    if args.options.is_empty() {
        match client.subscribe(options.clone()).await {
            Err(error) if error.code() == ErrorCode::SubscriptionNotFound => {}
            other => return other,
        }
    }
    options.options = Some(args.options.options());
    client.subscribe(options).await
}

/// Says what the answer says: whether the subscription was made, and what it will not see.
fn tell(output: &Output, args: &SubscribeArgs, subscribed: &Subscribed) {
    let name = format!("{}/{}", args.topic, args.subscription);
    if subscribed.created {
        let from = match args.from {
            Start::Earliest => "the oldest stored event".to_owned(),
            Start::Latest => "the events from now on".to_owned(),
            Start::Offset(offset) => format!("offset {offset}"),
            Start::Time(milliseconds) => output::time_ms(milliseconds),
        };
        let missed = match subscribed.stored_before {
            0 => String::new(),
            stored => {
                format!("; --from earliest would have read {} stored events more", output::count(stored))
            }
        };
        output.remark(&format!("created subscription {name}, beginning with {from}{missed}"));
    }
    if subscribed.standby {
        output.remark(&format!("another consumer of {name} is active; standing by"));
    }
}

async fn print_all(
    output: &Output,
    args: &SubscribeArgs,
    subscriber: &mut Subscriber,
    printed: &Cell<u64>,
) -> anyhow::Result<()> {
    let all = args.max.unwrap_or(u64::MAX);
    while printed.get() < all {
        let Some(delivery) = subscriber.next().await? else { return Ok(()) };
        let left = all - printed.get();
        let (count, last) =
            events::print(output, args.topic.as_str(), Some(args.subscription.as_str()), &delivery, left)?;
        printed.set(printed.get() + count);
        match last {
            Some(last) if !args.no_ack => delivery.ack_range(delivery.first()..=last),
            _ => {}
        }
    }
    Ok(())
}

/// While nothing comes: says that the subscription is paused, and that it goes on; or that there is no connection.
async fn tell_stops(
    output: &Output,
    client: &Client,
    args: &SubscribeArgs,
    printed: &Cell<u64>,
) -> std::convert::Infallible {
    let (topic, name) = (args.topic.as_str(), args.subscription.as_str());
    let (mut wait, mut seen, mut told) = (LOOK_FIRST, printed.get(), None);
    loop {
        sleep(wait).await;
        if printed.get() != seen {
            (wait, seen) = (LOOK_FIRST, printed.get());
            continue;
        }
        wait = (wait * 2).min(LOOK_LAST);
        let stopped = if client.is_connected() {
            // What is wrong with the subscription itself is told by the consumer's own error.
            let Ok(found) = client.describe_subscription(topic, name).await else { continue };
            found.paused.map(|why| {
                format!(
                    "subscription {topic}/{name} is paused: {why}; once that is mended, it goes on with \
                     `levada subscription resume {topic}/{name}`"
                )
            })
        } else {
            Some(format!("there is no connection to the engine at {}; trying again", args.client.addr))
        };
        if stopped != told {
            match &stopped {
                Some(stopped) => output.remark(stopped),
                None => output.remark(&format!("subscription {topic}/{name} goes on")),
            }
            told = stopped;
        }
    }
}
