//! The chain of a subscription.

use levada_protocol::{event::Event, ids::Offset, request::OnError};

use super::*;

fn keep_all() -> Arc<Each> {
    Each::new(|_, _| Act::Keep)
}

#[tokio::test]
async fn what_is_kept_whole_shares_the_stored_bytes() {
    let sources = [source(10, &[600, 3, 1]), source(614, &[2000])];
    let filtered = chain([(keep_all(), OnError::DeadLetter)]).filter(everything(&sources)).await;
    assert_eq!(filtered.passed.len(), 2, "one run per source");
    for (passed, source) in filtered.passed.iter().zip(&sources) {
        assert!(!passed.built);
        assert_eq!(passed.run.batches.as_ptr(), source.run().batches.as_ptr());
        assert_eq!(passed.run, *source.run());
        assert_eq!(passed.run.base.plus(u64::from(passed.events)), source.end());
    }
    assert_eq!(filtered.progress.reached, Offset(2614));
    assert_eq!(filtered.dropped, []);
}

#[tokio::test]
async fn what_is_kept_whole_of_what_the_engine_built_is_said_to_be_built() {
    let run = source(0, &[3]).run().clone();
    let compacted = Source::of(LogSlice { built: true, span: 7, ..LogSlice::of(run, true).unwrap() });
    let sources = [compacted.unwrap(), source(7, &[2])];
    let filtered = chain([(keep_all(), OnError::DeadLetter)]).filter(everything(&sources)).await;
    let built: Vec<_> = filtered.passed.iter().map(|passed| (passed.run.base.0, passed.built)).collect();
    assert_eq!(built, [(0, true), (7, false)]);
}

