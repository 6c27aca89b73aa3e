//! Transactions against a simple model, with crashes.

use super::*;

/// What can happen to transactions.
#[derive(Debug, Clone)]
enum Step {
    Commit {
        id: u8,
        events: [u8; 2],
    },
    Prepare {
        id: u8,
        events: [u8; 2],
    },
    Decide {
        id: u8,
        commit: bool,
    },
    Crash,
    /// A decision or a transaction is under way when it crashes: it is not durable.
    CrashBeforeSync {
        id: u8,
        decide: Option<bool>,
    },
    Later,
}

fn step() -> impl Strategy<Value = Step> {
    let events = || [0..3_u8, 0..3_u8];
    prop_oneof![
        3 => (0..6_u8, events()).prop_map(|(id, events)| Step::Commit { id, events }),
        4 => (0..6_u8, events()).prop_map(|(id, events)| Step::Prepare { id, events }),
        6 => (0..6_u8, any::<bool>()).prop_map(|(id, commit)| Step::Decide { id, commit }),
        1 => Just(Step::Crash),
        1 => (0..6_u8, proptest::option::of(any::<bool>()))
            .prop_map(|(id, decide)| Step::CrashBeforeSync { id, decide }),
        1 => Just(Step::Later),
    ]
}

/// What the model knows of a transaction.
#[derive(Debug, Clone)]
struct Known {
    parts: Vec<(usize, Vec<String>)>,
    prepared: bool,
    decided: Option<(bool, u64)>,
}

#[derive(Default)]
struct Model {
    known: BTreeMap<u8, Known>,
    logs: [Vec<String>; 2],
    now: u64,
}

impl Model {
    fn append(&mut self, id: u8) {
        for (topic, events) in self.known[&id].parts.clone() {
            self.logs[topic].extend(events);
        }
    }

    /// What a transaction is answered with: a code, or whether it is a repeat.
    fn transact(
        &mut self,
        id: u8,
        parts: Vec<(usize, Vec<String>)>,
        prepared: bool,
    ) -> Result<bool, ErrorCode> {
        if parts.is_empty() {
            return Err(ErrorCode::InvalidArgument);
        }
        if let Some(known) = self.known.get(&id) {
            let is_same = known.parts == parts && known.prepared == prepared;
            return if is_same { Ok(true) } else { Err(ErrorCode::TransactionExists) };
        }
        let decided = (!prepared).then_some((true, self.now));
        self.known.insert(id, Known { parts, prepared, decided });
        if !prepared {
            self.append(id);
        }
        Ok(false)
    }

    fn decide(&mut self, id: u8, commit: bool) -> Result<bool, ErrorCode> {
        let now = self.now;
        let known = self.known.get_mut(&id).ok_or(ErrorCode::TransactionNotFound)?;
        match known.decided {
            Some((was, _)) if was == commit => Ok(true),
            Some(_) => Err(ErrorCode::AlreadyDecided),
            None => {
                known.decided = Some((commit, now));
                if commit {
                    self.append(id);
                }
                Ok(false)
            }
        }
    }

    /// So much later, after a round of retention.
    fn later(&mut self, by: u64) {
        self.now += by;
        let now = self.now;
        self.known.retain(|_, known| {
            let kept = if known.prepared { DECISION_REMEMBERED_MS } else { TRANSACTION_REMEMBERED_MS };
            known.decided.is_none_or(|(_, at)| at + kept > now)
        });
    }
}

fn parts_of(id: u8, events: [u8; 2]) -> Vec<(usize, Vec<String>)> {
    let of = |(topic, count): (usize, u8)| {
        let events = (0..count).map(|event| format!("{id}.{topic}.{event}")).collect::<Vec<_>>();
        (topic, events)
    };
    events.into_iter().enumerate().map(of).filter(|(_, events)| !events.is_empty()).collect()
}

/// Crashes while something about a transaction is under way: nothing of it may be left. What needs no commit is answered.
async fn crash_before(scene: Scene, id: u8, decide: Option<bool>) -> Scene {
    let broker = scene.engine.broker.clone();
    let step = async move {
        if let Some(commit) = decide {
            let decide = DecideTransaction { group: group(), id: id.to_string().parse().unwrap(), commit };
            drop(broker.request(&Principal::Local, Request::DecideTransaction(decide), None).await);
        } else {
            let (asked, batches) = transact(&id.to_string(), &[part(0, &["never"])], None);
            drop(broker.transact(&Principal::Local, asked, batches).await);
        }
    };
    scene.engine.store.hold(true);
    {
        let mut step = std::pin::pin!(step);
        tokio::select! {
            () = &mut step => {}
            () = scene.engine.store.entered.notified() => {}
        }
    }
    scene.engine.store.inner.crash();
    scene.engine.store.hold(false);
    scene.restart(0).await
}

async fn agrees_with_the_model(steps: Vec<Step>) {
    let (mut scene, mut model) = (Scene::new().await, Model::default());
    for step in steps {
        let told = |result: Result<TransactionInfo, Error>| {
            result.map(|info| info.repeat).map_err(|error| error.code())
        };
        match step {
            Step::Commit { id, events } | Step::Prepare { id, events } => {
                let prepared = matches!(step, Step::Prepare { .. });
                let parts = parts_of(id, events);
                let sent: Vec<Part> = parts
                    .iter()
                    .map(|(topic, events)| {
                        part(*topic, &events.iter().map(String::as_str).collect::<Vec<_>>())
                    })
                    .collect();
                let answer = scene.send(&id.to_string(), &sent, prepared.then(Prepare::default)).await;
                assert_eq!(told(answer), model.transact(id, parts, prepared), "{step:?}");
            }
            Step::Decide { id, commit } => {
                let answer = scene.decide(&id.to_string(), commit).await;
                assert_eq!(told(answer), model.decide(id, commit), "{step:?}");
            }
            Step::Crash => scene = scene.restart(0).await,
            Step::CrashBeforeSync { id, decide } => scene = Box::pin(crash_before(scene, id, decide)).await,
            Step::Later => {
                model.later(TRANSACTION_REMEMBERED_MS);
                scene.at(model.now);
                scene.engine.broker.run_retention_at(Timestamp(NOW + model.now)).await.unwrap();
            }
        }
        assert_eq!(scene.logs().await, model.logs, "{step:?}");
    }
    let undecided = model.known.iter().filter(|(_, known)| known.decided.is_none());
    let undecided: Vec<String> = undecided.map(|(id, _)| id.to_string()).collect();
    assert_eq!(scene.list(ListTransactions::default()).await.0, undecided);
    scene.engine.broker.shutdown().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn transactions_agree_with_a_model_through_crashes(steps in vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(agrees_with_the_model(steps));
    }
}
