//! Plugins that fail: only the failing events pay, and a run that pauses has lost nothing.

use levada_protocol::{event::Event, limits::CALL_OUTPUT_EVENTS_MAX};

use super::{super::DeadReason, *};

/// Fails each call that holds one of these offsets.
fn fails_on(failing: &'static [u64]) -> Arc<Each> {
    Each::new(|offset, _| {
        if failing.contains(&offset.0) { Act::Fail(CallError::Trap("boom".to_owned())) } else { Act::Keep }
    })
}

fn always() -> Act {
    Act::Fail(CallError::Deadline)
}

#[tokio::test]
async fn only_the_failing_events_are_dead_letters() {
    let each = fails_on(&[0, 17, 511, 512, 1300]);
    let sources = [source(0, &[585, 1, 900])];
    let filtered = chain([(each, OnError::DeadLetter)]).filter(everything(&sources)).await;
    assert_eq!(dead(&filtered), [0, 17, 511, 512, 1300]);
    let survivors: Vec<u64> = (0..1486).filter(|offset| ![0, 17, 511, 512, 1300].contains(offset)).collect();
    assert_eq!(offsets(&filtered.passed), survivors);
    assert_eq!(filtered.dropped, []);
    let dead_letter = &filtered.progress.dead_letters[1];
    assert_eq!(dead_letter.event, Event::new("17").at(Timestamp(0)));
    assert_eq!(dead_letter.plugin.as_deref(), Some("probe@3"));
    assert_eq!(
        (dead_letter.reason, dead_letter.error.as_str()),
        (DeadReason::PluginError, "the plugin trapped: boom")
    );
}

#[tokio::test]
async fn a_failing_event_is_tried_again_as_often_as_configured() {
    let each = fails_on(&[2]);
    let sources = [source(0, &[4])];
    let filtered = chain([(each.clone(), OnError::DeadLetter)]).filter(everything(&sources)).await;
    assert_eq!(dead(&filtered), [2]);
    let expected = [vec![0, 1, 2, 3], vec![0, 1], vec![2, 3], vec![2], vec![2], vec![2], vec![2], vec![3]];
    assert_eq!(each.calls(), expected);
}

#[tokio::test]
async fn an_event_that_succeeds_when_tried_again_has_not_failed() {
    let failures = AtomicU64::new(0);
    let each = Each::new(move |offset, _| match offset.0 {
        1 if failures.fetch_add(1, Ordering::Relaxed) < 4 => Act::Fail(CallError::Retry("later".to_owned())),
        _ => Act::Keep,
    });
    let sources = [source(0, &[3])];
    let filtered = chain([(each, OnError::DeadLetter)]).filter(everything(&sources)).await;
    assert_eq!(offsets(&filtered.passed), [0, 1, 2]);
    assert_eq!(dead(&filtered), [0; 0]);
}

#[tokio::test]
async fn a_plugin_that_gives_up_on_an_event_is_not_asked_again() {
    let each = Each::new(|offset, _| match offset.0 {
        1 => Act::Fail(CallError::Reject("never".to_owned())),
        _ => Act::Keep,
    });
    let sources = [source(0, &[2])];
    let filtered = chain([(each.clone(), OnError::DeadLetter)]).filter(everything(&sources)).await;
    assert_eq!(each.calls(), [vec![0, 1], vec![0], vec![1]]);
    assert_eq!(filtered.progress.dead_letters[0].reason, DeadReason::Rejected);
}

#[tokio::test]
async fn a_rejected_event_is_a_dead_letter_with_its_reason_and_opens_no_breaker() {
    let each = Each::new(|_, _| Act::Reject("no json"));
    let sources = [source(0, &[100])];
    let filtered = chain([(each.clone(), OnError::DeadLetter)]).filter(everything(&sources)).await;
    assert_eq!(dead(&filtered), (0..100).collect::<Vec<_>>());
    assert_eq!(filtered.progress.paused, None);
    let dead_letter = &filtered.progress.dead_letters[99];
    assert_eq!((dead_letter.reason, dead_letter.error.as_str()), (DeadReason::Rejected, "no json"));
    assert_eq!(each.calls().len(), 1);
}