#[tokio::test]
async fn calls_are_full_and_cut_only_large_batches() {
    let each = keep_all();
    let sources = [source(0, &[585, 585, 300, 300, 5])];
    chain([(each.clone(), OnError::DeadLetter)]).filter(everything(&sources)).await;
    let calls = each.calls();
    assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [512, 512, 446, 305]);
    assert_eq!(calls.concat(), (0..1775).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_event_larger_than_a_call_is_given_alone() {
    let each = keep_all();
    let large = |offset: u64| Event::new(vec![b'x'; if offset == 1 { 600_000 } else { 100_000 }]);
    let sources = [source_of(0, &[2, 1, 4], large)];
    let filtered = chain([(each.clone(), OnError::DeadLetter)]).filter(everything(&sources)).await;
    assert_eq!(each.calls(), [vec![0], vec![1], vec![2, 3], vec![4, 5], vec![6]]);
    assert_eq!(offsets(&filtered.passed), [0, 1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn what_is_dropped_leaves_gaps_and_is_told_as_ranges() {
    let odd = Each::new(|offset, _| if offset.0 % 2 == 1 { Act::Drop } else { Act::Keep });
    let sources = [source(0, &[4, 1, 1, 2])];
    let filtered = chain([(odd, OnError::DeadLetter)]).filter(everything(&sources)).await;
    assert_eq!(offsets(&filtered.passed), [0, 2, 4, 6]);
    assert_eq!(ranges(&filtered.dropped), [(1, 2), (3, 4), (5, 6), (7, 8)]);
    let built: Vec<_> = filtered.passed.iter().map(|passed| (passed.run.base.0, passed.built)).collect();
    assert_eq!(built, [(0, true), (4, false), (6, true)], "a whole batch is shared, parts are built");
    assert!(filtered.passed.iter().all(|passed| passed.run.append_time == Timestamp(1_000)));
}

#[tokio::test]
async fn events_of_different_append_times_are_not_built_into_one_batch() {
    let last = Each::new(|offset, _| if offset.0 % 10 == 9 { Act::Keep } else { Act::Drop });
    let sources = [source(0, &[10, 10]), source(20, &[10])];
    let filtered = chain([(last, OnError::DeadLetter)]).filter(everything(&sources)).await;
    let runs: Vec<_> =
        filtered.passed.iter().map(|passed| (passed.run.append_time.0, passed.events)).collect();
    assert_eq!(runs, [(1_000, 2), (1_020, 1)]);
    assert_eq!(offsets(&filtered.passed), [9, 19, 29]);
}

#[tokio::test]
async fn dropping_all_passes_nothing_and_reaches_the_end() {
    let sources = [source(5, &[700, 20])];
    let filtered =
        chain([(Each::new(|_, _| Act::Drop), OnError::DeadLetter)]).filter(everything(&sources)).await;
    assert!(filtered.passed.is_empty());
    assert_eq!(ranges(&filtered.dropped), [(5, 725)]);
    assert_eq!(filtered.progress.reached, Offset(725));
}

#[tokio::test]
async fn only_the_asked_offsets_are_taken() {
    let each = keep_all();
    let sources = [source(0, &[10, 10, 10])];
    let filtered = chain([(each.clone(), OnError::DeadLetter)]).filter(within(&sources, 5..22)).await;
    assert_eq!(offsets(&filtered.passed), (5..22).collect::<Vec<_>>());
    assert_eq!(each.calls().concat(), (5..22).collect::<Vec<_>>());
    assert_eq!(filtered.progress.reached, Offset(22));
    assert_eq!(filtered.dropped, []);
}

#[tokio::test]
async fn a_stored_selection_keeps_its_offsets_through_cuts() {
    let kept: Vec<u64> = (0..1500).map(|n| 100 + n * 3).collect();
    let each = Each::new(|offset, _| if offset.0 % 2 == 0 { Act::Keep } else { Act::Drop });
    let sources = [selection(100, &kept)];
    let filtered = chain([(each.clone(), OnError::DeadLetter)]).filter(everything(&sources)).await;
    assert_eq!(each.calls().concat(), kept);
    let even: Vec<u64> = kept.iter().copied().filter(|offset| offset % 2 == 0).collect();
    assert_eq!(offsets(&filtered.passed), even);
}

#[tokio::test]
async fn a_changed_event_keeps_its_offset_and_what_the_output_does_not_give() {
    let upper = Each::new(|_, event| {
        let text = event.payload().unwrap().to_ascii_uppercase();
        Act::Emit(vec![Made {
            set: vec![("b".to_owned(), b"2".to_vec())],
            removed: vec!["c".to_owned()],
            ..payload(text)
        }])
    });
    let input = |_| Event {
        key: Some("k".into()),
        headers: ["a", "b", "c", "a"].map(|name| (name.to_owned(), "1".into())).into(),
        id: Some("id".into()),
        ttl_ms: Some(50),
        ..Event::new("abc").at(Timestamp(77))
    };
    let sources = [source_of(40, &[2], input)];
    let filtered = chain([(upper, OnError::DeadLetter)]).filter(everything(&sources)).await;
    let (base, batch) = filtered.passed[0].run.batches().next().unwrap().unwrap();
    let event = batch.events().last().unwrap();
    let name = |name: &str, value: &'static str| (name.to_owned(), Bytes::from(value));
    let expected = Event {
        headers: vec![name("a", "1"), name("a", "1"), name("b", "2")],
        payload: Some("ABC".into()),
        id: None,
        ..input(0)
    };
    assert_eq!((event.offset(base), event.to_event(&batch)), (Offset(41), expected));
}

#[tokio::test]
async fn a_key_that_any_stage_changed_is_told_and_nothing_else_is() {
    let emit = |key: fn() -> Change<Vec<u8>>| {
        Each::new(move |offset, _| match offset.0 {
            1 => Act::Emit(vec![Made { key: key(), ..payload(b"changed".to_vec()) }]),
            _ => Act::Keep,
        })
    };
    let odd = || Each::new(|offset, _| if offset.0 % 2 == 1 { Act::Keep } else { Act::Drop });
    let even = Each::new(|offset, _| if offset.0 % 2 == 0 { Act::Keep } else { Act::Drop });
    let set = || Change::Set(b"other".to_vec());
    let cases = [
        (emit(set), odd(), true),
        (emit(|| Change::Remove), odd(), true),
        (emit(|| Change::Keep), odd(), false),
        (keep_all(), odd(), false),
        (odd(), emit(set), true),
        (even, emit(set), false),
    ];
    for (at, (first, second, expected)) in cases.into_iter().enumerate() {
        let sources = [source(0, &[3, 2])];
        let stages = [first, second].map(|each| (each, OnError::DeadLetter));
        let filtered = chain(stages).filter(everything(&sources)).await;
        assert_eq!(filtered.rekeyed, expected, "case {at}");
    }
}

#[tokio::test]
async fn stages_see_what_the_one_before_passed() {
    let thirds = Each::new(|offset, _| if offset.0 % 3 == 0 { Act::Keep } else { Act::Drop });
    let mark = Each::new(|_, event| Act::Emit(vec![payload([event.payload().unwrap(), b"!"].concat())]));
    let even = Each::new(|offset, event| {
        assert!(event.payload().unwrap().ends_with(b"!"));
        if offset.0 % 2 == 0 { Act::Keep } else { Act::Drop }
    });
    let stages = [thirds, mark, even].map(|each| (each, OnError::DeadLetter));
    let sources = [source(0, &[1200, 5])];
    let filtered = chain(stages).filter(everything(&sources)).await;
    let expected: Vec<_> = (0..1205).step_by(6).map(|offset| (offset, format!("{offset}!"))).collect();
    assert_eq!(events(&filtered.passed), expected);
}

#[tokio::test]
async fn an_event_may_not_become_two_nor_choose_a_target() {
    let wrong = Each::new(|offset, _| match offset.0 {
        1 => Act::Emit(vec![payload("a"), payload("b")]),
        2 => Act::Emit(vec![payload("c").to("elsewhere")]),
        _ => Act::Keep,
    });
    let sources = [source(0, &[4])];
    let filtered = chain([(wrong.clone(), OnError::DeadLetter)]).filter(everything(&sources)).await;
    assert_eq!(offsets(&filtered.passed), [0, 3]);
    assert_eq!(dead(&filtered), [1, 2]);
    assert_eq!(wrong.calls().len(), 1, "a wrong verdict is not asked for again");
    let errors: Vec<_> =
        filtered.progress.dead_letters.iter().map(|dead_letter| dead_letter.error.as_str()).collect();
    assert_eq!(
        errors,
        [
            "the plugin's answer is invalid: it made 2 events of one, the limit here is 1",
            "the plugin's answer is invalid: it chose the target \"elsewhere\", and only a route's last stage may",
        ]
    );
}

#[tokio::test]
async fn built_events_of_a_run_are_bounded_and_the_rest_is_for_the_next_run() {
    let inflate = Each::new(|_, _| Act::Emit(vec![payload(vec![b'x'; 500_000])]));
    let sources = [source(0, &[40])];
    let chain = chain([(inflate, OnError::DeadLetter)]);
    let (mut from, mut seen) = (0, Vec::new());
    while from < 40 {
        let filtered = chain.filter(within(&sources, from..40)).await;
        let bytes: usize = filtered.passed.iter().map(|passed| passed.run.batches.len()).sum();
        assert!(bytes <= 5 * 1024 * 1024, "{bytes} bytes at once");
        assert_eq!(filtered.progress.paused, None);
        assert_eq!(dead(&filtered), [0; 0]);
        assert!(filtered.progress.reached.0 > from);
        from = filtered.progress.reached.0;
        seen.extend(offsets(&filtered.passed));
    }
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_run_can_move_between_threads() {
    fn spawnable<F: Future + Send>(future: F) -> F {
        future
    }
    let sources = [source(0, &[3])];
    let chain = chain([(keep_all(), OnError::DeadLetter)]);
    assert_eq!(spawnable(chain.filter(everything(&sources))).await.progress.reached, Offset(3));
    assert_eq!(
        spawnable(chain.route(everything(&sources), &targets(&[("a", 1)]), &[])).await.progress.reached,
        Offset(3)
    );
}
