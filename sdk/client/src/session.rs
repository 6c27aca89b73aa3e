//! One connection to the engine, from name resolution to the answered hello.
//!
//! Owns how a connection is made. Must not know when it is made again: that is `link.rs`.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use levada_protocol::{
    error::{ErrorCode, Refusal},
    ids::Timestamp,
    request::{Hello, HelloAnswer, Open, Opened},
    token::Token,
    version::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN},
};
use quinn::{Connecting, Connection, ConnectionError, Endpoint, VarInt};
use tokio::time::timeout;

use crate::{
    clock,
    config::{Ca, ClientConfig, UDP_PAYLOAD_BYTES_MAX, UDP_PAYLOAD_BYTES_MIN},
    credentials::{Credentials, Proofs},
    error::{Error, rounded},
    probe,
    stream::{self, Stream},
    tls::{Authorities, Trust},
    transport,
};

/// Most addresses of one name that are tried, all at once.
const ADDRS_MAX: usize = 4;

/// A connection whose hello was answered.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    endpoint: Endpoint,
    connection: Connection,
    hello: Arc<HelloAnswer>,
    /// When that answer came.
    answered: clock::Instant,
}

impl Session {
    pub(crate) fn hello(&self) -> &HelloAnswer {
        &self.hello
    }

    /// The engine's clock `now`.
    pub(crate) fn engine_time(&self, now: clock::Instant) -> Timestamp {
        let since = now.saturating_duration_since(self.answered).as_millis();
        Timestamp(self.hello.server_time_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX)))
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Tells the engine that this connection is over.
    pub(crate) fn close(&self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }

    /// Waits until the engine was notified. Cancel safe.
    pub(crate) async fn drained(&self) {
        self.endpoint.wait_idle().await;
    }
}

/// Makes sessions.
pub(crate) struct Connector {
    config: ClientConfig,
    authorities: Authorities,
    credentials: Credentials,
    host: String,
    port: u16,
}

impl Connector {
    pub(crate) async fn new(config: ClientConfig) -> Result<Self, Error> {
        let authorities = Authorities::load(&config).await?;
        let credentials = Credentials::load(&config).await?;
        let (host, port) = config.host_and_port()?;
        Ok(Self { config, authorities, credentials, host, port })
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// One attempt. Returns the session and its control stream.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<(Session, Stream), Error> {
        timeout(limit, self.attempt()).await.unwrap_or_else(|_| Err(self.failed(NoAnswer { limit })))
    }

    /// One attempt at a connection on which nothing is said yet.
    pub(crate) async fn connect_bare(&self, limit: Duration) -> Result<(Endpoint, Connection), Error> {
        let reached = async {
            let proofs = self.credentials.now().await;
            self.reach(&self.trust(&proofs).await?).await
        };
        timeout(limit, reached).await.unwrap_or_else(|_| Err(self.failed(NoAnswer { limit })))
    }

    async fn attempt(&self) -> Result<(Session, Stream), Error> {
        let proofs = self.credentials.now().await;
        let trust = self.trust(&proofs).await?;
        let (endpoint, connection) = self.reach(&trust).await?;
        let hello = Hello {
            protocol_min: PROTOCOL_VERSION_MIN,
            protocol_max: PROTOCOL_VERSION,
            client: self.config.client_name.clone(),
            token: proofs.token.as_ref().map(Token::reveal),
            features: Vec::new(),
        };
        let opened = stream::open(&connection, &Open::Hello(hello)).await;
        // An engine sees a client's certificate when the client has the connection already.
        let (control, opened) = opened.map_err(|error| {
            let distrust = connection.close_reason().and_then(|reason| trust.explain(&reason));
            distrust.map_or(error, |what| Error::TlsFailed { addr: self.config.addr.clone(), what })
        })?;
        let Opened::Hello(answer) = opened else {
            return Err(Error::bad_answer("the hello was answered with something else"));
        };
        if !(PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&answer.protocol) {
            let what = format!(
                "the engine chose protocol {}, this client speaks {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION}",
                answer.protocol
            );
            return Err(Refusal::new(ErrorCode::UnsupportedVersion, what).into());
        }
        let session = Session { endpoint, connection, hello: Arc::new(answer), answered: clock::now() };
        Ok((session, control))
    }

