//! Composition: what is started in which order, and what is stopped in which.
//!
//! It owns both orders, and nothing else that lives.

use std::{
    future::Future,
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use levada_broker::{
    Bounds, Broker, BrokerConfig, CheckBackConfig, CompactionConfig, Credentials, Inspection,
};
use levada_plugin_host::{Host, HostConfig};
use levada_protocol::{
    access::{Action, Scope},
    ids::{PrincipalName, TopicId},
    token::Token,
};
use levada_store::{Inspect, RocksStore, Store};
use levada_webhook::{PushConfig, Pushers, Transport, UrlRules};
use tokio::{net::TcpListener, sync::watch, time};
use tracing::{error, info, info_span, warn};

use crate::{
    clock,
    config::{ServerConfig, require_identities},
    descriptors,
    error::Error,
    files, http,
    http_runtime::HttpRuntime,
    metrics,
    quic::listener::{self, Listener},
    tasks::Tasks,
    tls::{self, Ca, TlsFiles, Watch},
};

/// How often histograms of metrics give back what they no longer need.
const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long the last packets and the last HTTP answers may take.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The principal that a start makes a token for.
const ADMINISTRATOR: &str = "admin";

/// Where a server that has started can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The QUIC address in force.
    pub quic: SocketAddr,
    /// The HTTP address in force.
    pub http: SocketAddr,
    /// Whether HTTP is served over TLS.
    pub https: bool,
    /// The file with the CA certificate that clients must trust. Without [`Started::ca_fingerprint`] the CA is not the
    /// engine's to know: then it is the file of the certificate that is served.
    pub ca_pem_path: PathBuf,
    /// The SHA-256 of that CA's DER, as `sha256:` and 64 hexadecimal digits: by it a client on another machine knows the
    /// CA that it is shown.
    pub ca_fingerprint: Option<String>,
}

/// What runs between start and shutdown.
struct Server {
    config: ServerConfig,
    broker: Broker,
    listener: Arc<Listener>,
    /// Sessions and their streams.
    sessions: Tasks,
    /// HTTP and upkeep, which outlive the sessions.
    beside: Tasks,
    /// Where HTTP and pushes run.
    http: HttpRuntime,
}

/// Runs a server until `shutdown` completes and everything has ended in order.
///
/// With `admin_token` it first makes a token of an administrator, the principal `admin`, and writes it to that file, which must not
/// exist. Works on a runtime with one thread as on one with several. `started` is called once, when both ports answer.
///
/// # Errors
/// If a setting is wrong, a port is taken, the store does not open, or a part does not start.
pub async fn run(
    config: ServerConfig,
    admin_token: Option<PathBuf>,
    shutdown: impl Future<Output = ()>,
    started: impl FnOnce(Started),
) -> Result<(), Error> {
    config.check()?;
    let _ = metrics::recorder();
    let config = descriptors::fit(config);

    // 1. The ports: what most often is in the way, and cheap to find out.
    let udp = listener::bind(&config).map_err(|source| listen_error(config.listen.address, "udp", source))?;
    let tcp = TcpListener::bind(config.http.address)
        .await
        .map_err(|source| listen_error(config.http.address, "tcp", source))?;
    let http = tcp.local_addr().map_err(|source| listen_error(config.http.address, "tcp", source))?;
    // Another runtime accepts its connections.
    let tcp = tcp.into_std().map_err(|source| listen_error(config.http.address, "tcp", source))?;
    let http_runtime =
        HttpRuntime::start().map_err(|source| listen_error(config.http.address, "tcp", source))?;

    // 2. The store: from here on the data directory is ours, and no other process writes into it.
    let store = open_store(&config).await?;

    // 3. What lies beside it: keys, and the plugin host with its cache.
    let files = TlsFiles::new(&config.data_dir, &config.tls);
    let identity = tls::prepare(&files, clock::now())?;
    let (served, ca) = (identity.served.clone(), identity.ca.clone());
    let certificates = Watch::new(files.clone(), &identity, clock::now());
    let host = Host::new(host_config(&config))?;
    let push = PushConfig { allow: config.push.allowed(), ca: config.push.ca.clone() };
    let transport = Transport::new(push).map_err(Error::Push)?;

    // 4. The broker: recovers from the store, starts its owners.
    let broker = Broker::start(broker_config(&config), Arc::new(store), Arc::new(host))?;

    if let Err(error) = open_to(&config, &broker, admin_token).await {
        broker.shutdown().await;
        return Err(error);
    }

    // 5. The listeners.
    let sessions = Tasks::default();
    let listening = Listener::new(udp, identity, &config, broker.clone(), sessions.clone())
        .and_then(|listener| Ok((listener.address()?, Arc::new(listener))));
    let (quic, listener) = match listening {
        Ok(listening) => listening,
        Err(source) => {
            broker.shutdown().await;
            return Err(listen_error(config.listen.address, "udp", source));
        }
    };
    let (http_tls, tls) = watch::channel(served.http);
    let https = config.http.uses_tls();
    let http_tls = https.then_some(http_tls);
    let server = Server { config, broker, listener, sessions, beside: Tasks::default(), http: http_runtime };
    server.start(tcp, https.then_some(tls));
    server.push(transport);
    server.watch_certificates(certificates, http_tls);
    let (ca_pem_path, ca_fingerprint) = match ca {
        Some(Ca { file, fingerprint }) => (file, Some(fingerprint)),
        None => (files.certificate(), None),
    };
    info!(
        %quic, %http, data_dir = %server.config.data_dir.display(), ca = %ca_pem_path.display(), ca_fingerprint,
        "engine started"
    );
    started(Started { quic, http, https, ca_pem_path, ca_fingerprint });

    shutdown.await;
    server.stop().await;
    Ok(())
}

