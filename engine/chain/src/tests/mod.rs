//! Chains with stages written in Rust: what each policy, limit and failure does to events.

mod failures;
mod filter;
mod model;
mod route;
mod state;

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use levada_protocol::{
    batch::{BatchBuilder, EventParts, EventRef, Stamp},
    deliver::{Run, checked_batches},
    event::Event,
    ids::{Offset, PartitionId, Timestamp, TopicName},
    limits::{CALL_BYTES_MAX, CALL_EVENTS_MAX},
    request::OnError,
    verdict::{Change, HeadersChange, Output, VerdictWriter},
};

use levada_stage::{BoxFuture, CallError, CallInput, CallOutcome, CallOutput, Stage, StageStats};

use super::{Chain, ChainStage, Clock, Counted, Filtered, Input, LogSlice, Source, Target};

/// What a stage of these tests does with one event.
enum Act {
    Keep,
    Drop,
    Reject(&'static str),
    Emit(Vec<Made>),
    /// The whole call fails.
    Fail(CallError),
}

/// An output that owns its parts.
#[derive(Default)]
struct Made {
    target: Option<String>,
    key: Change<Vec<u8>>,
    id: Option<String>,
    set: Vec<(String, Vec<u8>)>,
    removed: Vec<String>,
    payload: Change<Vec<u8>>,
}

fn payload(bytes: impl Into<Vec<u8>>) -> Made {
    Made { payload: Change::Set(bytes.into()), ..Made::default() }
}

impl Made {
    fn to(mut self, target: &str) -> Self {
        self.target = Some(target.to_owned());
        self
    }
}

type Decide = dyn Fn(Offset, &EventRef<'_>) -> Act + Send + Sync;

/// A stage that decides each event by itself, checks what it is given and notes it.
struct Each {
    decide: Box<Decide>,
    /// The offsets of each call.
    calls: Mutex<Vec<Vec<u64>>>,
    clock: TestClock,
    /// How long a failing call takes.
    failing_takes: Duration,
}

impl Each {
    fn new(decide: impl Fn(Offset, &EventRef<'_>) -> Act + Send + Sync + 'static) -> Arc<Self> {
        Self::slow(TestClock::default(), Duration::ZERO, decide)
    }

    fn slow(
        clock: TestClock,
        failing_takes: Duration,
        decide: impl Fn(Offset, &EventRef<'_>) -> Act + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { decide: Box::new(decide), calls: Mutex::default(), clock, failing_takes })
    }

    fn calls(&self) -> Vec<Vec<u64>> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn answer(&self, input: &CallInput) -> Result<Bytes, CallError> {
        let batches = checked_batches(input.runs.clone()).expect("a call holds checked runs");
        let events = |at: usize| {
            let placed = &batches[at];
            placed.batch.events().map(move |event| (event.offset(placed.base), event))
        };
        let all: Vec<_> = (0..batches.len()).flat_map(events).collect();
        assert_eq!(all.len(), input.events as usize);
        assert!(all.len() <= CALL_EVENTS_MAX, "{} events in a call", all.len());
        assert!(all.len() == 1 || input.runs.len() <= CALL_BYTES_MAX, "{} bytes in a call", input.runs.len());
        assert_eq!(input.now, batches.last().expect("a call has events").append_time);
        self.calls.lock().unwrap().push(all.iter().map(|(offset, _)| offset.0).collect());
        let mut writer = VerdictWriter::new();
        for (offset, event) in &all {
            match (self.decide)(*offset, event) {
                Act::Keep => writer.keep(),
                Act::Drop => writer.drop_event(),
                Act::Reject(reason) => writer.reject(reason),
                Act::Emit(made) => writer.emit(&made.iter().map(Made::output).collect::<Vec<_>>()),
                Act::Fail(error) => {
                    self.clock.advance(self.failing_takes);
                    return Err(error);
                }
            }
        }
        Ok(writer.finish().into())
    }
}

impl Made {
    fn output(&self) -> Output<'_> {
        let (key, payload) = (borrowed(&self.key), borrowed(&self.payload));
        let set: Vec<_> = self.set.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let headers = if set.is_empty() && self.removed.is_empty() {
            HeadersChange::Keep
        } else {
            HeadersChange::Patch(set, self.removed.iter().map(String::as_str).collect())
        };
        Output { target: self.target.as_deref(), key, time: None, id: self.id.as_deref(), headers, payload }
    }
}

fn borrowed(change: &Change<Vec<u8>>) -> Change<&[u8]> {
    match change {
        Change::Keep => Change::Keep,
        Change::Remove => Change::Remove,
        Change::Set(bytes) => Change::Set(bytes),
    }
}

impl Stage for Each {
    fn call(&self, input: CallInput) -> BoxFuture<CallOutcome> {
        let answer = self.answer(&input);
        let spent = if answer.is_err() { self.failing_takes } else { Duration::ZERO };
        Box::pin(async move {
            tokio::task::yield_now().await;
            CallOutcome { result: answer.map(CallOutput::stateless), time_spent: spent }
        })
    }

    fn stats(&self) -> StageStats {
        StageStats::default()
    }
}

/// A stage that answers with these bytes.
struct Says(Vec<u8>);

impl Stage for Says {
    fn call(&self, _: CallInput) -> BoxFuture<CallOutcome> {
        let answer = Bytes::from(self.0.clone());
        let result = Ok(CallOutput::stateless(answer));
        Box::pin(async move { CallOutcome { result, time_spent: Duration::ZERO } })
    }

    fn stats(&self) -> StageStats {
        StageStats::default()
    }
}

/// A clock that moves when it is told to.
#[derive(Clone, Default)]
struct TestClock(Arc<AtomicU64>);

impl TestClock {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }

    fn clock(&self) -> Clock {
        let millis = self.0.clone();
        Arc::new(move || Duration::from_millis(millis.load(Ordering::Relaxed)))
    }
}

fn stage(stage: Arc<dyn Stage>, on_error: OnError) -> ChainStage {
    let deadline = Duration::from_millis(100);
    ChainStage {
        stage: Counted::new(stage),
        plugin: "probe".to_owned(),
        version: 3,
        on_error,
        retries: 3,
        deadline,
    }
}

fn chain(stages: impl IntoIterator<Item = (Arc<Each>, OnError)>) -> Chain {
    let stages = stages.into_iter().map(|(each, on_error)| stage(each, on_error)).collect();
    Chain::new(stages, 7, TestClock::default().clock())
}

/// Batches of so many events each, back to back from offset `base`; payloads are the offsets.
fn source(base: u64, counts: &[u32]) -> Source {
    source_of(base, counts, |offset| Event::new(offset.to_string()))
}

fn source_of(base: u64, counts: &[u32], event: impl Fn(u64) -> Event) -> Source {
    let mut builder = BatchBuilder::of_engine();
    let (mut next, mut batches) = (base, Vec::new());
    for count in counts {
        for _ in 0..*count {
            builder.push(&event(next)).unwrap();
            next += 1;
        }
        batches.extend_from_slice(builder.finish(Stamp::ENGINE).bytes());
    }
    let append_time = Timestamp(1_000 + base);
    checked(Run { base: Offset(base), append_time, hops: 0, batches: batches.into() })
}

fn checked(run: Run) -> Source {
    Source::of(LogSlice::of(run, true).unwrap()).unwrap()
}

/// A selection of these offsets; payloads are the offsets.
fn selection(base: u64, offsets: &[u64]) -> Source {
    let event = |offset: &u64| (*offset, Event::new(offset.to_string()));
    selection_of(base, &offsets.iter().map(event).collect::<Vec<_>>())
}

fn selection_of(base: u64, events: &[(u64, Event)]) -> Source {
    let mut builder = BatchBuilder::selection();
    for (offset, event) in events {
        let parts = EventParts {
            key: event.key.as_deref(),
            payload: event.payload.as_deref(),
            id: event.id.as_deref(),
            ..EventParts::default()
        };
        builder.push_parts(u32::try_from(offset - base).unwrap(), &parts, std::iter::empty()).unwrap();
    }
    let batches = builder.finish(Stamp::ENGINE).bytes().clone();
    checked(Run { base: Offset(base), append_time: Timestamp(9), hops: 0, batches })
}

fn everything(sources: &[Source]) -> Input<'_> {
    let start = sources.first().map_or(Offset(0), |source| source.run().base);
    let end = sources.last().map_or(Offset(0), Source::end);
    within(sources, start.0..end.0)
}

fn within(sources: &[Source], offsets: Range<u64>) -> Input<'_> {
    Input { partition: PartitionId(5), offsets: Offset(offsets.start)..Offset(offsets.end), sources }
}

