//! Connections to receivers: the name is resolved once for each, every address is checked, and the connection is made to one
//! that may be pushed to. Nothing else is asked which way to go: no proxies, no variables of the environment.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, sync::Semaphore, task::spawn_blocking, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    networks::Allowed,
    url::{host_and_port, is_plain},
};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Names that are looked up at once. A lookup takes a thread until the system's resolver has an answer or gives up; those threads read the
/// log as well, so that a name server that is silent must not take them all.
const LOOKUPS_MAX: usize = 8;
/// How long a connection may take to be made, whether or not a request still waits for it.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The name leads to an address that may not be pushed to.
    #[error("PUSH_REFUSED: {0}")]
    Refused(String),
    /// The name leads nowhere.
    #[error("the host {host:?} cannot be resolved: {why}")]
    Name { host: String, why: String },
    /// Nobody takes connections there.
    #[error("no connection to {address}: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    /// It was not made in time.
    #[error("no connection to {host:?} within {} s", CONNECT_MAX.as_secs())]
    Slow { host: String },
    /// The certificate is not trusted, or TLS failed otherwise.
    #[error("TLS_FAILED: the TLS handshake with {host:?} failed: {why}")]
    Tls { host: String, why: String },
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Connector {
    allowed: Arc<Allowed>,
    lookups: Arc<Semaphore>,
    tls: TlsConnector,
}

impl Connector {
    pub(crate) fn new(allowed: Allowed, tls: Arc<ClientConfig>) -> Self {
        let lookups = Arc::new(Semaphore::new(LOOKUPS_MAX));
        Self { allowed: Arc::new(allowed), lookups, tls: TlsConnector::from(tls) }
    }

    async fn connect(self, uri: Uri) -> Result<Stream, ConnectError> {
        let plain = is_plain(&uri);
        let (host, port) = host_and_port(&uri);
        let addresses = self.resolve(host, port, plain).await?;
        let tcp = first(&addresses).await?;
        // The request is small and the response is waited for.
        tcp.set_nodelay(true)
            .map_err(|error| ConnectError::Name { host: host.to_owned(), why: error.to_string() })?;
        if plain {
            return Ok(Stream::Plain(TokioIo::new(tcp)));
        }
        let failed = |why: String| ConnectError::Tls { host: host.to_owned(), why };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(error.to_string()))?;
        let stream = self.tls.connect(name, tcp).await.map_err(|error| failed(error.to_string()))?;
        Ok(Stream::Tls(TokioIo::new(Box::new(stream))))
    }

    /// The first addresses of a name. Its turn lasts for as long as the system is at it, whether or not anybody still waits.
    async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let turn = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let name = host.to_owned();
        let looking = spawn_blocking(move || {
            let _turn = turn;
            let addresses = (name.as_str(), port).to_socket_addrs()?;
            Ok(addresses.take(ADDRESSES_MAX).collect())
        });
        looking.await.map_err(io::Error::other)?
    }

    /// The addresses of a host that may be pushed to, at least one.
    async fn resolve(&self, host: &str, port: u16, plain: bool) -> Result<Vec<SocketAddr>, ConnectError> {
        let unknown = |why: String| ConnectError::Name { host: host.to_owned(), why };
        let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => self.look_up(host, port).await.map_err(|error| unknown(error.to_string()))?,
        };
        if addresses.is_empty() {
            return Err(unknown("it has no address".to_owned()));
        }
        // Of a name such as localhost one may be allowed and another not; none of the others is ever connected to.
        let (mut allowed, mut refused) = (Vec::new(), None);
        for address in addresses {
            match self.allowed.check(address.ip(), plain) {
                Ok(()) => allowed.push(address),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        match refused {
            Some(why) if allowed.is_empty() => Err(ConnectError::Refused(format!("{host:?} is at {why}"))),
            _ => Ok(allowed),
        }
    }
}

/// A connection to the first address that takes one.
async fn first(addresses: &[SocketAddr]) -> Result<TcpStream, ConnectError> {
    let mut last = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(source) => last = Some(ConnectError::Connect { address: *address, source }),
        }
    }
    Err(last
        .unwrap_or_else(|| ConnectError::Name { host: String::new(), why: "it has no address".to_owned() }))
}

impl tower_service::Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let host = host_and_port(&uri).0.to_owned();
            timeout(CONNECT_MAX, this.connect(uri)).await.unwrap_or(Err(ConnectError::Slow { host }))
        })
    }
}

/// A connection, with TLS or without.
pub(crate) enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls(TokioIo<Box<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
