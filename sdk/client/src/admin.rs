//! Requests with the type of their response: topics, subscriptions, plugins, routes, the engine itself.

use bytes::Bytes;
use levada_protocol::{
    ids::{PrincipalName, Timestamp, TokenId, TopicName},
    request::{
        ChangePrincipal, CreatePrincipal, CreateToken, Deleted, EngineInfo, IssuedPush, IssuedToken,
        NewToken, PluginInfo, Position, PrincipalInfo, PurgeTopic, PurgedTopic, Request, Response, RouteInfo,
        RouteSpec, SetPush, Start, SubscriptionInfo, SubscriptionOptions, TokenInfo, TopicChanges, TopicInfo,
        TopicSettings,
    },
    schedule::ScheduledInfo,
};

use crate::{
    client::{Body, Client},
    error::Error,
};

/// Unwraps the expected response; any other is an error of the engine.
macro_rules! expect {
    ($response:expr, $pattern:pat => $value:expr) => {
        match $response {
            $pattern => Ok($value),
            _ => Err(Error::bad_answer("a request was answered with the answer to another")),
        }
    };
}

/// Requests the pages of a list, one after the other.
macro_rules! every_page {
    ($client:expr, $ask:expr, $pattern:pat => $page:expr) => {{
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (mut page, next) = expect!($client.request($ask(after.take())).await?, $pattern => $page)?;
            // An empty page with a next one would loop for ever.
            if page.is_empty() && next.is_some() {
                break Err(Error::bad_answer("a page of a list is empty, and not the last"));
            }
            all.append(&mut page);
            match next {
                Some(next) => after = Some(next),
                None => break Ok(all),
            }
        }
    }};
}

/// How something is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeleteOptions {
    /// Delete even if something else would be deleted too, or needs what is deleted. Default: that is refused, and
    /// named.
    pub force: bool,
    /// Also delete the dead-letter topics of what is deleted. Default: they are kept.
    pub with_dead_letters: bool,
}

impl DeleteOptions {
    /// Also deletes what depends on it.
    pub fn forced() -> Self {
        Self { force: true, ..Self::default() }
    }
}

/// What a purge of a topic drops: always the oldest events up to somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeOptions {
    /// The partitions to purge, each once, with the offset before which its events go. Empty: all partitions, all that is
    /// stored now.
    pub until: Vec<Position>,
    /// Only events before the first that was appended at this time or later.
    pub before: Option<Timestamp>,
    /// Purge also what a subscription or route has yet to acknowledge: it is told what it lost. Default: that is refused,
    /// and named.
    pub force: bool,
}

impl PurgeOptions {
    /// Everything that is stored now, in all partitions.
    pub fn all() -> Self {
        Self { until: Vec::new(), before: None, force: false }
    }

    /// What was appended before this time, in all partitions.
    pub fn before(time: Timestamp) -> Self {
        Self { before: Some(time), ..Self::all() }
    }

    /// What lies before these offsets, of the partitions that are named.
    pub fn until(positions: impl IntoIterator<Item = Position>) -> Self {
        Self { until: positions.into_iter().collect(), ..Self::all() }
    }
}

/// Typed requests. All behave as [`Client::request`], in errors and when cancelled; a name that does not obey its
/// grammar fails with `INVALID_NAME` before anything is sent. Lists are complete, over all pages; what is
/// created or deleted meanwhile may be in them or not.
impl Client {
    /// The engine's state and statistics.
    pub async fn info(&self) -> Result<EngineInfo, Error> {
        expect!(self.request(Request::Info).await?, Response::Info(info) => *info)
    }

    /// Creates a topic.
    pub async fn create_topic(&self, name: &str, settings: TopicSettings) -> Result<TopicInfo, Error> {
        let request = Request::CreateTopic { name: TopicName::parse_any(name)?, settings };
        expect!(self.request(request).await?, Response::Topic(topic) => topic)
    }

    /// Lists all topics, in order of name.
    pub async fn list_topics(&self) -> Result<Vec<TopicInfo>, Error> {
        let ask = |after| Request::ListTopics { limit: 0, after };
        every_page!(self, ask, Response::Topics { topics, next } => (topics, next))
    }

