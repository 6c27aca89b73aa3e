//! The whole server over real sockets: sessions, bad input, HTTP, and the orders of start and shutdown.

pub(crate) mod client;
pub(crate) mod issuer;

mod http;
mod identities;
mod lifecycle;
mod push;
mod redelivery;
mod sessions;
mod streams;
mod tls;

use std::{path::PathBuf, time::Duration};

use tokio::sync::oneshot;

use crate::{Error, ServerConfig, Started, run};

/// Settings for a server of its own: any free ports, a directory that is absent, and no grace.
pub(crate) fn config(dir: &tempfile::TempDir) -> ServerConfig {
    with(ServerConfig { data_dir: dir.path().join("data"), ..ServerConfig::default() }, |config| {
        config.listen.address.set_port(0);
        config.http.address.set_port(0);
        config.listen.shutdown_grace = Duration::ZERO;
    })
}

/// The settings, changed.
pub(crate) fn with(mut config: ServerConfig, change: impl FnOnce(&mut ServerConfig)) -> ServerConfig {
    change(&mut config);
    config
}

/// Runs a server, the test's body against it, and the shutdown.
pub(crate) async fn against<T>(config: ServerConfig, body: impl AsyncFnOnce(Started) -> T) -> T {
    against_with(config, None, body).await
}

/// The same, with a file for the token of an administrator.
pub(crate) async fn against_with<T>(
    config: ServerConfig,
    admin_token: Option<PathBuf>,
    body: impl AsyncFnOnce(Started) -> T,
) -> T {
    let (stop, stopped) = oneshot::channel::<()>();
    let (start, started) = oneshot::channel();
    let server = run(
        config,
        admin_token,
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
