//! The chain of a route.

use levada_protocol::{
    event::Event,
    limits::{EVENT_BYTES_MAX, HEADERS_MAX, HOPS_MAX},
    partition::partition_of,
};

use super::{
    super::{DeadReason, Routed},
    *,
};

/// Target, partition, hops and payload of every event, in the order of the result.
fn outputs(routed: &Routed) -> Vec<(usize, u16, u8, String)> {
    let mut all = Vec::new();
    for batch in &routed.batches {
        assert!(!batch.batch.header().is_selection());
        assert_eq!(batch.batch.header().producer_id, 0);
        for event in batch.batch.events() {
            let text = String::from_utf8(event.payload().unwrap().to_vec()).unwrap();
            all.push((batch.target, batch.partition.0, batch.hops, text));
        }
    }
    all
}

fn dead(routed: &Routed) -> Vec<u64> {
    routed.progress.dead_letters.iter().map(|dead_letter| dead_letter.offset.0).collect()
}

#[tokio::test]
async fn kept_events_go_whole_to_the_first_target() {
    let event = |offset: u64| Event {
        id: Some(format!("id{offset}").into()),
        key: Some("k".into()),
        ..Event::new(offset.to_string()).with_header("h", "v").at(Timestamp(offset))
    };
    let sources = [source_of(0, &[700], event)];
    let each = Each::new(|offset, _| if offset.0 == 5 { Act::Drop } else { Act::Keep });
    let routed = chain([(each, OnError::DeadLetter)])
        .route(everything(&sources), &targets(&[("a", 1), ("b", 1)]), &[])
        .await;
    let found: Vec<_> = routed
        .batches
        .iter()
        .flat_map(|batch| batch.batch.events().map(|found| found.to_event(&batch.batch)).collect::<Vec<_>>())
        .collect();
    assert_eq!(found, (0..700).filter(|offset| *offset != 5).map(event).collect::<Vec<_>>());
    assert!(routed.batches.iter().all(|batch| (batch.target, batch.hops) == (0, 1)));
    assert!(routed.batches.iter().all(|batch| batch.batch.bytes().len() <= 64 * 1024));
    assert_eq!(routed.progress.reached, Offset(700));
}

#[tokio::test]
async fn dead_letters_of_the_largest_events_pass_a_route_kept_or_changed() {
    let dead_letter = |offset: u64| {
        let own = (0..HEADERS_MAX).map(|n| (format!("h{n}"), Bytes::new()));
        let engines = (0..10).map(|n| (format!("lv-dlq-{n}"), Bytes::from(vec![b'x'; 300])));
        let headers: Vec<_> = own.chain(engines).collect();
        let own_bytes: usize = headers.iter().take(HEADERS_MAX).map(|(name, _)| 3 + name.len()).sum();
        let rest = EVENT_BYTES_MAX - 22 - own_bytes - offset as usize;
        Event { headers, ..Event::new(vec![b'p'; rest]).at(Timestamp(0)) }
    };
    let each = Each::new(|offset, event| match offset.0 {
        0 => Act::Keep,
        _ => Act::Emit(vec![payload(event.payload().unwrap())]),
    });
    let sources = [source_of(0, &[1, 1], dead_letter)];
    let chain = chain([(each, OnError::DeadLetter)]);
    for offset in 0..2 {
        let routed = chain.route(within(&sources, offset..offset + 1), &targets(&[("a", 1)]), &[]).await;
        assert_eq!(dead(&routed), [0; 0]);
        let batch = &routed.batches[0].batch;
        let found = batch.events().next().unwrap().to_event(batch);
        assert_eq!(found.headers, dead_letter(offset).headers);
        assert!(found == dead_letter(offset), "it is as it was");
    }
}

