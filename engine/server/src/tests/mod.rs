//! The whole server over real sockets: sessions, bad input, HTTP, and the orders of start and shutdown.

pub(crate) mod client;

mod http;
mod lifecycle;
mod redelivery;
mod sessions;
mod streams;
mod tls;

use std::time::Duration;

use tokio::sync::oneshot;

use crate::{Error, ServerConfig, Started, run};

/// Settings for a server of its own: any free ports, a directory that is absent, and no grace.
pub(crate) fn config(dir: &tempfile::TempDir) -> ServerConfig {
    ServerConfig {
        data_dir: dir.path().join("data"),
        listen: ([127, 0, 0, 1], 0).into(),
        http: ([127, 0, 0, 1], 0).into(),
        shutdown_grace: Duration::ZERO,
        ..ServerConfig::default()
    }
}

/// Runs a server, the test's body against it, and the shutdown.
pub(crate) async fn against<T>(config: ServerConfig, body: impl AsyncFnOnce(Started) -> T) -> T {
    let (stop, stopped) = oneshot::channel::<()>();
    let (start, started) = oneshot::channel();
    let server = run(
        config,
        async {
            // The sender is dropped when the body is done.
            let _ = stopped.await;
        },
        |reached| start.send(reached).unwrap(),
    );
    let test = async {
        let result = body(started.await.expect("the server starts")).await;
        drop(stop);
        result
    };
    let (ended, result): (Result<(), Error>, T) = tokio::join!(Box::pin(server), test);
    ended.unwrap();
    result
}
