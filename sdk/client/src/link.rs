//! Staying connected: one supervisor task opens a session, watches it, and opens the next when it ends.
//!
//! Owns when to connect. Must not know what sessions are used for.

use std::{sync::Arc, time::Duration};

use levada_protocol::{
    error::ErrorCode,
    frame::{self, FrameType},
    request::Notice,
};
use tokio::{
    sync::{broadcast, watch},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    config::{BearerToken, ClientConfig},
    error::Error,
    retry::Backoff,
    session::{Connector, Session},
    stream::{self, Stream},
    tasks,
};

const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LAST: Duration = Duration::from_secs(1);
/// The first attempt to reconnect is short, as an engine that restarts may miss it; later ones take their
/// time.
const ATTEMPT_FIRST: Duration = Duration::from_millis(500);
/// How long an engine that has sent `go_away` may keep the connection for what is in flight.
const GOAWAY_GRACE: Duration = Duration::from_secs(10);
/// How often a client is tried that the engine does not take.
const REFUSED_INTERVAL: Duration = Duration::from_secs(30);
/// How long closing a connection may take to notify the engine.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// Notices kept for a program that is slow to read them.
const NOTICES_MAX: usize = 64;

/// A handle on the connection, whichever it is at the time. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    state: watch::Receiver<State>,
    closing: watch::Sender<bool>,
    notices: broadcast::Sender<Notice>,
    config: Arc<ClientConfig>,
}

#[derive(Debug, Clone)]
enum State {
    Up(Session),
    /// Not connected, and why the last attempt failed.
    Down(Option<Error>),
    /// The engine does not take what this client shows of itself, which stays the same: this is why, and whoever asks is told at
    /// once. It is tried again seldom.
    Refused(Error),
    Closed,
}

impl Link {
    /// Connects once, then keeps connected until closed or until the last clone is gone.
    pub(crate) async fn connect(config: ClientConfig) -> Result<Self, Error> {
        let (notices, _) = broadcast::channel(NOTICES_MAX);
        Self::connect_with(config, notices).await
    }

    /// Another connection to the same engine; its notices come to the same listeners.
    pub(crate) async fn another(&self) -> Result<Self, Error> {
        Self::connect_with(self.config().clone(), self.notices.clone()).await
    }

    async fn connect_with(config: ClientConfig, notices: broadcast::Sender<Notice>) -> Result<Self, Error> {
        let connector = Connector::new(config).await?;
        let config = Arc::new(connector.config().clone());
        let (session, control) = connector.connect(config.connect_timeout).await?;
        let (state, watched) = watch::channel(State::Up(session.clone()));
        let (closing, closed) = watch::channel(false);
        let supervisor = Supervisor { connector, state, closing: closed, notices: notices.clone() };
        tasks::spawn("connection", supervisor.run(session, control)).detach();
        Ok(Self { state: watched, closing, notices, config })
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    pub(crate) fn notices(&self) -> &broadcast::Sender<Notice> {
        &self.notices
    }

    /// A session, once there is one; fails only when the client was closed, or the engine takes it for nobody. Cancel safe.
    pub(crate) async fn session(&self) -> Result<Session, Error> {
        let mut state = self.state.clone();
        match state.wait_for(|state| !matches!(state, State::Down(_))).await.as_deref() {
            Ok(State::Up(session)) => Ok(session.clone()),
            Ok(State::Refused(error)) => Err(error.clone()),
            Ok(State::Down(_) | State::Closed) | Err(_) => Err(Error::Closed),
        }
    }

    /// A session within `limit`; otherwise why there is none. Cancel safe.
    pub(crate) async fn session_within(&self, limit: Duration) -> Result<Session, Error> {
        if let Ok(session) = timeout(limit, self.session()).await {
            return session;
        }
        match &*self.state.borrow() {
            State::Down(Some(error)) | State::Refused(error) => Err(error.clone()),
            State::Down(None) | State::Up(_) | State::Closed => {
                Err(Error::TimedOut { waited: limit, in_doubt: false, last: None })
            }
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(_))
    }

    /// Ends the connection and waits until the engine was notified.
    pub(crate) async fn close(&self) {
        self.closing.send_replace(true);
        let mut state = self.state.clone();
        // An error means that the supervisor has ended already.
        let _ = state.wait_for(|state| matches!(state, State::Closed)).await;
    }
}

/// Owns the current session.
struct Supervisor {
    connector: Connector,
    state: watch::Sender<State>,
    closing: watch::Receiver<bool>,
    notices: broadcast::Sender<Notice>,
}

impl Supervisor {
    async fn run(mut self, mut session: Session, mut control: Stream) {
        let mut closing = self.closing.clone();
        loop {
            tokio::select! {
                biased;
                // An error means that all handles are gone, which closes too.
                _ = closing.changed() => break,
                () = self.attend(&session, &mut control) => {}
            }
            session = tokio::select! {
                biased;
                _ = closing.changed() => break,
                next = self.reconnect() => match next {
                    Ok(next) => { control = next.1; next.0 }
                    Err(error) => {
                        self.state.send_replace(State::Refused(error));
                        tokio::select! {
                            biased;
                            _ = closing.changed() => break,
                            next = self.admitted() => { control = next.1; next.0 }
                        }
                    }
                }
            };
            self.state.send_replace(State::Up(session.clone()));
        }
        session.close();
        // A caller that waits for `Closed` may end the program next: the last packet is sent first.
        let _ = timeout(CLOSE_GRACE, session.drained()).await;
        self.state.send_replace(State::Closed);
    }

