//! The binary as a process: an engine that can be killed, and commands with what they print.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use levada_client::{Client, ClientConfig};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

use super::{own_address, within};

/// The binary that these tests were built with.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_levada-under-test");

/// `levada serve` as a child. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    pub(crate) quic: String,
    pub(crate) http: String,
    pub(crate) ca: PathBuf,
}

/// A command whose surroundings say nothing about engines.
pub(crate) fn command() -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LEVADA_") {
            command.env_remove(name);
        }
    }
    // The contexts of whoever runs the tests are none of theirs.
    command.env("LEVADA_CONFIG_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-contexts"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn serve(data_dir: &Path, listen: &str) -> Command {
    let mut command = command();
    command.arg("serve").arg("--data-dir").arg(data_dir);
    command.args(["--listen", listen, "--http", "127.0.0.1:0", "--output", "json", "--quiet"]);
    // Clients that were killed leave their connections behind; nobody needs to wait for them.
    command.env("LEVADA_LISTEN_SHUTDOWN_GRACE", "200ms");
    // Also if this process is killed.
    command.arg("--until-stdin-closes").stdin(Stdio::piped());
    command
}

impl Process {
    /// Starts an engine on a port of its own.
    pub(crate) async fn start(data_dir: &Path) -> Self {
        Self::start_at(data_dir, &own_address().to_string()).await
    }

    /// Starts an engine at an address.
    pub(crate) async fn start_at(data_dir: &Path, listen: &str) -> Self {
        Self::launch(serve(data_dir, listen)).await
    }

    /// Starts an engine with an environment.
    pub(crate) async fn start_with(data_dir: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = serve(data_dir, "127.0.0.1:0");
        command.envs(environment.iter().copied());
        Self::launch(command).await
    }

    /// Starts an engine and kills it after a while, whether or not it has come up.
    pub(crate) async fn start_and_kill(data_dir: &Path, after: Duration) {
        let mut child =
            serve(data_dir, "127.0.0.1:0").stdout(Stdio::null()).spawn().expect("the binary can be started");
        tokio::time::sleep(after).await;
        within("the kill", child.kill()).await.expect("a child can be killed");
    }

    /// Starts an engine whose log, all of it, goes to `stderr`.
    pub(crate) async fn start_logging_to(data_dir: &Path, stderr: impl Into<Stdio>) -> Self {
        let mut command = serve(data_dir, "127.0.0.1:0");
        command.arg("-vv").stderr(stderr);
        Self::launch(command).await
    }

    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("the child runs")
    }

    /// Bytes that everything in a directory takes on the disk.
    pub(crate) fn disk_bytes(dir: &Path) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
        let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
            Ok(found) if found.is_dir() => Self::disk_bytes(&entry.path()),
            Ok(found) => found.blocks() * 512,
            // It went meanwhile.
            Err(_) => 0,
        };
        entries.flatten().map(bytes).sum()
    }

    /// What HTTP answers: the status and the body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let stream = TcpStream::connect(&self.http).await.expect("the engine listens");
        HttpConnection(stream).get(path).await
    }

    async fn launch(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary can be started");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines();
        let line = within("the engine's first line", lines.next_line()).await.expect("its output is text");
        let line = line.expect("the engine starts; its log says why if it does not");
        let said: serde_json::Value = serde_json::from_str(&line).expect("the line is JSON");
        let text = |name: &str| said[name].as_str().expect("the line names its addresses").to_owned();
        Self { child, quic: text("quic"), http: text("http"), ca: text("ca").into() }
    }

    pub(crate) fn client_config(&self) -> ClientConfig {
        ClientConfig::new(&self.quic).ca_file(&self.ca)
    }

    pub(crate) async fn connect(&self) -> Client {
        within("a connection", Client::connect(self.client_config())).await.expect("the engine answers")
    }

    /// SIGKILL, and the wait until it is gone.
    pub(crate) async fn kill(mut self) {
        within("the kill", self.child.kill()).await.expect("a child can be killed");
    }

    /// SIGSTOP: it is there, and does nothing.
    pub(crate) fn freeze(&self) {
        signal(&self.child, "STOP");
    }

    /// An ordered shutdown.
    pub(crate) async fn stop(mut self) {
        drop(self.child.stdin.take());
        let status = within("the shutdown", self.child.wait()).await.expect("a child can be waited for");
        assert!(status.success(), "the engine ended with {status}");
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let id = self.child.id().expect("the child runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the child runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the kernel says so");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
        kib * 1024
    }

    /// Starts a command against this engine, without input.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        self.spawn_with(arguments, Stdio::null())
    }

    /// Starts a command against this engine, with this input.
    pub(crate) fn spawn_with(&self, arguments: &[&str], input: Stdio) -> Child {
        let mut command = self.command(arguments);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the binary can be started")
    }

    /// Runs a command against this engine, with these lines as its input.
    pub(crate) async fn run(&self, arguments: &[&str], input: &str) -> Ran {
        run(self.command(arguments), input).await
    }

    /// A command against this engine.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command();
        command.args(arguments).args(["--addr", &self.quic]).arg("--ca").arg(&self.ca);
        command
    }
}

