//! The server's settings: one flat table, read from a file, then the environment, then flags.
//!
//! It owns names, defaults and the checks of single values. It must not know what the values are used for.

mod environment;
mod nearest;
mod wording;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use figment::{
    Figment,
    providers::{Env, Format as _, Serialized, Toml},
};
use levada_protocol::error::ErrorCode;
use serde::{Deserialize, Serialize};

pub use self::{environment::check_environment, nearest::nearest};
use crate::units;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Defines [`ServerConfig`] together with its defaults and the texts that `--print-config` repeats.
macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $(#[serde($($serde:tt)*)])? $name:ident: $kind:ty = $default:expr;)+) => {
        /// Everything that can be set about a server. `ServerConfig::default()` has the documented defaults.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct ServerConfig {
            $($(#[doc = $doc])+ $(#[serde($($serde)*)])? pub $name: $kind,)+
        }

        impl Default for ServerConfig {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        /// Every key with its explanation, in order.
        const KEYS: &[(&str, &[&str])] = &[$((stringify!($name), &[$($doc),+]),)+];
    };
}

settings! {
    /// The data directory: events, plugins, keys. Made if it is absent.
    data_dir: PathBuf = PathBuf::from("levada-data");
    /// Where QUIC is served (UDP): an address, a host's name with a port, or a port alone on 127.0.0.1; port 0 takes any
    /// free one. Loopback only, while no identities can be configured.
    #[serde(with = "units::address")]
    listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7600));
    /// Where HTTP is served (TCP): health and metrics. As `listen`.
    #[serde(with = "units::address")]
    http: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7601));
    /// How log lines are written: `text` or `json`.
    log_format: LogFormat = LogFormat::Text;
    /// Which log lines are written: a level, or `target=level` pairs with commas between.
    log_filter: String = "info".to_owned();

    /// Connections open at once; one more is refused. The last tenth is for addresses that hold less than that.
    connections_max: usize = 10_000;
    /// Handshakes and hellos under way at once. One more takes the place of the oldest of the address with most; over half
    /// of it an unproved address is first asked to prove itself.
    handshakes_max: usize = 512;
    /// Streams that one connection may have open at once. It is granted in steps, as they are used.
    streams_max: u32 = 1_024;
    /// How long a new connection may take to finish its handshake and say hello.
    #[serde(with = "units::duration")]
    hello_timeout: Duration = Duration::from_secs(5);
    /// How long a new stream may take to say what it is.
    #[serde(with = "units::duration")]
    open_timeout: Duration = Duration::from_secs(10);
    /// How often a quiet connection is probed.
    #[serde(with = "units::duration")]
    keep_alive: Duration = Duration::from_secs(3);
    /// Silence after which a connection is given up. Keep it below the acknowledgement timeouts in use.
    #[serde(with = "units::duration")]
    idle_timeout: Duration = Duration::from_secs(10);
    /// Largest UDP payload that path discovery tries, in bytes: 1200 to 6500. Above, segmentation offload fails.
    mtu_max: u16 = 6_500;
    /// Bytes that one stream may have sent and the engine not yet read.
    #[serde(with = "units::size")]
    stream_receive_window: ByteSize = ByteSize::mib(4);
    /// The same for all streams of one connection together.
    #[serde(with = "units::size")]
    receive_window: ByteSize = ByteSize::mib(8);
    /// Bytes written to one connection and not yet acknowledged by its peer.
    #[serde(with = "units::size")]
    send_window: ByteSize = ByteSize::mib(8);
    /// The UDP socket's buffers, each way; the system may grant less.
    #[serde(with = "units::size")]
    socket_buffer: ByteSize = ByteSize::mib(4);
    /// Bytes of deliveries that may be ready for one connection's streams and not yet taken by them. It waits then.
    #[serde(with = "units::size")]
    unread_connection_bytes_max: ByteSize = ByteSize::mib(16);
    /// The same over all connections.
    #[serde(with = "units::size")]
    unread_bytes_max: ByteSize = ByteSize::mib(256);
    /// How long a stream may take nothing of what its credit asked for: then it is reset with DEADLINE_EXCEEDED, and
    /// its consumer detached. After 2 seconds with LIMIT_EXCEEDED if its connection or the engine has no room left.
    #[serde(with = "units::duration")]
    unread_timeout: Duration = Duration::from_secs(30);
    /// Bytes of frames of one connection that have not come whole or wait to be taken on. One for which there is no room
    /// for 2 seconds is refused with LIMIT_EXCEEDED.
    #[serde(with = "units::size")]
    unfinished_connection_bytes_max: ByteSize = ByteSize::mib(16);
    /// The same over all connections.
    #[serde(with = "units::size")]
    unfinished_bytes_max: ByteSize = ByteSize::mib(128);
    /// Plugin artefacts received at once; the next waits.
    uploads_max: usize = 2;
    /// How long one plugin artefact may take to arrive.
    #[serde(with = "units::duration")]
    upload_timeout: Duration = Duration::from_secs(120);
    /// How long a plugin artefact may bring next to nothing while another waits for its place.
    #[serde(with = "units::duration")]
    upload_patience: Duration = Duration::from_secs(10);
    /// HTTP connections open at once; one more takes the place of the one that was silent longest.
    http_connections_max: usize = 256;
    /// Silence after which an HTTP connection is given up. A request has at most 10 seconds to come.
    #[serde(with = "units::duration")]
    http_idle_timeout: Duration = Duration::from_secs(60);
    /// How often the certificate files are looked at: ours are renewed in time, others are taken when they change.
    #[serde(with = "units::duration")]
    tls_check_interval: Duration = Duration::from_secs(3_600);
    /// How long sessions may finish what is in flight when the engine goes away.
    #[serde(with = "units::duration")]
    shutdown_grace: Duration = Duration::from_secs(5);

    /// Bytes of published batches that may wait for their commit.
    #[serde(with = "units::size")]
    publish_bytes_max: ByteSize = ByteSize::mib(32);
    /// Unacknowledged publishes of one stream.
    stream_in_flight_max: usize = 4_096;
    /// Bytes of one encoded commit, unless one publish or acknowledgement alone needs more.
    #[serde(with = "units::size")]
    commit_bytes_max: ByteSize = ByteSize::kib(960);
    /// Bytes of the newest batches kept in memory, over all partitions.
    #[serde(with = "units::size")]
    tail_bytes_max: ByteSize = ByteSize::mib(64);
    /// How long a consumer's acknowledgement waits for a commit group to ride in before it makes one.
    #[serde(with = "units::duration")]
    progress_delay: Duration = Duration::from_millis(5);
    /// Least free disk space: below it, or below the smaller of a tenth of the volume and 1 GiB, publishes are refused.
    #[serde(with = "units::size")]
    disk_reserve: ByteSize = ByteSize::mib(64);
    /// How often free disk space is looked at.
    #[serde(with = "units::duration")]
    disk_check_interval: Duration = Duration::from_millis(500);
    /// How often retention looks for what may go.
    #[serde(with = "units::duration")]
    retention_interval: Duration = Duration::from_secs(30);

    /// Threads that run plugins; 0 means as many as there are processors. Long calls have one thread fewer besides.
    plugin_workers: usize = 0;
    /// How often running plugins are held against their deadlines.
    #[serde(with = "units::duration")]
    plugin_tick: Duration = Duration::from_millis(1);
}