#[tokio::test]
async fn outputs_choose_declared_targets_and_partitions_follow_key_id_or_source() {
    let each = Each::new(|offset, event| match offset.0 {
        0 => Act::Emit(vec![payload("first"), payload("second").to("b")]),
        1 => Act::Emit(vec![Made { key: Change::Set(b"other".to_vec()), ..payload("keyed").to("b") }]),
        2 => {
            Act::Emit(vec![Made { key: Change::Remove, id: Some("me".to_owned()), ..payload("id").to("b") }])
        }
        3 => Act::Emit(vec![Made { key: Change::Remove, ..payload("plain").to("b") }]),
        _ => {
            assert_eq!(event.id(), Some("i"));
            Act::Keep
        }
    });
    let event = |offset: u64| Event {
        key: (offset < 4).then(|| "k".into()),
        id: Some("i".into()),
        ..Event::new("kept")
    };
    let sources = [source_of(0, &[5], event)];
    let routed = chain([(each, OnError::DeadLetter)])
        .route(everything(&sources), &targets(&[("a", 4), ("b", 16)]), &[])
        .await;
    let at = |bytes: &str, partitions| partition_of(bytes.as_bytes(), partitions).0;
    let mut expected = vec![
        (0, at("k", 4), 1, "first".to_owned()),
        (0, at("i", 4), 1, "kept".to_owned()),
        (1, at("k", 16), 1, "second".to_owned()),
        (1, at("other", 16), 1, "keyed".to_owned()),
        (1, at("me", 16), 1, "id".to_owned()),
        (1, 5, 1, "plain".to_owned()),
    ];
    let mut found = outputs(&routed);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn one_event_may_become_many_in_order() {
    let split = Each::new(|_, event| {
        let text = String::from_utf8(event.payload().unwrap().to_vec()).unwrap();
        Act::Emit(vec![payload(format!("{text}a")), payload(format!("{text}b"))])
    });
    let sources = [source(0, &[900])];
    let chain = chain([(split.clone(), OnError::DeadLetter), (split, OnError::DeadLetter)]);
    let routed = chain.route(everything(&sources), &targets(&[("out", 1)]), &[]).await;
    let expected: Vec<_> =
        (0..900).flat_map(|n| ["aa", "ab", "ba", "bb"].map(|end| (0, 0, 1, format!("{n}{end}")))).collect();
    assert_eq!(outputs(&routed), expected);
}

#[tokio::test]
async fn an_undeclared_target_or_one_chosen_early_costs_the_whole_event() {
    let choose = || {
        Each::new(|offset, _| match offset.0 {
            1 => Act::Emit(vec![payload("good"), payload("bad").to("nowhere")]),
            _ => Act::Keep,
        })
    };
    let sources = [source(0, &[3])];
    for stages in [vec![choose()], vec![choose(), Each::new(|_, _| Act::Keep)]] {
        let is_last = stages.len() == 1;
        let chain = chain(stages.into_iter().map(|each| (each, OnError::DeadLetter)));
        let routed = chain.route(everything(&sources), &targets(&[("out", 1)]), &[]).await;
        assert_eq!(outputs(&routed).len(), 2, "the good output of the failing event is withheld too");
        assert_eq!(dead(&routed), [1]);
        let error = &routed.progress.dead_letters[0].error;
        assert_eq!(error.contains("which the route does not declare"), is_last, "{error}");
    }
}

#[tokio::test]
async fn a_dead_letter_withholds_everything_made_of_its_source() {
    let split = Each::new(|_, event| {
        let text = event.payload().unwrap();
        Act::Emit(vec![payload([text, b"a"].concat()), payload([text, b"b"].concat())])
    });
    let second = Each::new(|_, event| match event.payload().unwrap() {
        b"1b" => Act::Reject("no"),
        b"3a" => Act::Fail(CallError::Stack),
        _ => Act::Keep,
    });
    let sources = [source(0, &[5])];
    let chain = chain([(split, OnError::DeadLetter), (second, OnError::DeadLetter)]);
    let routed = chain.route(everything(&sources), &targets(&[("out", 1)]), &[]).await;
    let texts: Vec<_> = outputs(&routed).into_iter().map(|output| output.3).collect();
    assert_eq!(texts, ["0a", "0b", "2a", "2b", "4a", "4b"]);
    assert_eq!(dead(&routed), [1, 3]);
    assert_eq!(routed.progress.dead_letters[1].event, Event::new("3").at(Timestamp(0)));
}

#[tokio::test]
async fn a_pause_withholds_earlier_siblings_of_the_failing_event() {
    let split = Each::new(|_, event| {
        let text = event.payload().unwrap();
        Act::Emit(vec![payload([text, b"a"].concat()), payload([text, b"b"].concat())])
    });
    let second =
        Each::new(|_, event| if event.payload() == Some(b"2b") { Act::Reject("no") } else { Act::Keep });
    let sources = [source(0, &[5])];
    let chain = chain([(split, OnError::DeadLetter), (second, OnError::Pause)]);
    let routed = chain.route(everything(&sources), &targets(&[("out", 1)]), &[]).await;
    let texts: Vec<_> = outputs(&routed).into_iter().map(|output| output.3).collect();
    assert_eq!(texts, ["0a", "0b", "1a", "1b"]);
    assert_eq!(routed.progress.reached, Offset(2));
    assert!(routed.progress.paused.is_some());
}

#[tokio::test]
async fn hops_rise_split_batches_and_end_in_a_dead_letter() {
    let mut sources = vec![source(0, &[2]), source(2, &[2]), source(4, &[2])];
    for (source, hops) in sources.iter_mut().zip([0, HOPS_MAX - 1, HOPS_MAX]) {
        *source = checked(Run { hops, ..source.run().clone() });
    }
    let drop_last = Each::new(|offset, _| match offset.0 {
        5 => Act::Drop,
        3 | 4 => Act::Emit(vec![Made::default()]),
        _ => Act::Keep,
    });
    for (stages, looped) in [(vec![drop_last], vec![4]), (vec![], vec![4, 5])] {
        let chain = chain(stages.into_iter().map(|each| (each, OnError::Pass)));
        let routed = chain.route(everything(&sources), &targets(&[("out", 1)]), &[]).await;
        let hops: Vec<_> = routed.batches.iter().map(|batch| (batch.hops, batch.batch.count())).collect();
        assert_eq!(hops, [(1, 2), (HOPS_MAX, 2)]);
        assert_eq!(dead(&routed), looped);
        let dead_letter = &routed.progress.dead_letters[0];
        assert_eq!((dead_letter.reason, dead_letter.plugin.as_deref()), (DeadReason::Loop, None));
        assert_eq!(routed.progress.paused, None);
    }
}

#[tokio::test]
async fn a_result_is_bounded_and_later_runs_give_the_rest() {
    let many = Each::new(|offset, _| Act::Emit((0..30).map(|n| payload(format!("{offset}.{n}"))).collect()));
    let sources = [source(0, &[3000])];
    let chain = chain([(many, OnError::DeadLetter)]);
    let (mut from, mut texts, mut runs) = (0, Vec::new(), 0);
    while from < 3000 {
        let routed = chain.route(within(&sources, from..3000), &targets(&[("out", 1)]), &[]).await;
        let found = outputs(&routed);
        assert!(found.len() <= 25_000, "{} events at once", found.len());
        texts.extend(found.into_iter().map(|output| output.3));
        from = routed.progress.reached.0;
        runs += 1;
    }
    assert!(runs > 1);
    assert_eq!(texts, (0..3000).flat_map(|at| (0..30).map(move |n| format!("{at}.{n}"))).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_event_that_grows_without_end_over_several_stages_fails() {
    let grow = || {
        Each::new(|offset, _| match offset.0 {
            1 => Act::Emit((0..100).map(|_| payload(vec![b'x'; 9_000])).collect()),
            _ => Act::Keep,
        })
    };
    let sources = [source(0, &[3])];
    let chain = chain([(grow(), OnError::DeadLetter), (grow(), OnError::DeadLetter)]);
    let (mut from, mut texts, mut gone) = (0, Vec::new(), Vec::new());
    while from < 3 {
        let routed = chain.route(within(&sources, from..3), &targets(&[("out", 1)]), &[]).await;
        texts.extend(outputs(&routed).into_iter().map(|output| output.3));
        gone.extend(dead(&routed));
        assert!(routed.progress.reached.0 > from);
        from = routed.progress.reached.0;
    }
    assert_eq!((texts, gone), (vec!["0".to_owned(), "2".to_owned()], vec![1]));
}
