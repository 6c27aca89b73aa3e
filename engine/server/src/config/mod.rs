//! The server's settings: sections, read from a file, then the environment, then flags.
//!
//! It owns names, defaults and the checks of single values. It must not know what the values are used for.
//!
//! ```text
//! data_dir = "levada-data"      LEVADA_DATA_DIR          --data-dir
//! [listen]
//! address = "127.0.0.1:7600"    LEVADA_LISTEN_ADDRESS    --listen
//! ```

mod engine;
mod environment;
mod nearest;
mod network;
mod push;
mod section;
mod store;
mod telemetry;
mod tls;
mod wording;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Env, Serialized},
    value::Uncased,
};
use levada_protocol::error::ErrorCode;
pub use levada_webhook::Network;
use serde::{Deserialize, Serialize};

pub(crate) use self::network::require_identities;
use self::section::Setting;
pub use self::{
    engine::{PluginsConfig, PublishConfig, SubscribeConfig, TransactionsConfig},
    environment::check_environment,
    nearest::nearest,
    network::{HttpConfig, HttpTls, ListenConfig, StreamsConfig},
    push::{PushConfig, parse_network},
    store::{RocksdbConfig, RocksdbLogConfig, StoreConfig},
    telemetry::{LogFormat, TelemetryConfig},
    tls::{ClientAuth, TlsConfig, TlsName},
};
use crate::units;

const DATA_DIR: &str = "data_dir";
const ABOUT_DATA_DIR: &str = " The data directory: events, plugins, keys. Made if it is absent.";

/// Defines [`ServerConfig`] from its sections.
macro_rules! sections {
    ($($name:ident: $section:ident,)+) => {
        /// Everything that can be set about a server. `ServerConfig::default()` has the documented defaults.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct ServerConfig {
            #[doc = " The data directory: events, plugins, keys. Made if it is absent. Default `levada-data`."]
            pub data_dir: PathBuf,
            $(#[doc = concat!("The section `[", stringify!($name), "]`.")] pub $name: $section,)+
        }

        impl Default for ServerConfig {
            fn default() -> Self {
                Self { data_dir: PathBuf::from("levada-data"), $($name: $section::default(),)+ }
            }
        }

        /// Every section in order: its name, what it is about, and its settings.
        const SECTIONS: &[(&str, &[&str], &[Setting])] =
            &[$((stringify!($name), $section::ABOUT, $section::SETTINGS),)+];

        impl ServerConfig {
            fn check_sections(&self) -> Result<(), Error> {
                $(self.$name.check()?;)+
                Ok(())
            }
        }
    };
}

sections! {
    listen: ListenConfig,
    streams: StreamsConfig,
    http: HttpConfig,
    tls: TlsConfig,
    store: StoreConfig,
    rocksdb: RocksdbConfig,
    rocksdb_log: RocksdbLogConfig,
    publish: PublishConfig,
    subscribe: SubscribeConfig,
    transactions: TransactionsConfig,
    plugins: PluginsConfig,
    push: PushConfig,
    telemetry: TelemetryConfig,
}

/// The full name of every setting, as `listen.address`, in order.
fn settings() -> impl Iterator<Item = String> {
    let of_sections = SECTIONS
        .iter()
        .flat_map(|(section, _, settings)| settings.iter().map(move |(key, _)| format!("{section}.{key}")));
    std::iter::once(DATA_DIR.to_owned()).chain(of_sections)
}

/// What the command line sets; `None` leaves the file's, the environment's or the default value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// `data_dir`.
    pub data_dir: Option<PathBuf>,
    /// `listen.address`.
    pub listen: Option<SocketAddr>,
    /// `http.address`.
    pub http: Option<SocketAddr>,
    /// `tls.names`; empty leaves it.
    pub tls_names: Vec<TlsName>,
    /// `push.allow`; empty leaves it.
    pub push_allow: Vec<Network>,
    /// `telemetry.log_format`.
    pub log_format: Option<LogFormat>,
    /// `telemetry.log_filter`.
    pub log_filter: Option<String>,
}

