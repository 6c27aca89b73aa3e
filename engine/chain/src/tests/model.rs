//! Random batches, verdicts and policies: a chain gives what a loop over single events would give.

use std::collections::{BTreeMap, BTreeSet};

use levada_protocol::{event::Event, partition::partition_of};
use proptest::prelude::*;

use super::*;

/// An event on its way through the model.
#[derive(Debug, Clone)]
struct Item {
    payload: String,
    key: Option<Vec<u8>>,
    id: Option<String>,
    target: usize,
}

/// What a naive loop makes of some events.
#[derive(Debug, Default, PartialEq)]
struct Expected {
    passed: Vec<(u64, usize, u16, String)>,
    dead: Vec<u64>,
    skipped: u64,
    unchanged: u64,
    reached: u64,
    paused: bool,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    salt: u64,
    /// How many of a hundred events are kept as they are.
    kept: u64,
    on_error: OnError,
}

const TARGETS: [(&str, u16); 2] = [("a", 3), ("b", 1)];

fn spread(salt: u64, offset: u64, payload: &[u8]) -> u64 {
    payload.iter().fold(salt ^ offset.wrapping_mul(0x9e37_79b9), |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
    })
}

fn act(step: Step, is_route: bool, offset: u64, bytes: &[u8]) -> Act {
    let dice = spread(step.salt, offset, bytes);
    let longer = |end: &str| [bytes, end.as_bytes()].concat();
    if dice % 100 < step.kept {
        return Act::Keep;
    }
    match dice / 100 % 40 {
        0..12 => Act::Drop,
        12..14 => Act::Emit(vec![]),
        14..26 => Act::Emit(vec![payload(longer("+"))]),
        26..28 => Act::Emit(vec![Made { key: Change::Set(longer("k")), ..payload(longer("k")) }]),
        28..30 if is_route => Act::Emit(vec![payload(longer("1")), payload(longer("2"))]),
        30..33 if is_route => Act::Emit(vec![payload(longer("b")).to("b"), payload(longer("c"))]),
        33 => Act::Emit(vec![payload(longer("1")), payload(longer("n")).to("nowhere")]),
        34 => Act::Emit(vec![Made { id: Some("i".repeat(200)), ..payload(longer("1")) }]),
        35 => Act::Fail(CallError::Trap("boom".to_owned())),
        36 | 37 => Act::Reject("no"),
        _ => Act::Keep,
    }
}

fn source_event(offset: u64) -> Event {
    Event {
        key: offset.is_multiple_of(3).then(|| format!("key{}", offset % 7).into()),
        id: offset.is_multiple_of(5).then(|| format!("id{offset}").into()),
        ..Event::new(offset.to_string())
    }
}

/// What one stage makes of one item; `None` if it fails on it.
fn model_stage(step: Step, is_route: bool, is_last: bool, offset: u64, item: &Item) -> Option<Vec<Item>> {
    match act(step, is_route, offset, item.payload.as_bytes()) {
        Act::Keep => Some(vec![Item { target: 0, ..item.clone() }]),
        Act::Drop => Some(vec![]),
        Act::Reject(_) | Act::Fail(_) => None,
        Act::Emit(made) => {
            let index = |name: &str| TARGETS.iter().position(|(known, _)| *known == name);
            let follow = |made: &Made| {
                let target = match &made.target {
                    None => Some(0),
                    Some(name) => index(name).filter(|_| is_route && is_last),
                };
                let key = match &made.key {
                    Change::Set(key) => Some(key.clone()),
                    _ => item.key.clone(),
                };
                let Change::Set(payload) = &made.payload else { return None };
                let is_small = made.id.as_ref().is_none_or(|id| id.len() <= 128);
                let payload = String::from_utf8(payload.clone()).ok()?;
                target.filter(|_| is_small).map(|target| Item { payload, key, id: None, target })
            };
            (is_route || made.len() <= 1)
                .then(|| made.iter().map(follow).collect::<Option<Vec<_>>>())
                .flatten()
        }
    }
}

