//! The bytes of an HTTP connection: those of TCP, or of TLS over it.
//!
//! A TLS handshake is a part of the first read, so that it has that read's slot and deadline, and accepting waits for
//! none. It must not know HTTP.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use levada_gateway::Peer;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{Accept, TlsAcceptor, server::TlsStream};
use tracing::debug;

use crate::tls::client;

/// A connection's bytes.
pub(super) enum Stream {
    Plain(TcpStream),
    /// Hands are shaken; who is at the other end is told once they are.
    Shaking(Box<Accept<TcpStream>>, Peer),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// A connection that was accepted; with `tls` it must shake hands first.
    pub(super) fn new(stream: TcpStream, tls: Option<Arc<ServerConfig>>, peer: Peer) -> Self {
        match tls {
            Some(tls) => Self::Shaking(Box::new(TlsAcceptor::from(tls).accept(stream)), peer),
            None => Self::Plain(stream),
        }
    }

    /// What to read from and write to, once the hands are shaken.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn Bytes>>> {
        if let Self::Shaking(accept, peer) = self {
            let stream = ready!(Pin::new(accept.as_mut()).poll(context)).inspect_err(|error| {
                debug!(%error, "TLS handshake failed");
            })?;
            name_client(&stream, peer);
            *self = Self::Secure(Box::new(stream));
        }
        Poll::Ready(Ok(self.bytes().expect("hands are shaken")))
    }

    /// What to read from and write to; `None` while hands are shaken.
    fn bytes(&mut self) -> Option<Pin<&mut dyn Bytes>> {
        match self {
            Self::Plain(stream) => Some(Pin::new(stream)),
            Self::Shaking(..) => None,
            Self::Secure(stream) => Some(Pin::new(stream.as_mut())),
        }
    }
}

/// Bytes both ways.
trait Bytes: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Bytes for T {}

fn name_client(stream: &TlsStream<TcpStream>, peer: &Peer) {
    let (_, session) = stream.get_ref();
    match session.peer_certificates().and_then(<[_]>::first).map(|certificate| client::names(certificate)) {
        None => {}
        Some(Ok(shown)) => {
            debug!(uris = ?shown.uris, dns = ?shown.dns, "client certificate shown");
            peer.shows(shown.proof());
        }
        Some(Err(error)) => debug!(error, "client certificate cannot be read"),
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.get_mut().poll_ready(context))?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.get_mut().poll_ready(context))?.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing was written before the hands are shaken.
        self.get_mut().bytes().map_or(Poll::Ready(Ok(())), |bytes| bytes.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Shaking(accept, _) => match accept.get_mut() {
                Some(stream) => Pin::new(stream).poll_shutdown(context),
                None => Poll::Ready(Ok(())),
            },
            shaken => shaken.bytes().map_or(Poll::Ready(Ok(())), |bytes| bytes.poll_shutdown(context)),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.get_mut().poll_ready(context))?.poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Shaking(..) => true,
            Self::Secure(stream) => stream.is_write_vectored(),
        }
    }
}
