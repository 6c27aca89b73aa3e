//! Settings of what the engine listens on and of what its peers may have under way.

use std::{fmt, net::SocketAddr, time::Duration};

use bytesize::ByteSize;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Unexpected, Visitor},
};

use super::{
    Error, ServerConfig,
    section::{duration, number, require, section, size},
};
use crate::units;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Why an engine without principals is not on the network, and how it gets there.
const LOOPBACK: &str = "a loopback address such as 127.0.0.1 while there is no principal: anybody who reaches the port \
                        might do anything; make an administrator first, with `levada serve --admin-token FILE` once or \
                        on an engine that listens on loopback, then listen on the network";

const ORIGIN: &str = "origins as browsers send them: http or https, a host and perhaps a port, such as https://console.example.com";

section! {
    /// QUIC: connections and packets.
    ListenConfig {
        /// Where QUIC is served (UDP): an address, a host's name with a port, or a port alone on 127.0.0.1; port 0
        /// takes any free one. Other addresses than loopback need a principal that may administer the engine.
        #[serde(with = "units::address")]
        address: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7600));
        /// Connections open at once; one more is refused. The last tenth is for addresses that hold less than that.
        connections_max: usize = 10_000;
        /// Handshakes and hellos under way at once. One more replaces the oldest of the address with most; over
        /// half of it an unproved address is first asked to prove itself.
        handshakes_max: usize = 512;
        /// How long a new connection may take to finish its handshake and say hello.
        #[serde(with = "units::duration")]
        hello_timeout: Duration = Duration::from_secs(5);
        /// How often a quiet connection is probed.
        #[serde(with = "units::duration")]
        keep_alive: Duration = Duration::from_secs(3);
        /// Silence after which a connection is closed. Keep it below the acknowledgement timeouts in use.
        #[serde(with = "units::duration")]
        idle_timeout: Duration = Duration::from_secs(10);
        /// Largest UDP payload that path discovery tries, in bytes: 1200 to 6500. Above, segmentation offload fails.
        mtu_max: u16 = 6_500;
        /// The UDP socket's buffers, each way; the system may grant less.
        #[serde(with = "units::size")]
        socket_buffer: ByteSize = ByteSize::mib(4);
        /// How long sessions may finish what is in flight when the engine goes away.
        #[serde(with = "units::duration")]
        shutdown_grace: Duration = Duration::from_secs(5);
    }
}

section! {
    /// Streams of QUIC connections: their number, and bytes under way.
    StreamsConfig {
        /// Streams that one connection may have open at once. It is granted in steps, as they are used.
        connection_max: u32 = 1_024;
        /// How long a new stream may take to say what it is.
        #[serde(with = "units::duration")]
        open_timeout: Duration = Duration::from_secs(10);
        /// Bytes that one stream may have sent and the engine not yet read.
        #[serde(with = "units::size")]
        receive_window: ByteSize = ByteSize::mib(4);
        /// The same for all streams of one connection together.
        #[serde(with = "units::size")]
        connection_receive_window: ByteSize = ByteSize::mib(8);
        /// Bytes written to one connection and not yet acknowledged by its peer.
        #[serde(with = "units::size")]
        connection_send_window: ByteSize = ByteSize::mib(8);
        /// Bytes of frames of one connection that are incomplete or wait to be handed on. One for which there is no
        /// room for 2 seconds is refused with LIMIT_EXCEEDED.
        #[serde(with = "units::size")]
        connection_unfinished_bytes_max: ByteSize = ByteSize::mib(16);
        /// The same over all connections.
        #[serde(with = "units::size")]
        unfinished_bytes_max: ByteSize = ByteSize::mib(128);
    }
}

section! {
    /// HTTP: events, health and metrics.
    HttpConfig {
        /// Where HTTP is served (TCP), written as the address of `[listen]`, and with the same condition.
        #[serde(with = "units::address")]
        address: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7601));
        /// Whether HTTP is served over TLS, with the certificate of QUIC: true, false, or `auto`, which is false on
        /// loopback and true elsewhere. Elsewhere false is refused.
        tls: HttpTls = HttpTls::Auto;
        /// Connections open at once; one more replaces the one that was silent longest.
        connections_max: usize = 256;
        /// Silence after which a connection is closed. A request must arrive within 10 seconds.
        #[serde(with = "units::duration")]
        idle_timeout: Duration = Duration::from_secs(60);
        /// Origins whose web pages may call the engine, such as `["https://console.example.com"]`. Empty: none.
        cors_origins: Vec<String> = Vec::new();
    }
}