impl Server {
    fn start(&self, tcp: std::net::TcpListener, tls: http::Tls) {
        let (config, broker) = (self.config.http.clone(), self.broker.clone());
        let (draining, until) = (self.sessions.draining().clone(), self.beside.draining().clone());
        let cancelled = self.beside.cancelled().clone();
        self.beside.spawn_until_on(self.http.handle(), info_span!("http"), cancelled, async move {
            if let Err(error) = http::serve(tcp, tls, &config, broker, draining, until).await {
                error!(%error, "http ended");
            }
        });
        self.beside.spawn_until(info_span!("upkeep"), self.beside.draining().clone(), async {
            loop {
                time::sleep(METRICS_UPKEEP_INTERVAL).await;
                metrics::recorder().run_upkeep();
            }
        });
        let listener = Arc::clone(&self.listener);
        self.sessions.spawn(info_span!("listener"), async move { listener.accept_all().await });
    }

    /// Pushes deliveries until the engine goes away; what is under way then ends with the sessions.
    fn push(&self, transport: Transport) {
        let pushers = Pushers::new(self.broker.clone(), transport);
        let (draining, cancelled) = (self.sessions.draining().clone(), self.sessions.cancelled().clone());
        self.sessions.spawn_until_on(
            self.http.handle(),
            info_span!("push"),
            cancelled,
            pushers.run(draining),
        );
    }

    fn watch_certificates(&self, mut watch: Watch, http: Option<watch::Sender<Arc<rustls::ServerConfig>>>) {
        let (listener, interval) = (Arc::clone(&self.listener), self.config.tls.check_interval);
        // Draining ends this first: a listener that accepts nothing any more must not serve again.
        self.beside.spawn_until(info_span!("tls"), self.sessions.draining().clone(), async move {
            loop {
                time::sleep(interval).await;
                let refreshing = tokio::task::spawn_blocking(move || {
                    let changed = watch.refresh(clock::now());
                    (watch, changed)
                });
                match refreshing.await {
                    Ok((back, changed)) => {
                        watch = back;
                        if let Some(served) = changed {
                            listener.serve_with(served.quic);
                            http.iter().for_each(|http| drop(http.send_replace(Arc::clone(&served.http))));
                        }
                    }
                    // It fails if the refresh panics, and when the runtime ends.
                    Err(error) => {
                        return error!(%error, "certificate files are not checked any more, until a restart");
                    }
                }
            }
        });
    }