fn model(steps: &[Step], is_route: bool, offsets: &[u64], end: u64) -> Expected {
    let mut expected = Expected::default();
    'events: for offset in offsets {
        let event = source_event(*offset);
        let item = Item {
            payload: offset.to_string(),
            key: event.key.as_ref().map(|key| key.to_vec()),
            id: event.id.map(String::from),
            target: 0,
        };
        let mut items = vec![item];
        let (mut skipped, mut unchanged, mut is_dead) = (0, 0, false);
        for (index, step) in steps.iter().enumerate() {
            let mut next = Vec::new();
            for item in items {
                match (model_stage(*step, is_route, index + 1 == steps.len(), *offset, &item), step.on_error)
                {
                    (Some(made), _) => next.extend(made),
                    (None, OnError::DeadLetter) => is_dead = true,
                    (None, OnError::Skip) => skipped += 1,
                    (None, OnError::Pass) => {
                        unchanged += 1;
                        next.push(Item { target: 0, ..item });
                    }
                    (None, OnError::Pause) => {
                        (expected.reached, expected.paused) = (*offset, true);
                        break 'events;
                    }
                }
            }
            items = if is_dead { vec![] } else { next };
        }
        expected.skipped += skipped;
        expected.unchanged += unchanged;
        expected.dead.extend(is_dead.then_some(*offset));
        expected.passed.extend(items.into_iter().map(|item| {
            let partitions = TARGETS[item.target].1;
            let by = item.key.as_deref().or_else(|| item.id.as_deref().map(str::as_bytes));
            let partition = by.map_or(5 % partitions, |by| partition_of(by, partitions).0);
            (*offset, item.target, partition, item.payload)
        }));
    }
    if !expected.paused {
        expected.reached = end;
    }
    expected
}

fn real_chain(steps: &[Step], is_route: bool) -> Chain {
    let each =
        |step: Step| Each::new(move |offset, event| act(step, is_route, offset.0, event.payload().unwrap()));
    chain(steps.iter().map(|step| (each(*step), step.on_error)))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let on_error = prop_oneof![
        4 => Just(OnError::DeadLetter),
        2 => Just(OnError::Skip),
        2 => Just(OnError::Pass),
        1 => Just(OnError::Pause),
    ];
    let step = (any::<u64>(), prop_oneof![Just(0), Just(50), Just(97), Just(100)], on_error)
        .prop_map(|(salt, kept, on_error)| Step { salt, kept, on_error });
    prop::collection::vec(step, 1..=3)
}

