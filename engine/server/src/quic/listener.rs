//! The QUIC endpoint: its socket, its transport settings, and who gets in.
//!
//! It owns the limits on connections and handshakes, each taken before a connection costs anything.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use levada_broker::Broker;
use levada_protocol::error::ErrorCode;
use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TokioRuntime, TransportConfig, VarInt,
    congestion::CubicConfig, crypto::rustls::QuicServerConfig,
};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};
use tracing::{debug, info_span, warn};

use super::{
    inbound::Inbound,
    requests::Uploads,
    session::{self, Admission, STREAMS_GRANTED_FIRST, Shared},
};
use crate::{config::ServerConfig, metrics, slots::Slots, tasks::Tasks, tls::Identity, wire_error};

/// Connection attempts that may wait to be accepted.
const INCOMING_MAX: usize = 1_024;
/// Bytes of packets kept for one such attempt, and for all.
const INCOMING_BYTES_MAX: u64 = 64 * 1024;
const INCOMING_BYTES_TOTAL_MAX: u64 = 16 * 1024 * 1024;
/// At most one stateless reset in this time, whatever nonsense comes.
const RESET_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// The payload of a UDP packet in an Ethernet frame: accepted whatever path discovery may try.
const ETHERNET_PAYLOAD: u16 = 1_472;

/// The endpoint and what decides about connections.
pub(crate) struct Listener {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    connections: Slots,
    handshakes: Slots,
}

/// Takes the UDP port.
pub(crate) fn bind(config: &ServerConfig) -> io::Result<std::net::UdpSocket> {
    let address = config.listen.address;
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    let wanted = usize::try_from(config.listen.socket_buffer.as_u64()).unwrap_or(usize::MAX);
    for enlarged in [socket.set_recv_buffer_size(wanted), socket.set_send_buffer_size(wanted)] {
        if let Err(error) = enlarged {
            warn!(%error, wanted, "socket buffers stay as they are");
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

impl Listener {
    /// An endpoint on this socket; nothing is accepted before [`Listener::accept_all`].
    pub(crate) fn new(
        socket: std::net::UdpSocket,
        identity: Identity,
        config: &ServerConfig,
        broker: Broker,
        tasks: Tasks,
    ) -> io::Result<Self> {
        let endpoint = endpoint(socket, identity, config)?;
        let plugins = &config.plugins;
        let uploads = Uploads::new(plugins.uploads_max, plugins.upload_timeout, plugins.upload_stall_timeout);
        let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        let inbound = Inbound::new(
            bytes(config.streams.unfinished_bytes_max),
            bytes(config.streams.connection_unfinished_bytes_max),
        );
        let shared = Shared { broker, config: config.clone(), tasks, uploads, inbound };
        Ok(Self {
            endpoint,
            shared: Arc::new(shared),
            connections: Slots::new(config.listen.connections_max),
            handshakes: Slots::new(config.listen.handshakes_max),
        })
    }

    /// The address in force.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Speaks with this certificate from the next connection on, unless the server goes away already.
    pub(crate) fn serve_with(&self, crypto: Arc<QuicServerConfig>) {
        if !self.shared.tasks.draining().is_cancelled() {
            self.endpoint.set_server_config(Some(server_config(crypto, &self.shared.config)));
        }
    }

    /// Admits connections until the server goes away.
    pub(crate) async fn accept_all(&self) {
        loop {
            tokio::select! {
                biased;
                () = self.shared.tasks.draining().cancelled() => return self.endpoint.set_server_config(None),
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.admit(incoming),
                    None => return,
                },
            }
        }
    }

    fn admit(&self, incoming: quinn::Incoming) {
        let remote = incoming.remote_address();
        // Under load an address proves itself first: a flood from invented ones then costs one packet each.
        let busy = self.handshakes.taken() >= self.shared.config.listen.handshakes_max.div_ceil(2);
        if busy && !incoming.remote_address_validated() {
            if incoming.retry().is_err() {
                debug!(%remote, "connection attempt answered twice");
            }
            return;
        }
        let Some(connection) = self.connections.try_enter(remote.ip()) else {
            metrics::connection_refused();
            debug!(%remote, "connection refused: no room");
            return incoming.refuse();
        };
        // A connection without a hello makes room for the next: none can hold these slots against others.
        let handshake = self.handshakes.enter(remote.ip());
        let admission = Admission { connection, handshake };
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(info_span!("session", %remote), async move {
            let _counted = metrics::connection_opened();
            session::serve(shared, incoming, admission).await;
        });
    }

    /// Closes every connection that is left. The peers are notified.
    pub(crate) async fn close(&self) {
        self.endpoint.close(wire_error::close_code(ErrorCode::ShuttingDown), b"the engine is going away");
        self.endpoint.wait_idle().await;
    }
}

/// An endpoint that speaks for this identity.
pub(crate) fn endpoint(
    socket: std::net::UdpSocket,
    identity: Identity,
    config: &ServerConfig,
) -> io::Result<Endpoint> {
    let server = server_config(identity.served.quic, config);
    let mut endpoint = EndpointConfig::new(Arc::new(identity.reset_key));
    let connection_id_key = identity.connection_id_key;
    endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_id_key)));
    // Every connection of the time before a restart wants one, and they all ask at once.
    endpoint.min_reset_interval(RESET_INTERVAL_MIN);
    endpoint
        .max_udp_payload_size(config.listen.mtu_max.max(ETHERNET_PAYLOAD))
        .expect("the configuration's range is within QUIC's");
    Endpoint::new(endpoint, Some(server), socket, Arc::new(TokioRuntime))
}

