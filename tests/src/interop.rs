//! Programs of others against the real engine: the `cloudevents` and `standardwebhooks` packages of Python and npm, npm's
//! `eventsource`, and Schemathesis.
//!
//! The scripts are in `tests/interop`. Their packages are installed below the cache of this repository, once for each state of
//! the file that pins them. Where they cannot be had, nothing is tested, which fails if `CI` is `true`.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{process::Command, time::timeout};

use crate::support::{package, process::Process};

/// Longer than installing packages takes.
const INSTALL: Duration = Duration::from_secs(400);
/// Longer than a script takes.
const RUN: Duration = Duration::from_secs(180);
/// Longer than thousands of requests take, each of which is generated.
const RUN_OF_THOUSANDS: Duration = Duration::from_secs(600);
/// What installing leaves when it has come to its end.
const COMPLETE: &str = "complete";

/// The folder of the scripts.
fn scripts() -> PathBuf {
    package().join("interop")
}

/// Where builds and tools are kept, as in the Makefile.
fn cache() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let of_user = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    folder("LEVADA_CACHE").unwrap_or_else(|| of_user().expect("a user has a home").join("levada"))
}

/// Runs a command to its end; what it printed is the error if it fails, or is not done in time.
async fn run(command: &mut Command, limit: Duration) -> Result<String, String> {
    let shown = format!("{:?}", command.as_std());
    let dir = TempDir::new().unwrap();
    // A file, so that there is something to show of a command that hangs.
    let printed = dir.path().join("printed");
    let stream = || Stdio::from(File::options().create(true).append(true).open(&printed).unwrap());
    command.stdin(Stdio::null()).stdout(stream()).stderr(stream()).kill_on_drop(true);
    let ended = timeout(limit, command.status()).await;
    let output = String::from_utf8_lossy(&fs::read(&printed).unwrap()).into_owned();
    match ended {
        Ok(Ok(status)) if status.success() => Ok(output),
        Ok(Ok(status)) => Err(format!("{shown} ended with {status}:\n{output}")),
        Ok(Err(error)) => Err(format!("{shown} cannot be started: {error}")),
        Err(_) => Err(format!("{shown} was not done within {limit:?}:\n{output}")),
    }
}

/// A folder with what `install` puts there: made once for each state of the file that pins it and each version of the program that
/// installs it, whoever asks first.
async fn installed(
    program: &str,
    pinned: &Path,
    install: impl AsyncFnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let version = run(Command::new(program).arg("--version"), INSTALL).await?;
    let mut hasher = DefaultHasher::new();
    (version, fs::read(pinned).unwrap()).hash(&mut hasher);
    let base = cache().join("interop");
    fs::create_dir_all(&base).map_err(|error| format!("{}: {error}", base.display()))?;
    let folder = base.join(format!("{program}-{:016x}", hasher.finish()));
    let lock = File::create(folder.with_extension("lock")).map_err(|error| error.to_string())?;
    let locking = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock));
    let _locked = locking.await.expect("locking does not panic").map_err(|error| error.to_string())?;
    if !folder.join(COMPLETE).exists() {
        // What is there is of somebody who was interrupted.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        install(&folder).await?;
        fs::write(folder.join(COMPLETE), "").map_err(|error| error.to_string())?;
    }
    Ok(folder)
}

/// Where the programs of the Python packages are.
async fn python() -> Result<PathBuf, String> {
    let requirements = scripts().join("python/requirements.txt");
    let install = async |folder: &Path| {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder), INSTALL).await?;
        let mut pip = Command::new(folder.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&requirements);
        run(&mut pip, INSTALL).await.map(drop)
    };
    Ok(installed("python3", &requirements, install).await?.join("bin"))
}

/// Where the npm packages are.
async fn node_modules() -> Result<PathBuf, String> {
    let package = scripts().join("node/package.json");
    // They run in node, whatever npm there is.
    let install = async |folder: &Path| {
        fs::copy(&package, folder.join("package.json")).map_err(|error| error.to_string())?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]);
        run(npm.current_dir(folder), INSTALL).await.map(drop)
    };
    Ok(installed("node", &package, install).await?.join("node_modules"))
}

/// The tools, or nothing, said loudly, where they cannot be had.
fn or_not_tested<T>(what: &str, tools: Result<T, String>) -> Option<T> {
    match tools {
        Ok(tools) => Some(tools),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "NOT TESTED: {what}: {why}");
            eprintln!("NOT TESTED: {what}: {why}");
            None
        }
    }
}

