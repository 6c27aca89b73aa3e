//! A session: one connection from its handshake to its end. One task for it, one for each of its streams.
//!
//! It owns the hello and the control stream. Streams that come before the hello are not read; one that comes
//! instead of it ends the connection.

use std::sync::Arc;

use levada_broker::{Broker, Connection as Counted, Credentials, LossNotice, Principal};
use levada_protocol::{
    error::{ErrorCode, Refusal},
    request::{Hello, HelloAnswer, Limits, Open, Opened},
    token::Token,
    version::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN},
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::{
    sync::{Notify, mpsc},
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{Span, debug, debug_span, field, info};

use super::{
    check_backs,
    frames::FrameReader,
    inbound::Inbound,
    notices, peer,
    permits::Permits,
    publish, read,
    requests::{self, Uploads},
    stream::{Failure, Stream},
    subscribe,
};
use crate::{clock, config::ServerConfig, slots::Slot, tasks::Tasks, wire_error};

/// Streams that a connection may open before it has shown that it needs more: QUIC reserves room for each.
pub(super) const STREAMS_GRANTED_FIRST: u32 = 64;
/// Streams beyond the limit that are open while they are refused.
const STREAMS_REFUSED_MAX: u32 = 64;
/// Notices that may wait to be written to one client; more of them wait at their subscriptions.
const NOTICES_QUEUED_MAX: usize = 64;
/// How long a peer that broke the protocol may take to hear why.
const LAST_WORDS: time::Duration = time::Duration::from_secs(1);

/// What all sessions share.
pub(super) struct Shared {
    pub(super) broker: Broker,
    pub(super) config: ServerConfig,
    pub(super) tasks: Tasks,
    pub(super) uploads: Uploads,
    /// What unfinished frames may take.
    pub(super) inbound: Inbound,
}

/// Room for a session, taken before its handshake begins.
#[derive(Debug)]
pub(super) struct Admission {
    /// Held as long as the session.
    pub(super) connection: Slot,
    /// Held until the hello is answered; another may get it before.
    pub(super) handshake: Slot,
}

/// Streams that QUIC lets a client open in the end: those that it may have, and some to be refused.
pub(super) fn streams_granted_max(config: &ServerConfig) -> u32 {
    config.streams.connection_max + STREAMS_REFUSED_MAX
}

/// A session whose hello was answered.
struct Session {
    shared: Arc<Shared>,
    connection: Connection,
    /// The broker as this connection uses it.
    broker: Broker,
    /// On whose behalf it acts, and what it may do.
    permits: Permits,
    /// Notices for the client on the control stream.
    notices: mpsc::Sender<LossNotice>,
    /// Cancelled when the connection has ended: what its streams wait for is not needed any more.
    ended: CancellationToken,
    /// A stream has ended.
    left: Notify,
    inbound: Inbound,
    /// Cancelled once the client was notified that the engine goes away.
    notified: CancellationToken,
}

/// Performs the handshake and serves the session until it ends.
pub(super) async fn serve(shared: Arc<Shared>, incoming: quinn::Incoming, admission: Admission) {
    let Admission { connection: _open, handshake } = admission;
    // The handshake and the hello have one clock, so that neither can be dragged out.
    let until = time::Instant::now() + shared.config.listen.hello_timeout;
    let shaken = tokio::select! {
        biased;
        () = handshake.given().cancelled() => return debug!("handshake given up for another"),
        shaken = time::timeout_at(until, handshaken(incoming)) => shaken,
    };
    let connection = match shaken {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return debug!(%error, "handshake failed"),
        Err(_) => return debug!("handshake took too long"),
    };
    let inbound = shared.inbound.connection();
    let greeted = tokio::select! {
        biased;
        () = shared.tasks.cancelled().cancelled() => {
            return connection.close(wire_error::close_code(ErrorCode::ShuttingDown), b"the engine is going away");
        }
        () = handshake.given().cancelled() => {
            let why = b"no hello came before others needed the slot";
            return connection.close(wire_error::close_code(ErrorCode::HelloRequired), why);
        }
        greeted = time::timeout_at(until, greet(&shared, &connection, &inbound)) => greeted,
    };
    let (control, principal, _counted) = match greeted {
        Ok(Some(greeted)) => greeted,
        Ok(None) => return,
        Err(_) => {
            debug!("no hello in time");
            return connection
                .close(wire_error::close_code(ErrorCode::HelloRequired), b"no hello came in time");
        }
    };
    drop(handshake);
    let ended = CancellationToken::new();
    let (notices, noticed) = mpsc::channel(NOTICES_QUEUED_MAX);
    let broker = shared.broker.for_connection();
    let permits = Permits::new(shared.broker.clone(), principal);
    let (left, notified) = (Notify::new(), CancellationToken::new());
    let session = Session {
        shared,
        connection,
        broker,
        permits,
        notices,
        ended: ended.clone(),
        left,
        inbound,
        notified,
    };
    let _ending = ended.drop_guard();
    Arc::new(session).run(control, noticed).await;
}

async fn handshaken(incoming: quinn::Incoming) -> Result<Connection, quinn::ConnectionError> {
    incoming.accept()?.await
}

/// Reads the hello and answers it; `None` if the connection was closed instead.
async fn greet(
    shared: &Shared,
    connection: &Connection,
    inbound: &Inbound,
) -> Option<(Stream, Principal, Counted)> {
    let (send, recv) = connection.accept_bi().await.ok()?;
    let mut control = Stream::new(send, recv, inbound.clone());
    match welcome(shared, connection, &mut control).await {
        Ok((principal, counted)) => Some((control, principal, counted)),
        Err(failure) => {
            close(connection, &mut control, failure).await;
            None
        }
    }
}

async fn welcome(
    shared: &Shared,
    connection: &Connection,
    control: &mut Stream,
) -> Result<(Principal, Counted), Failure> {
    let hello = match control.read_open().await? {
        Open::Hello(hello) => hello,
        Open::Publish { .. }
        | Open::Subscribe(_)
        | Open::Read(_)
        | Open::Request(_)
        | Open::CheckBacks { .. }
        | Open::Unknown => {
            let message =
                "expected a hello on the first stream of the connection, got another kind of open frame";
            return Err(Failure::refused(ErrorCode::HelloRequired, message));
        }
    };
    let protocol = common_version(&hello)?;
    let principal = authenticate(shared, connection, hello.token.as_deref())?;
    let counted = shared.broker.connect(&principal)?;
    let client: String = hello.client.chars().take(80).collect();
    debug!(%client, protocol, principal = principal.as_str(), "session opened");
    let (engine_id, start_id) = shared.broker.ids();
    let answer = HelloAnswer {
        protocol,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        engine_id: engine_id.to_owned(),
        start_id: start_id.to_owned(),
        server_time_ms: clock::now().0,
        limits: Limits::of_this_version(shared.config.streams.connection_max),
        principal: principal.as_str().to_owned(),
    };
    control.answer(&Opened::Hello(answer)).await?;
    Ok((principal, counted))
}

/// Who the peer is.
fn authenticate(shared: &Shared, connection: &Connection, token: Option<&str>) -> Result<Principal, Failure> {
    let token = token.map(Token::parse).transpose().map_err(|error| {
        Failure::refused(ErrorCode::Unauthenticated, format!("the hello's token is malformed: {error}"))
    })?;
    let certificate = peer::certificate(connection).map(|shown| {
        debug!(uris = ?shown.uris, dns = ?shown.dns, not_after = shown.not_after.0, "client certificate shown");
        shown.proof()
    });
    let peer = connection.remote_address();
    let principal = shared.broker.authenticate(&Credentials { token, certificate, peer: Some(peer) });
    let principal = principal.inspect_err(|error| info!(%peer, %error, "a client is not served"))?;
    if principal == Principal::Local && !connection.remote_address().ip().to_canonical().is_loopback() {
        let message = "the engine has no principals, and serves nobody but those on its own machine";
        return Err(Failure::refused(ErrorCode::Unauthenticated, message));
    }
    Ok(principal)
}

/// The newest version that both speak.
fn common_version(hello: &Hello) -> Result<u16, Failure> {
    let newest = hello.protocol_max.min(PROTOCOL_VERSION);
    if newest >= hello.protocol_min.max(PROTOCOL_VERSION_MIN) {
        return Ok(newest);
    }
    let message = format!(
        "the client speaks protocol versions {} to {}, this engine {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION}",
        hello.protocol_min, hello.protocol_max,
    );
    Err(Failure::refused(ErrorCode::UnsupportedVersion, message))
}

/// Says why on the stream, waits a little for it to arrive, and closes the connection with the code.
async fn close(connection: &Connection, stream: &mut Stream, failure: Failure) {
    let (Failure::Refused(refusal) | Failure::Broken(refusal) | Failure::Unread(refusal)) = failure else {
        return;
    };
    debug!(error = %refusal, "connection closed for a fault of its peer");
    let notified = async {
        stream.refuse(&refusal).await;
        stream.delivered().await;
    };
    // However that ended, the close carries the same code.
    let _ = time::timeout(LAST_WORDS, notified).await;
    connection.close(wire_error::close_code(refusal.code), refusal.message.as_bytes());
}

impl Session {
    /// Serves until the connection ends or must.
    async fn run(self: Arc<Self>, mut control: Stream, noticed: mpsc::Receiver<LossNotice>) {
        let tasks = &self.shared.tasks;
        // False while a notice is half written.
        let mut whole = true;
        let Stream { send, frames } = &mut control;
        let ended = tokio::select! {
            biased;
            () = tasks.cancelled().cancelled() => {
                let code = wire_error::close_code(ErrorCode::ShuttingDown);
                return self.connection.close(code, b"the engine is going away");
            }
            // Beside the accepting: a client that does not read its control stream keeps no stream waiting.
            never = notices::send(&self.connection, send, &mut whole, noticed, tasks.draining(), &self.notified) => {
                match never {}
            }
            ended = self.accept(frames) => ended,
            refusal = self.permits.watch() => Err(Failure::Refused(refusal)),
        };
        if let Err(failure) = ended {
            if !whole {
                // Nothing can be said behind half a frame; the close carries the reason.
                let _ = control.send.reset(VarInt::from_u32(0));
            }
            close(&self.connection, &mut control, failure).await;
        } else if self.notified.is_cancelled() {
            // The notice has its time to arrive; the close says the same.
            let _ = control.send.finish();
            let _ = time::timeout(LAST_WORDS, control.delivered()).await;
        }
        if tasks.draining().is_cancelled() {
            let code = wire_error::close_code(ErrorCode::ShuttingDown);
            self.connection.close(code, b"the engine is going away");
        }
    }

    /// Accepts streams until the connection ends, or the client says something on the control stream.
    async fn accept(self: &Arc<Self>, control: &mut FrameReader) -> Result<(), Failure> {
        let mut granted = STREAMS_GRANTED_FIRST;
        // One clone for each open stream: their count is this one's.
        let open = Arc::new(());
        let mut listening = true;
        loop {
            tokio::select! {
                biased;
                accepted = self.connection.accept_bi() => match accepted {
                    Ok((send, recv)) => {
                        // The control stream is one too.
                        let is_over = Arc::strong_count(&open) >= self.shared.config.streams.connection_max as usize;
                        self.spawn_stream(send, recv, Arc::clone(&open), is_over);
                        granted = self.grant_streams(granted, Arc::strong_count(&open) - 1);
                    }
                    Err(reason) => {
                        debug!(%reason, "session ended");
                        return Ok(());
                    }
                },
                // A connection with nothing under way needs no grace period.
                () = self.drained(&open) => return Ok(()),
                frame = control.next(), if listening => match frame {
                    // The client has nothing more to say there; it still listens for notices.
                    Ok(None) => listening = false,
                    Ok(Some(frame)) => {
                        return Err(Failure::unexpected(frame.kind, "nothing more on the control stream"));
                    }
                    Err(error) => match Failure::from(error) {
                        Failure::Gone => listening = false,
                        failure => return Err(failure),
                    },
                },
            }
        }
    }

    /// Completes when the engine goes away, the client was notified, and no stream is left. A client that does not read
    /// its notices has a short time for it.
    async fn drained(&self, open: &Arc<()>) {
        self.shared.tasks.draining().cancelled().await;
        while Arc::strong_count(open) > 1 {
            self.left.notified().await;
        }
        let _ = time::timeout(LAST_WORDS, self.notified.cancelled()).await;
    }

    /// Allows twice as many streams once half of them are open; in the end some more than a client may have, so that
    /// one too many is answered.
    fn grant_streams(&self, granted: u32, open: usize) -> u32 {
        let wanted = granted.saturating_mul(2).min(streams_granted_max(&self.shared.config));
        if wanted <= granted || open < granted as usize / 2 {
            return granted;
        }
        self.connection.set_max_concurrent_bi_streams(VarInt::from_u32(wanted));
        wanted
    }

    fn spawn_stream(self: &Arc<Self>, send: SendStream, recv: RecvStream, open: Arc<()>, is_over: bool) {
        let session = Arc::clone(self);
        let span = debug_span!("stream", id = %send.id(), trace = field::Empty);
        self.shared.tasks.spawn_until(span, self.ended.clone(), async move {
            let mut stream = Stream::new(send, recv, session.inbound.clone());
            if is_over {
                session.refuse_stream(&mut stream).await;
            } else {
                session.stream(stream).await;
            }
            drop(open);
            session.left.notify_one();
        });
    }

    /// Ends a stream beyond the client's limit; nothing of it was read.
    async fn refuse_stream(&self, stream: &mut Stream) {
        let max = self.shared.config.streams.connection_max;
        let message = format!(
            "the connection has as many streams open as it may, {max}: end some, or use another connection"
        );
        let refusal = Refusal::new(ErrorCode::LimitExceeded, message);
        debug!(error = %refusal, "stream refused");
        stream.refuse(&refusal).await;
    }

    /// Serves one stream and ends it as its outcome wants.
    async fn stream(&self, mut stream: Stream) {
        self.serve_stream(&mut stream).await;
        if self.shared.tasks.draining().is_cancelled() {
            // The connection is closed behind the last stream, and must not cut its last words off.
            let _ = time::timeout(LAST_WORDS, stream.delivered()).await;
        }
    }

    async fn serve_stream(&self, stream: &mut Stream) {
        match self.dispatch(stream).await {
            Ok(()) => stream.finish(),
            Err(Failure::Gone) => debug!("stream ended by its client"),
            Err(Failure::Refused(refusal)) => {
                debug!(error = %refusal, "stream refused");
                stream.refuse(&refusal).await;
            }
            Err(Failure::Unread(refusal)) => {
                debug!(error = %refusal, "stream given up");
                stream.reset(&refusal);
            }
            Err(failure @ Failure::Broken(_)) => close(&self.connection, stream, failure).await,
        }
    }

    async fn dispatch(&self, stream: &mut Stream) -> Result<(), Failure> {
        let open_timeout = self.shared.config.streams.open_timeout;
        let open = time::timeout(open_timeout, stream.read_open()).await.map_err(|_| {
            let message = format!("the stream's open frame took longer than {open_timeout:?}");
            Failure::refused(ErrorCode::DeadlineExceeded, message)
        })??;
        if self.shared.tasks.draining().is_cancelled() {
            return Err(levada_broker::Error::ShuttingDown.into());
        }
        if let Some(trace) = open.trace() {
            Span::current().record("trace", field::display(trace));
        }
        let mut permit = self.permits.enter(&open);
        let number = permit.number();
        tokio::select! {
            biased;
            served = self.serve_opened(open, number, stream) => served,
            // Nothing can be said behind what may be half a frame.
            refusal = permit.revoked() => Err(Failure::Unread(refusal)),
        }
    }

    /// Serves the stream with this number among the permits.
    async fn serve_opened(&self, open: Open, number: u64, stream: &mut Stream) -> Result<(), Failure> {
        let (broker, principal) = (&self.broker, self.permits.principal());
        let (unread, draining) = (self.shared.config.subscribe.unread_timeout, self.shared.tasks.draining());
        match open {
            Open::Publish { topic, .. } => publish::serve(broker, principal, &topic, draining, stream).await,
            Open::Subscribe(subscribe) => {
                let served = subscribe::Served { notices: &self.notices, unread, draining };
                subscribe::serve(broker, principal, subscribe, served, stream).await
            }
            Open::Read(read) => {
                let permits = &self.permits;
                read::serve((permits, number), read, unread, draining, stream).await
            }
            Open::Request(envelope) => {
                let context = requests::Context {
                    broker,
                    principal,
                    uploads: &self.shared.uploads,
                    mtu: self.connection.stats().path.current_mtu,
                };
                requests::serve(context, envelope, stream).await
            }
            Open::CheckBacks { group, .. } => {
                check_backs::serve(broker, principal, group, unread, draining, stream).await
            }
            Open::Hello(_) => Err(Failure::refused(ErrorCode::Malformed, "the hello was answered before")),
            Open::Unknown => {
                Err(Failure::refused(ErrorCode::Unsupported, "this version does not serve such streams"))
            }
        }
    }
}
