//! `levada serve`: runs the engine in this process until a signal.

use std::{
    io::{self, Read as _},
    path::PathBuf,
    thread,
};

use anyhow::Context as _;
use levada_server::{LogFormat, Overrides, ServerConfig, Started, telemetry::Log};
use levada_terminal::{
    Failure,
    choices::Format,
    output::{Output, Unwritten},
};
use serde::Serialize;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use crate::args::ServeArgs;

/// On this many processors or fewer one thread for all connections is faster than a pool that steals work.
const SINGLE_THREAD_CORES_MAX: usize = 4;
/// The exit code of a process that ends at a second signal: 128 and SIGINT's number.
const INTERRUPTED: i32 = 130;

/// Runs the engine; returns after its ordered shutdown.
pub(crate) fn run(output: &Output, args: ServeArgs, verbose: u8) -> anyhow::Result<()> {
    let overrides = Overrides {
        data_dir: args.data_dir,
        listen: args.listen,
        http: args.http,
        tls_names: args.tls_names,
        push_allow: args.push_allow,
        log_format: args.log_format.map(log_format),
        log_filter: log_filter(verbose, output.is_quiet()),
    };
    let config =
        ServerConfig::load(args.config.as_deref(), &overrides).map_err(levada_server::Error::from)?;
    if args.print_config {
        return Ok(output.line(config.to_toml().trim_end())?);
    }
    let log = levada_server::telemetry::install(&config)
        .map_err(|error| Failure::new(error.code(), error.to_string()))?;
    let runtime = runtime()?;
    let serving =
        Serving { config, admin_token: args.admin_token, until_stdin_closes: args.until_stdin_closes };
    let served = runtime.block_on(Box::pin(serve(output, serving, log)));
    // Everything has ended in its order but for plugins that are being compiled: those are abandoned.
    runtime.shutdown_background();
    served
}

fn log_format(format: Format) -> LogFormat {
    match format {
        Format::Text => LogFormat::Text,
        Format::Json => LogFormat::Json,
    }
}

fn log_filter(verbose: u8, quiet: bool) -> Option<String> {
    let filter = match verbose {
        0 if quiet => "warn",
        0 => return None,
        1 => "levada=debug,info",
        _ => "levada=trace,debug",
    };
    Some(filter.to_owned())
}

fn runtime() -> io::Result<Runtime> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut builder = if cores <= SINGLE_THREAD_CORES_MAX {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    builder.enable_all().thread_name("levada").build()
}

/// What is served, and until when.
struct Serving {
    config: ServerConfig,
    admin_token: Option<PathBuf>,
    until_stdin_closes: bool,
}

async fn serve(output: &Output, serving: Serving, log: Log) -> anyhow::Result<()> {
    let Serving { config, admin_token, until_stdin_closes } = serving;
    let interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let stdin_closed = if until_stdin_closes { Some(watch_stdin()?) } else { None };
    let (ask, asked) = oneshot::channel::<()>();
    let speaker = output.clone();
    let chosen = Chosen { quic: config.listen.address.port() == 0, http: config.http.address.port() == 0 };
    let engine = levada_server::run(config, admin_token, async { drop(asked.await) }, move |started| {
        announce(&speaker, &started, chosen)
    });
    tokio::select! {
        result = Box::pin(engine) => Ok(result?),
        () = watch_signals(interrupt, terminate, stdin_closed, ask) => {
            drop(log);
            std::process::exit(INTERRUPTED)
        }
    }
}

/// Asks for shutdown at the first signal, or when stdin ends; resolves at the next signal.
async fn watch_signals(
    mut interrupt: Signal,
    mut terminate: Signal,
    stdin_closed: Option<oneshot::Receiver<()>>,
    ask: oneshot::Sender<()>,
) {
    let closed = async {
        match stdin_closed {
            Some(closed) => drop(closed.await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = closed => {}
    }
    // There is no receiver if the engine is ending by itself.
    let _ending = ask.send(());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Resolves when stdin ends: with the process that holds its other end.
fn watch_stdin() -> io::Result<oneshot::Receiver<()>> {
    let (closed, wait) = oneshot::channel();
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut rest = [0; 64];
        while matches!(io::stdin().read(&mut rest), Ok(1..)) {}
        // There is no receiver any more if the engine is stopping already.
        let _late = closed.send(());
    })?;
    Ok(wait)
}

/// What `serve --output json` prints once it is ready.
#[derive(Serialize)]
struct Announcement {
    started: bool,
    quic: String,
    http: String,
    /// True if HTTP is served over TLS.
    https: bool,
    /// The CA certificate's file; null if the certificate is an operator's and its CA unknown.
    ca: Option<String>,
    /// The SHA-256 of that certificate.
    ca_fingerprint: Option<String>,
    version: &'static str,
}

/// Which ports the system chose. They are the command's result: they are not known otherwise.
#[derive(Debug, Clone, Copy)]
struct Chosen {
    quic: bool,
    http: bool,
}

fn announce(output: &Output, started: &Started, chosen: Chosen) {
    let ca = started.ca_fingerprint.as_ref().map(|_| started.ca_pem_path.display().to_string());
    let announcement = Announcement {
        started: true,
        quic: started.quic.to_string(),
        http: started.http.to_string(),
        https: started.https,
        ca,
        ca_fingerprint: started.ca_fingerprint.clone(),
        version: env!("CARGO_PKG_VERSION"),
    };
    let quic = format!("  QUIC  {} (UDP)", announcement.quic);
    let scheme = if announcement.https { "https" } else { "http" };
    let http = format!("  HTTP  {scheme}://{} (/healthz /readyz /metrics)", announcement.http);
    if output.is_quiet() && !output.is_json() {
        let mut lines =
            [(chosen.quic, &quic), (chosen.http, &http)].into_iter().filter(|(chosen, _)| *chosen);
        let printed = lines.try_for_each(|(_, line)| output.line(line.trim_start()));
        return printed.unwrap_or_else(|error| unprinted(&error));
    }
    let printed = output.result(&announcement, || {
        let trust = match (&announcement.ca, &announcement.ca_fingerprint) {
            (Some(ca), Some(fingerprint)) => format!(
                "  CA    {ca}\n        {fingerprint}\nA client trusts this engine with --ca {ca} or LEVADA_CA={ca}"
            ),
            _ => format!(
                "  CA    that of {}\nA client trusts this engine with the CA of its certificate",
                started.ca_pem_path.display()
            ),
        };
        format!("levada {} is ready\n{quic}\n{http}\n{trust}", announcement.version)
    });
    if let Err(error) = printed {
        unprinted(&error);
    }
}

fn unprinted(error: &Unwritten) {
    tracing::warn!(%error, "the addresses could not be printed");
}
