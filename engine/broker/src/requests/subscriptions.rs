//! Requests about subscriptions.

use std::{ops::Bound, sync::Arc};

use levada_protocol::{
    access::Scope,
    error::ErrorCode,
    ids::{Offset, PartitionId, SubscriptionId, SubscriptionName, TopicName},
    limits::{CONSUMER_NAME_BYTES_MAX, EXPIRE_AFTER_MS_MAX, EXPIRE_AFTER_MS_MIN},
    request::{Response, Start, Subscribe, SubscriptionInfo, SubscriptionOptions},
};
use levada_stage::AttachmentPoint;

use super::{
    mismatch,
    pages::{self, Page},
    quotes,
};
use crate::{
    access::{Principal, Viewer},
    actor::Actor,
    broker::Broker,
    catalogue::{Catalogue, Change},
    chains,
    error::Error,
    log::{Log, blocking},
    noted::Noted,
    rows::SubscriptionRecord,
    starts,
    subscription::{Described, SubscriptionHandle},
};

/// Most events a second that a rate can say: more than any engine delivers.
const RATE_MAX: u64 = 10_000_000;
/// Most waits of a backoff.
const BACKOFF_STEPS_MAX: u64 = 64;
/// The longest of them: 7 days.
const BACKOFF_STEP_MS_MAX: u64 = 7 * 24 * 3_600_000;

