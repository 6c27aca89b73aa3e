//! Stages that keep state: called one at a time, and an answer counts whole or not at all.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize},
};

use levada_stage::{StateView, StateWrite};
use proptest::prelude::*;

use super::*;
use crate::{Routed, StageWrite};

/// What a stage has stored, as a store would keep it between runs.
#[derive(Debug, Clone, Default)]
struct Table(BTreeMap<Bytes, Bytes>);

impl StateView for Table {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key).cloned()
    }
}

impl Table {
    /// Commits what a run has written.
    fn commit(&mut self, writes: &[StageWrite]) {
        for StageWrite { write, .. } in writes {
            match &write.value {
                Some(value) => self.0.insert(write.key.clone(), value.clone()),
                None => self.0.remove(&write.key),
            };
        }
    }

    /// How often each offset was counted.
    fn counts(&self) -> BTreeMap<u64, u64> {
        self.0.iter().map(|(key, value)| (number(key), number(value))).collect()
    }
}

fn number(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

/// Writes for each event how often it was counted, by the event's offset, and how many events were counted, in its
/// output. It checks that it is called one at a time and in the order of events that are decided.
struct Count {
    each: Arc<Each>,
    is_called: AtomicBool,
    calls: AtomicUsize,
}

impl Count {
    fn new(decide: impl Fn(Offset, &EventRef<'_>) -> Act + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            each: Each::new(decide),
            is_called: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
        })
    }
}

