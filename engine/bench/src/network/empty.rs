//! A server with an empty handler in the engine's place: what HTTP costs by itself. It is the
//! engine's own server, takes whole bodies and returns a short response; it ends when its stdin does.

use anyhow::Context as _;
use levada_server::bare_http;
use levada_terminal::Output;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::{args::CounterpartArgs, limits::watch_stdin};

/// What the engine's response to one event is like.
const RESPONSE: &str = r#"[{"partition":0,"offset":1000000,"outcome":"stored"}]"#;

/// The line that tells the bench where this process is reached: as that of `levada serve`.
#[derive(Serialize)]
struct Started {
    quic: String,
    http: String,
    ca: String,
}

/// Runs until stdin ends.
pub(crate) async fn run(output: &Output, args: &CounterpartArgs) -> anyhow::Result<()> {
    let stdin_closed = watch_stdin()?;
    let listener = TcpListener::bind(args.listen).await.context("listening")?;
    let http = listener.local_addr().context("finding the port")?.to_string();
    output.json(&Started { quic: String::new(), http, ca: String::new() })?;
    let closed = async {
        let _closed = stdin_closed.await;
    };
    bare_http(listener, RESPONSE, closed).await.context("serving")
}
