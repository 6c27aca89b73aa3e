//! A chain: plugins in order with their policies, applied to events of one partition.
//!
//! Calls run ahead, several at a time; what their answers mean is settled strictly in order, so that which events
//! are guilty, when the breaker opens and where a paused place stops do not depend on timing. Must not know where
//! events come from or go.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use levada_protocol::request::OnError;

use levada_stage::{CallInput, CallOutcome};

use crate::{
    breaker::{Breaker, EVENTS_MAX},
    call::call_runs,
    costs::Counted,
    cut::{Flat, Part, count_of, flatten, parts_within, take_call},
    outcome::{Filtered, Input, Paused, Progress, Routed, Target},
    route::Router,
    select::{Selector, dropped, passed_runs},
    settle::{Pass, Reached},
    write::Sink,
};

/// Time since any fixed moment; never goes back.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Calls of one run that may be under way at once.
const CALLS_IN_FLIGHT: usize = 4;

/// A plugin in a chain, and what happens when it fails.
#[derive(Clone)]
pub struct ChainStage {
    /// The attached plugin.
    pub stage: Arc<Counted>,
    /// Its name.
    pub plugin: String,
    /// Its version.
    pub version: u32,
    /// What happens to an event that it fails on.
    pub on_error: OnError,
    /// How often an event alone is tried again before that.
    pub retries: u8,
    /// How long one call may take: a failing one is not charged more.
    pub deadline: Duration,
}

/// Plugins in order, at one place.
pub struct Chain {
    stages: Vec<ChainStage>,
    seed: u64,
    clock: Clock,
    breaker: Mutex<Breaker>,
}

impl Chain {
    /// A chain of a place; `seed` is made of the place's identity, for the guests' random numbers.
    pub fn new(stages: Vec<ChainStage>, seed: u64, clock: Clock) -> Self {
        let breaker = Mutex::new(Breaker::new(stages.len()));
        Self { stages, seed, clock, breaker }
    }

    /// The stages in order.
    pub fn stages(&self) -> &[ChainStage] {
        &self.stages
    }

    /// Closes the breaker and forgets what it counted: a person resumed the place.
    pub fn resume(&self) {
        *self.breaker() = Breaker::new(self.stages.len());
    }

    /// Applies the chain of a subscription. Events keep their offsets; one becomes at most one.
    ///
    /// Cancel safe: a call that was given up has changed nothing but the breaker's counts.
    pub async fn filter(&self, input: Input<'_>) -> Filtered {
        let flats = flatten(input.sources);
        let mut sink = Selector::new();
        let progress =
            self.run(&Pass { chain: self, input: &input, flats: &flats, targets: None }, &mut sink).await;
        let passed = sink.finish();
        let dropped = dropped(&passed, &progress.dead_letters, input.offsets.start..progress.reached);
        Filtered { passed: passed_runs(&passed, input.sources), dropped, progress }
    }

    /// Applies the chain of a route with at least one target. Events become events of the targets.
    ///
    /// Cancel safe, as [`Chain::filter`] is.
    pub async fn route(&self, input: Input<'_>, targets: &[Target]) -> Routed {
        let flats = flatten(input.sources);
        let mut sink = Router::new(targets, input.partition);
        let pass = Pass { chain: self, input: &input, flats: &flats, targets: Some(targets) };
        let progress = self.run(&pass, &mut sink).await;
        Routed { batches: sink.finish(), progress }
    }

    async fn run(&self, pass: &Pass<'_>, sink: &mut impl Sink) -> Progress {
        let mut progress = Progress { reached: pass.input.offsets.start, ..Progress::default() };
        let mut left = parts_within(pass.flats, &pass.input.offsets);
        let mut flying = Flying { slots: VecDeque::new() };
        loop {
            let width = match self.breaker().admits(self.now()) {
                Ok(width) => width,
                Err(wait) => {
                    let why = "the place's plugins failed too often a short time ago".to_owned();
                    progress.paused = Some(Paused { why, retry_after: Some(wait) });
                    return progress;
                }
            };
            let most = if width == EVENTS_MAX { CALLS_IN_FLIGHT } else { 1 };
            while flying.slots.len() < most && !left.is_empty() {
                let parts = take_call(&mut left, pass.flats, width);
                flying.slots.push_back(Slot::Running(Box::pin(pass.attempt(parts))));
            }
            let Some(reached) = flying.next().await else {
                progress.reached = pass.end();
                return progress;
            };
            let end = reached.end;
            let window = pass.settle(reached, sink).await;
            let cut = window.finish(pass, &mut progress);
            if let Some(cut) = cut {
                (progress.reached, progress.paused) = (cut.at, cut.paused);
                return progress;
            }
            self.breaker().went_well();
            progress.reached = end;
            if sink.is_full() {
                return progress;
            }
        }
    }

    /// Hands the events of `parts` to a stage; there is at least one.
    pub(crate) async fn call(
        &self,
        stage: usize,
        pass: &Pass<'_>,
        flats: &[Flat],
        parts: &[Part],
    ) -> CallOutcome {
        let (first, last) = (parts[0], parts[parts.len() - 1]);
        let at = &self.stages[stage];
        let identity =
            [u64::from(pass.input.partition.0), first.first_offset(flats).0, u64::from(at.version)];
        let input = CallInput {
            runs: call_runs(flats, parts),
            events: count_of(parts),
            now: flats[last.flat].append_time,
            seed: identity.into_iter().fold(self.seed, mix),
            state: None,
        };
        let CallOutcome { result, time_spent } = at.stage.call(input).await;
        CallOutcome { result, time_spent: time_spent.min(at.deadline) }
    }

    pub(crate) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Duration {
        (self.clock)()
    }
}

impl ChainStage {
    /// `name@version`.
    pub fn label(&self) -> String {
        format!("{}@{}", self.plugin, self.version)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.stages.iter().map(ChainStage::label)).finish()
    }
}

/// Calls under way, in the order of their events.
struct Flying<'p> {
    slots: VecDeque<Slot<'p>>,
}

enum Slot<'p> {
    Running(Pin<Box<dyn Future<Output = Reached<'p>> + Send + 'p>>),
    Ended(Box<Reached<'p>>),
}

impl<'p> Flying<'p> {
    /// Waits for the oldest while all of them run; `None` if there is none.
    async fn next(&mut self) -> Option<Reached<'p>> {
        poll_fn(|context| {
            for slot in &mut self.slots {
                if let Slot::Running(future) = slot
                    && let Poll::Ready(reached) = future.as_mut().poll(context)
                {
                    *slot = Slot::Ended(Box::new(reached));
                }
            }
            match self.slots.pop_front() {
                None => Poll::Ready(None),
                Some(Slot::Ended(reached)) => Poll::Ready(Some(*reached)),
                Some(running) => {
                    self.slots.push_front(running);
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// One step of SplitMix64: spreads every bit of `value` over the state.
fn mix(state: u64, value: u64) -> u64 {
    let mut z = (state ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
