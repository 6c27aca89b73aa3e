//! A whole engine in this process: real QUIC, real RocksDB in a directory of its own, its own thread.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use levada_client::{Client, ClientConfig};
use levada_server::{Error, ServerConfig, Started};
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::oneshot};

use super::{freed, own_address, process::HttpConnection, within};

/// A running engine. Dropping it stops it.
pub(crate) struct Engine {
    pub(crate) started: Started,
    config: ServerConfig,
    dir: Arc<TempDir>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

/// Settings for tests: ports that are free, and no patience at the end.
pub(crate) fn config(data_dir: PathBuf) -> ServerConfig {
    let mut config = ServerConfig { data_dir, ..ServerConfig::default() };
    config.listen.address = own_address();
    config.http.address.set_port(0);
    config.listen.shutdown_grace = Duration::ZERO;
    // The machine that runs the tests may have less free than an engine would want.
    config.store.disk_reserve = bytesize::ByteSize::mib(1);
    config
}

impl Engine {
    /// An engine with default settings on a fresh directory.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// An engine with changed settings on a fresh directory.
    pub(crate) async fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let dir = Arc::new(TempDir::new().expect("a temporary directory can be made"));
        let mut config = config(dir.path().join("data"));
        change(&mut config);
        match Self::run(config, dir).await {
            Ok(engine) => engine,
            Err(error) => panic!("the engine does not start: {error}"),
        }
    }

    /// An engine, or why there is none.
    pub(crate) async fn run(config: ServerConfig, dir: Arc<TempDir>) -> Result<Self, Error> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (reach, reached) = oneshot::channel();
        let running = config.clone();
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("a runtime can be made");
                let shutdown = async { drop(stopped.await) };
                let started = |started| drop(reach.send(started));
                runtime.block_on(Box::pin(levada_server::run(running, None, shutdown, started)))
            })
            .expect("a thread can be started");
        match within("the engine's start", reached).await {
            Ok(started) => Ok(Self { started, config, dir, stop: Some(stop), thread: Some(thread) }),
            Err(_) => Err(thread
                .join()
                .expect("the engine does not panic")
                .expect_err("an engine that ends before it has started has a reason")),
        }
    }

    /// Shuts the engine down in order, and returns how that went.
    pub(crate) async fn stop(&mut self) -> Result<(), Error> {
        self.stop = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let joined = tokio::task::spawn_blocking(move || thread.join());
        within("the engine's end", joined)
            .await
            .expect("joining does not panic")
            .expect("the engine does not panic")
    }

    /// The engine again, on the same data, the same ports and with changed settings.
    pub(crate) async fn restart_with(mut self, change: impl FnOnce(&mut ServerConfig)) -> Self {
        self.stop().await.expect("the engine ends well");
        freed(self.started.quic).await;
        let mut config = self.config.clone();
        // Clients that hold on to the address find the engine again.
        config.listen.address = self.started.quic;
        change(&mut config);
        match Self::run(config, Arc::clone(&self.dir)).await {
            Ok(engine) => engine,
            Err(error) => panic!("the engine does not start again: {error}"),
        }
    }

    /// The engine again, on the same data and ports.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(|_| {}).await
    }

    /// What HTTP answers: the status and the body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let stream = TcpStream::connect(self.started.http).await.expect("the engine listens");
        HttpConnection(stream).get(path).await
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }

    /// How a client reaches it.
    pub(crate) fn client_config(&self) -> ClientConfig {
        ClientConfig::new(self.started.quic.to_string()).ca_file(&self.started.ca_pem_path)
    }

    /// A connection to it.
    pub(crate) async fn connect(&self) -> Client {
        within("a connection", Client::connect(self.client_config())).await.expect("the engine answers")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // What went wrong in there has been said in there.
            let _ = thread.join();
        }
    }
}
