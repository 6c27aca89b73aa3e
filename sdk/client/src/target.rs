//! The engine's address: its host, and how one of the host's addresses is reached.
//!
//! It must not know what is said over a connection.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use quinn::{Connecting, Connection, ConnectionError, Endpoint};
use tokio::time::timeout;

use crate::{
    config::{ClientConfig, UDP_PAYLOAD_BYTES_MAX, UDP_PAYLOAD_BYTES_MIN},
    error::{Error, rounded},
    probe,
    tls::Trust,
    transport,
};

/// Most addresses of one name that are tried, all at once.
const ADDRS_MAX: usize = 4;

/// Where connections go.
pub(crate) struct Target {
    addr: String,
    host: String,
    port: u16,
    mtu_max: u16,
}

impl Target {
    /// The address of this configuration.
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, Error> {
        let (host, port) = config.host_and_port()?;
        let mtu_max = config.mtu_max.clamp(UDP_PAYLOAD_BYTES_MIN, UDP_PAYLOAD_BYTES_MAX);
        Ok(Self { addr: config.addr.clone(), host, port, mtu_max })
    }

    /// What comes of an attempt, unless it takes longer than this.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        attempt: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        timeout(limit, attempt).await.unwrap_or_else(|_| Err(self.failed(NoAnswer { limit })))
    }

    /// The first connection that is made, of all addresses that the host has.
    pub(crate) async fn reach(&self, trust: &Trust) -> Result<(Endpoint, Connection), Error> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|error| self.failed(error))?;
        let addrs: Vec<SocketAddr> = found.take(ADDRS_MAX).collect();
        let endpoint = transport::endpoint(&addrs, self.mtu_max).map_err(|error| self.failed(error))?;
        let mut failure = None;
        let mut attempts = Vec::new();
        for addr in addrs {
            let config = transport::client_config(trust.crypto.clone(), addr, self.mtu_max);
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

    /// The handshake failed over trust, and this is why.
    pub(crate) fn untrusted(&self, what: String) -> Error {
        Error::TlsFailed { addr: self.addr.clone(), what }
    }

    fn refused(&self, trust: Option<String>, error: ConnectionError) -> Error {
        match trust {
            Some(what) => self.untrusted(what),
            None => self.failed(error),
        }
    }

    fn failed(&self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::ConnectFailed { addr: self.addr.clone(), source: Arc::new(source) }
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
