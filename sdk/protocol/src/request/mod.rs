//! MessagePack messages: what a stream is, what is asked on it, and what the engine answers.
//!
//! Maps with short string keys; enums carry their tag under `kind`. Unknown fields are ignored, missing ones
//! take their default, unknown tags decode to `Unknown`, which the engine refuses with `UNSUPPORTED`.

mod subscription;
mod topic;

use serde::{Deserialize, Serialize};

pub use self::{
    subscription::{OnError, Order, StageSpec, SubscriptionInfo, SubscriptionOptions},
    topic::{PartitionInfo, Retain, TopicChanges, TopicInfo, TopicSettings},
};
use crate::error::Refusal;

/// First frame of every stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Open {
    /// The control stream: the first of every connection, and open as long as it.
    Hello(Hello),
    /// A publish stream; `Publish` frames follow, `Ack` frames come back.
    Publish {
        /// The topic's name.
        topic: String,
    },
    /// A consumer of a subscription; `Credit` and `Verbs` frames follow, `Deliver` and `Settled` come back.
    Subscribe(Subscribe),
    /// A reader; `Credit` frames follow, `Deliver` frames and at last `End` come back.
    Read(Read),
    /// One request; a `DeployPlugin` is followed by its artefact in `Chunk` frames.
    Request(RequestEnvelope),
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
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
        /// The topic's default: `os` or `sync`.
        durability: String,
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
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// Oldest protocol version spoken.
    pub protocol_min: u16,
    /// Newest protocol version spoken.
    pub protocol_max: u16,
    /// Name and version of the client library, for the engine's log.
    pub client: String,
    /// A bearer token; not yet looked at.
    pub token: Option<String>,
    /// Optional features wanted; none are defined yet.
    pub features: Vec<String>,
}

/// What the engine answers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HelloAnswer {
    /// The version both will speak.
    pub protocol: u16,
    /// The engine's version.
    pub version: String,
    /// Names this data directory; the same after a restart.
    pub engine_id: String,
    /// Names this start of the engine; another after a restart.
    pub start_id: String,
    /// The engine's clock in milliseconds since the Unix epoch.
    pub server_time_ms: u64,
    /// What a client must obey.
    pub limits: Limits,
}

/// The limits of `limits.rs` that a client must obey, in bytes and counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Largest event.
    pub event_bytes_max: u64,
    /// Largest batch body.
    pub batch_body_bytes_max: u64,
    /// Most events in a batch.
    pub batch_events_max: u32,
    /// Most unacknowledged batches of one producer and partition.
    pub producer_in_flight_max: u32,
    /// Largest plugin artefact.
    pub artefact_bytes_max: u64,
    /// Most streams that this connection may have open at once, the control stream among them.
    pub streams_max: u32,
}

/// Where to begin in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "at", content = "value", rename_all = "snake_case")]
pub enum Start {
    /// The oldest event still stored.
    Earliest,
    /// The durable end: only what comes from now on.
    #[default]
    Latest,
    /// This offset, in every partition read.
    Offset(u64),
    /// The first event appended at or after this time, in milliseconds since the Unix epoch.
    Time(u64),
}

/// Attaches a consumer to a subscription.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Subscribe {
    /// The topic's name.
    pub topic: String,
    /// The subscription's name.
    pub subscription: String,
    /// Names the consumer in listings; at most 256 bytes.
    pub consumer: String,
    /// Make the subscription with these options if it is absent; if it exists and one that is given is another:
    /// `SUBSCRIPTION_MISMATCH`. `None`: it must exist, with whatever options.
    pub options: Option<SubscriptionOptions>,
    /// Where a subscription that is made now begins.
    pub from: Start,
}

/// The engine's answer to [`Subscribe`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Subscribed {
    /// True if the subscription was made by this.
    pub created: bool,
    /// How many partitions the topic has.
    pub partitions: u16,
    /// The oldest offset not yet acknowledged, per partition.
    pub positions: Vec<Position>,
    /// How many stored events lie before the positions; what `earliest` would have read in addition.
    pub stored_before: u64,
    /// True while another consumer is active and this one waits to take over.
    pub standby: bool,
    /// Milliseconds after which an unacknowledged delivery is given again. 0: the engine does not say.
    pub ack_timeout_ms: u32,
}

/// A place in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// The partition.
    pub partition: u16,
    /// The offset.
    pub offset: u64,
}

/// Reads stored events without leaving a trace.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Read {
    /// The topic's name.
    pub topic: String,
    /// Which partitions; empty means all.
    pub partitions: Vec<u16>,
    /// Where to begin in each.
    pub from: Start,
    /// True: go on with new events for ever. False: `End` after what is stored now.
    pub follow: bool,
}

