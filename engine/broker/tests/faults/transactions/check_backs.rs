//! Groups are asked about what nobody decided.

use super::*;

/// The next question, or nothing if there is none.
fn asked(member: &mut levada_broker::GroupMember) -> Option<CheckBack> {
    member.checks.try_recv().ok()
}

#[tokio::test]
async fn a_group_is_asked_after_its_time_again_and_again_and_then_a_person_decides() {
    let scene = Scene::new().await;
    let prepare = Some(Prepare { check_after_ms: 10_000 });
    scene.send("1", &[part(0, &["a"])], prepare).await.unwrap();
    let ask = async |scene: &Scene| scene.engine.broker.check_transactions().await.unwrap();
    let mut member = scene.engine.broker.join_group(&Principal::Local, group()).unwrap();
    let mut other = scene.engine.broker.join_group(&Principal::Local, "zoo".parse().unwrap()).unwrap();
    scene.at(9_999);
    ask(&scene).await;
    assert_eq!(asked(&mut member), None);
    let mut time = 10_000;
    for check in 1..=15 {
        scene.at(time);
        // It asks by itself, too.
        ask(&scene).await;
        let question = timeout(SOON, member.next()).await.unwrap().unwrap();
        let expected = CheckBack { id: "1".parse().unwrap(), prepared_ms: NOW, check, checks_max: 15 };
        assert_eq!(question, expected);
        ask(&scene).await;
        assert_eq!(asked(&mut member), None, "once at a time");
        time += 30_000;
    }
    let parked = scene.describe("1").await.unwrap();
    assert_eq!((parked.state, parked.checks, parked.next_check_ms), (TransactionState::Parked, 15, None));
    scene.at(time * 100);
    ask(&scene).await;
    assert_eq!((asked(&mut member), asked(&mut other)), (None, None));
    drop((member, other));
    let scene = scene.restart(0).await;
    assert_eq!(scene.describe("1").await.unwrap(), parked);
    scene.decide("1", true).await.unwrap();
    assert_eq!(scene.log("orders").await, ["a"]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn nobody_is_asked_while_no_member_is_there_and_that_counts_nothing() {
    let scene = Scene::new().await;
    scene.prepare("1", &[part(0, &["a"])]).await.unwrap();
    scene.at(1_000_000);
    assert_eq!(scene.engine.broker.check_transactions().await.unwrap(), 0);
    assert_eq!(scene.describe("1").await.unwrap().checks, 0);
    let scene = scene.restart(0).await;
    let mut member = scene.engine.broker.join_group(&Principal::Local, group()).unwrap();
    let question = timeout(SOON, member.next()).await.unwrap().unwrap();
    assert_eq!((question.id.as_str(), question.check), ("1", 1));
    let waiting = scene.describe("1").await.unwrap();
    assert_eq!((waiting.checks, waiting.next_check_ms), (1, Some(NOW + 1_030_000)));
    scene.decide("1", false).await.unwrap();
    scene.at(2_000_000);
    scene.engine.broker.check_transactions().await.unwrap();
    assert_eq!(asked(&mut member), None, "it is decided");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn members_are_asked_in_turn_and_one_that_takes_nothing_is_passed_over() {
    let scene = Scene::new().await;
    let join = || scene.engine.broker.join_group(&Principal::Local, group()).unwrap();
    let (mut one, two) = (join(), join());
    for id in 0..300 {
        scene.prepare(&id.to_string(), &[part(0, &["a"])]).await.unwrap();
    }
    scene.at(6_000);
    let mut seen = 0;
    // The second one takes as many as wait for it, and no more.
    let all = async {
        while seen < 300 - two.checks.max_capacity() {
            let question = one.next().await.unwrap();
            scene.decide(question.id.as_str(), false).await.unwrap();
            seen += 1;
        }
    };
    timeout(SOON, all).await.expect("one member gets what the other does not take");
    assert_eq!(two.checks.len(), two.checks.max_capacity());
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_group_that_answers_slowly_is_not_asked_about_everything_at_once() {
    let scene = Scene::new().await;
    for id in 0..200 {
        scene.prepare(&id.to_string(), &[part(0, &["a"])]).await.unwrap();
    }
    let mut member = scene.engine.broker.join_group(&Principal::Local, group()).unwrap();
    let most = member.checks.max_capacity();
    scene.at(6_000);
    let mut questions = Vec::new();
    for _ in 0..most {
        questions.push(timeout(SOON, member.next()).await.unwrap().unwrap());
    }
    for _ in 0..3 {
        scene.engine.broker.check_transactions().await.unwrap();
    }
    assert_eq!(asked(&mut member), None, "{most} wait for their answers");
    scene.decide(questions[7].id.as_str(), true).await.unwrap();
    let next = timeout(SOON, member.next()).await.unwrap().unwrap();
    assert_eq!(next.check, 1, "one that was not asked about before");
    assert!(questions.iter().all(|question| question.id != next.id));
    scene.engine.broker.shutdown().await;
    assert_eq!(member.next().await, None, "the engine ended");
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_silence_the_checks() {
    let scene = Scene::new().await;
    scene.at(400 * 24 * 3_600_000);
    scene.prepare("1", &[part(0, &["a"])]).await.unwrap();
    scene.at(0);
    let mut member = scene.engine.broker.join_group(&Principal::Local, group()).unwrap();
    let question = timeout(SOON, member.next()).await.unwrap().unwrap();
    assert_eq!((question.id.as_str(), question.check), ("1", 1));
    assert_eq!(scene.describe("1").await.unwrap().next_check_ms, Some(NOW + 30_000));
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_clock_that_jumps_an_hour_ahead_asks_once_and_parks_nothing() {
    let scene = Scene::new().await;
    scene.prepare("1", &[part(0, &["a"])]).await.unwrap();
    let after = 3_600_000;
    scene.at(after);
    let mut member = scene.engine.broker.join_group(&Principal::Local, group()).unwrap();
    let question = timeout(SOON, member.next()).await.unwrap().unwrap();
    assert_eq!((question.id.as_str(), question.check), ("1", 1));
    for waited in [0, 29_999] {
        scene.at(after + waited);
        scene.engine.broker.check_transactions().await.unwrap();
        assert_eq!(asked(&mut member), None, "once for all the checks of that hour");
        let info = scene.describe("1").await.unwrap();
        let next = Some(NOW + after + 30_000);
        assert_eq!((info.state, info.checks, info.next_check_ms), (TransactionState::Prepared, 1, next));
    }
    scene.at(after + 30_000);
    scene.engine.broker.check_transactions().await.unwrap();
    assert_eq!(timeout(SOON, member.next()).await.unwrap().unwrap().check, 2);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn those_that_are_asked_about_and_those_that_a_person_decides_are_counted_apart() {
    let scene = Scene::new().await;
    let counted = async || {
        let engine = &scene.engine;
        let prepared = engine.metric("levada_prepared_transactions").await;
        let parked = engine.metric("levada_parked_transactions").await;
        (prepared[""], parked[""])
    };
    assert_eq!(counted().await, (0.0, 0.0));
    scene.prepare("parked", &[part(0, &["a"])]).await.unwrap();
    let mut member = scene.engine.broker.join_group(&Principal::Local, group()).unwrap();
    for check in 1..=15 {
        scene.at(check * 30_000);
        scene.engine.broker.check_transactions().await.unwrap();
        timeout(SOON, member.next()).await.unwrap().unwrap();
    }
    drop(member);
    for id in ["1", "2", "3"] {
        scene.prepare(id, &[part(0, &["a"])]).await.unwrap();
    }
    assert_eq!(counted().await, (3.0, 1.0));
    scene.decide("parked", false).await.unwrap();
    scene.decide("1", true).await.unwrap();
    assert_eq!(counted().await, (2.0, 0.0));
    scene.engine.broker.shutdown().await;
}