impl Overrides {
    fn over(&self, mut figment: Figment) -> Figment {
        fn set<T: Serialize>(figment: Figment, key: &str, value: Option<&T>) -> Figment {
            match value {
                Some(value) => figment.merge((key, value)),
                None => figment,
            }
        }
        figment = set(figment, DATA_DIR, self.data_dir.as_ref());
        figment = set(figment, "listen.address", self.listen.as_ref());
        figment = set(figment, "http.address", self.http.as_ref());
        let names: Vec<String> = self.tls_names.iter().map(TlsName::to_string).collect();
        figment = set(figment, "tls.names", (!names.is_empty()).then_some(&names));
        let networks: Vec<String> = self.push_allow.iter().map(Network::to_string).collect();
        figment = set(figment, "push.allow", (!networks.is_empty()).then_some(&networks));
        figment = set(figment, "telemetry.log_format", self.log_format.as_ref());
        set(figment, "telemetry.log_filter", self.log_filter.as_ref())
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("configuration file {path} cannot be read")]
    File {
        /// As it was given.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The file's text is not TOML, or a key or value of it is wrong.
    #[error("configuration file {path}, line {line}: {message}")]
    Text {
        /// As it was given.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What was expected and what came.
        message: String,
    },
    /// A variable of the environment is not known, is empty, or has a wrong value.
    #[error("the environment variable {name} {message}")]
    Variable {
        /// The variable.
        name: String,
        /// What was expected and what came.
        message: String,
    },
    /// A value outside its range.
    #[error("{key} is {got}, expected {expected}")]
    Range {
        /// The setting, as `listen.address`.
        key: &'static str,
        /// The value.
        got: String,
        /// What is allowed.
        expected: String,
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

/// The name or address that a text means, for a certificate.
///
/// # Errors
/// What was expected and what came.
pub fn parse_tls_name(text: &str) -> Result<TlsName, String> {
    text.parse()
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
            let table = text.parse::<toml::Table>().map_err(|error| {
                in_text(path, &text, &error, |message| format!("expected TOML: {message}"))
            })?;
            // Read alone first: only the TOML reader itself knows the line of a mistake.
            toml::from_str::<Self>(&text).map_err(|error| in_text(path, &text, &error, wording::ours))?;
            figment = figment.merge(Serialized::defaults(table));
        }
        check_environment()?;
        let settings: Vec<(String, String)> =
            settings().map(|key| (environment::variable(&key), key)).collect();
        // The others are the client's.
        let variables = Env::prefixed(environment::PREFIX).filter_map(move |variable| {
            let found = settings.iter().find(|(name, _)| variable == name.as_str());
            found.map(|(_, key)| Uncased::from_owned(key.clone()))
        });
        let config: Self =
            overrides.over(figment.merge(variables)).extract().map_err(|error| in_variable(&error))?;
        config.check()?;
        Ok(config)
    }

    /// Checks what a value's type cannot say.
    ///
    /// # Errors
    /// If a value is outside its range.
    pub fn check(&self) -> Result<(), Error> {
        section::require(DATA_DIR, !self.data_dir.as_os_str().is_empty(), "empty", "a directory")?;
        self.check_sections()
    }

    /// These settings as a file that [`ServerConfig::load`] reads, each key with its explanation.
    pub fn to_toml(&self) -> String {
        let table = toml::Table::try_from(self).expect("settings are plain values");
        let mut text = format!("#{ABOUT_DATA_DIR}\n{DATA_DIR} = {}\n", value(&table, DATA_DIR));
        for (section, about, settings) in SECTIONS {
            text.push('\n');
            comment(&mut text, about);
            text.push_str(&format!("[{section}]\n"));
            let table = table.get(*section).and_then(toml::Value::as_table);
            let table = table.expect("a section is a table");
            for (key, doc) in *settings {
                comment(&mut text, doc);
                text.push_str(&format!("{key} = {}\n", value(table, key)));
            }
        }
        text
    }
}

fn value<'a>(table: &'a toml::Table, key: &str) -> &'a toml::Value {
    table.get(key).expect("every setting is always written")
}

fn comment(text: &mut String, lines: &[&str]) {
    for line in lines {
        text.push_str(&format!("#{line}\n"));
    }
}

fn in_text(path: &Path, text: &str, error: &toml::de::Error, say: impl Fn(&str) -> String) -> Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    Error::Text { path: path.to_owned(), line, message: say(&error.message().replace('\n', " ")) }
}

/// The file was read before and flags have their types, so that only a variable can be wrong.
fn in_variable(error: &figment::Error) -> Error {
    let message = format!("is wrong: {}", wording::ours(&error.kind.to_string()));
    let variable = environment::variable(&error.path.join("."));
    Error::Variable { name: format!("{}{variable}", environment::PREFIX), message }
}

#[cfg(test)]
mod tests;
