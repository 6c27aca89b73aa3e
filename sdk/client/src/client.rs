//! The client: its connections and requests; it opens publishers, subscribers and readers.

use std::time::Duration;

use bytes::Bytes;
use levada_protocol::{
    frame::{self, FrameType},
    ids::{Timestamp, TopicName},
    request::{HelloAnswer, Notice, Open, Opened, Request, RequestEnvelope, Response},
};
use tokio::{
    sync::broadcast,
    time::{sleep, timeout},
};

use crate::{
    clock,
    config::ClientConfig,
    error::Error,
    link::Link,
    links::Links,
    partition_counts::PartitionCounts,
    publisher::{ProducerIds, Publisher, PublisherOptions},
    reader::{ReadOptions, Reader, Search, SearchOptions},
    retry::Backoff,
    stream,
    subscriber::{PullSubscriber, SubscribeOptions, Subscriber},
};

/// Bytes of one chunk of a plugin artefact.
const CHUNK_BYTES: usize = 1024 * 1024;
/// How long a deploy may take, compiling included: a component with a language runtime takes a minute or two.
const DEPLOY_TIMEOUT: Duration = Duration::from_secs(600);
/// The waits before a request is sent again.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LAST: Duration = Duration::from_secs(1);
/// A write that the engine stopped is followed by its reason within this time, or by none.
const REASON_GRACE: Duration = Duration::from_secs(1);

/// A connection to an engine, which reconnects by itself when it is lost.
///
/// Cheap to clone; the connection ends with the last clone and with everything that was made from them.
///
/// Each subscriber, publisher, reader and running request takes a stream of the connection. An engine limits the number
/// of them, 1,024 by default; a client that needs more makes further connections by itself, up to 64, so that one
/// client serves thousands of subscriptions. What finds no stream then fails with `LIMIT_EXCEEDED`.
#[derive(Debug, Clone)]
pub struct Client {
    links: Links,
    /// How many partitions the topics of transactions have.
    pub(crate) partitions: PartitionCounts,
    request_timeout: Duration,
}

/// What follows a request on its stream.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// Nothing.
    None,
    /// A plugin's artefact.
    Artefact(Bytes),
    /// A transaction's batches, each a whole frame.
    Batches(Vec<Bytes>),
}

impl Body {
    /// The frames to write.
    fn frames(&self) -> impl Iterator<Item = Bytes> + Send {
        let (artefact, batches) = match self {
            Self::None => (&[][..], &[][..]),
            Self::Artefact(artefact) => (artefact.as_ref(), &[][..]),
            Self::Batches(frames) => (&[][..], frames.as_slice()),
        };
        let chunks = artefact.chunks(CHUNK_BYTES).map(|part| frame::frame(FrameType::Chunk, part));
        chunks.chain(batches.iter().cloned())
    }
}

impl Client {
    /// Connects. The tasks of this client run on the tokio runtime that this is called on.
    ///
    /// Cancel safe: nothing is left behind.
    ///
    /// # Errors
    /// `CONNECT_FAILED` if there is no answer, `TLS_FAILED` if the engine's certificate is not trusted,
    /// `UNSUPPORTED_VERSION` if engine and client have no protocol version in common, `CONFIG_INVALID`.
    pub async fn connect(config: ClientConfig) -> Result<Self, Error> {
        let links = Links::connect(config).await?;
        let request_timeout = links.first().config().request_timeout;
        Ok(Self { links, partitions: PartitionCounts::default(), request_timeout })
    }

    /// The same client, whose requests and transactions take so long at most, instead of
    /// [`ClientConfig::request_timeout`]. They share its connections; subscribers, publishers and readers have the time that
    /// the configuration says.
    #[must_use]
    pub fn with_request_timeout(&self, limit: Duration) -> Self {
        Self { request_timeout: limit, ..self.clone() }
    }

    /// The engine's answer to the hello of the current connection. Cancel safe.
    ///
    /// # Errors
    /// As [`Client::request`], if there is no connection now and none comes.
    pub async fn hello(&self) -> Result<HelloAnswer, Error> {
        let session = self.links.first().session_within(self.request_timeout).await?;
        Ok(session.hello().clone())
    }