    /// The one order in which everything ends.
    async fn stop(self) {
        info!("engine stopping");
        // 1. Nothing new: no connections, no streams; sessions are asked to finish. `/readyz` says so too.
        self.sessions.draining().cancel();
        // 2. A while for what is in flight.
        if time::timeout(self.config.listen.shutdown_grace, self.sessions.finished()).await.is_err() {
            warn!(grace = ?self.config.listen.shutdown_grace, "sessions are ended before they were done");
        }
        // 3. Whatever is left ends now; the peers get a close with its code.
        self.sessions.cancelled().cancel();
        if time::timeout(LAST_ANSWERS, self.listener.close()).await.is_err() {
            warn!("some peers may not have heard of the end");
        }
        self.sessions.finished().await;
        // 4. HTTP, which reported readiness until now.
        self.beside.draining().cancel();
        if time::timeout(LAST_ANSWERS, self.beside.finished()).await.is_err() {
            warn!("some HTTP requests got no answer");
        }
        self.beside.cancelled().cancel();
        self.http.stop().await;
        // 5. The broker: owners, then the writer with all that is queued, then the store.
        self.broker.shutdown().await;
        info!("engine stopped");
    }
}

/// Makes an administrator if that is wanted, and checks that who can reach the engine has to show who they are.
async fn open_to(config: &ServerConfig, broker: &Broker, admin_token: Option<PathBuf>) -> Result<(), Error> {
    if let Some(file) = admin_token {
        make_administrator(broker, &file).await?;
    }
    require_identities(config, broker.has_principals())?;
    if !broker.has_principals() {
        info!(
            "there are no principals: everybody on this machine may do everything, and nobody else is served"
        );
    }
    Ok(())
}

/// True if the file holds the token of one who may do everything: the flag may stay in a unit file.
fn holds_administrator(broker: &Broker, file: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(file) else { return false };
    let Ok(token) = Token::parse(text.trim()) else { return false };
    let shown = Credentials { token: Some(token), ..Credentials::default() };
    broker
        .authenticate(&shown)
        .is_ok_and(|principal| broker.check(&principal, &[(Action::Admin, Scope::Engine)]).is_ok())
}

/// Makes a token of an administrator, and writes it into a new file that only its owner may read.
async fn make_administrator(broker: &Broker, file: &Path) -> Result<(), Error> {
    let failed = |source| Error::AdminToken { path: file.to_owned(), source };
    if holds_administrator(broker, file) {
        info!(file = %file.display(), "the file holds a valid token of an administrator already; none was made");
        return Ok(());
    }
    if file.exists() && broker.has_principals() {
        let path = file.display();
        warn!(file = %path, "the file holds no valid token of an administrator, and none was made: remove it to have one made");
        return Ok(());
    }
    // The file first: a token that could not be written would be lost, and stay valid.
    let mut opened = files::new_private_file(file).map_err(failed)?;
    let name: PrincipalName = ADMINISTRATOR.parse().expect("the name obeys its grammar");
    let token = broker.create_administrator(name).await.inspect_err(|_| {
        // Empty, it would be in the way next time.
        let _ = std::fs::remove_file(file);
    })?;
    writeln!(opened, "{}", token.reveal()).and_then(|()| opened.sync_all()).map_err(failed)?;
    info!(file = %file.display(), principal = ADMINISTRATOR, "a token of an administrator was made");
    Ok(())
}

fn listen_error(address: SocketAddr, protocol: &'static str, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::AddrInUse {
        Error::AddressInUse { address, protocol }
    } else {
        Error::Listen { address, protocol, source }
    }
}

/// Opens the store away from the network's thread: recovery reads the disk.
async fn open_store(config: &ServerConfig) -> Result<RocksStore, Error> {
    let (path, options) = (config.data_dir.clone(), config.rocksdb.options(&config.rocksdb_log));
    let inspected = Inspected::new(config);
    let opened = tokio::task::spawn_blocking(move || {
        files::private_dir(&path).map_err(|source| Error::DataDir { path: path.clone(), source })?;
        RocksStore::open_inspected(&path, options, &inspected)
    });
    opened.await.expect("opening a store answers errors and does not panic")
}

/// Checks what a start reads, before anything is written.
struct Inspected {
    state: Inspection,
    files: TlsFiles,
}

impl Inspected {
    fn new(config: &ServerConfig) -> Self {
        Self { state: Inspection::new(&config.data_dir), files: TlsFiles::new(&config.data_dir, &config.tls) }
    }
}

