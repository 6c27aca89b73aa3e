//! Compaction against a simple model, with purges, crashes and subscriptions that come and go.

use std::collections::BTreeMap;

use levada_broker::Principal;
use levada_protocol::request::{Position, PurgeTopic, Request, Response, Start, SubscriptionOptions};
use proptest::{collection::vec, option, prelude::*};

use super::{
    consumed,
    scene::{DAY, MINUTE, Scene, Seen, compacted},
};

#[derive(Debug, Clone)]
enum Step {
    /// Keys, each with a payload or none.
    Publish(Vec<(u8, Option<u8>)>),
    Later(u64),
    Pass,
    /// A pass that ends once so many records became part of others, and a crash.
    Cut(usize),
    Crash,
    /// What is before about so much of the log goes.
    Purge(f64),
    /// The subscription begins anew behind so much of the log.
    Subscribe(f64),
    Unsubscribe,
}

fn step() -> impl Strategy<Value = Step> {
    let events = vec((0..6_u8, option::weighted(0.8, 0..100_u8)), 1..5);
    prop_oneof![
        12 => events.prop_map(Step::Publish),
        6 => prop_oneof![Just(MINUTE), Just(10 * MINUTE), Just(10 * MINUTE), Just(DAY)].prop_map(Step::Later),
        6 => Just(Step::Pass),
        2 => (0..8_usize).prop_map(Step::Cut),
        1 => Just(Step::Crash),
        1 => (0.0..0.6_f64).prop_map(Step::Purge),
        2 => (0.0..=1.0_f64).prop_map(Step::Subscribe),
        1 => Just(Step::Unsubscribe),
    ]
}

/// An event that was published.
#[derive(Debug, Clone)]
struct Published {
    key: String,
    payload: Option<String>,
    /// A pass may have taken it.
    may_be_gone: bool,
}

#[derive(Default)]
struct Model {
    log: Vec<Published>,
    start: usize,
    /// How far each pass came at most, and when it ended.
    passes: Vec<(usize, u64)>,
    /// The first offset that the subscription is to have.
    floor: Option<usize>,
}

impl Model {
    fn at(&self, share: f64) -> u64 {
        let range = self.log.len() - self.start;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "few events"
        )]
        let offset = (range as f64 * share) as usize;
        (self.start + offset) as u64
    }

    /// A pass may take what is superseded before the subscription's floor, and tombstones to which a pass had come that ended
    /// a day ago.
    fn pass(&mut self, now: u64) {
        let end = self.floor.unwrap_or(usize::MAX).min(self.log.len());
        let old = self.passes.iter().filter(|(_, ended)| now - ended >= DAY);
        let tombstones_until = old.map(|(until, _)| *until).max().unwrap_or(0);
        self.passes.push((end, now));
        let mut last: BTreeMap<String, usize> = BTreeMap::new();
        for (offset, event) in self.log[..end].iter().enumerate() {
            last.insert(event.key.clone(), offset);
        }
        for offset in 0..end {
            let event = &mut self.log[offset];
            let expired = event.payload.is_none() && offset < tombstones_until;
            event.may_be_gone |= last[&event.key] > offset || expired;
        }
    }

    /// What is read is what was published, in order, and all that nothing may have taken is among it.
    fn check(&self, seen: &[Seen]) {
        let mut seen = seen.iter().peekable();
        for (offset, event) in self.log.iter().enumerate().skip(self.start) {
            let found = seen.next_if(|(at, ..)| *at == offset as u64);
            match found {
                Some((_, key, payload)) => {
                    assert_eq!((key.as_ref(), payload), (Some(&event.key), &event.payload), "{offset}");
                }
                None => assert!(event.may_be_gone, "{offset} is gone: {event:?}"),
            }
        }
        assert_eq!(seen.next(), None, "nothing else is there");
    }
}

async fn unsubscribe(scene: &Scene) {
    let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
    let request = Request::DeleteSubscription { topic, name, force: true, with_dead_letters: false };
    scene.engine.ask(request).await;
}