fn server_config(crypto: Arc<QuicServerConfig>, config: &ServerConfig) -> quinn::ServerConfig {
    let mut server = quinn::ServerConfig::with_crypto(crypto);
    server
        .transport_config(Arc::new(transport(config)))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
    server
}

/// Bytes that a connection may send before anything is acknowledged: twelve thousand, as of RFC 9002, section 7.2, or
/// four of its largest packets. Of large packets the RFC allows two, and quinn sends the second only once the first is
/// acknowledged, for which a peer waits 25 ms: it acknowledges every second packet at once. Over a path of small
/// packets these are up to 21, where the RFC says ten; Chromium's QUIC begins with 32.
fn first_window(mtu_max: u16) -> u64 {
    (4 * u64::from(mtu_max)).max(10 * 1_200)
}

fn transport(config: &ServerConfig) -> TransportConfig {
    let window = |size: bytesize::ByteSize| VarInt::from_u64(size.as_u64()).unwrap_or(VarInt::MAX);
    let idle = IdleTimeout::try_from(config.listen.idle_timeout)
        .expect("the configuration's range is within QUIC's");
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(config.listen.mtu_max);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(first_window(config.listen.mtu_max));
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(
            STREAMS_GRANTED_FIRST.min(session::streams_granted_max(config)),
        ))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(config.listen.keep_alive))
        .stream_receive_window(window(config.streams.receive_window))
        .receive_window(window(config.streams.connection_receive_window))
        .send_window(config.streams.connection_send_window.as_u64())
        .congestion_controller_factory(Arc::new(congestion))
        .mtu_discovery_config(Some(discovery));
    transport
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::TlsConfig,
        tests::client,
        tls::{self, TlsFiles},
    };

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// An engine's endpoint that accepts and says nothing, on a runtime that dies with it.
    fn engine(files: &TlsFiles, config: &ServerConfig) -> (tokio::runtime::Runtime, Endpoint) {
        let runtime = runtime();
        let endpoint = runtime.block_on(async {
            endpoint(bind(config).unwrap(), tls::prepare(files, crate::clock::now()).unwrap(), config)
                .unwrap()
        });
        (runtime, endpoint)
    }

    #[test]
    fn a_new_connection_sends_four_of_its_largest_packets_unacknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles::new(dir.path(), &TlsConfig::default());
        let mut config = ServerConfig::default();
        config.listen.address.set_port(0);
        let (runtime, endpoint) = engine(&files, &config);
        let (address, ca) = (endpoint.local_addr().unwrap(), files.ca_pem());
        let window = runtime.block_on(async {
            let accepting = async { endpoint.accept().await.unwrap().accept().unwrap().await.unwrap() };
            let (accepted, _connected) = tokio::join!(accepting, client::connect(address, &ca));
            accepted.stats().path.cwnd
        });
        assert!(window >= 4 * u64::from(config.listen.mtu_max), "{window} bytes");
    }

    #[test]
    fn a_restarted_engine_ends_old_connections_at_their_first_packet() {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles::new(dir.path(), &TlsConfig::default());
        let mut config = ServerConfig::default();
        config.listen.address.set_port(0);
        let (first, endpoint) = engine(&files, &config);
        config.listen.address = endpoint.local_addr().unwrap();

        // The client lives on a thread of its own: it sees only packets, as from another process.
        let ca = files.ca_pem();
        let (connected, is_connected) = std::sync::mpsc::channel();
        let address = config.listen.address;
        let client = std::thread::spawn(move || {
            runtime().block_on(async {
                let connection = client::connect(address, &ca).await.unwrap();
                connected.send(()).unwrap();
                tokio::time::timeout(Duration::from_secs(9), connection.closed()).await
            })
        });
        let accepted =
            first.block_on(async { endpoint.accept().await.unwrap().accept().unwrap().await.unwrap() });
        is_connected.recv().unwrap();
        // As by kill -9: without a close.
        first.shutdown_background();
        drop((accepted, endpoint));

        let (second, endpoint) = engine(&files, &config);
        let ended = second.block_on(async {
            let waiting = tokio::task::spawn_blocking(move || client.join().unwrap());
            tokio::select! { ended = waiting => ended.unwrap(), _ = endpoint.accept() => unreachable!() }
        });
        assert!(matches!(ended, Ok(quinn::ConnectionError::Reset)), "{ended:?}");
    }
}
