//! A TCP listener that bounds how many connections there are, and how long one may take for a request or say nothing;
//! the time of a TLS handshake is that of the first request.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::serve::Listener;
use levada_gateway::Peer;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::watch,
    time::{self, Instant, Sleep},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::stream::Stream;
use crate::slots::{Slot, Slots};

/// What connections speak TLS with, if they do; it changes with the certificate.
pub(crate) type Tls = Option<watch::Receiver<Arc<ServerConfig>>>;

/// How long a request may take to come, the TLS handshake before it included, and its answer to begin.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take nothing of a response.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Accepts always; where there is no room, the connection that was silent longest gives its slot.
#[derive(Debug)]
pub(super) struct Limited {
    listener: TcpListener,
    tls: Tls,
    slots: Slots,
    idle_timeout: Duration,
}

impl Limited {
    pub(super) fn new(
        listener: TcpListener,
        tls: Tls,
        connections_max: usize,
        idle_timeout: Duration,
    ) -> Self {
        Self { listener, tls, slots: Slots::new(connections_max), idle_timeout }
    }
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, remote) = Listener::accept(&mut self.listener).await;
        // Events of a stream are small, and none is to wait for the acknowledgement of the one before it.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection collects what it sends");
        }
        let slot = self.slots.enter(remote.ip());
        let idle_timeout = self.idle_timeout;
        let tls = self.tls.as_ref().map(|tls| Arc::clone(&tls.borrow()));
        let peer = Peer::new(remote);
        let connection = Connection {
            stream: Stream::new(stream, tls, peer.clone()),
            peer,
            deadline: Box::pin(time::sleep(REQUEST_TIMEOUT.min(idle_timeout))),
            answered: true,
            stalled: None,
            idle_timeout,
            given: Box::pin(slot.given().clone().cancelled_owned()),
            slot,
        };
        (connection, remote)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection whose next read fails when its client is too slow, or when its slot was given to another.
pub(super) struct Connection {
    stream: Stream,
    peer: Peer,
    /// Until the next request has come and is being answered; after an answer, until something comes.
    deadline: Pin<Box<Sleep>>,
    answered: bool,
    /// Since the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    idle_timeout: Duration,
    given: Pin<Box<WaitForCancellationFutureOwned>>,
    slot: Slot,
}

impl Connection {
    /// Who is at the other end.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// True once the slot was given to another. Writes look as well: nothing is read while a response is under way.
    fn is_given(&mut self, context: &mut Context<'_>) -> bool {
        self.given.as_mut().poll(context).is_ready()
    }

    /// A response is on its way.
    fn answers(&mut self) {
        self.answered = true;
        self.peer.is_answered();
        self.slot.renew();
        let until = Instant::now() + self.idle_timeout;
        self.deadline.as_mut().reset(until);
    }

    /// What became of a write; one that has waited for too long has failed.
    fn written<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(time::sleep(STALL_TIMEOUT)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_given(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            if std::mem::take(&mut self.answered) {
                let until = Instant::now() + REQUEST_TIMEOUT.min(self.idle_timeout);
                self.deadline.as_mut().reset(until);
            }
            return Poll::Ready(read);
        }
        ready!(self.deadline.as_mut().poll(context));
        // Some are given longer, once it is known who they are and what they ask for.
        if let Some(until) = self.peer.answered_by().filter(|until| *until > Instant::now()) {
            self.deadline.as_mut().reset(until);
            ready!(self.deadline.as_mut().poll(context));
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_given(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.answers();
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_given(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.answers();
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