/// Offset and payload of every event.
fn events(passed: &[LogSlice]) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    for passed in passed {
        let mut count = 0;
        let mut end = passed.run.base;
        for batch in passed.run.batches() {
            let (base, batch) = batch.expect("a passed batch is whole");
            assert!(batch.header().is_selection() || !passed.built, "what is built is a selection");
            count += batch.count();
            end = base.plus(u64::from(batch.span()));
            let text =
                |event: EventRef<'_>| String::from_utf8(event.payload().unwrap_or(b"-").to_vec()).unwrap();
            all.extend(batch.events().map(|event| (event.offset(base).0, text(event))));
        }
        assert_eq!(passed.events, count);
        assert_eq!(passed.run.base.plus(u64::from(passed.span)), end);
    }
    all
}

fn offsets(passed: &[LogSlice]) -> Vec<u64> {
    events(passed).into_iter().map(|(offset, _)| offset).collect()
}

fn dead(filtered: &Filtered) -> Vec<u64> {
    filtered.progress.dead_letters.iter().map(|dead_letter| dead_letter.offset.0).collect()
}

fn ranges(dropped: &[Range<Offset>]) -> Vec<(u64, u64)> {
    dropped.iter().map(|range| (range.start.0, range.end.0)).collect()
}

fn targets(list: &[(&str, u16)]) -> Vec<Target> {
    let target = |(name, partitions): &(&str, u16)| Target {
        topic: TopicName::parse_any(name).unwrap(),
        partitions: *partitions,
    };
    list.iter().map(target).collect()
}