impl Process {
    /// Starts a command against this engine with a terminal as its input and stderr, whose other end is returned.
    pub(crate) fn spawn_on_terminal(&self, arguments: &[&str]) -> (Child, File) {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

        let pty = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("the system has terminals");
        grantpt(&pty).and_then(|()| unlockpt(&pty)).expect("a terminal of ours can be opened");
        let name = ptsname(&pty, Vec::new()).expect("a terminal has a name");
        let name = Path::new(name.to_str().expect("the name is text"));
        let end =
            || File::options().read(true).write(true).open(name).expect("a terminal of ours can be opened");
        let mut command = self.command(arguments);
        // The ends that the command gets are its own alone.
        command.stdin(end()).stderr(end()).stdout(Stdio::piped());
        (command.spawn().expect("the binary can be started"), File::from(pty))
    }

    /// Runs a command against this engine as at a terminal, on which somebody types; stderr is what it showed.
    pub(crate) async fn run_typing(&self, arguments: &[&str], typed: &str) -> Ran {
        let (child, mut terminal) = self.spawn_on_terminal(arguments);
        terminal.write_all(typed.as_bytes()).expect("the terminal takes input");
        let shown = tokio::task::spawn_blocking(move || {
            let mut shown = Vec::new();
            // Ends with an error once nobody has the other end.
            let _ = terminal.read_to_end(&mut shown);
            String::from_utf8_lossy(&shown).into_owned()
        });
        let Output { status, stdout, .. } =
            within("a command", child.wait_with_output()).await.expect("a child can be waited for");
        let stderr = within("what was shown", shown).await.expect("reading does not panic");
        let stdout = String::from_utf8(stdout).expect("commands print text");
        Ran { code: status.code().expect("it ended by itself"), stdout, stderr }
    }
}

/// A connection that is kept between requests.
pub(crate) struct HttpConnection(pub(crate) TcpStream);

impl HttpConnection {
    /// The status and the body.
    pub(crate) async fn get(&mut self, path: &str) -> (u16, String) {
        within("an HTTP answer", self.try_get(path)).await.expect("the engine answers HTTP")
    }

    async fn try_get(&mut self, path: &str) -> std::io::Result<(u16, String)> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: levada\r\n\r\n");
        self.0.write_all(request.as_bytes()).await?;
        let mut reader = BufReader::new(&mut self.0);
        let (mut status, mut length) = (0, 0);
        for number in 0.. {
            let mut line = String::new();
            reader.read_line(&mut line).await?;
            let line = line.trim_end().to_ascii_lowercase();
            if number == 0 {
                status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
            } else if let Some(len) = line.strip_prefix("content-length: ") {
                length = len.parse().expect("a length is a number");
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).await?;
        Ok((status, String::from_utf8(body).expect("the body is text")))
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Sends SIGINT, as Ctrl-C does.
pub(crate) fn interrupt(child: &Child) {
    signal(child, "INT");
}

/// Sends a signal, such as STOP, KILL or CONT.
pub(crate) fn signal(child: &Child, name: &str) {
    let id = child.id().expect("the child runs");
    let sent = std::process::Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "the signal is sent");
}

/// Runs a command to its end.
pub(crate) async fn run(mut command: Command, input: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary can be started");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let written = async {
        // A command that does not read its input is none the worse for it.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let both = async { tokio::join!(written, child.wait_with_output()).1 };
    let Output { status, stdout, stderr } =
        within("a command", both).await.expect("a child can be waited for");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("commands print text");
    Ran { code: status.code().expect("it ended by itself"), stdout: text(stdout), stderr: text(stderr) }
}

impl Ran {
    /// The command has done its work; returns what it printed.
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// Each line of the output as JSON.
    pub(crate) fn json(self) -> Vec<serde_json::Value> {
        let parse = |line: &str| serde_json::from_str(line).expect("every line is JSON");
        self.done().lines().map(parse).collect()
    }

    /// The command has failed with this code, on one line of stderr, and has printed no data.
    pub(crate) fn failed(&self, exit: i32, code: &str) {
        assert_eq!(self.code, exit, "{self:?}");
        assert!(self.stderr.lines().any(|line| line.starts_with(&format!("error: {code}: "))), "{self:?}");
        assert_eq!(self.stdout, "", "no data comes from a failure");
    }
}