    /// Passes notices on until the session has ended.
    async fn attend(&mut self, session: &Session, control: &mut Stream) {
        let why = loop {
            match control.frames.next().await {
                Ok(Some(frame)) if frame.kind == FrameType::Notice => {
                    match frame::read_message(&frame.payload) {
                        Ok(notice) => {
                            if self.on_notice(notice, session).await {
                                break Error::cut_off();
                            }
                        }
                        Err(error) => break error.into(),
                    }
                }
                Ok(Some(frame)) => break stream::unexpected(&frame),
                Ok(None) => break Error::cut_off(),
                Err(error) => break error,
            }
        };
        session.close();
        info!(addr = %self.connector.config().addr, error = %why, "connection ended");
        self.state.send_replace(State::Down(Some(why)));
    }

    /// Returns true if the session is over.
    async fn on_notice(&self, notice: Notice, session: &Session) -> bool {
        let goes_away = match &notice {
            Notice::GoAway { reason } => {
                info!(%reason, "engine is going away");
                true
            }
            Notice::EventsLost { topic, subscription, partition, first, last } => {
                warn!(%topic, %subscription, partition, first, last, "events were dropped before they were acknowledged: by retention, a purge or a full backlog");
                false
            }
            Notice::Unknown => false,
        };
        // Without a listener this fails, which is fine.
        let _ = self.notices.send(notice);
        if goes_away {
            // No new streams on this session, but what is in flight may end.
            self.state.send_replace(State::Down(None));
            let _ = timeout(GOAWAY_GRACE, session.connection().closed()).await;
        }
        goes_away
    }

    /// Connects again once the engine takes this client again: its clock or its catalogue was wrong.
    async fn admitted(&self) -> (Session, Stream) {
        loop {
            sleep(REFUSED_INTERVAL).await;
            if let Ok(connected) = self.connector.connect(self.connector.config().connect_timeout).await {
                return connected;
            }
        }
    }

    /// Connects again, however long that takes.
    ///
    /// # Errors
    /// Only if the engine takes this client for nobody, and what it shows cannot change: trying on would help nobody.
    async fn reconnect(&self) -> Result<(Session, Stream), Error> {
        let config = self.connector.config();
        let may_change =
            matches!(config.token, Some(BearerToken::File(_))) || config.client_certificate.is_some();
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LAST);
        let longest = self.connector.config().connect_timeout;
        let mut limit = ATTEMPT_FIRST.min(longest);
        loop {
            match self.connector.connect(limit).await {
                Ok(connected) => {
                    info!(addr = %self.connector.config().addr, "connected again");
                    return Ok(connected);
                }
                Err(error) if error.code() == ErrorCode::Unauthenticated && !may_change => {
                    warn!(addr = %config.addr, %error, "the engine does not serve this client any more");
                    return Err(error);
                }
                Err(error) => {
                    debug!(addr = %self.connector.config().addr, error = %error, "cannot connect yet");
                    self.state.send_replace(State::Down(Some(error)));
                }
            }
            sleep(backoff.next()).await;
            limit = (limit * 2).min(longest);
        }
    }
}
