//! The state that the stateful stages of one run read and write.
//!
//! A window's writes become visible to its own later calls at once, and part of the run's result only if the window
//! counts. Must not know how state is stored.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use levada_stage::{StateView, StateWrite};

use crate::outcome::StageWrite;

/// Bytes of writes after which a run ends, so that they can be committed.
const COMMIT_BYTES_TARGET: usize = 1024 * 1024;

/// Writes by key, the newest of each.
type Writes = Arc<BTreeMap<Bytes, Option<Bytes>>>;

/// What the stages of one run have written.
#[derive(Debug)]
pub(crate) struct RunState<'s> {
    /// What each stage has stored; `None` for a stage that has stored nothing.
    stored: &'s [Option<Arc<dyn StateView>>],
    /// By stage: the writes of the windows that count.
    run: Vec<Writes>,
    /// By stage: the writes of the window that is being decided.
    window: Vec<Writes>,
    /// Bytes of all writes that count.
    bytes: usize,
}

/// The state of one stage, as a call sees it.
#[derive(Debug)]
struct View {
    stored: Option<Arc<dyn StateView>>,
    /// Newest first.
    layers: [Writes; 2],
}

impl StateView for View {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        match self.layers.iter().find_map(|writes| writes.get(key)) {
            Some(written) => written.clone(),
            None => self.stored.as_ref()?.get(key),
        }
    }
}

impl<'s> RunState<'s> {
    /// Nothing written yet, over what each stage has stored.
    pub(crate) fn over(stored: &'s [Option<Arc<dyn StateView>>]) -> Self {
        Self { stored, run: Vec::new(), window: Vec::new(), bytes: 0 }
    }

    /// The state of a stage as it is now.
    pub(crate) fn view(&self, stage: usize) -> Arc<dyn StateView> {
        let of = |writes: &[Writes]| writes.get(stage).cloned().unwrap_or_default();
        let stored = self.stored.get(stage).cloned().flatten();
        Arc::new(View { stored, layers: [of(&self.window), of(&self.run)] })
    }

    /// Adds the writes of a call.
    pub(crate) fn write(&mut self, stage: usize, writes: Vec<StateWrite>) {
        if writes.is_empty() {
            return;
        }
        let window = Arc::make_mut(slot(&mut self.window, stage));
        window.extend(writes.into_iter().map(|write| (write.key, write.value)));
    }

    /// The window counts: its writes do too.
    pub(crate) fn keep(&mut self) {
        for (stage, writes) in std::mem::take(&mut self.window).into_iter().enumerate() {
            let len =
                |(key, value): (&Bytes, &Option<Bytes>)| key.len() + value.as_ref().map_or(0, Bytes::len);
            self.bytes += writes.iter().map(len).sum::<usize>();
            let run = Arc::make_mut(slot(&mut self.run, stage));
            run.extend(Arc::unwrap_or_clone(writes));
        }
    }

    /// The window does not count: it has written nothing.
    pub(crate) fn discard(&mut self) {
        self.window.clear();
    }

    /// True once there is as much as should be committed at once.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= COMMIT_BYTES_TARGET
    }

    /// Every write that counts, by stage and key.
    pub(crate) fn finish(self) -> Vec<StageWrite> {
        let by_stage = self.run.into_iter().enumerate();
        let of = |(stage, writes): (usize, Writes)| {
            let writes = Arc::unwrap_or_clone(writes).into_iter();
            writes.map(move |(key, value)| StageWrite { stage, write: StateWrite { key, value } })
        };
        by_stage.flat_map(of).collect()
    }
}

fn slot(writes: &mut Vec<Writes>, stage: usize) -> &mut Writes {
    if writes.len() <= stage {
        writes.resize_with(stage + 1, Writes::default);
    }
    &mut writes[stage]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Stored;

    impl StateView for Stored {
        fn get(&self, key: &[u8]) -> Option<Bytes> {
            (key != b"none").then(|| Bytes::from_static(b"stored"))
        }
    }

    fn set(key: &'static str, value: &'static str) -> StateWrite {
        StateWrite { key: key.into(), value: Some(value.into()) }
    }

    #[test]
    fn a_call_sees_what_counts_and_what_its_window_wrote_over_what_is_stored() {
        let stored: [Option<Arc<dyn StateView>>; 2] = [None, Some(Arc::new(Stored))];
        let mut state = RunState::over(&stored);
        assert_eq!(state.view(0).get(b"a"), None);
        assert_eq!(state.view(1).get(b"a"), Some("stored".into()));
        assert_eq!(state.view(1).get(b"none"), None);
        state.write(1, vec![set("a", "1"), set("b", "1")]);
        let before = state.view(1);
        state.write(1, vec![set("a", "2"), StateWrite { key: "b".into(), value: None }]);
        assert_eq!((before.get(b"a"), before.get(b"b")), (Some("1".into()), Some("1".into())), "it is fixed");
        assert_eq!((state.view(1).get(b"a"), state.view(1).get(b"b")), (Some("2".into()), None));
        assert_eq!(state.view(0).get(b"a"), None, "each stage has its own");
        state.keep();
        state.write(1, vec![set("a", "3")]);
        assert_eq!(state.view(1).get(b"a"), Some("3".into()));
        state.discard();
        assert_eq!(state.view(1).get(b"a"), Some("2".into()));
        let deleted = StateWrite { key: "b".into(), value: None };
        let expected = [set("a", "2"), deleted].map(|write| StageWrite { stage: 1, write });
        assert_eq!(state.finish(), expected);
    }

    #[test]
    fn a_run_ends_when_its_writes_fill_a_commit() {
        let mut state = RunState::over(&[]);
        let write =
            |n: u64| StateWrite { key: n.to_le_bytes().to_vec().into(), value: Some(vec![0; 1024].into()) };
        state.write(0, (0..1000).map(write).collect());
        state.keep();
        assert!(!state.is_full());
        state.write(0, (1000..1100).map(write).collect());
        assert!(!state.is_full(), "what may not count is not counted");
        state.keep();
        assert!(state.is_full());
    }
}
