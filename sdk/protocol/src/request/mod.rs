//! MessagePack messages: what a stream is, its requests and their responses.
//!
//! Maps with short string keys; enums carry their tag under `kind`. Unknown fields are ignored, missing ones
//! take their default, unknown tags decode to `Unknown`, which the engine refuses with `UNSUPPORTED`.

mod chain;
mod dead_letters;
mod engine;
mod plugin;
mod principal;
mod producer;
mod push;
mod route;
mod search;
mod session;
mod state;
mod stream;
mod subscription;
mod topic;
mod transaction;
mod waiting;

use serde::{Deserialize, Serialize};

pub use self::{
    chain::{OnError, StageSpec},
    dead_letters::{
        DeadLetterGroup, DeadLetterGroups, DeadLetterSelection, DeadLetterTopic, GroupDeadLetters,
        PurgeDeadLetters, Purged, Redrive, RedriveInfo, RedriveOutcome, Redriven, Stretch,
    },
    engine::EngineInfo,
    plugin::{Interface, PluginInfo},
    principal::{
        ChangePrincipal, CreatePrincipal, CreateToken, IssuedToken, NewToken, PrincipalInfo, QuotaChanges,
        Quotas, TokenInfo, TokenState,
    },
    producer::OpenedProducer,
    push::{IssuedPush, PushFailure, PushInfo, PushState, SetPush},
    route::{RouteInfo, RouteSpec},
    search::{Search, SearchKey},
    session::{EventLimits, Hello, HelloAnswer, Limits, Notice, TransactionLimits},
    state::{PauseReason, RunState},
    stream::{Position, Read, Start, Subscribe, Subscribed},
    subscription::{Alarm, BACKOFF_MS, LostEvents, Order, SubscriptionInfo, SubscriptionOptions},
    topic::{
        BacklogInfo, DEDUP_WINDOW_MS_USUAL, DedupInfo, OnFull, PartitionInfo, PurgeTopic, PurgedTopic,
        Retain, TopicChanges, TopicInfo, TopicSettings,
    },
    transaction::{
        AckedDelivery, CheckBack, DecideTransaction, ListTransactions, Prepare, Transact, TransactionAcks,
        TransactionBatch, TransactionDuplicate, TransactionInfo, TransactionState,
    },
    waiting::{Holding, Retry, WaitingFor},
};
use crate::{
    error::Refusal,
    ids::{
        GroupName, PluginName, PrincipalName, ProducerName, RouteName, SubscriptionName, TokenId, TopicName,
        TransactionId,
    },
    publish::Durability,
    schedule::ScheduledInfo,
    trace::TraceContext,
};

