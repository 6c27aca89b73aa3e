//! `levada subscribe`: prints what a durable subscription delivers, and acknowledges what was printed.

use levada_client::{
    Client, ErrorCode, Start, SubscribeOptions, Subscribed, Subscriber, SubscriptionOptions,
};

use super::events;
use crate::{
    args::SubscribeArgs,
    client,
    interrupt::interrupted,
    output::{self, Output},
};

/// Events that the engine may send ahead of what was printed.
const CREDIT_EVENTS: u64 = 1_000;

pub(super) async fn run(output: &Output, args: SubscribeArgs) -> anyhow::Result<()> {
    let client = client::connect(&args.client).await?;
    let mut subscriber = attach(&client, &args).await?;
    tell(output, &args, subscriber.subscribed());
    let printed = print_all(output, &args, &mut subscriber).await;
    if !args.no_ack {
        // Also when stdout was closed: what was printed is done.
        subscriber.confirmed().await?;
    }
    client.close().await;
    printed
}

/// Attaches to the subscription, and makes it if there is none.
///
/// Without --order and --plugin an existing one is taken with whatever options it has.
async fn attach(client: &Client, args: &SubscribeArgs) -> Result<Subscriber, levada_client::Error> {
    let mut options = SubscribeOptions {
        consumer: format!("levada-cli-{}", std::process::id()),
        from: args.from,
        // What is not to be printed is not asked for: it would come back to the next consumer as a redelivery.
        credit_events: args.max.unwrap_or(CREDIT_EVENTS).min(CREDIT_EVENTS),
        ..SubscribeOptions::new(args.topic.as_str(), args.subscription.as_str())
    };
    if args.order.is_none() && args.chain.is_empty() {
        match client.subscribe(options.clone()).await {
            Err(error) if error.code() == ErrorCode::SubscriptionNotFound => {}
            other => return other,
        }
    }
    options.options = Some(SubscriptionOptions {
        order: args.order.map(Into::into).unwrap_or_default(),
        chain: args.chain.stages(),
        ..SubscriptionOptions::default()
    });
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

async fn print_all(output: &Output, args: &SubscribeArgs, subscriber: &mut Subscriber) -> anyhow::Result<()> {
    let mut left = args.max.unwrap_or(u64::MAX);
    while left > 0 {
        let next = tokio::select! {
            biased;
            () = interrupted() => return Ok(()),
            next = subscriber.next() => next?,
        };
        let Some(delivery) = next else { return Ok(()) };
        let (count, last) =
            events::print(output, args.topic.as_str(), Some(args.subscription.as_str()), &delivery, left)?;
        left -= count;
        match last {
            Some(last) if !args.no_ack => delivery.ack_range(delivery.first()..=last),
            _ => {}
        }
    }
    Ok(())
}