/// Sources back to back, some of them selections with gaps, and the offsets that they hold.
fn sources() -> impl Strategy<Value = (Vec<Source>, Vec<u64>)> {
    let counts = prop::collection::vec(prop_oneof![4 => 1u32..20, 2 => 1u32..700, 1 => 500u32..1500], 1..5);
    prop::collection::vec((counts, 0u8..4), 1..4).prop_map(|specs| {
        let (mut next, mut sources, mut held) = (100, Vec::new(), Vec::new());
        for (counts, kind) in specs {
            if kind == 0 {
                let offsets: Vec<u64> = (0..u64::from(counts[0])).map(|n| next + n + n / 3).collect();
                let event = |offset: &u64| (*offset, source_event(*offset));
                sources.push(selection_of(next, &offsets.iter().map(event).collect::<Vec<_>>()));
                held.extend(offsets);
            } else {
                sources.push(source_of(next, &counts, source_event));
                held.extend(next..next + u64::from(counts.iter().sum::<u32>()));
            }
            next = sources.last().map_or(next, |source| source.end().0);
        }
        (sources, held)
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_subscription_gets_what_a_loop_over_its_events_gives(
        (sources, held) in sources(), steps in steps(), from in 0u64..300, cut_off in 0u64..50,
    ) {
        let end = everything(&sources).offsets.end.0;
        let (from, to) = ((100 + from).min(end), (end - cut_off).max(100 + from).min(end));
        let asked: Vec<u64> = held.into_iter().filter(|offset| (from..to).contains(offset)).collect();
        let expected = model(&steps, false, &asked, to);
        let filtered = block_on(real_chain(&steps, false).filter(within(&sources, from..to)));
        let progress = &filtered.progress;
        prop_assert!(progress.paused.as_ref().is_none_or(|paused| paused.retry_after.is_none()));
        let found = events(&filtered.passed);
        let passed: Vec<_> = expected.passed.iter().map(|(offset, _, _, text)| (*offset, text.clone())).collect();
        prop_assert_eq!(&found, &passed);
        prop_assert_eq!(dead(&filtered), expected.dead.clone());
        prop_assert_eq!((progress.skipped, progress.passed_unchanged), (expected.skipped, expected.unchanged));
        prop_assert_eq!((progress.reached.0, progress.paused.is_some()), (expected.reached, expected.paused));
        let known: BTreeSet<u64> = found.iter().map(|(offset, _)| *offset).chain(expected.dead).collect();
        let dropped: Vec<u64> = (from..progress.reached.0).filter(|offset| !known.contains(offset)).collect();
        prop_assert_eq!(ranges(&filtered.dropped).into_iter().flat_map(|(start, end)| start..end).collect::<Vec<_>>(), dropped);
    }

    #[test]
    fn a_route_gives_what_a_loop_over_its_events_gives((sources, held) in sources(), steps in steps()) {
        let end = everything(&sources).offsets.end.0;
        let expected = model(&steps, true, &held, end);
        let (chain, targets) = (real_chain(&steps, true), targets(&TARGETS));
        let mut found = Expected::default();
        let mut by_partition: BTreeMap<(usize, u16), Vec<String>> = BTreeMap::new();
        let mut from = 100;
        while from < end && !found.paused {
            let routed = block_on(chain.route(within(&sources, from..end), &targets, &[]));
            for batch in &routed.batches {
                let text = |event: EventRef<'_>| String::from_utf8(event.payload().unwrap().to_vec()).unwrap();
                by_partition.entry((batch.target, batch.partition.0)).or_default().extend(batch.batch.events().map(text));
            }
            let progress = routed.progress;
            found.dead.extend(progress.dead_letters.iter().map(|dead_letter| dead_letter.offset.0));
            (found.skipped, found.unchanged) =
                (found.skipped + progress.skipped, found.unchanged + progress.passed_unchanged);
            (found.reached, found.paused) = (progress.reached.0, progress.paused.is_some());
            prop_assert!(found.paused || progress.reached.0 > from);
            from = progress.reached.0;
        }
        let mut wanted: BTreeMap<(usize, u16), Vec<String>> = BTreeMap::new();
        for (_, target, partition, text) in &expected.passed {
            wanted.entry((*target, *partition)).or_default().push(text.clone());
        }
        prop_assert_eq!(by_partition, wanted);
        prop_assert_eq!(found, Expected { passed: vec![], ..expected });
    }

    #[test]
    fn bytes_that_a_plugin_makes_up_never_cost_more_than_their_events(
        answer in prop::collection::vec(any::<u8>(), 0..200), kinds in prop::collection::vec(0u8..5, 0..40),
    ) {
        let mut bytes = Vec::new();
        for kind in kinds {
            bytes.extend_from_slice(&[kind, 0, 1, 0]);
        }
        bytes.extend(answer);
        let sources = [source(0, &[15])];
        let chain = Chain::new(vec![stage(Arc::new(Says(bytes)), OnError::DeadLetter)], 7, TestClock::default().clock());
        let filtered = block_on(chain.filter(everything(&sources)));
        prop_assert_eq!(filtered.progress.reached, Offset(15));
        let gone: u64 = ranges(&filtered.dropped).into_iter().map(|(start, end)| end - start).sum();
        prop_assert_eq!(offsets(&filtered.passed).len() as u64 + dead(&filtered).len() as u64 + gone, 15);
    }
}
