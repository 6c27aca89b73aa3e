//! One connection to the engine, from name resolution to the answered hello.
//!
//! Owns how a connection is made. Must not know when it is made again: that is `link.rs`.

use std::{sync::Arc, time::Duration};

use levada_protocol::{
    error::{ErrorCode, Refusal},
    ids::Timestamp,
    request::{Hello, HelloAnswer, Open, Opened},
    token::Token,
    version::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN},
};
use quinn::{Connection, Endpoint, VarInt};

use crate::{
    clock,
    config::{Ca, ClientConfig},
    credentials::{Credentials, Proofs},
    error::Error,
    stream::{self, Stream},
    target::Target,
    tls::{Authorities, Trust},
};

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
    target: Target,
}

impl Connector {
    pub(crate) async fn new(config: ClientConfig) -> Result<Self, Error> {
        let authorities = Authorities::load(&config).await?;
        let credentials = Credentials::load(&config).await?;
        let target = Target::new(&config)?;
        Ok(Self { config, authorities, credentials, target })
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// One attempt. Returns the session and its control stream.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<(Session, Stream), Error> {
        self.target.within(limit, Box::pin(self.attempt())).await
    }

    /// One attempt at a connection on which nothing is said yet.
    pub(crate) async fn connect_bare(&self, limit: Duration) -> Result<(Endpoint, Connection), Error> {
        let reached = async {
            let proofs = self.credentials.now().await;
            self.target.reach(&self.trust(&proofs).await?).await
        };
        self.target.within(limit, reached).await
    }

    async fn attempt(&self) -> Result<(Session, Stream), Error> {
        let proofs = self.credentials.now().await;
        let trust = self.trust(&proofs).await?;
        let (endpoint, connection) = self.target.reach(&trust).await?;
        let hello = Hello {
            protocol_min: PROTOCOL_VERSION_MIN,
            protocol_max: PROTOCOL_VERSION,
            client: self.config.client_name.clone(),
            token: proofs.token.as_ref().map(Token::reveal),
            features: Vec::new(),
        };
        let (control, opened) = stream::open(&connection, &Open::Hello(hello)).await.map_err(|error| {
            // With TLS 1.3 a client is done before the engine has looked at what it shows.
            let alert = connection.close_reason().and_then(|reason| trust.explain(&reason));
            alert.map_or(error, |what| self.target.untrusted(what))
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
}