#[tokio::test]
async fn skip_drops_and_counts_pass_forwards_unchanged() {
    for (on_error, passed, skipped, unchanged) in
        [(OnError::Skip, vec![0, 2, 3], 2, 0), (OnError::Pass, vec![0, 1, 2, 3, 4], 0, 2)]
    {
        let each = Each::new(|offset, _| match offset.0 {
            1 => always(),
            4 => Act::Reject("no"),
            _ => Act::Keep,
        });
        let sources = [source(0, &[5])];
        let filtered = chain([(each, on_error)]).filter(everything(&sources)).await;
        assert_eq!(offsets(&filtered.passed), passed);
        assert_eq!(dead(&filtered), [0; 0]);
        assert_eq!((filtered.progress.skipped, filtered.progress.passed_unchanged), (skipped, unchanged));
        assert_eq!(filtered.progress.reached, Offset(5));
    }
}

#[tokio::test]
async fn pause_stops_before_the_failing_event_and_a_later_run_goes_on_there() {
    for reject in [false, true] {
        let fixed = Arc::new(AtomicU64::new(0));
        let switch = fixed.clone();
        let each = Each::new(move |offset, _| match (offset.0, switch.load(Ordering::Relaxed)) {
            (700, 0) if reject => Act::Reject("no"),
            (700, 0) => always(),
            (3, _) => Act::Drop,
            _ => Act::Keep,
        });
        let sources = [source(0, &[600, 600])];
        let chain = chain([(each, OnError::Pause)]);
        let filtered = chain.filter(everything(&sources)).await;
        assert_eq!(filtered.progress.reached, Offset(700));
        let mut seen = offsets(&filtered.passed);
        assert_eq!(seen, (0..700).filter(|offset| *offset != 3).collect::<Vec<_>>());
        assert_eq!(ranges(&filtered.dropped), [(3, 4)]);
        let paused = filtered.progress.paused.expect("the chain pauses");
        assert_eq!(paused.retry_after, None);
        assert!(paused.why.starts_with("plugin probe@3 pauses the chain at offset 700: "), "{}", paused.why);
        fixed.store(1, Ordering::Relaxed);
        let filtered = chain.filter(within(&sources, 700..1200)).await;
        seen.extend(offsets(&filtered.passed));
        assert_eq!(seen, (0..1200).filter(|offset| *offset != 3).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn twenty_failures_in_a_row_open_the_breaker_and_probes_move_one_event_each() {
    let clock = TestClock::default();
    let each = Each::slow(clock.clone(), Duration::from_millis(1), |_, _| always());
    let chain = Chain::new(vec![stage(each.clone(), OnError::DeadLetter)], 7, clock.clock());
    let sources = [source(0, &[1000])];
    let filtered = chain.filter(everything(&sources)).await;
    assert_eq!(dead(&filtered), (0..20).collect::<Vec<_>>());
    assert_eq!(filtered.progress.reached, Offset(20));
    let paused = filtered.progress.paused.expect("the breaker is open");
    assert_eq!(paused.retry_after, Some(Duration::from_secs(1)));
    assert!(paused.why.contains("probe@3") && paused.why.contains("offset 19"), "{}", paused.why);
    each.calls();
    let filtered = chain.filter(within(&sources, 20..1000)).await;
    assert_eq!((filtered.progress.reached, each.calls().len()), (Offset(20), 0), "open: nothing is called");
    assert_eq!(filtered.progress.paused.unwrap().retry_after, Some(Duration::from_secs(1)));
    clock.advance(Duration::from_secs(1));
    let filtered = chain.filter(within(&sources, 20..1000)).await;
    assert_eq!(each.calls(), [[20], [20], [20], [20]], "a probe is one event with its tries");
    assert_eq!((filtered.progress.reached, dead(&filtered)), (Offset(21), vec![20]));
    assert_eq!(filtered.progress.paused.unwrap().retry_after, Some(Duration::from_secs(2)));
}

#[tokio::test]
async fn a_probe_that_passes_closes_the_breaker_and_calls_grow_again() {
    let clock = TestClock::default();
    let each = Each::slow(
        clock.clone(),
        Duration::ZERO,
        |offset, _| if offset.0 < 20 { always() } else { Act::Keep },
    );
    let chain = Chain::new(vec![stage(each.clone(), OnError::Skip)], 7, clock.clock());
    let sources = [source(0, &[1000])];
    assert_eq!(chain.filter(everything(&sources)).await.progress.reached, Offset(20));
    clock.advance(Duration::from_secs(1));
    each.calls();
    let filtered = chain.filter(within(&sources, 20..1000)).await;
    assert_eq!(filtered.progress.reached, Offset(1000));
    assert_eq!(offsets(&filtered.passed), (20..1000).collect::<Vec<_>>());
    let sizes: Vec<_> = each.calls().iter().map(Vec::len).collect();
    assert_eq!(sizes[..5], [1, 2, 4, 8, 16]);
}

#[tokio::test]
async fn two_seconds_of_failing_calls_open_the_breaker_and_nothing_is_lost() {
    let clock = TestClock::default();
    let each = Each::slow(clock.clone(), Duration::from_millis(150), |offset, _| match offset.0 {
        100 | 300 => always(),
        _ => Act::Keep,
    });
    let chain = Chain::new(vec![stage(each, OnError::DeadLetter)], 7, clock.clock());
    let sources = [source(0, &[512])];
    let (mut from, mut seen, mut gone, mut pauses) = (0, Vec::new(), Vec::new(), 0);
    while from < 512 {
        let filtered = chain.filter(within(&sources, from..512)).await;
        seen.extend(offsets(&filtered.passed));
        gone.extend(dead(&filtered));
        from = filtered.progress.reached.0;
        if let Some(paused) = filtered.progress.paused {
            clock.advance(paused.retry_after.expect("a breaker probes"));
            pauses += 1;
        }
        assert!(pauses < 100, "the chain makes progress");
    }
    assert!(pauses > 0, "26 failing calls, charged 100 ms each, are over 2 s");
    assert_eq!(gone, [100, 300]);
    assert_eq!(seen, (0..512).filter(|offset| ![100, 300].contains(offset)).collect::<Vec<_>>());
}

#[tokio::test]
async fn resuming_forgets_the_breaker() {
    let clock = TestClock::default();
    let each = Each::slow(
        clock.clone(),
        Duration::ZERO,
        |offset, _| if offset.0 < 20 { always() } else { Act::Keep },
    );
    let chain = Chain::new(vec![stage(each.clone(), OnError::Skip)], 7, clock.clock());
    let sources = [source(0, &[1000])];
    chain.filter(everything(&sources)).await;
    chain.resume();
    each.calls();
    let filtered = chain.filter(within(&sources, 20..1000)).await;
    assert_eq!(filtered.progress.reached, Offset(1000));
    assert_eq!(each.calls()[0].len(), 512);
}

#[tokio::test]
async fn invalid_answers_fail_the_call() {
    let mut too_few = VerdictWriter::new();
    (0..9).for_each(|_| too_few.keep());
    let mut too_many = VerdictWriter::new();
    (0..3).for_each(|_| too_many.keep());
    let mut emits = VerdictWriter::new();
    emits.emit(&vec![Output::default(); CALL_OUTPUT_EVENTS_MAX + 1]);
    let expected = "the plugin's answer is invalid: ";
    for (answer, error) in [
        (too_few.finish(), "its verdicts cover more of the events than the 1 there are"),
        (too_many.finish(), "its verdicts cover more of the events than the 1 there are"),
        (vec![], "its verdicts cover 0 of the events, expected 1"),
        (vec![1, 0, 0, 0], "a verdict covers no event"),
        (vec![9, 0, 1, 0], "the plugin's answer is malformed: a verdict's kind is unknown"),
        (vec![1, 0, 1], "the plugin's answer is malformed: a verdict is cut off"),
        (vec![0; 5 * 1024 * 1024], "it is 5242880 bytes, the limit is 4194304"),
    ] {
        let chain = Chain::new(
            vec![stage(Arc::new(Says(answer)), OnError::DeadLetter)],
            7,
            TestClock::default().clock(),
        );
        let sources = [source(0, &[2])];
        let filtered = chain.filter(everything(&sources)).await;
        assert_eq!(dead(&filtered), [0, 1]);
        for dead_letter in &filtered.progress.dead_letters {
            assert_eq!(dead_letter.error, format!("{expected}{error}"));
        }
    }
    let stage = stage(Arc::new(Says(emits.finish())), OnError::DeadLetter);
    let chain = Chain::new(vec![stage], 7, TestClock::default().clock());
    let sources = [source(0, &[1])];
    let routed = chain.route(everything(&sources), &targets(&[("out", 1)]), &[]).await;
    assert_eq!(
        routed.progress.dead_letters[0].error,
        format!("{expected}it emits 10001 events or more, the limit is 10000")
    );
    assert!(routed.batches.is_empty());
}

#[tokio::test]
async fn an_output_over_a_limit_costs_its_event_alone() {
    let with_header = |name: String| Made { set: vec![(name, vec![])], ..Made::default() };
    let each = Each::new(move |offset, _| match offset.0 {
        0 => Act::Emit(vec![Made { key: Change::Set(vec![0; 4097]), ..Made::default() }]),
        1 => Act::Emit(vec![Made { key: Change::Set(vec![0; 4096]), ..Made::default() }]),
        2 => Act::Emit(vec![with_header("n".repeat(129))]),
        3 => Act::Emit(vec![with_header("n".repeat(128))]),
        4 => Act::Emit(vec![payload(vec![0; 1024 * 1024 - 21])]),
        5 => Act::Emit(vec![payload(vec![b'x'; 1024 * 1024 - 22])]),
        6 => Act::Emit(vec![Made { id: Some("i".repeat(129)), ..Made::default() }]),
        7 => Act::Emit(vec![Made { set: vec![("h".to_owned(), vec![0; 16 * 1024])], ..Made::default() }]),
        8 => Act::Emit(vec![Made {
            set: (0..65).map(|n| (format!("h{n}"), vec![])).collect(),
            ..Made::default()
        }]),
        _ => Act::Keep,
    });
    let sources = [source(0, &[10])];
    let filtered = chain([(each.clone(), OnError::DeadLetter)]).filter(everything(&sources)).await;
    assert_eq!(dead(&filtered), [0, 2, 4, 6, 7, 8]);
    assert_eq!(offsets(&filtered.passed), [1, 3, 5, 9]);
    assert_eq!(each.calls().len(), 1);
}

#[tokio::test]
async fn a_plugin_cannot_set_headers_of_the_engines_own_and_keeps_those_that_are_there() {
    let set = |headers: &[(&str, &str)]| {
        let set =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        Act::Emit(vec![Made { set, ..payload("x") }])
    };
    let each = Each::new(move |offset, _| match offset.0 {
        0 => set(&[("lv-dlq-reason", "made up")]),
        1 => set(&[("lv-dlq-reason", "rejected")]),
        2 => set(&[("lv-dlq-reason", "rejected"), ("lv-dlq-reason", "rejected")]),
        3 => set(&[("own", "1"), ("lv-x", "")]),
        4 => set(&[("own", "1")]),
        _ => Act::Emit(vec![Made { removed: vec!["lv-dlq-reason".to_owned()], ..payload("x") }]),
    });
    let dead_letter = |_| Event::new("x").with_header("lv-dlq-reason", "rejected");
    let sources = [source_of(0, &[6], dead_letter)];
    let filtered = chain([(each, OnError::DeadLetter)]).filter(everything(&sources)).await;
    assert_eq!(dead(&filtered), [0, 2, 3]);
    assert_eq!(offsets(&filtered.passed), [1, 4, 5]);
    let said = &filtered.progress.dead_letters[0];
    assert_eq!(said.reason, DeadReason::PluginError);
    assert!(said.error.contains("it set the header \"lv-dlq-reason\""), "{}", said.error);
}

#[tokio::test]
async fn a_broken_later_stage_costs_the_source_event_and_spares_the_others() {
    let mark = Each::new(|_, event| Act::Emit(vec![payload([event.payload().unwrap(), b"!"].concat())]));
    let second = Each::new(|offset, _| match offset.0 {
        40 => Act::Fail(CallError::Memory),
        41 => Act::Reject("no"),
        _ => Act::Keep,
    });
    let sources = [source(0, &[600])];
    let chain = chain([(mark, OnError::DeadLetter), (second, OnError::DeadLetter)]);
    let filtered = chain.filter(everything(&sources)).await;
    assert_eq!(dead(&filtered), [40, 41]);
    assert_eq!(
        filtered.progress.dead_letters[0].event,
        Event::new("40").at(Timestamp(0)),
        "the source event, not what was made of it"
    );
    assert_eq!(filtered.passed.iter().map(|passed| passed.events).sum::<u32>(), 598);
}

#[tokio::test]
async fn time_in_which_others_had_their_turn_is_not_wasted() {
    let clock = TestClock::default();
    let waits = clock.clone();
    let each = Each::slow(TestClock::default(), Duration::from_millis(1), move |offset, _| {
        // As long as ten others with calls of 100 ms.
        waits.advance(Duration::from_secs(1));
        if offset.0 == 3 { Act::Fail(CallError::Trap("boom".into())) } else { Act::Keep }
    });
    let chain = Chain::new(vec![stage(each, OnError::Skip)], 7, clock.clock());
    let sources = [source(0, &[8])];
    let filtered = chain.filter(everything(&sources)).await;
    assert_eq!(offsets(&filtered.passed), [0, 1, 2, 4, 5, 6, 7]);
    assert!(filtered.progress.paused.is_none(), "{:?}", filtered.progress.paused);
}
