//! Taking a window through the stages, in the order of its events, until all of it is decided.
//!
//! It owns the promise to stateful stages: an answer of theirs counts whole or not at all. Must not know how calls
//! run ahead.

use std::borrow::Cow;

use crate::{
    ahead::{Ahead, StageInput},
    batches::{ChainBatch, count_of, ranges_before},
    decide::{Decided, Decision},
    forward::Sink,
    run::{Called, ChainRun},
    select::Selector,
    state::RunState,
    window::Window,
};

/// What the last stage has decided. Nothing of it was forwarded yet.
struct LastStage<'r> {
    stage: usize,
    batches: Cow<'r, [ChainBatch]>,
    decided: Vec<Decided>,
}

/// Decides all events of a window and forwards those that pass to `sink`.
///
/// If a window of a chain with a stateful stage ends early, what its stages answered on the events behind the cut
/// must not have changed any state. So nothing of it counts, and the events before the cut are decided again alone,
/// from the state as it was before. The second time the breaker counts no event, as it has counted them already.
pub(crate) async fn decide_window(
    run: &ChainRun<'_>,
    ahead: Ahead<'_>,
    state: &mut RunState<'_>,
    sink: &mut impl Sink,
) -> Window {
    let Ahead { stage, input: StageInput { batches, mut ranges }, mut called, .. } = ahead;
    let is_stateful = run.stages.is_stateful();
    let mut window = Window::default();
    let mut counts = true;
    (0..stage).for_each(|passed| run.stages.breaker().passed(passed));
    loop {
        let given = if is_stateful { ranges.clone() } else { Vec::new() };
        let input = StageInput { batches: Cow::Borrowed(&*batches), ranges };
        let last = through_stages(run, stage, input, called.take(), &mut window, state, counts).await;
        if let Some(cut) = window.cut_at()
            && is_stateful
        {
            ranges = ranges_before(&batches, &given, cut);
            if count_of(&ranges) < count_of(&given) {
                state.discard();
                window.restart();
                counts = false;
                continue;
            }
        }
        for decided in &last.decided {
            decided.forward(run, last.stage, &last.batches, &window, sink);
        }
        state.keep();
        return window;
    }
}

/// Decides the events of each stage from `stage` on, as far as any are left.
async fn through_stages<'r>(
    run: &ChainRun<'_>,
    mut stage: usize,
    mut input: StageInput<'r>,
    mut called: Option<Called>,
    window: &mut Window,
    state: &mut RunState<'_>,
    counts: bool,
) -> LastStage<'r> {
    loop {
        let StageInput { batches, ranges } = input;
        let is_over = ranges.is_empty() || run.stages.is_last(stage);
        let decision = Decision::new(run, stage, &batches, window, state, counts);
        let decided = if run.stages.count() == 0 {
            decision.keep_all(ranges)
        } else {
            decision.run(ranges, called.take()).await
        };
        if is_over {
            return LastStage { stage, batches, decided };
        }
        let mut next = Selector::new();
        for decided in &decided {
            decided.forward(run, stage, &batches, window, &mut next);
        }
        (stage, input) = (stage + 1, StageInput::all(next.finish()));
    }
}