/// A request with its number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestEnvelope {
    /// The client's own number.
    pub id: u64,
    /// Milliseconds after which the client no longer waits; 0 means none.
    #[serde(default)]
    pub deadline_ms: u32,
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
    /// The engine's state and figures.
    Info,
    /// Makes a topic.
    CreateTopic {
        /// Its name.
        name: String,
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
        name: String,
    },
    /// Changes some settings of a topic; the partition count is fixed.
    SetTopic {
        /// Its name.
        name: String,
        /// Those that are to change.
        #[serde(default)]
        settings: TopicChanges,
    },
    /// Deletes a topic with its subscriptions and the routes from it.
    DeleteTopic {
        /// Its name.
        name: String,
        /// Also if something goes with it, or needs it. Otherwise that is refused, and named.
        #[serde(default)]
        force: bool,
        /// Also the dead-letter topics of what goes.
        #[serde(default)]
        with_dead_letters: bool,
    },
    /// Makes a subscription.
    CreateSubscription {
        /// The topic's name.
        topic: String,
        /// The subscription's name.
        name: String,
        /// Its options.
        #[serde(default)]
        options: SubscriptionOptions,
        /// Where it begins.
        #[serde(default)]
        from: Start,
    },
    /// The subscriptions of one topic or of all, in pages.
    ListSubscriptions {
        /// The topic's name; `None` means all.
        #[serde(default)]
        topic: Option<String>,
        /// Most entries of the answer; 0 means as many as fit.
        #[serde(default)]
        limit: u32,
        /// The answer begins behind this entry: a page's `next`. `None` means at the first.
        #[serde(default)]
        after: Option<String>,
    },
    /// One subscription.
    DescribeSubscription {
        /// The topic's name.
        topic: String,
        /// The subscription's name.
        name: String,
    },
    /// Deletes a subscription with its progress.
    DeleteSubscription {
        /// The topic's name.
        topic: String,
        /// The subscription's name.
        name: String,
        /// Also if consumers are attached, or something reads the dead letters that go.
        #[serde(default)]
        force: bool,
        /// Also its dead-letter topic.
        #[serde(default)]
        with_dead_letters: bool,
    },
    /// Lets a paused subscription go on.
    ResumeSubscription {
        /// The topic's name.
        topic: String,
        /// The subscription's name.
        name: String,
    },
    /// Stores a plugin's next version; the artefact follows in `Chunk` frames.
    DeployPlugin {
        /// The plugin's name.
        name: String,
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
        /// The plugin's name.
        name: String,
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
        /// The route's name.
        name: String,
        /// Also if something reads the dead letters that go.
        #[serde(default)]
        force: bool,
        /// Also its dead-letter topic.
        #[serde(default)]
        with_dead_letters: bool,
    },
    /// Lets a paused route go on.
    ResumeRoute {
        /// The route's name.
        name: String,
    },
    /// A request that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Response {
    /// Done; there is nothing to tell.
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
    Subscription(SubscriptionInfo),
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

/// A plugin version as it stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginInfo {
    /// Its name.
    pub name: String,
    /// Its version, rising from 1.
    pub version: u32,
    /// SHA-256 of the artefact, in hexadecimal.
    pub sha256: String,
    /// The artefact's length in bytes.
    pub size: u64,
    /// `batch` or `events`.
    pub interface: String,
    /// When it was deployed, in milliseconds since the Unix epoch.
    pub deployed_ms: u64,
    /// In the answer to a deployment: this version was these very bytes already, and no other was made.
    pub already_deployed: bool,
    /// The places that use it; at most 1,000 of them.
    pub used_by: Vec<String>,
    /// How many places use it.
    pub used_by_count: u64,
    /// Calls, since the engine started.
    pub calls: u64,
    /// Events handed in, since the engine started.
    pub events_in: u64,
    /// Calls that failed, and events whose verdict could not be followed, such as one for a target that the route does
    /// not declare; since the engine started.
    pub errors: u64,
    /// The last of these errors.
    pub last_error: Option<String>,
    /// Instances that were replaced because earlier calls had left no memory for the next one, which was then repeated;
    /// no errors, since the engine started.
    pub memory_restarts: u64,
    /// Seconds spent in it, since the engine started.
    pub seconds: f64,
}

/// What a route is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteSpec {
    /// Its name.
    pub name: String,
    /// The source topic's name.
    pub from: String,
    /// The target topics' names; the first takes outputs that name none.
    pub to: Vec<String>,
    /// Plugins that events pass, in order; only the last may choose a target.
    pub chain: Vec<StageSpec>,
    /// Where it begins.
    pub start: Start,
}

/// A route as it stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteInfo {
    /// What it is.
    pub spec: RouteSpec,
    /// Its id.
    pub id: u64,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Per source partition: the next offset to take.
    pub positions: Vec<Position>,
    /// Source events not yet taken, over all partitions.
    pub lag: u64,
    /// Events that went to the dead-letter topic, since the engine started.
    pub dead_lettered: u64,
    /// `running`, `paused: why` or `blocked: target CODE`.
    pub state: String,
}

/// The engine's state and figures.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineInfo {
    /// Its version.
    pub version: String,
    /// Names the data directory.
    pub engine_id: String,
    /// Names this start.
    pub start_id: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Its process's CPU time, user and system.
    pub cpu_seconds: f64,
    /// Its process's memory now, in bytes.
    pub rss_bytes: u64,
    /// Its process's largest memory so far, in bytes.
    pub peak_rss_bytes: u64,
    /// Free bytes on the data directory's volume.
    pub disk_free_bytes: u64,
    /// Bytes that compaction has written.
    pub compaction_bytes: u64,
    /// Bytes that flushes of memtables have written.
    pub flush_bytes: u64,
    /// Seconds for which the store held writers back.
    pub stall_seconds: f64,
    /// Syncs of the write-ahead log.
    pub syncs: u64,
    /// Their duration in microseconds: median and 99th percentile.
    pub sync_p50_us: u64,
    /// See `sync_p50_us`.
    pub sync_p99_us: u64,
    /// The QUIC packet size in force on the asking connection, in bytes.
    pub mtu: u16,
    /// Why no writes are taken, if none are.
    pub read_only: Option<String>,
}

/// What the engine tells a client unasked, on the control stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Notice {
    /// The engine is going away; finish what is in flight and reconnect.
    GoAway {
        /// Why.
        reason: String,
    },
    /// Retention dropped events that a subscription had not acknowledged.
    EventsLost {
        /// The topic's name.
        topic: String,
        /// The subscription's name.
        subscription: String,
        /// The partition.
        partition: u16,
        /// The first lost offset.
        first: u64,
        /// The last lost offset.
        last: u64,
    },
    /// Reserved (`CheckBack`, `TopicChanged`) or of a newer version.
    #[serde(other)]
    Unknown,
}