    /// The time by the engine's clock: what it was in the hello of the current connection, and the time since. Behind by as long
    /// as that answer took. Cancel safe.
    ///
    /// # Errors
    /// As [`Client::hello`].
    pub async fn engine_time(&self) -> Result<Timestamp, Error> {
        let session = self.links.first().session_within(self.request_timeout).await?;
        Ok(session.engine_time(clock::now()))
    }

    /// False while the client reconnects.
    pub fn is_connected(&self) -> bool {
        self.links.first().is_up()
    }

    /// The engine's notices from now on: that it goes away, that retention dropped events.
    ///
    /// The client itself obeys and logs them; this is for programs that want to see them. Notices that a program
    /// does not take in time are dropped, oldest first.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.links.notices()
    }

    /// Sends one request and waits for its answer.
    ///
    /// A request that only reads is sent again if the connection is lost meanwhile, and so is one that does no harm the second
    /// time: a redrive that is not forced, a transaction and the decision about one, the opening of a producer's name. If such
    /// a one finds no connection any more, or is refused, its outcome is in doubt: `DEADLINE_EXCEEDED`. Any other that changes
    /// something is not sent again, and fails with `CONNECTION_LOST`. Cancel safe in that the connection stays sound, but the
    /// request may still take effect.
    ///
    /// # Errors
    /// The engine's refusal; `CONNECT_FAILED`, `CONNECTION_LOST` or `DEADLINE_EXCEEDED` (the default limit is 30 s,
    /// see [`ClientConfig::request_timeout`]).
    pub async fn request(&self, request: Request) -> Result<Response, Error> {
        self.request_with(request, Body::None).await
    }

    /// How long a request may take.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Opens something on a connection that has a free stream.
    pub(crate) async fn open<T, F: Future<Output = Result<T, Error>>>(
        &self,
        open: impl Fn(Link) -> F,
    ) -> Result<T, Error> {
        self.links.open(open).await
    }

    /// Sends one request, followed by what it announces.
    pub(crate) async fn request_with(&self, request: Request, body: Body) -> Result<Response, Error> {
        let asked = self.request_timeout();
        // An artefact is compiled: that has a time of its own.
        let limit = if matches!(body, Body::Artefact(_)) { asked.max(DEPLOY_TIMEOUT) } else { asked };
        self.request_within(request, body, limit).await
    }

    /// The same within a time of the caller's.
    pub(crate) async fn request_within(
        &self,
        request: Request,
        body: Body,
        limit: Duration,
    ) -> Result<Response, Error> {
        let until = clock::now() + limit;
        self.links.open(|link| self.request_on(link, limit, until, &request, &body)).await
    }

    async fn request_on(
        &self,
        link: Link,
        limit: Duration,
        until: clock::Instant,
        request: &Request,
        body: &Body,
    ) -> Result<Response, Error> {
        // Something was sent whose outcome is not known.
        let mut lost = false;
        let doubted = |error: Error, lost: bool| match error {
            error if !lost || !error.has_no_side_effects() => error,
            Error::Refused(refusal) => Error::TimedOut { waited: limit, in_doubt: true, last: Some(refusal) },
            _ => Error::TimedOut { waited: limit, in_doubt: true, last: None },
        };
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LAST);
        loop {
            let left = until.saturating_duration_since(clock::now());
            // Connecting takes no longer for a request that may.
            let connected = link.session_within(left.min(link.config().request_timeout)).await;
            let session = connected.map_err(|error| doubted(error, lost))?;
            let left = until.saturating_duration_since(clock::now());
            let exchange = self.exchange(session.connection(), request, body, left);
            match timeout(left, exchange).await {
                Err(_) => return Err(Error::TimedOut { waited: limit, in_doubt: true, last: None }),
                Ok(Err(Error::ConnectionLost { .. })) if is_repeatable(request) => {
                    lost |= !is_reading(request);
                    // The supervisor notices the loss too, but perhaps later: do not ask the same session again.
                    let _ = timeout(REASON_GRACE, session.connection().closed()).await;
                    sleep(backoff.next()).await;
                }
                Ok(Ok(Response::Refused(refusal))) => return Err(doubted(refusal.into(), lost)),
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => return Err(doubted(error, lost)),
            }
        }
    }

    async fn exchange(
        &self,
        connection: &quinn::Connection,
        request: &Request,
        body: &Body,
        left: Duration,
    ) -> Result<Response, Error> {
        // One request a stream: its number has no meaning.
        let id = 1;
        let deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        let envelope = RequestEnvelope { id, deadline_ms, trace: None, request: request.clone() };
        let mut stream = stream::begin(connection, &Open::Request(envelope)).await?;
        for frame in body.frames() {
            if let Err(error) = stream.send.write_chunk(frame).await {
                // The engine refuses before it has read everything: its answer says why.
                if matches!(error, quinn::WriteError::Stopped(_)) {
                    break;
                }
                return Err(error.into());
            }
        }
        // A stream that the engine has stopped needs no end.
        let _ = stream.send.finish();
        let opened = stream.frames.opened().await?;
        match opened {
            Opened::Response(answer) if answer.id == id => Ok(answer.response),
            Opened::Response(answer) => {
                Err(Error::bad_answer(format!("request {id} was answered as number {}", answer.id)))
            }
            _ => Err(Error::bad_answer("a request was answered with something else")),
        }
    }

    /// Opens a publisher of one topic; one with a name ([`PublisherOptions::producer`]) takes that over first. Cancel safe:
    /// nothing is left behind, except that who had the name may publish no more. The same holds if an error comes after that.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND` and other refusals; `CONFIG_INVALID` for options out of range; `LIMIT_EXCEEDED` if the topic has as many
    /// names of producers as it may; as [`Client::request`].
    pub async fn publisher(&self, topic: &str, options: PublisherOptions) -> Result<Publisher, Error> {
        let producer_ids = self.producer_ids(topic, &options).await?;
        self.links.open(|link| Publisher::open(link, topic, options.clone(), producer_ids.clone())).await
    }

    /// Under which ids a publisher publishes; takes its name over, if it has one.
    async fn producer_ids(&self, topic: &str, options: &PublisherOptions) -> Result<ProducerIds, Error> {
        let Some(name) = options.producer.clone() else { return ProducerIds::random() };
        // Nobody is shut out for what cannot be opened.
        options.check()?;
        let request = Request::OpenProducer { topic: TopicName::parse_any(topic)?, name };
        match self.request(request).await? {
            Response::Producer(opened) => ProducerIds::of_name(*opened),
            _ => Err(Error::bad_answer("a request was answered with the answer to another")),
        }
    }

    /// Attaches a consumer to a subscription. Cancel safe: nothing is left behind, except a subscription that
    /// was created.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `SUBSCRIPTION_NOT_FOUND`, `SUBSCRIPTION_MISMATCH` and other refusals; as
    /// [`Client::request`].
    pub async fn subscribe(&self, options: SubscribeOptions) -> Result<Subscriber, Error> {
        self.links.open(|link| Subscriber::open(link, options.clone())).await
    }

    /// Attaches a consumer that receives what it pulls, and nothing ahead of that; [`SubscribeOptions::prefetch`] does
    /// not matter. Otherwise as [`Client::subscribe`].
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use levada_client::{Client, Pull, SubscribeOptions};
    /// # async fn write(client: Client) -> Result<(), levada_client::Error> {
    /// let mut orders = client.subscribe_pull(SubscribeOptions::new("orders", "archive")).await?;
    /// loop {
    ///     let pull = Pull { max: 1_000, wait: Duration::from_secs(1), ..Pull::default() };
    ///     for delivery in orders.pull(pull).await? {
    ///         // Write its events, all of them at once.
    ///         delivery.ack();
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// Cancel safe: at worst the subscription was made, and the consumer is detached again.
    ///
    /// # Errors
    /// As [`Client::subscribe`].
    pub async fn subscribe_pull(&self, options: SubscribeOptions) -> Result<PullSubscriber, Error> {
        self.links.open(|link| PullSubscriber::open(link, options.clone())).await
    }

    /// Reads stored events without leaving a trace. Cancel safe: nothing is left behind.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `PARTITION_NOT_FOUND`, `OFFSET_OUT_OF_RANGE` and other refusals; as [`Client::request`].
    pub async fn read(&self, options: ReadOptions) -> Result<Reader, Error> {
        self.links.open(|link| Reader::open(link, options.clone())).await
    }

    /// Searches stored events without leaving a trace. Cancel safe: nothing is left behind.
    ///
    /// # Errors
    /// As [`Client::read`]; `INVALID_ARGUMENT` for a condition with a mistake, with its column, and for a bound above the
    /// engine's.
    pub async fn search(&self, options: SearchOptions) -> Result<Search, Error> {
        self.links.open(|link| Search::open(link, options.clone())).await
    }

    /// Ends the connection and everything that uses it, at once: flush publishers and confirm
    /// acknowledgements before. What is in flight fails with `CONNECTION_LOST`.
    ///
    /// Cancel safe: the connection still ends.
    pub async fn close(&self) {
        self.links.close().await;
    }
}