    /// Describes one topic.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicInfo, Error> {
        let request = Request::DescribeTopic { name: TopicName::parse_any(name)? };
        expect!(self.request(request).await?, Response::Topic(topic) => topic)
    }

    /// Changes the settings of a topic that are given; the others stay as they are.
    pub async fn set_topic(&self, name: &str, settings: TopicChanges) -> Result<TopicInfo, Error> {
        let request = Request::SetTopic { name: TopicName::parse_any(name)?, settings };
        expect!(self.request(request).await?, Response::Topic(topic) => topic)
    }

    /// Drops events of a topic from the oldest on; space comes back. Refused with `TOPIC_IN_USE` if a subscription or route
    /// has not come so far, unless it is forced. Delayed and prepared events stay. Events that were stored together go
    /// together, so a few before an offset that was named may be left: the answer says where each partition begins.
    pub async fn purge_topic(&self, name: &str, purge: PurgeOptions) -> Result<PurgedTopic, Error> {
        let PurgeOptions { until, before, force } = purge;
        let (topic, before_ms) = (TopicName::parse_any(name)?, before.map(|time| time.0));
        let request = Request::PurgeTopic(PurgeTopic { topic, until, before_ms, force });
        expect!(self.request(request).await?, Response::TopicPurged(purged) => purged)
    }

    /// Deletes a topic with its events. Refused with `TOPIC_IN_USE`, which names them, if subscriptions or routes would
    /// be deleted too or need it, unless it is forced. Returns what was deleted.
    pub async fn delete_topic(&self, name: &str, how: DeleteOptions) -> Result<Deleted, Error> {
        let DeleteOptions { force, with_dead_letters } = how;
        self.deleted(Request::DeleteTopic { name: TopicName::parse_any(name)?, force, with_dead_letters })
            .await
    }

    /// Creates a subscription.
    pub async fn create_subscription(
        &self,
        topic: &str,
        name: &str,
        options: SubscriptionOptions,
        from: Start,
    ) -> Result<SubscriptionInfo, Error> {
        let (topic, name) = (TopicName::parse_any(topic)?, name.parse()?);
        let request = Request::CreateSubscription { topic, name, options, from };
        expect!(self.request(request).await?, Response::Subscription(subscription) => *subscription)
    }

    /// Lists the subscriptions of one topic, or of all.
    pub async fn list_subscriptions(&self, topic: Option<&str>) -> Result<Vec<SubscriptionInfo>, Error> {
        let topic = topic.map(TopicName::parse_any).transpose()?;
        let ask = |after| Request::ListSubscriptions { topic: topic.clone(), limit: 0, after };
        every_page!(self, ask, Response::Subscriptions { subscriptions, next } => (subscriptions, next))
    }

    /// Describes one subscription.
    pub async fn describe_subscription(&self, topic: &str, name: &str) -> Result<SubscriptionInfo, Error> {
        let (topic, name) = (TopicName::parse_any(topic)?, name.parse()?);
        let request = Request::DescribeSubscription { topic, name };
        expect!(self.request(request).await?, Response::Subscription(subscription) => *subscription)
    }

    /// Deletes a subscription with its progress. Refused with `SUBSCRIPTION_IN_USE` while consumers are attached,
    /// unless it is forced. Returns what was deleted.
    pub async fn delete_subscription(
        &self,
        topic: &str,
        name: &str,
        how: DeleteOptions,
    ) -> Result<Deleted, Error> {
        let DeleteOptions { force, with_dead_letters } = how;
        let (topic, name) = (TopicName::parse_any(topic)?, name.parse()?);
        self.deleted(Request::DeleteSubscription { topic, name, force, with_dead_letters }).await
    }

    /// Changes the options of a subscription that are given; the others stay as they are. What is in flight keeps its
    /// deadline. Another order, a shorter `ack_timeout_ms` and a larger `max_in_flight` take every delivery back, and events may be
    /// delivered again; subscribers attach again by themselves.
    ///
    /// ```no_run
    /// # async fn slow_down(client: levada_client::Client) -> Result<(), levada_client::Error> {
    /// use levada_client::SubscriptionOptions;
    ///
    /// // The database that these events go to takes a hundred rows a second.
    /// let options = SubscriptionOptions { rate: Some(100), max_attempts: Some(20), ..SubscriptionOptions::default() };
    /// client.set_subscription("orders", "archive", options).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_subscription(
        &self,
        topic: &str,
        name: &str,
        options: SubscriptionOptions,
    ) -> Result<SubscriptionInfo, Error> {
        let (topic, name) = (TopicName::parse_any(topic)?, name.parse()?);
        let request = Request::SetSubscription { topic, name, options };
        expect!(self.request(request).await?, Response::Subscription(subscription) => *subscription)
    }

    /// Moves a subscription in some partitions, or in all if none is given. What lies before its new position counts as
    /// acknowledged; what lies behind it is delivered, also if it was before. Every delivery is taken back and failed attempts are
    /// forgotten; subscribers attach again by themselves. `OFFSET_OUT_OF_RANGE` if a partition does not reach to an offset.
    ///
    /// ```no_run
    /// # async fn once_more(client: levada_client::Client) -> Result<(), levada_client::Error> {
    /// use levada_client::Start;
    ///
    /// // Everything from the first event that is still stored, in all partitions.
    /// client.seek_subscription("orders", "archive", Start::Earliest, &[]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn seek_subscription(
        &self,
        topic: &str,
        name: &str,
        to: Start,
        partitions: &[u16],
    ) -> Result<SubscriptionInfo, Error> {
        let (topic, name) = (TopicName::parse_any(topic)?, name.parse()?);
        let request = Request::SeekSubscription { topic, name, to, partitions: partitions.to_vec() };
        expect!(self.request(request).await?, Response::Subscription(subscription) => *subscription)
    }

    /// Pauses a subscription until it is resumed, also across restarts of the engine. What is in flight can be acknowledged.
    pub async fn pause_subscription(&self, topic: &str, name: &str) -> Result<(), Error> {
        let (topic, name) = (TopicName::parse_any(topic)?, name.parse()?);
        self.done(Request::PauseSubscription { topic, name }).await
    }

    /// Resumes a paused subscription, whatever paused it.
    pub async fn resume_subscription(&self, topic: &str, name: &str) -> Result<(), Error> {
        let (topic, name) = (TopicName::parse_any(topic)?, name.parse()?);
        self.done(Request::ResumeSubscription { topic, name }).await
    }

    /// Sets where the engine pushes a subscription's deliveries, or changes that; what is not given stays as it is. A secret
    /// that the engine draws is in the answer, and nowhere else.
    pub async fn set_push(&self, set: SetPush) -> Result<IssuedPush, Error> {
        expect!(self.request(Request::SetPush(set)).await?, Response::Push(issued) => *issued)
    }

    /// Ends a subscription's push. Refused with `PUSH_NOT_FOUND` if it has none.
    pub async fn remove_push(&self, topic: &str, name: &str) -> Result<(), Error> {
        let (topic, name) = (TopicName::parse_any(topic)?, name.parse()?);
        self.done(Request::RemovePush { topic, name }).await
    }

    /// Stores a WebAssembly component as the plugin's next version, or returns the version that has it already. With a
    /// configuration (JSON text) the engine first checks that the plugin accepts it.
    pub async fn deploy_plugin(
        &self,
        name: &str,
        artefact: Bytes,
        config: Option<String>,
    ) -> Result<PluginInfo, Error> {
        let size = u64::try_from(artefact.len()).expect("a length fits 64 bits");
        let request = Request::DeployPlugin { name: name.parse()?, size, config };
        expect!(self.request_with(request, Body::Artefact(artefact)).await?, Response::Plugin(plugin) => plugin)
    }

    /// Lists all versions of all plugins.
    pub async fn list_plugins(&self) -> Result<Vec<PluginInfo>, Error> {
        let ask = |after| Request::ListPlugins { limit: 0, after };
        every_page!(self, ask, Response::Plugins { plugins, next } => (plugins, next))
    }

    /// Removes one version of a plugin, or all with `None`. Returns what was deleted.
    pub async fn remove_plugin(&self, name: &str, version: Option<u32>) -> Result<Deleted, Error> {
        self.deleted(Request::RemovePlugin { name: name.parse()?, version }).await
    }

    /// Creates a route.
    pub async fn create_route(&self, spec: RouteSpec) -> Result<RouteInfo, Error> {
        expect!(self.request(Request::CreateRoute(spec)).await?, Response::Route(route) => route)
    }

    /// Lists all routes, in order of name.
    pub async fn list_routes(&self) -> Result<Vec<RouteInfo>, Error> {
        let ask = |after| Request::ListRoutes { limit: 0, after };
        every_page!(self, ask, Response::Routes { routes, next } => (routes, next))
    }

    /// Deletes a route. Returns what was deleted.
    pub async fn delete_route(&self, name: &str, how: DeleteOptions) -> Result<Deleted, Error> {
        let DeleteOptions { force, with_dead_letters } = how;
        self.deleted(Request::DeleteRoute { name: name.parse()?, force, with_dead_letters }).await
    }

    /// Resumes a paused route.
    pub async fn resume_route(&self, name: &str) -> Result<(), Error> {
        self.done(Request::ResumeRoute { name: name.parse()? }).await
    }

    /// Creates a principal, with a token if that is asked for: its secret is in the answer, and nowhere else. The first principal
    /// of an engine must be an administrator with a token.
    pub async fn create_principal(
        &self,
        principal: CreatePrincipal,
    ) -> Result<(PrincipalInfo, Option<IssuedToken>), Error> {
        let request = Request::CreatePrincipal(principal);
        expect!(self.request(request).await?, Response::Principal { principal, issued } => (principal, issued))
    }

    /// Changes what a principal may do, and by which certificates it is known. Streams that are not allowed any more end.
    pub async fn change_principal(&self, change: ChangePrincipal) -> Result<PrincipalInfo, Error> {
        let request = Request::ChangePrincipal(change);
        expect!(self.request(request).await?, Response::Principal { principal, .. } => principal)
    }

    /// Lists all principals, in order of name.
    pub async fn list_principals(&self) -> Result<Vec<PrincipalInfo>, Error> {
        let ask = |after| Request::ListPrincipals { limit: 0, after };
        every_page!(self, ask, Response::Principals { principals, next } => (principals, next))
    }

    /// Describes one principal, or with `None` the one on whose behalf this client acts.
    pub async fn describe_principal(&self, name: Option<&str>) -> Result<PrincipalInfo, Error> {
        let request = Request::DescribePrincipal { name: name.map(str::parse).transpose()? };
        expect!(self.request(request).await?, Response::Principal { principal, .. } => principal)
    }

    /// Deletes a principal with its tokens, and closes its connections.
    pub async fn delete_principal(&self, name: &str) -> Result<(), Error> {
        self.done(Request::DeletePrincipal { name: name.parse()? }).await
    }

    /// Creates a token of a principal. Its secret is in the answer, and nowhere else.
    pub async fn create_token(&self, principal: &str, token: NewToken) -> Result<IssuedToken, Error> {
        let request = Request::CreateToken(CreateToken { principal: principal.parse()?, token });
        expect!(self.request(request).await?, Response::IssuedToken(issued) => *issued)
    }

    /// Lists the tokens of one principal or of all, in order of id; those that ended less than 30 days ago among them.
    pub async fn list_tokens(&self, principal: Option<&str>) -> Result<Vec<TokenInfo>, Error> {
        let principal = principal.map(str::parse::<PrincipalName>).transpose()?;
        let ask = |after| Request::ListTokens { principal: principal.clone(), limit: 0, after };
        every_page!(self, ask, Response::Tokens { tokens, next } => (tokens, next))
    }

    /// Revokes a token, and closes the connections that were made with it.
    pub async fn revoke_token(&self, id: TokenId) -> Result<TokenInfo, Error> {
        expect!(self.request(Request::RevokeToken { id }).await?, Response::Token(token) => *token)
    }

    /// Lists the first `max` events of a topic that wait for their time, in the order in which they are due.
    pub async fn list_scheduled(&self, topic: &str, max: usize) -> Result<Vec<ScheduledInfo>, Error> {
        let topic = TopicName::parse_any(topic)?;
        let (mut all, mut after) = (Vec::new(), None);
        while all.len() < max {
            let limit = u32::try_from(max - all.len()).unwrap_or(u32::MAX);
            let request = Request::ListScheduled { topic: topic.clone(), limit, after: after.clone() };
            let (mut page, next) = expect!(
                self.request(request).await?,
                Response::ScheduledEvents { events, next } => (events, next)
            )?;
            // A page may be empty: what it would have held was cancelled.
            if next.is_some() && next == after {
                return Err(Error::bad_answer("a page of a list came no further"));
            }
            all.append(&mut page);
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Ok(all)
    }

    /// Describes an event that waits for its time. `ALREADY_DUE` once that has come, `SCHEDULE_NOT_FOUND` if it was
    /// cancelled, or there never was one of this id.
    pub async fn describe_scheduled(&self, topic: &str, id: u64) -> Result<ScheduledInfo, Error> {
        let request = Request::DescribeScheduled { topic: TopicName::parse_any(topic)?, id };
        expect!(self.request(request).await?, Response::Scheduled(event) => event)
    }

    /// Cancels an event that waits for its time. After `Ok` it is never delivered. A repeat, after a lost connection say, gets
    /// the same answer, until 7 days after the event's time. Refused with `ALREADY_DUE` once its time has come and it was
    /// moved to the log. Refused with `SCHEDULE_NOT_FOUND` if the topic has never scheduled an event of this id.
    pub async fn cancel_scheduled(&self, topic: &str, id: u64) -> Result<(), Error> {
        self.done(Request::CancelScheduled { topic: TopicName::parse_any(topic)?, id }).await
    }

    async fn deleted(&self, request: Request) -> Result<Deleted, Error> {
        expect!(self.request(request).await?, Response::Deleted(deleted) => deleted)
    }

    /// A request whose response is success alone; any content of it is ignored.
    async fn done(&self, request: Request) -> Result<(), Error> {
        self.request(request).await.map(drop)
    }
}
