//! An engine and its clients on different hosts, as the page "On your network" sets them up: network namespaces with a link between
//! them, each with an address and a directory of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::support::{
    process::{BINARY, Ran, run},
    within,
};

const PAGE: &str = include_str!("../../engine/NETWORK.md");
/// What the page calls the engine's host, and the address that it has there.
const NAME: &str = "events.example.com";
const ADDRESS: &str = "192.0.2.10";
/// A name of the same host that no certificate covers.
const OTHER_NAME: &str = "other.example.com";
/// Where the page puts the engine's data.
const DATA_DIR: &str = "/var/lib/levada";

/// The page's blocks of commands, in order.
fn blocks() -> Vec<&'static str> {
    let block = |part: &'static str| part.split_once("```").expect("a block ends").0;
    PAGE.split("```sh\n").skip(1).map(block).collect()
}

/// A network namespace, removed with its handle.
struct Host {
    namespace: String,
    dir: PathBuf,
}

/// Two hosts on one network.
struct Network {
    engine: Host,
    client: Host,
    dir: TempDir,
}

fn ip(arguments: &str) -> Result<(), String> {
    let ran = std::process::Command::new("ip").args(arguments.split(' ')).output();
    let ran = ran.map_err(|error| format!("ip cannot be started: {error}"))?;
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    if ran.status.success() { Ok(()) } else { Err(format!("ip {arguments}: {said}")) }
}

impl Network {
    /// `None` where nobody may have namespaces.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = TempDir::new().unwrap();
        let names = ["engine", "client"].map(|role| format!("levada-{}-{number}-{role}", std::process::id()));
        let hosts = dir.path().join("hosts");
        fs::write(&hosts, format!("127.0.0.1 localhost\n{ADDRESS} {NAME} {OTHER_NAME}\n")).unwrap();
        let made = names.each_ref().map(|name| Host::new(name, dir.path()));
        let linked = match made {
            [Ok(engine), Ok(client)] => link(&names)
                .and_then(|()| {
                    ip(&format!("netns exec {} mount --bind {} /etc/hosts", names[1], hosts.display()))
                })
                .map(|()| (engine, client)),
            [Err(why), _] | [_, Err(why)] => Err(why),
        };
        match linked {
            Ok((engine, client)) => Some(Self { engine, client, dir }),
            Err(why) => {
                eprintln!(
                    "NOT TESTED: clients on another host, for there can be no network namespaces: {why}"
                );
                None
            }
        }
    }

    /// Commands on a host, in its directory, with its own contexts. The names of hosts are those of this network.
    fn shell(&self, host: &Host, commands: &str) -> Command {
        let mut command = Command::new("ip");
        // The mount is that of this one command: it has a mount namespace of its own.
        let script = format!("mount --bind ../hosts /etc/hosts\nset -eo pipefail\n{commands}");
        command.args(["netns", "exec", &host.namespace, "bash", "-ec", &script]).current_dir(&host.dir);
        let path = std::env::var("PATH").unwrap();
        command.env_clear().env("PATH", format!("{}:{path}", self.bin().display()));
        command.env("LEVADA_CONFIG_DIR", host.dir.join("contexts"));
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// A folder with the binary under the name that the page has for it.
    fn bin(&self) -> PathBuf {
        let bin = self.dir.path().join("bin");
        if fs::create_dir(&bin).is_ok() {
            std::os::unix::fs::symlink(BINARY, bin.join("levada")).unwrap();
        }
        bin
    }

    async fn on_client(&self, commands: &str) -> Ran {
        run(self.shell(&self.client, commands), "").await
    }

    async fn on_engine(&self, commands: &str) -> Ran {
        run(self.shell(&self.engine, commands), "").await
    }

    /// Starts an engine by this command. Returns it and what it says of itself.
    async fn serve(&self, command: &str) -> (Child, serde_json::Value) {
        let command = format!("exec {} --output json --quiet --until-stdin-closes", command.trim_end());
        let mut engine = self.shell(&self.engine, &command);
        let mut engine = engine.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(engine.stdout.take().unwrap()).lines();
        let line = within("the engine's first line", lines.next_line()).await.unwrap();
        let line = line.expect("the engine starts; its log says why if it does not");
        (engine, serde_json::from_str(&line).unwrap())
    }

    /// Carries a file from the engine's host to the other.
    fn carry(&self, file: &str) {
        fs::copy(self.engine.dir.join(file), self.client.dir.join(file)).unwrap();
    }
}