/// What the command line sets; `None` leaves the file's, the environment's or the default value.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Overrides {
    /// See [`ServerConfig::data_dir`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// See [`ServerConfig::listen`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// See [`ServerConfig::http`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// See [`ServerConfig::log_format`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
    /// See [`ServerConfig::log_filter`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_filter: Option<String>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("configuration file {path} cannot be read")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file's text is not TOML, or a key or value of it is wrong.
    #[error("configuration file {path}, line {line}: {message}")]
    Text {
        /// Which.
        path: PathBuf,
        /// Where, counted from 1.
        line: usize,
        /// What was expected and what came.
        message: String,
    },
    /// A variable of the environment is not known, is empty, or has a wrong value.
    #[error("the environment variable {name} {message}")]
    Variable {
        /// Which.
        name: String,
        /// What was expected and what came.
        message: String,
    },
    /// A value outside its range.
    #[error("{key} is {got}, expected {expected}")]
    Range {
        /// The key.
        key: &'static str,
        /// What came.
        got: String,
        /// What is allowed.
        expected: &'static str,
    },
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::File { .. } | Self::Text { .. } | Self::Variable { .. } | Self::Range { .. } => {
                ErrorCode::ConfigInvalid
            }
        }
    }
}

/// The address that a text means: `127.0.0.1:7600`, `localhost:7600`, or a port alone, on 127.0.0.1.
///
/// # Errors
/// What was expected and what came.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    units::address::parse(text)
}