    /// Whom to trust in this attempt: a client may outlive its CA, and the file may have a newer one by now.
    async fn trust(&self, proofs: &Proofs) -> Result<Trust, Error> {
        let reread = match &self.config.ca {
            Some(Ca::File(_)) => Authorities::load(&self.config).await.ok(),
            Some(Ca::Pem(_)) | None => None,
        };
        reread.as_ref().unwrap_or(&self.authorities).at(
            clock::wall(),
            &self.config.addr,
            proofs.identity.clone(),
        )
    }

    /// The first connection that is made, of all addresses that the host has.
    async fn reach(&self, trust: &Trust) -> Result<(Endpoint, Connection), Error> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|error| self.failed(error))?;
        let addrs: Vec<SocketAddr> = found.take(ADDRS_MAX).collect();
        let mtu_max = self.config.mtu_max.clamp(UDP_PAYLOAD_BYTES_MIN, UDP_PAYLOAD_BYTES_MAX);
        let endpoint = transport::endpoint(&addrs, mtu_max).map_err(|error| self.failed(error))?;
        let mut failure = None;
        let mut attempts = Vec::new();
        for addr in addrs {
            let config = transport::client_config(trust.crypto.clone(), addr, mtu_max);
            match endpoint.connect_with(config, addr, &self.host) {
                Ok(connecting) => attempts.push(Box::pin(reached(connecting, addr))),
                Err(error) => failure = Some(self.failed(error)),
            }
        }
        let connection = poll_fn(|context| {
            let mut made = None;
            attempts.retain_mut(|attempt| match attempt.as_mut().poll(context) {
                Poll::Pending => true,
                Poll::Ready(Ok(connection)) => {
                    made = Some(connection);
                    false
                }
                Poll::Ready(Err(Unreached::NothingListens)) => {
                    failure.get_or_insert_with(|| self.failed(NothingListens));
                    false
                }
                Poll::Ready(Err(Unreached::Quic(error))) => {
                    let better = trust.explain(&error);
                    if better.is_some() || failure.is_none() {
                        failure = Some(self.refused(better, error));
                    }
                    false
                }
            });
            match made {
                Some(connection) => Poll::Ready(Ok(connection)),
                None if attempts.is_empty() => {
                    Poll::Ready(Err(failure.take().unwrap_or_else(|| self.failed(NoAddress))))
                }
                None => Poll::Pending,
            }
        })
        .await?;
        Ok((endpoint, connection))
    }

    fn refused(&self, trust: Option<String>, error: ConnectionError) -> Error {
        match trust {
            Some(what) => Error::TlsFailed { addr: self.config.addr.clone(), what },
            None => self.failed(error),
        }
    }

    fn failed(&self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::ConnectFailed { addr: self.config.addr.clone(), source: Arc::new(source) }
    }
}

/// One address: the connection, or why there is none.
async fn reached(connecting: Connecting, addr: SocketAddr) -> Result<Connection, Unreached> {
    tokio::select! {
        biased;
        connected = connecting => connected.map_err(Unreached::Quic),
        _refused = probe::nothing_listens(addr) => Err(Unreached::NothingListens),
    }
}

enum Unreached {
    Quic(ConnectionError),
    NothingListens,
}

#[derive(Debug, thiserror::Error)]
#[error("nothing listens there; is the engine running, and is this its address?")]
struct NothingListens;

#[derive(Debug, thiserror::Error)]
#[error("no answer within {:?}; is the engine running, and is its UDP port reachable?", rounded(.limit))]
struct NoAnswer {
    limit: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("the host has no address")]
struct NoAddress;