/// Whether HTTP is served over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpTls {
    /// On every address but loopback.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never; only on loopback.
    Off,
}

impl Serialize for HttpTls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::On => serializer.serialize_bool(true),
            Self::Off => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for HttpTls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HttpTlsVisitor)
    }
}

struct HttpTlsVisitor;

impl Visitor<'_> for HttpTlsVisitor {
    type Value = HttpTls;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("auto, true or false")
    }

    fn visit_bool<E: serde::de::Error>(self, is_on: bool) -> Result<HttpTls, E> {
        Ok(if is_on { HttpTls::On } else { HttpTls::Off })
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<HttpTls, E> {
        match text {
            "auto" => Ok(HttpTls::Auto),
            "true" => Ok(HttpTls::On),
            "false" => Ok(HttpTls::Off),
            other => Err(E::invalid_value(Unexpected::Str(other), &self)),
        }
    }
}

/// Refuses addresses that others can reach while the engine knows nobody: whoever reached the port might do anything.
///
/// # Errors
/// The address, and how the engine gets onto the network.
pub(crate) fn require_identities(config: &ServerConfig, has_principals: bool) -> Result<(), Error> {
    for (key, address) in [("listen.address", config.listen.address), ("http.address", config.http.address)] {
        require(key, has_principals || is_loopback(address), address, LOOPBACK)?;
    }
    Ok(())
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// The range of buffers and windows.
fn window(key: &'static str, got: ByteSize) -> Result<(), Error> {
    size(key, got, ByteSize::kib(64)..=ByteSize::gib(1))
}

impl ListenConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        number("listen.connections_max", self.connections_max, 1..=1_000_000)?;
        number("listen.handshakes_max", self.handshakes_max, 1..=1_000_000)?;
        number("listen.mtu_max", self.mtu_max, 1_200..=6_500)?;
        window("listen.socket_buffer", self.socket_buffer)?;
        duration("listen.hello_timeout", self.hello_timeout, MILLISECOND)?;
        duration("listen.keep_alive", self.keep_alive, Duration::from_millis(100))?;
        duration("listen.idle_timeout", self.idle_timeout, SECOND)?;
        duration("listen.shutdown_grace", self.shutdown_grace, Duration::ZERO)?;
        let idle = humantime::format_duration(self.idle_timeout);
        require(
            "listen.idle_timeout",
            self.idle_timeout >= self.keep_alive,
            idle,
            "at least listen.keep_alive",
        )
    }
}

impl StreamsConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        number("streams.connection_max", self.connection_max, 1..=65_536)?;
        duration("streams.open_timeout", self.open_timeout, MILLISECOND)?;
        window("streams.receive_window", self.receive_window)?;
        window("streams.connection_receive_window", self.connection_receive_window)?;
        window("streams.connection_send_window", self.connection_send_window)?;
        window("streams.connection_unfinished_bytes_max", self.connection_unfinished_bytes_max)?;
        window("streams.unfinished_bytes_max", self.unfinished_bytes_max)
    }
}

fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        !host.is_empty()
            && host.bytes().all(|it| it.is_ascii_graphic() && it != b'/' && !it.is_ascii_uppercase())
    })
}

impl HttpConfig {
    /// Whether this listener speaks TLS.
    pub(crate) fn uses_tls(&self) -> bool {
        match self.tls {
            HttpTls::Auto => !is_loopback(self.address),
            HttpTls::On => true,
            HttpTls::Off => false,
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let may_be_plain = is_loopback(self.address);
        require(
            "http.tls",
            may_be_plain || self.uses_tls(),
            format_args!("false and http.address {}", self.address),
            "true or auto unless HTTP listens on loopback: tokens must not cross a network in the clear",
        )?;
        number("http.connections_max", self.connections_max, 1..=1_000_000)?;
        for origin in &self.cors_origins {
            require("http.cors_origins", is_origin(origin), origin, ORIGIN)?;
        }
        duration("http.idle_timeout", self.idle_timeout, SECOND)
    }
}