impl ServerConfig {
    /// The defaults, then the file, then `LEVADA_…` variables, then the flags; later ones win.
    ///
    /// # Errors
    /// If the file cannot be read, a key is unknown, or a value is of the wrong form or outside its range.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, Error> {
        let mut figment = Figment::new();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| Error::File { path: path.to_owned(), source })?;
            let syntax = text.parse::<toml::Table>();
            syntax.map_err(|error| {
                in_text(path, &text, &error, |message| format!("expected TOML: {message}"))
            })?;
            // Read alone first: only the TOML reader itself knows the line of a mistake.
            toml::from_str::<Self>(&text).map_err(|error| in_text(path, &text, &error, wording::ours))?;
            figment = figment.merge(Toml::string(&text));
        }
        check_environment()?;
        // The others are the client's.
        let keys: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
        let config: Self = figment
            .merge(Env::prefixed(environment::PREFIX).only(&keys))
            .merge(Serialized::defaults(overrides))
            .extract()
            .map_err(|error| in_variable(&error))?;
        config.check()?;
        Ok(config)
    }

    /// Checks what a value's type cannot say.
    ///
    /// # Errors
    /// If a value is outside its range.
    pub fn check(&self) -> Result<(), Error> {
        let range = |key, holds: bool, got: &dyn ToString, expected| {
            if holds { Ok(()) } else { Err(Error::Range { key, got: got.to_string(), expected }) }
        };
        range("data_dir", !self.data_dir.as_os_str().is_empty(), &"empty", "a directory")?;
        range(
            "log_filter",
            units::filter::is_one(&self.log_filter),
            &format!("{:?}", self.log_filter),
            units::filter::EXPECTED,
        )?;
        let loopback = "a loopback address such as 127.0.0.1: without identities anybody who reaches the port \
                        may do anything";
        range("listen", self.listen.ip().is_loopback(), &self.listen, loopback)?;
        range("http", self.http.ip().is_loopback(), &self.http, loopback)?;
        range("mtu_max", (1_200..=6_500).contains(&self.mtu_max), &self.mtu_max, "1200 to 6500")?;
        for (key, got) in [
            ("connections_max", self.connections_max),
            ("handshakes_max", self.handshakes_max),
            ("uploads_max", self.uploads_max),
            ("http_connections_max", self.http_connections_max),
            ("stream_in_flight_max", self.stream_in_flight_max),
        ] {
            range(key, (1..=1_000_000).contains(&got), &got, "1 to 1000000")?;
        }
        range("streams_max", (1..=65_536).contains(&self.streams_max), &self.streams_max, "1 to 65536")?;
        for (key, got) in [
            ("stream_receive_window", self.stream_receive_window),
            ("receive_window", self.receive_window),
            ("send_window", self.send_window),
            ("unread_connection_bytes_max", self.unread_connection_bytes_max),
            ("unread_bytes_max", self.unread_bytes_max),
            ("unfinished_connection_bytes_max", self.unfinished_connection_bytes_max),
            ("unfinished_bytes_max", self.unfinished_bytes_max),
            ("socket_buffer", self.socket_buffer),
            ("commit_bytes_max", self.commit_bytes_max),
            ("publish_bytes_max", self.publish_bytes_max),
        ] {
            let holds = (ByteSize::kib(64)..=ByteSize::gib(1)).contains(&got);
            range(key, holds, &units::size::text(got), "64KiB to 1GiB")?;
        }
        self.check_times()
    }

    fn check_times(&self) -> Result<(), Error> {
        let range = |key, got: Duration, least: Duration, expected| {
            if got >= least && got <= Duration::from_secs(86_400) {
                Ok(())
            } else {
                Err(Error::Range { key, got: format!("{got:?}"), expected })
            }
        };
        let (second, millisecond) = (Duration::from_secs(1), Duration::from_millis(1));
        range("hello_timeout", self.hello_timeout, millisecond, "1ms to 1day")?;
        range("open_timeout", self.open_timeout, millisecond, "1ms to 1day")?;
        range("keep_alive", self.keep_alive, Duration::from_millis(100), "100ms to 1day")?;
        range("idle_timeout", self.idle_timeout, second, "1s to 1day")?;
        range("idle_timeout", self.idle_timeout, self.keep_alive, "at least keep_alive, and at most 1day")?;
        range("unread_timeout", self.unread_timeout, millisecond, "1ms to 1day")?;
        range("upload_patience", self.upload_patience, millisecond, "1ms to 1day")?;
        range("upload_timeout", self.upload_timeout, second, "1s to 1day")?;
        range("http_idle_timeout", self.http_idle_timeout, second, "1s to 1day")?;
        range("tls_check_interval", self.tls_check_interval, millisecond, "1ms to 1day")?;
        range("shutdown_grace", self.shutdown_grace, Duration::ZERO, "0s to 1day")?;
        range("progress_delay", self.progress_delay, Duration::ZERO, "0s to 1day")?;
        range("disk_check_interval", self.disk_check_interval, millisecond, "1ms to 1day")?;
        range("retention_interval", self.retention_interval, millisecond, "1ms to 1day")?;
        range("plugin_tick", self.plugin_tick, millisecond, "1ms to 1day")
    }

    /// These settings as a file that [`ServerConfig::load`] reads, each key with its explanation.
    pub fn to_toml(&self) -> String {
        let table = toml::Table::try_from(self).expect("settings are plain values");
        let mut text = String::new();
        for (key, doc) in KEYS {
            for line in *doc {
                text.push_str(&format!("#{line}\n"));
            }
            let value = table.get(*key).expect("every setting is always written");
            text.push_str(&format!("{key} = {value}\n\n"));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }
}

fn in_text(path: &Path, text: &str, error: &toml::de::Error, say: impl Fn(&str) -> String) -> Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    Error::Text { path: path.to_owned(), line, message: say(&error.message().replace('\n', " ")) }
}

/// The file was read before and flags have their types, so that only a variable can be wrong.
fn in_variable(error: &figment::Error) -> Error {
    let key = error.path.first().map_or_else(String::new, |key| key.to_ascii_uppercase());
    let message = format!("is wrong: {}", wording::ours(&error.kind.to_string()));
    Error::Variable { name: format!("{}{key}", environment::PREFIX), message }
}

#[cfg(test)]
mod tests;
