//! QUIC as Levada uses it: windows, timers, packet sizes, socket buffers.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::{
    ClientConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TokioRuntime, TransportConfig,
    VarInt, congestion::CubicConfig, crypto::rustls::QuicClientConfig,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::UDP_PAYLOAD_BYTES_MAX;

/// Bytes that a connection may send before anything is acknowledged: four of its largest packets, as the engine's
/// listener does, and for the reason given there.
const FIRST_WINDOW_BYTES: u64 = 4 * UDP_PAYLOAD_BYTES_MAX as u64;
const KEEP_ALIVE: Duration = Duration::from_secs(3);
const IDLE_TIMEOUT_MS: u32 = 10_000;
const STREAM_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;
const SEND_WINDOW_BYTES: u64 = 32 * 1024 * 1024;
const SOCKET_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// First guess of the round trip; what is lost in a handshake is sent again after about three of them.
const INITIAL_RTT: Duration = Duration::from_millis(100);
const INITIAL_RTT_LOOPBACK: Duration = Duration::from_millis(10);

/// The client's side of a connection to `addr` with packets of at most `mtu_max` bytes.
pub(crate) fn client_config(crypto: Arc<QuicClientConfig>, addr: SocketAddr, mtu_max: u16) -> ClientConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu_max);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(FIRST_WINDOW_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(congestion))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(discovery));
    if addr.ip().to_canonical().is_loopback() {
        // A loopback interface takes packets of any size that we use: no search, and no round trips lost to
        // it. Should one not, quinn falls back to the smallest size by itself.
        transport.initial_mtu(mtu_max).initial_rtt(INITIAL_RTT_LOOPBACK);
    }
    let mut config = ClientConfig::new(crypto);
    config.transport_config(Arc::new(transport));
    config
}

/// A socket of the system's choice that reaches these addresses. Peers are asked to send it packets of at most
/// `mtu_max` bytes.
pub(crate) fn endpoint(addrs: &[SocketAddr], mtu_max: u16) -> std::io::Result<Endpoint> {
    let dual = if addrs.iter().any(SocketAddr::is_ipv6) { dual_stack_socket().ok() } else { None };
    let socket = match dual {
        Some(socket) => socket,
        None => {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
            socket
        }
    };
    // The system may cap or refuse this; then more packets are lost at full speed, and nothing else.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(mtu_max).map_err(std::io::Error::other)?;
    Endpoint::new(config, None, UdpSocket::from(socket), Arc::new(TokioRuntime))
}

fn dual_stack_socket() -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(false)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
    Ok(socket)
}
