//! Configurations that are tried before anything is stored.

use bytes::Bytes;
use levada_broker::Principal;
use levada_protocol::{
    error::ErrorCode,
    limits::INSTANCE_MEMORY_BYTES_MAX,
    request::{Request, StageSpec, Start, SubscriptionOptions, TopicSettings},
};
use tokio::{task::JoinSet, time::timeout};

use crate::support::{Engine, SOON, STATEFUL, TRIED};

fn subscription(name: &str, stage: StageSpec) -> Request {
    let options = SubscriptionOptions {
        chain: Some(vec![StageSpec { plugin: "keep".into(), ..stage }]),
        ..SubscriptionOptions::default()
    };
    Request::CreateSubscription {
        topic: "orders".parse().unwrap(),
        name: name.parse().unwrap(),
        options,
        from: Start::Earliest,
    }
}

async fn with_plugin() -> Engine {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let deploy = Request::DeployPlugin { name: "keep".parse().unwrap(), size: 3, config: None };
    engine.broker.request(&Principal::Local, deploy, Some(Bytes::from_static(b"one"))).await.unwrap();
    engine
}

#[tokio::test]
async fn nothing_waits_for_a_configuration_that_is_tried() {
    let engine = with_plugin().await;
    let deploy = Request::DeployPlugin { name: "slow".parse().unwrap(), size: 4, config: Some(TRIED.into()) };
    let tried = StageSpec { config: TRIED.into(), ..StageSpec::default() };
    let mut trials = JoinSet::new();
    for (request, artefact) in [
        (deploy, Some(Bytes::from_static(b"slow"))),
        (subscription("one", tried.clone()), None),
        (subscription("two", tried), None),
    ] {
        let broker = engine.broker.clone();
        trials.spawn(async move { broker.request(&Principal::Local, request, artefact).await });
    }
    while engine.plugins.trials.lock().unwrap().len() < 3 {
        tokio::task::yield_now().await;
    }
    timeout(SOON, engine.topic("invoices", TopicSettings::default())).await.expect("it waits for a trial");
    let mut attachments = engine.plugins.trials.lock().unwrap().clone();
    attachments.sort_unstable();
    attachments.dedup();
    assert_eq!(attachments.len(), 3, "trials share an attachment");
    trials.shutdown().await;
}

#[tokio::test]
async fn a_plugin_that_keeps_state_is_refused_where_none_is_stored() {
    let engine = with_plugin().await;
    let stateful = StageSpec { config: STATEFUL.into(), ..StageSpec::default() };
    let error =
        engine.broker.request(&Principal::Local, subscription("one", stateful), None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PluginInitRefused);
    assert!(error.to_string().contains("plugin keep@1 keeps state"), "{error}");
}

#[tokio::test]
async fn an_instance_can_not_be_given_more_memory_than_the_limit() {
    let engine = with_plugin().await;
    let with = |memory| StageSpec { memory_bytes_max: Some(memory), ..StageSpec::default() };
    engine.ask(subscription("most", with(INSTANCE_MEMORY_BYTES_MAX))).await;
    for memory in [0, INSTANCE_MEMORY_BYTES_MAX + 1, u64::MAX] {
        let refused =
            engine.broker.request(&Principal::Local, subscription("more", with(memory)), None).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidArgument);
        assert!(refused.to_string().contains("expected 1 to 1073741824"), "{refused}");
    }
}