impl Broker {
    /// Finds the subscription that a consumer asks for, or creates it if it may; true if it was created.
    pub(crate) async fn subscription_for(
        &self,
        principal: &Principal,
        subscribe: &Subscribe,
    ) -> Result<(Arc<SubscriptionRecord>, bool), Error> {
        let (topic, name) = (&subscribe.topic, &subscribe.subscription);
        if subscribe.consumer.len() > CONSUMER_NAME_BYTES_MAX {
            let len = subscribe.consumer.len();
            let message =
                format!("the consumer's name is {len} bytes, the limit is {CONSUMER_NAME_BYTES_MAX}");
            return Err(Error::refused(ErrorCode::InvalidArgument, message));
        }
        let found = self.inner.shard.catalogue().subscription(topic, name).cloned();
        match (found, &subscribe.options) {
            (Ok(record), Some(options)) => same_options(&record, options).map(|()| (record, false)),
            (Ok(record), None) => Ok((record, false)),
            (Err(error), Some(options)) if error.code() == ErrorCode::SubscriptionNotFound => {
                let (topic_name, options_wanted) = (topic.clone(), options.clone());
                let created = self
                    .create_subscription(principal, topic_name, name.clone(), options_wanted, subscribe.from)
                    .await;
                match created {
                    Ok(record) => Ok((record, true)),
                    // Another consumer created it in the meantime.
                    Err(error) if error.code() == ErrorCode::SubscriptionExists => {
                        let record = self.inner.shard.catalogue().subscription(topic, name)?.clone();
                        same_options(&record, options).map(|()| (record, false))
                    }
                    Err(error) => Err(error),
                }
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Creates a subscription and starts its owner.
    pub(super) async fn create_subscription(
        &self,
        principal: &Principal,
        topic_name: TopicName,
        name: SubscriptionName,
        options: SubscriptionOptions,
        from: Start,
    ) -> Result<Arc<SubscriptionRecord>, Error> {
        check_options(&options)?;
        let options = options.with_defaults();
        let catalogue = self.inner.shard.catalogue();
        catalogue.topic(&topic_name)?;
        self.try_chain(&catalogue, options.chain(), &topic_name, AttachmentPoint::Subscription).await?;
        let (broker, by) = (self.clone(), principal.actor());
        self.to_the_end(async move {
            let _changing = broker.inner.changing.lock().await;
            let shard = &broker.inner.shard;
            let positions = broker.positions(&shard.topic(&topic_name)?, from).await?;
            let (topic, of) = (topic_name.clone(), name.clone());
            let owner = by.principal.clone();
            let change = Change::CreateSubscription { topic, name: of, options, positions, owner };
            shard.change(by, change).await?;
            let record = Arc::clone(shard.catalogue().subscription(&topic_name, &name)?);
            let (broker, created) = (broker.clone(), Arc::clone(&record));
            blocking(move || broker.match_subscription(&broker.inner.shard.catalogue(), &created)).await?;
            Ok(record)
        })
        .await
    }

    pub(super) async fn list_subscriptions(
        &self,
        viewer: &Viewer,
        topic: Option<TopicName>,
        mut page: Page<SubscriptionInfo>,
        after: Option<&str>,
    ) -> Result<Response, Error> {
        let catalogue = viewer.catalogue();
        if let Some(topic) = &topic {
            catalogue.topic(topic)?;
        }
        let after = after.map(subscription_path).transpose()?;
        for ((of, name), record) in
            catalogue.subscriptions.range((pages::behind(after.as_ref()), Bound::Unbounded))
        {
            if topic.as_ref().is_some_and(|topic| topic != of)
                || !viewer.sees(&Scope::Subscription(of.clone(), name.clone()))
            {
                continue;
            }
            match self.describe_subscription(record).await {
                Ok(info) => {
                    if !page.add(format_args!("{of}/{name}"), quotes::of_subscription(viewer, info)) {
                        break;
                    }
                }
                // Deleted since the catalogue was read.
                Err(error) if error.code() == ErrorCode::SubscriptionNotFound => {}
                Err(error) => return Err(error),
            }
        }
        let (subscriptions, next) = page.finish();
        Ok(Response::Subscriptions { subscriptions, next })
    }

    pub(crate) async fn describe_subscription(
        &self,
        record: &SubscriptionRecord,
    ) -> Result<SubscriptionInfo, Error> {
        // An owner that has ended still has its last state; describing it does not start another.
        match self.inner.owner_tasks.subscription(SubscriptionId(record.id)) {
            Some(handle) => self.describe_running(&handle).await,
            None => self.describe_running(&self.owner_of(record).await?).await,
        }
    }

    /// Describes a subscription whose owner runs, without asking it.
    pub(super) async fn describe_running(
        &self,
        handle: &SubscriptionHandle,
    ) -> Result<SubscriptionInfo, Error> {
        let now = self.inner.config.clock.moment();
        let Described { mut info, oldest: unacknowledged } = handle.describe(now);
        let topic = self.inner.shard.topic(&info.topic)?;
        let mut oldest = None;
        for (number, floor) in unacknowledged {
            let log = Log::new(Arc::clone(&self.inner.store), Arc::clone(&topic), number)?;
            // A scrape must not cost a read for each partition that waits; a time to come may be of before the clock was set back.
            let known = handle.status().appended(number, floor).filter(|time| *time <= now.wall);
            let time = if known.is_some() { known } else { log.append_time(floor).await };
            if let Some(time) = time {
                handle.status().keep_appended(number, floor, time);
            }
            oldest = oldest.into_iter().chain(time).min();
        }
        info.push = self.push_requests().info(SubscriptionId(info.id)).map(Box::new);
        info.oldest_unacked_age_ms = oldest.map_or(0, |oldest| now.wall.0.saturating_sub(oldest.0));
        Ok(info)
    }

    /// Adds the key of the event that it waits for, which costs a read.
    pub(super) async fn with_key(&self, info: SubscriptionInfo) -> Result<SubscriptionInfo, Error> {
        let Some((partition, offset)) = info.waiting_for.event() else { return Ok(info) };
        let topic = self.inner.shard.topic(&info.topic)?;
        let log = Log::new(Arc::clone(&self.inner.store), topic, PartitionId(partition))?;
        Ok(SubscriptionInfo { waiting_for_key: log.key_text(Offset(offset)).await, ..info })
    }

    pub(super) async fn resume_subscription(
        &self,
        principal: &Principal,
        catalogue: &Catalogue,
        of: (&TopicName, &SubscriptionName),
    ) -> Result<Response, Error> {
        let record = catalogue.subscription(of.0, of.1)?;
        if record.paused {
            self.set_paused(principal.actor(), of, false, None).await?;
        } else {
            self.note(principal, Noted::resumed(record)).await?;
        }
        self.owner_of(record).await?.resume().await?;
        Ok(Response::Done)
    }

    /// Changes options; the owner goes by them from its next turn on.
    pub(super) async fn set_subscription(
        &self,
        principal: &Principal,
        topic: TopicName,
        name: SubscriptionName,
        options: SubscriptionOptions,
    ) -> Result<Response, Error> {
        check_options(&options)?;
        let catalogue = self.inner.shard.catalogue();
        catalogue.subscription(&topic, &name)?;
        self.try_chain(&catalogue, options.chain(), &topic, AttachmentPoint::Subscription).await?;
        let change = Change::SetSubscription { topic: topic.clone(), name: name.clone(), options };
        let record =
            self.change_subscription(principal.actor(), (topic, name), |_| async { Ok(change) }).await?;
        self.describe_subscription(&record).await.map(described)
    }

    /// Pauses a subscription, for what the receiver of its pushes said or on request, or ends such a pause; durably.
    pub(crate) async fn set_paused(
        &self,
        by: Actor,
        (topic, name): (&TopicName, &SubscriptionName),
        paused: bool,
        push_refusal: Option<String>,
    ) -> Result<Response, Error> {
        let change =
            Change::PauseSubscription { topic: topic.clone(), name: name.clone(), paused, push_refusal };
        let of = (topic.clone(), name.clone());
        self.change_subscription(by, of, |_| async { Ok(change) }).await.map(|_| Response::Done)
    }

    /// Moves a subscription, and returns once another owner has begun there.
    pub(super) async fn seek_subscription(
        &self,
        principal: &Principal,
        of: (TopicName, SubscriptionName),
        to: Start,
        partitions: Vec<u16>,
    ) -> Result<Response, Error> {
        let moved = of.clone();
        let decide = move |broker: Self| async move {
            let (topic, name) = moved;
            let live = broker.inner.shard.topic(&topic)?;
            starts::check(&live, to, broker.inner.config.clock.now())?;
            let mut positions = Vec::new();
            for number in live.partitions_named(&partitions)? {
                let log = Log::new(Arc::clone(&broker.inner.store), Arc::clone(&live), number)?;
                positions.push((number, log.position(to).await?));
            }
            Ok(Change::MoveSubscription { topic, name, to: positions })
        };
        let record = self.change_subscription(principal.actor(), of, decide).await?;
        self.describe_subscription(&record).await.map(described)
    }

    /// Makes a change of a subscription's record, decided while no topic or subscription comes or goes; its owner takes it
    /// over. Returns the record after it.
    async fn change_subscription<D, F>(
        &self,
        by: Actor,
        (topic, name): (TopicName, SubscriptionName),
        decide: D,
    ) -> Result<Arc<SubscriptionRecord>, Error>
    where
        D: FnOnce(Self) -> F + Send + 'static,
        F: Future<Output = Result<Change, Error>> + Send,
    {
        let broker = self.clone();
        self.to_the_end(async move {
            let _changing = broker.inner.changing.lock().await;
            let shard = &broker.inner.shard;
            shard.catalogue().subscription(&topic, &name)?;
            shard.change(by, decide(broker.clone()).await?).await?;
            let record = Arc::clone(shard.catalogue().subscription(&topic, &name)?);
            if let Err(error) = broker.follow_subscription(&record).await {
                // It is durable. Whoever follows the catalogue tries again.
                tracing::warn!(%topic, %name, %error, "the subscription's owner cannot follow yet");
            }
            Ok(record)
        })
        .await
    }
}

/// The response that describes a subscription.
pub(super) fn described(info: SubscriptionInfo) -> Response {
    Response::Subscription(Box::new(info))
}

/// The subscription that `topic/name` means.
fn subscription_path(path: &str) -> Result<(TopicName, SubscriptionName), Error> {
    let (topic, name) = path.split_once('/').ok_or_else(|| pages::not_a_page(path, "topic/subscription"))?;
    Ok((TopicName::parse_any(topic)?, name.parse()?))
}

fn check_options(options: &SubscriptionOptions) -> Result<(), Error> {
    chains::check(options.chain())?;
    let longest_wait = options.backoff_ms().iter().copied().max().unwrap_or(0);
    let rows = [
        ("ack_timeout_ms", u64::from(options.ack_timeout_ms()), 10..=86_400_000),
        ("max_attempts", u64::from(options.max_attempts()), 1..=10_000),
        ("max_in_flight", u64::from(options.max_in_flight()), 1..=1_048_576),
        ("rate", u64::from(options.rate.unwrap_or(0)), 0..=RATE_MAX),
        ("the number of waits in backoff_ms", options.backoff_ms().len() as u64, 0..=BACKOFF_STEPS_MAX),
        ("a wait in backoff_ms", longest_wait.into(), 0..=BACKOFF_STEP_MS_MAX),
    ];
    for (name, got, allowed) in rows {
        if !allowed.contains(&got) {
            let message = format!("{name} is {got}, expected {} to {}", allowed.start(), allowed.end());
            return Err(Error::refused(ErrorCode::InvalidArgument, message));
        }
    }
    match options.expire_after_ms() {
        Some(got) if !(EXPIRE_AFTER_MS_MIN..=EXPIRE_AFTER_MS_MAX).contains(&got) => {
            let message = format!(
                "expire_after_ms is {got}, expected {EXPIRE_AFTER_MS_MIN} (a minute) to {EXPIRE_AFTER_MS_MAX} (365 days), or 0 \
                 for never"
            );
            Err(Error::refused(ErrorCode::InvalidArgument, message))
        }
        _ => Ok(()),
    }
}

/// Refuses options that are given and differ from those the subscription has, and names the first that does.
fn same_options(record: &SubscriptionRecord, options: &SubscriptionOptions) -> Result<(), Error> {
    check_options(options)?;
    match mismatch::first(&record.options, options) {
        None => Ok(()),
        Some(difference) => {
            let message = format!(
                "subscription {}/{} has {difference}; change the subscription, or subscribe without this option",
                record.topic, record.name
            );
            Err(Error::refused(ErrorCode::SubscriptionMismatch, message))
        }
    }
}