impl Inspect for Inspected {
    type Error = Error;

    fn inspect(&self, store: &dyn Store) -> Result<(), Error> {
        tls::check(&self.files)?;
        Ok(self.state.inspect(store)?)
    }

    fn topic_name(&self, store: &dyn Store, topic: TopicId) -> Option<String> {
        self.state.topic_name(store, topic)
    }
}

fn host_config(config: &ServerConfig) -> HostConfig {
    let defaults = HostConfig::new(config.data_dir.join("plugin-cache"));
    let plugins = &config.plugins;
    let workers = if plugins.workers == 0 { defaults.workers } else { plugins.workers };
    HostConfig {
        workers,
        tick: plugins.tick,
        queue_calls_max: plugins.queue_calls_max,
        init_deadline: plugins.init_deadline,
        ..defaults
    }
}

fn broker_config(config: &ServerConfig) -> BrokerConfig {
    let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
    let ServerConfig { publish, subscribe, store, transactions, .. } = config;
    BrokerConfig {
        publish_bytes_max: bytes(publish.bytes_max),
        writer_queue_max: publish.writer_queue_max,
        stream_in_flight_max: publish.stream_in_flight_max,
        commit_bytes_max: bytes(publish.commit_bytes_max),
        groups_unsynced_max: publish.groups_unsynced_max,
        producers_max: publish.producers_max,
        dedup_ids_max: publish.dedup_ids_max,
        producers_idle: publish.producers_idle,
        tail_bytes_max: bytes(subscribe.tail_bytes_max),
        retained_bytes_max: bytes(subscribe.retained_bytes_max),
        delivery: Bounds {
            consumer_bytes_max: subscribe.consumer_bytes_max.as_u64(),
            waiting_bytes_max: bytes(subscribe.waiting_bytes_max),
            failed_runs_max: subscribe.failed_runs_max,
        },
        connection_unread_bytes_max: bytes(subscribe.connection_unread_bytes_max),
        unread_bytes_max: bytes(subscribe.unread_bytes_max),
        scan_bytes_max: subscribe.scan_bytes_max.as_u64(),
        progress_delay: subscribe.progress_delay,
        disk_reserve_bytes: store.disk_reserve.as_u64(),
        disk_check_interval: store.disk_check_interval,
        retention_interval: store.retention_interval,
        catalogue_records_max: store.catalogue_records_max,
        compaction: CompactionConfig {
            age_min: store.compact_after,
            tombstones_for: store.tombstones_for,
            ..CompactionConfig::default()
        },
        check_back: CheckBackConfig {
            after: transactions.check_after,
            interval: transactions.check_interval,
            checks_max: u16::try_from(transactions.checks_max).unwrap_or(u16::MAX),
        },
        push_urls: Some(Arc::new(UrlRules::new(config.push.allowed()))),
        ..BrokerConfig::new(&config.data_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What can be compared of a configuration that holds a clock.
    fn shown(config: &BrokerConfig) -> String {
        let BrokerConfig { clock: _, .. } = config;
        let all = format!("{config:?}");
        all.split(", clock:").next().unwrap().to_owned()
    }

    #[test]
    fn the_defaults_are_those_of_the_broker_and_the_host() {
        let config = ServerConfig::default();
        let push_urls = Some(Arc::new(UrlRules::default()) as _);
        let broker = BrokerConfig { push_urls, ..BrokerConfig::new(&config.data_dir) };
        assert_eq!(shown(&broker_config(&config)), shown(&broker));
        let host = HostConfig::new(config.data_dir.join("plugin-cache"));
        assert_eq!(format!("{:?}", host_config(&config)), format!("{host:?}"));
    }

    #[test]
    fn what_deliveries_may_hold_is_what_the_three_settings_say() {
        let mut config = ServerConfig::default();
        let subscribe = &mut config.subscribe;
        subscribe.consumer_bytes_max = bytesize::ByteSize::mib(1);
        subscribe.waiting_bytes_max = bytesize::ByteSize::mib(2);
        subscribe.failed_runs_max = 1_024;
        let expected =
            Bounds { consumer_bytes_max: 1 << 20, waiting_bytes_max: 2 << 20, failed_runs_max: 1_024 };
        assert_eq!(broker_config(&config).delivery, expected);
    }
}