impl Stage for Count {
    fn call(&self, input: CallInput) -> BoxFuture<CallOutcome> {
        assert!(!self.is_called.swap(true, Ordering::AcqRel), "it is called one at a time");
        self.calls.fetch_add(1, Ordering::Relaxed);
        let state = input.state.clone().expect("a stateful stage gets its state");
        let result = self.each.answer(&input).map(|answer| {
            let mut written: BTreeMap<u64, u64> = BTreeMap::new();
            for placed in checked_batches(input.runs.clone()).unwrap() {
                for event in placed.batch.events() {
                    let offset = event.offset(placed.base).0;
                    let stored =
                        || state.get(offset.to_string().as_bytes()).map_or(0, |value| number(&value));
                    *written.entry(offset).or_insert_with(stored) += 1;
                }
            }
            let write = |(offset, count): (u64, u64)| StateWrite {
                key: offset.to_string().into(),
                value: Some(count.to_string().into()),
            };
            CallOutput { answer, writes: written.into_iter().map(write).collect() }
        });
        self.is_called.store(false, Ordering::Release);
        Box::pin(async move {
            tokio::task::yield_now().await;
            CallOutcome { result, time_spent: Duration::ZERO }
        })
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn stats(&self) -> StageStats {
        StageStats::default()
    }
}

/// A chain of these stages at a clock that stands still.
fn chain_of(stages: Vec<(Arc<dyn Stage>, OnError)>) -> Chain {
    let stages = stages.into_iter().map(|(it, on_error)| stage(it, on_error)).collect();
    Chain::new(stages, 7, TestClock::default().clock())
}

async fn route(chain: &Chain, sources: &[Source], from: u64, stored: &[Table]) -> Routed {
    let end = everything(sources).offsets.end.0;
    let view = |table: &Table| Some(Arc::new(table.clone()) as Arc<dyn StateView>);
    let state: Vec<_> = stored.iter().map(view).collect();
    chain.route(within(sources, from..end), &targets(&[("out", 1)]), &state).await
}

fn texts(routed: &Routed) -> Vec<String> {
    let text = |event: EventRef<'_>| String::from_utf8(event.payload().unwrap().to_vec()).unwrap();
    routed.batches.iter().flat_map(|batch| batch.batch.events().map(text).collect::<Vec<_>>()).collect()
}

/// Every offset below `end`, counted once.
fn once_below(end: u64) -> BTreeMap<u64, u64> {
    (0..end).map(|offset| (offset, 1)).collect()
}

#[tokio::test]
async fn a_stateful_stage_is_called_one_at_a_time_in_order_and_sees_what_it_wrote() {
    let count = Count::new(|_, _| Act::Keep);
    let again = Arc::clone(&count);
    let sources = [source(0, &[700, 900])];
    let chain = chain_of(vec![(count.clone(), OnError::DeadLetter)]);
    let mut table = Table::default();
    for round in 1..=2 {
        let routed = route(&chain, &sources, 0, &[table.clone()]).await;
        assert_eq!(routed.progress.reached, Offset(1600));
        table.commit(&routed.writes);
        let expected: BTreeMap<u64, u64> = (0..1600).map(|offset| (offset, round)).collect();
        assert_eq!(table.counts(), expected, "round {round}");
        assert_eq!(again.each.calls().concat(), (0..1600).collect::<Vec<_>>(), "in order, and once");
    }
}

#[tokio::test]
async fn later_calls_of_a_run_see_the_writes_of_earlier_ones() {
    // One key for all events, so that each call builds on the one before it.
    struct Sum;
    impl Stage for Sum {
        fn call(&self, input: CallInput) -> BoxFuture<CallOutcome> {
            let before = input.state.and_then(|state| state.get(b"sum")).map_or(0, |value| number(&value));
            let sum = before + u64::from(input.events);
            let mut answer = VerdictWriter::new();
            (0..input.events).for_each(|_| answer.keep());
            let write = StateWrite { key: "sum".into(), value: Some(sum.to_string().into()) };
            let result = Ok(CallOutput { answer: answer.finish().into(), writes: vec![write] });
            Box::pin(async move { CallOutcome { result, time_spent: Duration::ZERO } })
        }

        fn is_stateful(&self) -> bool {
            true
        }

        fn stats(&self) -> StageStats {
            StageStats::default()
        }
    }
    let chain = chain_of(vec![(Arc::new(Sum), OnError::DeadLetter)]);
    let routed = route(&chain, &[source(0, &[2000])], 0, &[]).await;
    let write = StateWrite { key: "sum".into(), value: Some("2000".into()) };
    assert_eq!(routed.writes, [StageWrite { stage: 0, write }], "the newest write of a key");
}

#[tokio::test]
async fn a_pause_in_the_middle_of_an_answer_discards_it_and_the_events_before_are_called_again() {
    let stopped = Arc::new(AtomicBool::new(true));
    let stops = stopped.clone();
    let count = Count::new(move |offset, _| match offset.0 {
        700 if stops.load(Ordering::Relaxed) => Act::Reject("not now"),
        _ => Act::Keep,
    });
    let chain = chain_of(vec![(count.clone(), OnError::Pause)]);
    let sources = [source(0, &[600, 600])];
    let mut table = Table::default();
    let routed = route(&chain, &sources, 0, &[table.clone()]).await;
    assert_eq!(routed.progress.reached, Offset(700));
    assert!(routed.progress.paused.is_some());
    table.commit(&routed.writes);
    assert_eq!(table.counts(), once_below(700));
    let calls = count.each.calls();
    assert!(
        calls.last().is_some_and(|last| *last == (512..700).collect::<Vec<_>>()),
        "without what is behind"
    );
    let mut seen = texts(&routed);
    stopped.store(false, Ordering::Relaxed);
    let routed = route(&chain, &sources, 700, &[table.clone()]).await;
    table.commit(&routed.writes);
    seen.extend(texts(&routed));
    assert_eq!(table.counts(), once_below(1200));
    assert_eq!(seen, (0..1200).map(|offset| offset.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_later_stage_that_pauses_takes_back_what_a_stateful_one_before_it_wrote() {
    let count = Count::new(|_, _| Act::Keep);
    let second = Each::new(|offset, _| if offset.0 == 300 { Act::Reject("no") } else { Act::Keep });
    let chain = chain_of(vec![(count, OnError::DeadLetter), (second, OnError::Pause)]);
    let routed = route(&chain, &[source(0, &[500])], 0, &[]).await;
    assert_eq!(routed.progress.reached, Offset(300));
    assert_eq!(texts(&routed).len(), 300);
    let mut table = Table::default();
    table.commit(&routed.writes);
    assert_eq!(table.counts(), once_below(300));
}

#[tokio::test]
async fn failed_events_are_bisected_out_and_have_written_nothing() {
    let count = Count::new(|offset, _| match offset.0 {
        7 | 8 => Act::Fail(CallError::Trap("boom".to_owned())),
        _ => Act::Keep,
    });
    let chain = chain_of(vec![(count, OnError::DeadLetter)]);
    let routed = route(&chain, &[source(0, &[40])], 0, &[]).await;
    let dead: Vec<u64> =
        routed.progress.dead_letters.iter().map(|dead_letter| dead_letter.offset.0).collect();
    assert_eq!(dead, [7, 8]);
    let mut table = Table::default();
    table.commit(&routed.writes);
    let expected: BTreeMap<u64, u64> =
        once_below(40).into_iter().filter(|(offset, _)| ![7, 8].contains(offset)).collect();
    assert_eq!(table.counts(), expected);
}

#[tokio::test]
async fn a_breaker_that_opens_counts_the_failures_once() {
    let clock = TestClock::default();
    let count = Count::new(|offset, _| match offset.0 {
        0..10 => Act::Keep,
        _ => Act::Fail(CallError::Trap("boom".to_owned())),
    });
    let chain = Chain::new(vec![stage(count, OnError::DeadLetter)], 7, clock.clock());
    let sources = [source(0, &[100])];
    let routed = route(&chain, &sources, 0, &[]).await;
    assert_eq!(routed.progress.reached, Offset(30), "twenty in a row fail, and are decided");
    assert_eq!(routed.progress.dead_letters.len(), 20);
    let paused = routed.progress.paused.expect("the breaker is open");
    assert_eq!(paused.retry_after, Some(Duration::from_secs(1)), "it opened once");
    let mut table = Table::default();
    table.commit(&routed.writes);
    assert_eq!(table.counts(), once_below(10));
}

#[tokio::test]
async fn a_run_ends_when_what_it_wrote_fills_a_commit() {
    struct Large;
    impl Stage for Large {
        fn call(&self, input: CallInput) -> BoxFuture<CallOutcome> {
            let mut answer = VerdictWriter::new();
            (0..input.events).for_each(|_| answer.drop_event());
            let key = input.now.0.to_le_bytes().to_vec();
            let write = StateWrite { key: key.into(), value: Some(vec![0; 600 * 1024].into()) };
            let result = Ok(CallOutput { answer: answer.finish().into(), writes: vec![write] });
            Box::pin(async move { CallOutcome { result, time_spent: Duration::ZERO } })
        }

        fn is_stateful(&self) -> bool {
            true
        }

        fn stats(&self) -> StageStats {
            StageStats::default()
        }
    }
    let chain = chain_of(vec![(Arc::new(Large), OnError::DeadLetter)]);
    let sources = [source(0, &[512]), source(512, &[512]), source(1024, &[512])];
    let routed = route(&chain, &sources, 0, &[]).await;
    assert_eq!((routed.progress.reached, routed.writes.len()), (Offset(1024), 2));
    assert_eq!(routed.progress.paused, None);
}

#[tokio::test]
async fn a_stage_without_state_that_writes_some_has_answered_nothing_valid() {
    struct Writes;
    impl Stage for Writes {
        fn call(&self, input: CallInput) -> BoxFuture<CallOutcome> {
            assert!(input.state.is_none());
            let write = StateWrite { key: "k".into(), value: None };
            let result = Ok(CallOutput { answer: vec![1, 0, 1, 0].into(), writes: vec![write] });
            Box::pin(async move { CallOutcome { result, time_spent: Duration::ZERO } })
        }

        fn stats(&self) -> StageStats {
            StageStats::default()
        }
    }
    let chain = chain_of(vec![(Arc::new(Writes), OnError::DeadLetter)]);
    let routed = route(&chain, &[source(0, &[1])], 0, &[]).await;
    assert_eq!(
        routed.progress.dead_letters[0].error,
        "the plugin's answer is invalid: it writes state, and has none"
    );
    assert!(routed.writes.is_empty());
}

/// What a stage does with an offset.
fn act_of(plan: &[u8], offset: u64) -> Act {
    match plan[usize::try_from(offset).unwrap()] {
        0 => Act::Fail(CallError::Trap("boom".to_owned())),
        1 => Act::Reject("no"),
        2 => Act::Drop,
        3 => Act::Fail(CallError::Retry("later".to_owned())),
        _ => Act::Keep,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever fails and wherever chains pause: after all runs each event that the stage answered was counted once.
    #[test]
    fn state_is_that_of_the_events_that_count(
        (plan, after) in (prop::collection::vec(0u8..60, 900), prop::collection::vec(0u8..60, 900)),
        on_error in prop_oneof![Just(OnError::DeadLetter), Just(OnError::Pause), Just(OnError::Pass), Just(OnError::Skip)],
        then in prop_oneof![Just(OnError::DeadLetter), Just(OnError::Pause), Just(OnError::Skip)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // A pause ends when the plugins are calm, which they are for the event that they paused at.
        let calm_until = Arc::new(AtomicU64::new(0));
        let acts = |plan: &[u8], on_error: OnError| {
            let (plan, calm) = (plan.to_vec(), calm_until.clone());
            move |offset: Offset, _: &EventRef<'_>| {
                let is_calm = offset.0 < calm.load(Ordering::Relaxed);
                match act_of(&plan, offset.0) {
                    Act::Fail(_) | Act::Reject(_) if is_calm && on_error == OnError::Pause => Act::Keep,
                    act => act,
                }
            }
        };
        let count = Count::new(acts(&plan, on_error));
        let chain = chain_of(vec![(count, on_error), (Each::new(acts(&after, then)), then)]);
        let sources = [source(0, &[400, 500])];
        let (mut from, mut table, mut runs) = (0, Table::default(), 0);
        while from < 900 {
            let routed = runtime.block_on(route(&chain, &sources, from, &[table.clone()]));
            table.commit(&routed.writes);
            from = routed.progress.reached.0;
            if let Some(paused) = routed.progress.paused {
                prop_assert!(paused.retry_after.is_none(), "{}", paused.why);
                calm_until.store(from + 1, Ordering::Relaxed);
            }
            runs += 1;
            prop_assert!(runs < 1_000, "it makes progress");
        }
        // An event that the stage failed on alone was not answered; all others were, once.
        let failed = |offset: &u64| {
            let at = plan[usize::try_from(*offset).unwrap()];
            (at == 0 || at == 3) && on_error != OnError::Pause
        };
        let expected: BTreeMap<u64, u64> = (0..900).filter(|offset| !failed(offset)).map(|offset| (offset, 1)).collect();
        prop_assert_eq!(table.counts(), expected);
    }
}
