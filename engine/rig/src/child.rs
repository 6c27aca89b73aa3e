//! An engine as a child process: `levada serve` on a data directory of its own, ended with its handle; and a directory
//! that goes with it.
//!
//! The demo and the bench use it, so that engine and client are two processes as in real use.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use levada_client::{Ca, Client, ClientConfig};
use levada_protocol::error::ErrorCode;
use levada_terminal::{Failure, Reach};
use serde::Deserialize;
use tempfile::{Builder, TempDir};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long a start may take, the recovery of a large data directory included.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an ordered shutdown may take before the process is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a killed process may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// The command that runs an engine.
const SERVE: [&str; 4] = ["serve", "--http", "127.0.0.1:0", "--until-stdin-closes"];
/// Lines of the engine's log that an error repeats.
const LOG_LINES: usize = 5;

/// A running engine in a temporary directory. Dropping it kills the process, then removes the directory.
#[derive(Debug)]
pub struct Sandbox {
    // In this order: nothing can be removed under a process that still writes.
    engine: Engine,
    home: TempDir,
}

impl Sandbox {
    /// Makes a directory in `parent` and starts an engine that keeps its log there, and its data too unless it is to
    /// keep it in `data_dir`.
    ///
    /// # Errors
    /// If the directory cannot be made, or the engine does not start.
    pub async fn start(name: &str, parent: &Path, data_dir: Option<&Path>) -> anyhow::Result<Self> {
        Self::start_command(&SERVE, name, parent, data_dir).await
    }

    /// The same with another command of this program in the engine's place: it takes `--data-dir`, `--listen` and
    /// `--output json`, prints the same line once it is ready, and ends when its stdin does.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_command(
        command: &[&str],
        name: &str,
        parent: &Path,
        data_dir: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let home = Builder::new().prefix(name).tempdir_in(parent).map_err(|error| {
            let message = format!("no directory can be made in {}: {error}", parent.display());
            Failure::new(ErrorCode::ConfigInvalid, message)
                .hint("the environment's TMPDIR names another place")
        })?;
        let own = home.path().join("data");
        let log = home.path().join("engine.log");
        let engine = Engine::start(command, data_dir.unwrap_or(&own), &log).await?;
        Ok(Self { engine, home })
    }

    /// The engine in it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Lets the engine end in order, then removes the directory.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.engine.stop().await?;
        self.home.close().context("removing the engine's directory")
    }
}

/// A running engine. Dropping it kills the process; `Engine::stop` lets it finish.
#[derive(Debug)]
pub struct Engine {
    child: Child,
    addr: String,
    http: String,
    ca: PathBuf,
    log: PathBuf,
}

/// The line that `levada serve --output json` prints when it is ready.
#[derive(Debug, Deserialize)]
struct Started {
    quic: String,
    /// Of one that serves HTTP.
    #[serde(default)]
    http: String,
    ca: PathBuf,
}

impl Engine {
    /// Starts an engine on `data_dir`, on free ports; its log goes to the file `log`.
    async fn start(command: &[&str], data_dir: &Path, log: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program's own file")?;
        let stderr = File::create(log).with_context(|| format!("making the log file {}", log.display()))?;
        let mut child = Command::new(program)
            .args(command)
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--listen", "127.0.0.1:0", "--output", "json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .context("starting the engine")?;
        let stdout = child.stdout.take().context("the engine's stdout is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        match timeout(START_TIMEOUT, lines.next_line()).await {
            Ok(Ok(Some(line))) => {
                let started: Started =
                    serde_json::from_str(&line).context("reading the engine's addresses")?;
                let Started { quic: addr, http, ca } = started;
                Ok(Self { child, addr, http, ca, log: log.to_owned() })
            }
            Ok(_) => Err(failed("the engine did not start", log)),
            Err(_) => Err(failed("the engine did not start in time", log)),
        }
    }

    /// A new connection to it.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let ca = Some(Ca::File(self.ca.clone()));
        Reach { addr: self.addr.clone(), ca, token: None, certificate: None }.connect(None).await
    }

    /// Where it listens.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Where it serves HTTP; empty if it does not.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// How a client that shows nothing reaches it.
    pub fn client_config(&self) -> ClientConfig {
        ClientConfig::new(&self.addr).ca_file(&self.ca)
    }

    /// The CA that it is trusted by.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// Asks it to shut down and waits until it has.
    async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        match timeout(STOP_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(failed(&format!("the engine ended with {status}"), &self.log)),
            Ok(Err(error)) => Err(error).context("waiting for the engine's end"),
            Err(_) => {
                self.child.kill().await.context("killing the engine")?;
                Err(failed("the engine did not shut down in time and was killed", &self.log))
            }
        }
    }
}

impl Drop for Engine {
    /// Kills the process if it still runs, and sees it gone: then its directory can be removed.
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ended = self.child.start_kill();
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < KILL_TIMEOUT {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn failed(what: &str, log: &Path) -> anyhow::Error {
    let message = match last_lines(log) {
        Ok(lines) if !lines.is_empty() => format!("{what}; its log ends with: {}", lines.join(" | ")),
        _ => what.to_owned(),
    };
    Failure::new(ErrorCode::Internal, message).into()
}

fn last_lines(log: &Path) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(log)?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    Ok(lines[from..].iter().map(|line| (*line).to_owned()).collect())
}