/// An engine with a topic `orders` of so many partitions, and the folder of its data.
async fn engine(partitions: &str) -> (TempDir, Process) {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(dir.path()).await;
    engine.run(&["topic", "create", "orders", "--partitions", partitions], "").await.done();
    (dir, engine)
}

/// Runs a command that gets the engine's address; it must succeed. What it prints is printed.
async fn succeeds(command: Command, engine: &Process) {
    succeeds_within(RUN, command, engine).await;
}

async fn succeeds_within(limit: Duration, mut command: Command, engine: &Process) {
    // The engine is here, whatever stands between this machine and others.
    command.env("NO_PROXY", "*").env("PYTHONDONTWRITEBYTECODE", "1");
    let printed = run(&mut command, limit).await.unwrap_or_else(|failure| panic!("{failure}"));
    eprintln!("engine at {}\n{printed}", engine.http);
}

#[tokio::test]
async fn cloud_events_of_the_python_packages_come_back_equal() {
    let Some(bin) = or_not_tested("CloudEvents of Python", python().await) else { return };
    let (_dir, engine) = engine("1").await;
    let mut script = Command::new(bin.join("python"));
    script.arg(scripts().join("python/cloud_events.py")).arg(format!("http://{}", engine.http)).arg("orders");
    succeeds(script, &engine).await;
    engine.stop().await;
}

#[tokio::test]
async fn pushes_are_verified_by_the_python_package_of_standard_webhooks() {
    let Some(bin) = or_not_tested("Standard Webhooks of Python", python().await) else { return };
    let mut script = Command::new(bin.join("python"));
    script.arg(scripts().join("python/webhooks.py"));
    receives_pushes(script).await;
}

#[tokio::test]
async fn pushes_are_verified_by_the_npm_package_of_standard_webhooks() {
    let Some(modules) = or_not_tested("Standard Webhooks of npm", node_modules().await) else { return };
    let mut node = Command::new("node");
    node.env("NODE_PATH", modules).arg(scripts().join("node/webhooks.mjs"));
    receives_pushes(node).await;
}

/// Runs a receiver of pushes on an engine that may push to it.
async fn receives_pushes(mut script: Command) {
    let dir = TempDir::new().unwrap();
    let engine = Process::start_with(dir.path(), &[("LEVADA_PUSH_ALLOW", "[\"127.0.0.1/32\"]")]).await;
    engine.run(&["topic", "create", "orders"], "").await.done();
    script.arg(format!("http://{}", engine.http)).arg("orders");
    succeeds(script, &engine).await;
    engine.stop().await;
}

/// Runs one of node's scripts on an engine with so many partitions.
async fn in_node(what: &str, script: &str, partitions: &str, more: &[&str]) {
    let Some(modules) = or_not_tested(what, node_modules().await) else { return };
    let (_dir, engine) = engine(partitions).await;
    let mut node = Command::new("node");
    node.env("NODE_PATH", modules).arg(scripts().join("node").join(script));
    node.arg(format!("http://{}", engine.http)).arg("orders").args(more);
    succeeds(node, &engine).await;
    engine.stop().await;
}

#[tokio::test]
async fn cloud_events_of_the_npm_package_come_back_equal() {
    in_node("CloudEvents of npm", "cloud_events.mjs", "1", &[]).await;
}

#[tokio::test]
async fn an_event_source_that_is_cut_off_50_times_gets_every_event_once() {
    in_node("an EventSource", "event_source.mjs", "3", &["first-event"]).await;
}

#[tokio::test]
async fn an_event_source_that_is_cut_off_before_its_first_event_misses_none() {
    in_node("an EventSource", "event_source.mjs", "3", &["first-id"]).await;
}

#[tokio::test]
async fn the_endpoints_do_what_their_description_says() {
    let Some(bin) = or_not_tested("the description of HTTP", python().await) else { return };
    let (_dir, engine) = engine("3").await;
    let python = scripts().join("python");
    // It keeps what it has found in the folder that it runs in.
    let folder = TempDir::new().unwrap();
    let mut schemathesis = Command::new(bin.join("schemathesis"));
    schemathesis.env("PYTHONPATH", &python).arg("--config-file").arg(python.join("schemathesis.toml"));
    schemathesis.args(["run", "--no-color"]).arg(format!("http://{}/openapi.json", engine.http));
    schemathesis.current_dir(folder.path()).env("HYPOTHESIS_STORAGE_DIRECTORY", folder.path());
    succeeds_within(RUN_OF_THOUSANDS, schemathesis, &engine).await;
    engine.stop().await;
}