/// True for a request that can be sent twice without harm: one that only reads, or that leaves alone the second time what it
/// did the first time.
fn is_repeatable(request: &Request) -> bool {
    match request {
        // What the first one redrove the second leaves alone.
        Request::Redrive(redrive) => !redrive.force,
        // Its id tells a repeat, and the first decision is final.
        Request::Transact(_) | Request::DecideTransaction(_) => true,
        // The second answer is of the newer epoch, and nobody has used the first.
        Request::OpenProducer { .. } => true,
        // Twice is as once.
        Request::ChangePrincipal(_) | Request::RevokeToken { .. } => true,
        other => is_reading(other),
    }
}

/// True for a request that changes nothing.
fn is_reading(request: &Request) -> bool {
    match request {
        Request::Info
        | Request::ListTopics { .. }
        | Request::DescribeTopic { .. }
        | Request::ListSubscriptions { .. }
        | Request::DescribeSubscription { .. }
        | Request::ListPlugins { .. }
        | Request::ListRoutes { .. }
        | Request::ListScheduled { .. }
        | Request::DescribeScheduled { .. }
        | Request::ListDeadLetters { .. }
        | Request::GroupDeadLetters(_)
        | Request::ListRedrives { .. }
        | Request::ListTransactions(_)
        | Request::DescribeTransaction { .. }
        | Request::ListPrincipals { .. }
        | Request::DescribePrincipal { .. }
        | Request::ListTokens { .. } => true,
        Request::Redrive(_)
        | Request::Transact(_)
        | Request::DecideTransaction(_)
        | Request::CreateTopic { .. }
        | Request::SetTopic { .. }
        | Request::DeleteTopic { .. }
        | Request::CreateSubscription { .. }
        | Request::DeleteSubscription { .. }
        | Request::SetSubscription { .. }
        | Request::SeekSubscription { .. }
        | Request::PauseSubscription { .. }
        | Request::ResumeSubscription { .. }
        | Request::SetPush(_)
        | Request::RemovePush { .. }
        | Request::DeployPlugin { .. }
        | Request::RemovePlugin { .. }
        | Request::CreateRoute(_)
        | Request::DeleteRoute { .. }
        | Request::ResumeRoute { .. }
        | Request::CancelScheduled { .. }
        | Request::PurgeDeadLetters(_)
        | Request::PurgeTopic(_)
        | Request::OpenProducer { .. }
        | Request::CreatePrincipal(_)
        | Request::ChangePrincipal(_)
        | Request::DeletePrincipal { .. }
        | Request::CreateToken(_)
        | Request::RevokeToken { .. }
        | Request::Unknown => false,
    }
}
