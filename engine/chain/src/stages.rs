//! The stages of a chain: the attached plugins with their settings, and the breaker that they share.
//!
//! Must not know what is done with answers.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use levada_protocol::request::OnError;

use crate::{breaker::Breaker, costs::Counted};

/// Time since any fixed moment; it never goes back.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// A plugin in a chain, and what happens when it fails.
#[derive(Clone)]
pub struct ChainStage {
    /// The attached plugin.
    pub stage: Arc<Counted>,
    /// The plugin's name.
    pub plugin: String,
    /// Its version.
    pub version: u32,
    /// What happens to an event that it fails on.
    pub on_error: OnError,
    /// How often a failing event alone is tried again before that.
    pub retries: u8,
    /// How long one call may take; a failing call is not charged more.
    pub deadline: Duration,
}

impl ChainStage {
    /// The plugin with its version, such as `json-filter@3`.
    pub fn label(&self) -> String {
        format!("{}@{}", self.plugin, self.version)
    }
}

/// Stages in order, at one attachment point.
pub(crate) struct Stages {
    list: Vec<ChainStage>,
    seed: u64,
    clock: Clock,
    breaker: Mutex<Breaker>,
    /// How many stages come before the first that keeps state.
    stateless: usize,
}

impl Stages {
    /// `seed` is derived from the identity of the attachment point.
    pub(crate) fn new(list: Vec<ChainStage>, seed: u64, clock: Clock) -> Self {
        let breaker = Mutex::new(Breaker::new(list.len()));
        let stateless = list.iter().take_while(|at| !at.stage.is_stateful()).count();
        Self { list, seed, clock, breaker, stateless }
    }

    /// The same with a breaker that minds time alone.
    pub(crate) fn minding_time_alone(self) -> Self {
        let breaker = Mutex::new(Breaker::new(self.list.len()).minding_time_alone());
        Self { breaker, ..self }
    }

    pub(crate) fn all(&self) -> &[ChainStage] {
        &self.list
    }

    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }

    /// True if `stage` is the last, or there is none.
    pub(crate) fn is_last(&self, stage: usize) -> bool {
        stage + 1 >= self.list.len()
    }

    /// How many stages come before the first that keeps state.
    pub(crate) fn stateless(&self) -> usize {
        self.stateless
    }

    /// True if a stage keeps state.
    pub(crate) fn is_stateful(&self) -> bool {
        self.stateless < self.list.len()
    }

    /// What the random numbers of a call are derived from.
    pub(crate) fn seed(&self, identity: impl IntoIterator<Item = u64>) -> u64 {
        identity.into_iter().fold(self.seed, mix)
    }

    pub(crate) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the breaker and forgets what it counted.
    pub(crate) fn reset_breaker(&self) {
        self.breaker().reset();
    }

    pub(crate) fn now(&self) -> Duration {
        (self.clock)()
    }
}

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter().map(ChainStage::label)).finish()
    }
}

/// One step of SplitMix64: spreads every bit of `value` over the state.
fn mix(state: u64, value: u64) -> u64 {
    let mut z = (state ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
