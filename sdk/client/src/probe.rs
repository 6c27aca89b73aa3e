//! Whether anything listens on a loopback address at all.
//!
//! QUIC's socket serves many peers and so is not told when nothing listens; a connected socket is.

use std::{
    future::pending,
    io::{Error, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::UdpSocket;

/// Returns once the system says that nothing listens on this address of the own machine; never for any other address,
/// and never while something listens. Cancel safe.
pub(crate) async fn nothing_listens(addr: SocketAddr) -> Error {
    let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    if addr.ip().is_loopback()
        && let Some(error) = refusal(addr).await
    {
        return error;
    }
    pending().await
}

async fn refusal(addr: SocketAddr) -> Option<Error> {
    let own = match addr.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let socket = UdpSocket::bind((own, 0)).await.ok()?;
    socket.connect(addr).await.ok()?;
    // No QUIC packet is that short: an engine ignores it.
    let sent = socket.send(&[0]).await;
    let answer = match sent {
        Ok(_) => socket.recv(&mut [0]).await,
        Err(error) => Err(error),
    };
    answer.err().filter(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as Std;

    use super::*;

    #[tokio::test]
    async fn a_port_that_was_closed_is_known_at_once_and_an_open_one_is_not() {
        let open = Std::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = open.local_addr().unwrap();
        let mut probe = Box::pin(nothing_listens(addr));
        let closed = {
            let socket = Std::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.local_addr().unwrap()
        };
        tokio::select! {
            error = &mut probe => panic!("something listens there: {error}"),
            error = nothing_listens(closed) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
        }
    }
}
