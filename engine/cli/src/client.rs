//! From flags to a connection, and from the connection to its end.

use std::time::Duration;

use levada_client::Client;
use levada_terminal::{Failure, interrupted};

use crate::args::ClientArgs;

/// Does `work` over a connection to the engine that the flags or the environment name, and closes it however the work
/// ends: an engine that shuts down waits a while for connections that were not closed.
pub(crate) async fn with<T>(
    args: &ClientArgs,
    work: impl AsyncFnOnce(&Client) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let client = args.reach.connect(None).await?;
    let done = work(&client).await;
    client.close().await;
    done
}

/// As [`with`]; each request of the client is tried for `request_timeout`.
pub(crate) async fn within<T>(
    args: &ClientArgs,
    request_timeout: Duration,
    work: impl AsyncFnOnce(&Client) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let client = args.reach.connect(Some(request_timeout)).await?;
    let done = work(&client).await;
    client.close().await;
    done
}

/// As [`with`], for work that has nothing to bring to an end when the user wishes to stop.
pub(crate) async fn with_interruptible<T>(
    args: &ClientArgs,
    work: impl AsyncFnOnce(&Client) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let interruptible = async |client: &Client| {
        tokio::select! {
            biased;
            () = interrupted() => Err(Failure::interrupted().into()),
            done = work(client) => done,
        }
    };
    with(args, interruptible).await
}