/// First frame of every stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Open {
    /// The control stream: the first of every connection, and open as long as it.
    Hello(Hello),
    /// A publish stream; `Publish` frames follow, `Ack` frames come back.
    Publish {
        /// The topic.
        topic: TopicName,
        /// The caller's span, for tracing.
        #[serde(default)]
        trace: Option<TraceContext>,
    },
    /// A consumer of a subscription; `Credit` and `Verbs` frames follow, `Deliver` and `Settled` come back.
    Subscribe(Subscribe),
    /// A reader; `Credit` frames follow, `Deliver` frames and at last `End` come back.
    Read(Read),
    /// One request; a `DeployPlugin` is followed by its artefact in `Chunk` frames, a `Transact` by its batches in
    /// `Publish` frames.
    Request(RequestEnvelope),
    /// A member of a producer group that can be asked about the group's prepared transactions; `CheckBack` frames come
    /// back.
    CheckBacks {
        /// The group.
        group: GroupName,
        /// The caller's span, for tracing.
        #[serde(default)]
        trace: Option<TraceContext>,
    },
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Open {
    /// The caller's span.
    pub fn trace(&self) -> Option<TraceContext> {
        match self {
            Self::Publish { trace, .. } | Self::CheckBacks { trace, .. } => *trace,
            Self::Subscribe(subscribe) => subscribe.trace,
            Self::Read(read) => read.trace,
            Self::Request(envelope) => envelope.trace,
            Self::Hello(_) | Self::Unknown => None,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The engine's answer to [`Open`]. A refusal comes as an `Error` frame instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Opened {
    /// To [`Open::Hello`].
    Hello(HelloAnswer),
    /// To [`Open::Publish`].
    Publish {
        /// How many partitions the topic has.
        partitions: u16,
        /// The topic's durability, the least that a publish gets.
        durability: Durability,
        /// The limits of the topic's backlog in events and bytes, 0 for none: a batch within them is taken or refused
        /// exactly, a larger one only while there is no backlog.
        #[serde(default, skip_serializing_if = "is_zero")]
        backlog_max_events: u64,
        /// See `backlog_max_events`.
        #[serde(default, skip_serializing_if = "is_zero")]
        backlog_max_bytes: u64,
    },
    /// To [`Open::Subscribe`].
    Subscribe(Subscribed),
    /// To [`Open::Read`].
    Read {
        /// Where each partition's reading begins.
        positions: Vec<Position>,
    },
    /// To [`Open::Request`].
    Response(ResponseEnvelope),
    /// To [`Open::CheckBacks`].
    CheckBacks,
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A request with its number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestEnvelope {
    /// The client's own number.
    pub id: u64,
    /// Milliseconds after which the client no longer waits; 0 means none.
    #[serde(default)]
    pub deadline_ms: u32,
    /// The caller's span, for tracing.
    #[serde(default)]
    pub trace: Option<TraceContext>,
    /// What is asked.
    pub request: Request,
}

/// A response with its request's number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResponseEnvelope {
    /// The number of the request.
    pub id: u64,
    /// The answer.
    pub response: Response,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Request {
    /// The engine's state and statistics.
    Info,
    /// Makes a topic.
    CreateTopic {
        /// Its name.
        name: TopicName,
        /// Its settings.
        #[serde(default)]
        settings: TopicSettings,
    },
    /// All topics, in pages.
    ListTopics {
        /// Most entries of the answer; 0 means as many as fit.
        #[serde(default)]
        limit: u32,
        /// The answer begins behind this entry: a page's `next`. `None` means at the first.
        #[serde(default)]
        after: Option<String>,
    },
    /// One topic.
    DescribeTopic {
        /// Its name.
        name: TopicName,
    },
    /// Changes some settings of a topic; the partition count is fixed.
    SetTopic {
        /// Its name.
        name: TopicName,
        /// Those that are to change.
        #[serde(default)]
        settings: TopicChanges,
    },
    /// Drops events of a topic from the oldest on, as retention does. Those that wait for their time, or for the decision of
    /// their transaction, stay.
    PurgeTopic(PurgeTopic),
    /// Deletes a topic with its subscriptions and the routes from it.
    DeleteTopic {
        /// Its name.
        name: TopicName,
        /// Also if something goes with it, or needs it. Otherwise that is refused, and named.
        #[serde(default)]
        force: bool,
        /// Also the dead-letter topics of what goes.
        #[serde(default)]
        with_dead_letters: bool,
    },
    /// Makes a subscription.
    CreateSubscription {
        /// The topic.
        topic: TopicName,
        /// The subscription on it.
        name: SubscriptionName,
        /// Its options.
        #[serde(default)]
        options: SubscriptionOptions,
        /// Where it begins.
        #[serde(default)]
        from: Start,
    },
    /// The subscriptions of one topic or of all, in pages.
    ListSubscriptions {
        /// The topic; `None` means all.
        #[serde(default)]
        topic: Option<TopicName>,
        /// Most entries of the answer; 0 means as many as fit.
        #[serde(default)]
        limit: u32,
        /// The answer begins behind this entry: a page's `next`. `None` means at the first.
        #[serde(default)]
        after: Option<String>,
    },
    /// One subscription.
    DescribeSubscription {
        /// The topic.
        topic: TopicName,
        /// The subscription on it.
        name: SubscriptionName,
    },
    /// Deletes a subscription with its progress.
    DeleteSubscription {
        /// The topic.
        topic: TopicName,
        /// The subscription on it.
        name: SubscriptionName,
        /// Also if consumers are attached, or something reads the dead letters that go.
        #[serde(default)]
        force: bool,
        /// Also its dead-letter topic.
        #[serde(default)]
        with_dead_letters: bool,
    },
    /// Changes some options of a subscription. What is in flight keeps its deadline. Another order, a shorter `ack_timeout_ms` and
    /// a larger `max_in_flight` take every delivery back; consumers have to attach again, as after
    /// [`Request::SeekSubscription`].
    SetSubscription {
        /// The topic.
        topic: TopicName,
        /// The subscription on it.
        name: SubscriptionName,
        /// Those that are to change.
        #[serde(default)]
        options: SubscriptionOptions,
    },
    /// Moves a subscription: what lies before its new position counts as acknowledged, what lies behind it is delivered, also
    /// if it was before. Every delivery is taken back and attempts are forgotten; the streams of its consumers end with
    /// `SUBSCRIPTION_MOVED`, and they have to attach again.
    SeekSubscription {
        /// The topic.
        topic: TopicName,
        /// The subscription on it.
        name: SubscriptionName,
        /// Where to.
        to: Start,
        /// In which partitions; empty means all.
        #[serde(default)]
        partitions: Vec<u16>,
    },
    /// Pauses a subscription until it is resumed, also across restarts: nothing more is delivered. What is in flight can be
    /// acknowledged.
    PauseSubscription {
        /// The topic.
        topic: TopicName,
        /// The subscription on it.
        name: SubscriptionName,
    },
    /// Lets a paused subscription go on, whatever paused it.
    ResumeSubscription {
        /// The topic.
        topic: TopicName,
        /// The subscription on it.
        name: SubscriptionName,
    },
    /// Sets where a subscription's deliveries are pushed by the engine, or changes that.
    SetPush(SetPush),
    /// Ends a subscription's push; what is not acknowledged is delivered to whoever consumes the subscription.
    RemovePush {
        /// The topic.
        topic: TopicName,
        /// The subscription on it.
        name: SubscriptionName,
    },
    /// Stores a plugin's next version; the artefact follows in `Chunk` frames.
    DeployPlugin {
        /// The plugin.
        name: PluginName,
        /// The artefact's length in bytes.
        size: u64,
        /// A configuration, as JSON text, that `init` must accept before the version is stored.
        #[serde(default)]
        config: Option<String>,
    },
    /// All plugin versions, in pages.
    ListPlugins {
        /// Most entries of the answer; 0 means as many as fit.
        #[serde(default)]
        limit: u32,
        /// The answer begins behind this entry: a page's `next`. `None` means at the first.
        #[serde(default)]
        after: Option<String>,
    },
    /// Removes one version of a plugin, or all.
    RemovePlugin {
        /// The plugin.
        name: PluginName,
        /// The version; `None` means all.
        #[serde(default)]
        version: Option<u32>,
    },
    /// Makes a route.
    CreateRoute(RouteSpec),
    /// All routes, in pages.
    ListRoutes {
        /// Most entries of the answer; 0 means as many as fit.
        #[serde(default)]
        limit: u32,
        /// The answer begins behind this entry: a page's `next`. `None` means at the first.
        #[serde(default)]
        after: Option<String>,
    },
    /// Deletes a route.
    DeleteRoute {
        /// The route.
        name: RouteName,
        /// Also if something reads the dead letters that go.
        #[serde(default)]
        force: bool,
        /// Also its dead-letter topic.
        #[serde(default)]
        with_dead_letters: bool,
    },
    /// Lets a paused route go on.
    ResumeRoute {
        /// The route.
        name: RouteName,
    },
    /// The events of a topic that wait for their time, in pages.
    ListScheduled {
        /// The topic.
        topic: TopicName,
        /// Most entries of the answer; 0 means as many as fit.
        #[serde(default)]
        limit: u32,
        /// The answer begins behind this entry: a page's `next`. `None` means at the first.
        #[serde(default)]
        after: Option<String>,
    },
    /// One event that waits for its time.
    DescribeScheduled {
        /// The topic.
        topic: TopicName,
        /// The event's schedule id, from its acknowledgement.
        id: u64,
    },
    /// Takes back an event that waits for its time; done also if it was taken back before.
    CancelScheduled {
        /// The topic.
        topic: TopicName,
        /// The event's schedule id, from its acknowledgement.
        id: u64,
    },
    /// The dead-letter topics, in pages.
    ListDeadLetters {
        /// Those of the subscriptions of this topic and of the routes from it; `None` means all.
        #[serde(default)]
        topic: Option<TopicName>,
        /// Most entries of the answer; 0 means as many as fit.
        #[serde(default)]
        limit: u32,
        /// The answer begins behind this entry: a page's `next`. `None` means at the first.
        #[serde(default)]
        after: Option<String>,
    },
    /// The dead letters of one topic by reason and plugin version, a stretch at a time.
    GroupDeadLetters(GroupDeadLetters),
    /// Which dead letters were redriven, when and where to, in order of their offsets.
    ListRedrives {
        /// The dead-letter topic.
        topic: TopicName,
        /// The first offset of interest.
        #[serde(default)]
        from: u64,
        /// The offset before which the list ends; `None` means at the end.
        #[serde(default)]
        until: Option<u64>,
    },
    /// Appends the events of dead letters to a topic, a bounded number at a time. Each append and the note that the dead
    /// letter was redriven are one commit; what was redriven before is left alone, so that a request that is repeated redrives
    /// nothing twice.
    Redrive(Redrive),
    /// Drops dead letters: all, or those before a time.
    PurgeDeadLetters(PurgeDeadLetters),
    /// Stores events of any topics in one commit, all or none; its batches follow in `Publish` frames. Asked again with the
    /// same id and the same batches, it tells what became of it the first time.
    Transact(Transact),
    /// Decides a prepared transaction. The first decision stays; the same again is done.
    DecideTransaction(DecideTransaction),
    /// The transactions of one producer group or of all, in pages.
    ListTransactions(ListTransactions),
    /// One transaction.
    DescribeTransaction {
        /// The producer group.
        group: GroupName,
        /// The transaction.
        id: TransactionId,
    },
    /// Takes a producer's name over. Once it is answered, nothing is appended to the topic any more that was published under an
    /// earlier opening of the name, in whichever partition.
    OpenProducer {
        /// The topic.
        topic: TopicName,
        /// The producer's name on it.
        name: ProducerName,
    },
    /// Makes a principal, with a token if that is asked for. The first one must be an administrator with a token or a certificate:
    /// from then on nobody is served without.
    CreatePrincipal(CreatePrincipal),
    /// Changes what a principal may do, and by which certificates it is known. In force for the next request; open streams that
    /// are not allowed any more end.
    ChangePrincipal(ChangePrincipal),
    /// Deletes a principal with its tokens. Its connections are closed.
    DeletePrincipal {
        /// The principal.
        name: PrincipalName,
    },
    /// All principals, in pages.
    ListPrincipals {
        /// Most entries of the answer; 0 means as many as fit.
        #[serde(default)]
        limit: u32,
        /// The answer begins behind this entry: a page's `next`. `None` means at the first.
        #[serde(default)]
        after: Option<String>,
    },
    /// One principal.
    DescribePrincipal {
        /// The principal; `None` means the caller.
        #[serde(default)]
        name: Option<PrincipalName>,
    },
    /// Makes a token of a principal. Its secret is in the answer, and nowhere else.
    CreateToken(CreateToken),
    /// The tokens of one principal or of all, in pages; those that were revoked or expired less than 30 days ago among them.
    ListTokens {
        /// The principal; `None` means all.
        #[serde(default)]
        principal: Option<PrincipalName>,
        /// Most entries of the answer; 0 means as many as fit.
        #[serde(default)]
        limit: u32,
        /// The answer begins behind this entry: a page's `next`. `None` means at the first.
        #[serde(default)]
        after: Option<String>,
    },
    /// Revokes a token; done also if it was revoked before. Connections that were made with it are closed.
    RevokeToken {
        /// The token.
        id: TokenId,
    },
    /// A request that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Response {
    /// Done; there is nothing to report.
    Done,
    /// What is gone.
    Deleted(Deleted),
    /// To [`Request::Info`].
    Info(Box<EngineInfo>),
    /// One topic.
    Topic(TopicInfo),
    /// A page of topics.
    Topics {
        /// In order of name.
        topics: Vec<TopicInfo>,
        /// Where to go on: the next request's `after`. `None`: this was all.
        #[serde(default)]
        next: Option<String>,
    },
    /// One subscription.
    Subscription(Box<SubscriptionInfo>),
    /// A page of subscriptions.
    Subscriptions {
        /// In order of topic and name.
        subscriptions: Vec<SubscriptionInfo>,
        /// Where to go on: the next request's `after`. `None`: this was all.
        #[serde(default)]
        next: Option<String>,
    },
    /// One plugin version.
    Plugin(PluginInfo),
    /// A page of plugin versions.
    Plugins {
        /// In order of name and version.
        plugins: Vec<PluginInfo>,
        /// Where to go on: the next request's `after`. `None`: this was all.
        #[serde(default)]
        next: Option<String>,
    },
    /// One route.
    Route(RouteInfo),
    /// A page of routes.
    Routes {
        /// In order of name.
        routes: Vec<RouteInfo>,
        /// Where to go on: the next request's `after`. `None`: this was all.
        #[serde(default)]
        next: Option<String>,
    },
    /// One event that waits for its time.
    Scheduled(ScheduledInfo),
    /// A page of events that wait for their time.
    ScheduledEvents {
        /// In the order in which they are due.
        events: Vec<ScheduledInfo>,
        /// Where to go on: the next request's `after`. `None`: this was all.
        #[serde(default)]
        next: Option<String>,
    },
    /// A page of dead-letter topics.
    DeadLetterTopics {
        /// In order of name.
        topics: Vec<DeadLetterTopic>,
        /// Where to go on: the next request's `after`. `None`: this was all.
        #[serde(default)]
        next: Option<String>,
    },
    /// A stretch of a dead-letter topic, by reason and plugin version.
    DeadLetterGroups(DeadLetterGroups),
    /// Which dead letters were redriven.
    Redrives {
        /// In order of offset.
        redrives: Vec<RedriveInfo>,
        /// Where to go on: the next request's `from`. `None`: this was all.
        #[serde(default)]
        next: Option<u64>,
    },
    /// What became of the dead letters of one step.
    Redriven(Redriven),
    /// What a purge of dead letters dropped.
    Purged(Purged),
    /// What a purge of a topic dropped.
    TopicPurged(PurgedTopic),
    /// One transaction.
    Transaction(Box<TransactionInfo>),
    /// A page of transactions.
    Transactions {
        /// In order of group and id.
        transactions: Vec<TransactionInfo>,
        /// Where to go on: the next request's `after`. `None`: this was all.
        #[serde(default)]
        next: Option<String>,
    },
    /// To [`Request::OpenProducer`].
    Producer(Box<OpenedProducer>),
    /// One principal.
    Principal {
        /// What is known of it.
        principal: PrincipalInfo,
        /// The token that was made with it.
        #[serde(default)]
        issued: Option<IssuedToken>,
    },
    /// A page of principals.
    Principals {
        /// In order of name.
        principals: Vec<PrincipalInfo>,
        /// Where to go on: the next request's `after`. `None`: this was all.
        #[serde(default)]
        next: Option<String>,
    },
    /// To [`Request::CreateToken`].
    IssuedToken(Box<IssuedToken>),
    /// One token.
    Token(Box<TokenInfo>),
    /// A page of tokens.
    Tokens {
        /// In order of id.
        tokens: Vec<TokenInfo>,
        /// Where to go on: the next request's `after`. `None`: this was all.
        #[serde(default)]
        next: Option<String>,
    },
    /// To [`Request::SetPush`].
    Push(Box<IssuedPush>),
    /// Refused.
    Refused(Refusal),
    /// A response that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What a deletion took away, in order of name; each list names at most 1,000.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Deleted {
    /// Topics.
    pub topics: Vec<String>,
    /// Subscriptions, as `topic/subscription`.
    pub subscriptions: Vec<String>,
    /// Routes.
    pub routes: Vec<String>,
    /// Plugin versions, as `name@version`.
    pub plugins: Vec<String>,
    /// Dead-letter topics of what is gone that stay.
    pub dead_letters_kept: Vec<String>,
    /// How many topics, subscriptions, routes and plugin versions are gone.
    pub count: u64,
}