/// Connects two namespaces.
fn link([engine, client]: &[String; 2]) -> Result<(), String> {
    ip(&format!("link add engine netns {engine} type veth peer name client netns {client}"))?;
    for (namespace, device, address) in [(engine, "engine", ADDRESS), (client, "client", "192.0.2.20")] {
        ip(&format!("-n {namespace} address add {address}/24 dev {device}"))?;
        ip(&format!("-n {namespace} link set {device} up"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
    }
    Ok(())
}

impl Host {
    fn new(namespace: &str, dir: &Path) -> Result<Self, String> {
        let dir = dir.join(namespace);
        fs::create_dir(&dir).unwrap();
        ip(&format!("netns add {namespace}"))?;
        Ok(Self { namespace: namespace.to_owned(), dir })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = ip(&format!("netns delete {}", self.namespace));
    }
}

#[tokio::test]
async fn the_page_leads_from_a_bare_machine_to_two_services_on_another_host() {
    let Some(network) = Network::new() else { return };
    let [serve, principals, publish, subscribe, ..] = blocks()[..] else {
        panic!("the page has these blocks");
    };
    let data = network.engine.dir.join("data").display().to_string();
    let serve = format!("{} --http 0.0.0.0:7601", serve.trim_end()).replace(DATA_DIR, &data);
    let (_engine, said) = network.serve(&serve).await;
    network.on_engine(&principals.replace(DATA_DIR, &data)).await.done();

    for token in ["shop.token", "payment.token"] {
        network.carry(token);
    }
    let fingerprint = said["ca_fingerprint"].as_str().unwrap();
    let publish = publish.replace("sha256:…", fingerprint);
    network.on_client(&publish).await.done();
    let context = publish.lines().find(|line| line.contains("context add")).unwrap();
    let payment = context.replace("shop.token", "payment.token").replace("add events", "add payment");
    let subscribe = format!("{payment}\n{} --max 1", subscribe.trim_end());
    let got = network.on_client(&subscribe).await.done();
    assert!(got.contains(r#""payload":{"amount":90}"#), "{got}");

    let may_not = network.on_client("echo '{\"payload\":1}' | levada publish orders").await;
    may_not.failed(1, "PERMISSION_DENIED");
    network.on_client("levada context use events\nlevada topic list --token-file payment.token").await.done();
    let ca = network.client.dir.join("ca.pem").display().to_string();
    let list = |name: &str, more: &str| {
        format!("unset LEVADA_CONFIG_DIR\nlevada topic list --addr {name}:7600 --ca {ca} {more}")
    };
    network.on_client(&list(ADDRESS, "--token-file shop.token")).await.done();
    network.on_client(&list(NAME, "")).await.failed(1, "UNAUTHENTICATED");
    let wrong = network.on_client(&list(OTHER_NAME, "--token-file shop.token")).await;
    wrong.failed(1, "TLS_FAILED");
    let sentence = format!(
        "cannot trust {OTHER_NAME}:7600: its certificate does not cover the name used; connect by one that it covers"
    );
    assert!(wrong.stderr.contains(&sentence) && wrong.stderr.contains(NAME), "{wrong:?}");
    by_http(&network).await;
}

/// The same host by HTTP: a token is needed, and the name must be one of the certificate's.
async fn by_http(network: &Network) {
    if network.on_client("command -v curl").await.code != 0 {
        eprintln!("NOT TESTED: HTTP from another host, for there is no curl");
        return;
    }
    let curl = async |name: &str, more: &str| {
        let url = format!("https://{name}:7601/v1/topics/orders/events");
        let write = r"-w ' %{http_code}\n'";
        network
            .on_client(&format!("curl -sS --max-time 20 --cacert ca.pem {write} {url} -d one {more}"))
            .await
    };
    let with_token = r#"-H "Authorization: Bearer $(cat shop.token)""#;
    let stored = curl(NAME, with_token).await.done();
    assert!(stored.contains(r#""outcome":"stored""#) && stored.ends_with(" 200\n"), "{stored}");
    let refused = curl(NAME, "").await.done();
    assert!(refused.contains("UNAUTHENTICATED") && refused.ends_with(" 401\n"), "{refused}");
    let wrong = curl(OTHER_NAME, with_token).await;
    assert_eq!(wrong.code, 60, "curl does not trust the certificate: {wrong:?}");
}

#[tokio::test]
async fn an_engine_without_principals_does_not_listen_to_other_hosts() {
    let Some(network) = Network::new() else { return };
    for listen in [format!("--listen {ADDRESS}:7600"), "--listen 0.0.0.0:7600".to_owned()] {
        let refused = network.on_engine(&format!("levada serve --data-dir data {listen}")).await;
        refused.failed(1, "CONFIG_INVALID");
        assert!(refused.stderr.contains("`levada serve --admin-token FILE`"), "{refused:?}");
    }
    // On loopback it serves its own host, and the other does not get as far as a refusal.
    let (_engine, said) = network.serve("levada serve --data-dir data --listen 127.0.0.1:7600").await;
    let list = "levada topic list --ca data/tls/ca.pem";
    network.on_engine(&format!("{list} --addr {}", said["quic"].as_str().unwrap())).await.done();
    fs::create_dir_all(network.client.dir.join("data/tls")).unwrap();
    network.carry("data/tls/ca.pem");
    let unreached = network.on_client(&format!("timeout 2 {list} --addr {ADDRESS}:7600")).await;
    assert_eq!(unreached.code, 124, "it is nowhere to be seen until the time is over: {unreached:?}");
}