async fn take(scene: Scene, model: &mut Model, step: Step) -> Scene {
    match step {
        Step::Publish(events) => {
            let events: Vec<_> = events
                .into_iter()
                .map(|(key, payload)| (format!("k{key}"), payload.map(|it| "x".repeat(usize::from(it)))))
                .collect();
            let borrowed: Vec<_> = events.iter().map(|(key, it)| (key.as_str(), it.as_deref())).collect();
            scene.publish(&borrowed).await;
            let published = |(key, payload)| Published { key, payload, may_be_gone: false };
            model.log.extend(events.into_iter().map(published));
        }
        Step::Later(by) => scene.later(by),
        Step::Pass => {
            scene.pass().await;
            model.pass(scene.now());
            model.check(&scene.read_log().await);
        }
        Step::Cut(records) => {
            scene.cut_pass(records).await;
            model.pass(scene.now());
            model.check(&scene.read_log().await);
            return scene.restart().await;
        }
        Step::Crash => return scene.restart().await,
        Step::Purge(share) => {
            let until = vec![Position { partition: 0, offset: model.at(share) }];
            let purge = PurgeTopic { topic: "orders".parse().unwrap(), until, before_ms: None, force: true };
            let request = Request::PurgeTopic(purge);
            let purged = scene.engine.broker.request(&Principal::Local, request, None).await.unwrap();
            let Response::TopicPurged(purged) = purged else { panic!("{purged:?}") };
            model.start = usize::try_from(purged.positions[0].offset).unwrap();
            model.floor = model.floor.map(|floor| floor.max(model.start));
        }
        Step::Subscribe(share) => {
            let from = model.at(share);
            scene.subscription(Start::Offset(from)).await;
            model.floor = Some(usize::try_from(from).unwrap());
        }
        Step::Unsubscribe => {
            if model.floor.take().is_some() {
                unsubscribe(&scene).await;
            }
        }
    }
    scene
}

/// What the subscription is delivered is what is read from its floor on. Then all is acknowledged: one pass takes everything
/// but the last event of each key, and another, a day later, what is a tombstone.
async fn end(scene: &Scene, model: &mut Model) {
    model.check(&scene.read_log().await);
    let end = model.log.len() as u64;
    if let Some(floor) = model.floor.take()
        && scene.partition().await.end > 0
    {
        let delivered = consumed(scene, SubscriptionOptions::default(), end).await;
        let expected: Vec<u64> =
            scene.offsets().await.into_iter().filter(|offset| *offset >= floor as u64).collect();
        assert_eq!(delivered, expected);
        unsubscribe(scene).await;
    }
    // So much that it is worth a pass.
    scene.later(10 * MINUTE);
    let much = "x".repeat(100_000);
    scene.publish(&[("much", Some(&much))]).await;
    scene.later(10 * MINUTE);
    scene.publish(&[("open", Some("1"))]).await;
    let more = [("much", much.as_str()), ("open", "1")];
    let more = more.map(|(key, payload)| (key.to_owned(), Some(payload.to_owned())));
    model.log.extend(more.map(|(key, payload)| Published { key, payload, may_be_gone: false }));
    scene.pass().await;
    model.pass(scene.now());
    let seen = scene.read_log().await;
    model.check(&seen);
    let is_last = |offset: &usize| {
        let key = &model.log[*offset].key;
        model.log[offset + 1..].iter().all(|it| it.key != *key)
    };
    let all = model.start..model.log.len();
    for (offset, ..) in seen {
        assert!(is_last(&usize::try_from(offset).unwrap()), "{offset} is superseded");
    }
    scene.later(DAY);
    scene.pass().await;
    let stays = |offset: &usize| is_last(offset) && model.log[*offset].payload.is_some();
    let expected: Vec<u64> = all.filter(stays).map(|it| it as u64).collect();
    assert_eq!(scene.offsets().await, expected, "the last event of each key");
    assert_eq!(scene.partition().await.bytes, scene.bytes_stored());
    scene.until_reclaimed().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_but_what_is_superseded_or_deleted(
        steps in vec(step(), 1..40), step_bytes in prop_oneof![Just(1_usize), Just(300), Just(512 << 10)],
        keys_max in prop_oneof![3 => Just(1_000_000_usize), 1 => 1..4_usize],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut scene = Scene::configured(compacted(), |config| {
                (config.step_bytes, config.keys_max) = (step_bytes, keys_max);
            })
            .await;
            let mut model = Model::default();
            for step in steps {
                scene = take(scene, &mut model, step).await;
            }
            if keys_max == 1_000_000 {
                end(&scene, &mut model).await;
            }
            scene.engine.broker.shutdown().await;
        });
    }
}
