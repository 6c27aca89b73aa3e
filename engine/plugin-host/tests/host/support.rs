//! Real guests, built once per run, and calls on them.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use levada_plugin_host::{Attachment, Error, Host, HostConfig};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    deliver::Run,
    event::Event,
    ids::{Offset, Timestamp},
    verdict::{Change, HeadersChange, Output, Verdict, Verdicts},
};
use levada_stage::{Artefact, AttachSpec, AttachmentPoint, CallError, CallInput, Inspected, Stage as _};
use tempfile::TempDir;

/// The component of a guest crate, by its folder under the repository's root.
pub(crate) fn guest(folder: &'static str) -> Bytes {
    static BUILT: LazyLock<Mutex<HashMap<&'static str, Bytes>>> = LazyLock::new(Mutex::default);
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    built
        .entry(folder)
        .or_insert_with(|| {
            // Where it is now, not where it was compiled, as several clones may share one build folder.
            let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
            let root = Path::new(&package).join("../..");
            let target: PathBuf = [env!("CARGO_TARGET_TMPDIR"), "guests"].iter().collect();
            let component = levada_plugin_build::build(root.join(folder), target).unwrap();
            std::fs::read(component).unwrap().into()
        })
        .clone()
}

pub(crate) fn hostile() -> Bytes {
    guest("tests/guests/hostile")
}

/// A host with two workers and a cache folder of its own, which goes with it.
pub(crate) struct TestHost {
    pub(crate) host: Host,
    pub(crate) cache: TempDir,
}

pub(crate) fn start() -> TestHost {
    let cache = TempDir::new().unwrap();
    let host = start_in(cache.path());
    TestHost { host, cache }
}

pub(crate) fn start_in(cache: &Path) -> Host {
    let config = HostConfig {
        workers: 2,
        init_deadline: Duration::from_millis(300),
        ..HostConfig::new(cache.join("compiled"))
    };
    Host::new(config).unwrap()
}

/// An attachment at a point of its own.
pub(crate) fn spec(config: &str) -> AttachSpec {
    static POINTS: AtomicU64 = AtomicU64::new(1);
    AttachSpec {
        plugin: "guest".to_owned(),
        version: 3,
        config: config.to_owned(),
        topic: "orders".to_owned(),
        point: AttachmentPoint::Route,
        point_id: POINTS.fetch_add(1, Ordering::Relaxed),
        deadline: Duration::from_millis(100),
        memory_bytes_max: 32 << 20,
    }
}

/// What a test does that has nothing else to do meanwhile.
pub(crate) trait Blocking {
    fn inspect_now(&self, bytes: &Bytes) -> Result<Inspected, Error>;
    fn attach_now(&self, artefact: &Artefact, spec: AttachSpec) -> Result<Attachment, Error>;
}

impl Blocking for Host {
    fn inspect_now(&self, bytes: &Bytes) -> Result<Inspected, Error> {
        self.load(&Artefact::Bytes(bytes.clone())).map(|loaded| loaded.inspected())
    }

    fn attach_now(&self, artefact: &Artefact, spec: AttachSpec) -> Result<Attachment, Error> {
        let plugin = self.load(artefact)?;
        wait(self.attach_loaded(plugin, spec))
    }
}

impl TestHost {
    pub(crate) fn attach(&self, component: &Bytes, config: &str) -> Attachment {
        self.host.attach_now(&Artefact::Bytes(component.clone()), spec(config)).unwrap()
    }

    pub(crate) fn attach_hostile(&self) -> Attachment {
        self.attach(&hostile(), "")
    }
}

/// Events as one run of one batch that begins at offset 100.
pub(crate) fn input(events: &[Event]) -> CallInput {
    let mut builder = BatchBuilder::new();
    for event in events {
        builder.push(event).unwrap();
    }
    let batches = builder.finish(Stamp::ENGINE).bytes().clone();
    let run = Run { base: Offset(100), append_time: Timestamp(5_000), hops: 0, batches };
    let mut runs = BytesMut::new();
    run.write(&mut runs);
    let events = u32::try_from(events.len()).unwrap();
    CallInput { runs: runs.freeze(), events, now: Timestamp(7_777), seed: 1, state: None }
}

/// Events with these payloads.
pub(crate) fn payloads(payloads: &[&str]) -> CallInput {
    let events: Vec<Event> = payloads.iter().map(|payload| Event::new(payload.to_string())).collect();
    input(&events)
}

pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(crate) fn call(attachment: &Attachment, input: CallInput) -> Result<Vec<Seen>, CallError> {
    answer(attachment, input).map(|answer| read(&answer))
}

/// The bytes that a call returns.
pub(crate) fn answer(attachment: &Attachment, input: CallInput) -> Result<Bytes, CallError> {
    wait(attachment.call(input)).result.map(|output| output.answer)
}

/// A verdict with bytes of its own, one per event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Drop,
    Keep,
    Reject(String),
    Undecodable(String),
    Emit(Vec<SeenOutput>),
}

/// An output with bytes of its own; `None` is as in the input, `Some(None)` is removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SeenOutput {
    pub(crate) target: Option<String>,
    pub(crate) key: Option<Option<Vec<u8>>>,
    pub(crate) time: Option<u64>,
    pub(crate) id: Option<String>,
    pub(crate) headers: Option<String>,
    pub(crate) payload: Option<Option<String>>,
}

impl Seen {
    /// One output with this payload, and all else as it was.
    pub(crate) fn payload(text: &str) -> Self {
        Self::Emit(vec![SeenOutput { payload: Some(Some(text.to_owned())), ..SeenOutput::default() }])
    }

    /// One output to this topic, and all else as it was.
    pub(crate) fn target(topic: &str) -> Self {
        Self::Emit(vec![SeenOutput { target: Some(topic.to_owned()), ..SeenOutput::default() }])
    }
}

fn read(answer: &[u8]) -> Vec<Seen> {
    let mut seen = Vec::new();
    for verdict in Verdicts::new(answer) {
        match verdict.unwrap() {
            Verdict::Drop(n) => seen.extend((0..n).map(|_| Seen::Drop)),
            Verdict::Keep(n) => seen.extend((0..n).map(|_| Seen::Keep)),
            Verdict::Reject(reason) => seen.push(Seen::Reject(reason.to_owned())),
            Verdict::Undecodable(error) => seen.push(Seen::Undecodable(error.to_owned())),
            Verdict::Emit(outputs) => seen.push(Seen::Emit(outputs.iter().map(read_output).collect())),
        }
    }
    seen
}

fn read_output(output: &Output<'_>) -> SeenOutput {
    let change = |change: &Change<&[u8]>| match change {
        Change::Keep => None,
        Change::Remove => Some(None),
        Change::Set(bytes) => Some(Some(bytes.to_vec())),
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    SeenOutput {
        target: output.target.map(str::to_owned),
        key: change(&output.key),
        time: output.time,
        id: output.id.map(str::to_owned),
        headers: (output.headers != HeadersChange::Keep).then(|| format!("{:?}", output.headers)),
        payload: change(&output.payload).map(|payload| payload.map(text)),
    }
}
