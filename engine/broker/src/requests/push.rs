//! Requests about where deliveries are pushed.

use levada_protocol::{
    error::ErrorCode,
    ids::{SubscriptionId, SubscriptionName, TopicName},
    limits::{
        PUSH_IN_FLIGHT_MAX, PUSH_PREVIOUS_FOR_MS_MAX, PUSH_TIMEOUT_MS_MAX, PUSH_TIMEOUT_MS_MIN,
        PUSH_URL_BYTES_MAX,
    },
    push_secret::PushSecret,
    request::{IssuedPush, PushInfo, Response, SetPush},
};

use crate::{
    access::Principal,
    catalogue::{Change, PushChange},
    clock::Clock,
    error::Error,
    identity,
    push::{PushBoard, PushUrls},
    shard::ShardHandle,
};

/// Requests about pushes.
#[derive(Debug)]
pub(crate) struct PushRequests<'a> {
    pub(super) shard: &'a ShardHandle,
    pub(super) clock: &'a Clock,
    pub(super) board: &'a PushBoard,
    pub(super) urls: Option<&'a dyn PushUrls>,
}

impl PushRequests<'_> {
    /// Sets or changes a push.
    pub(super) async fn set(&self, principal: &Principal, set: SetPush) -> Result<Response, Error> {
        let Some(urls) = self.urls else {
            return Err(Error::refused(ErrorCode::Unsupported, "this engine pushes nothing"));
        };
        check(&set)?;
        if let Some(url) = &set.url {
            urls.check(url).map_err(|why| Error::refused(ErrorCode::PushRefused, why))?;
        }
        let drawn = PushSecret::new(identity::new_push_key()?.to_vec())
            .map_err(|error| Error::refused(ErrorCode::Internal, error.to_string()))?;
        let (topic, name) = (set.topic.clone(), set.name.clone());
        let change = PushChange { set, drawn: drawn.clone(), owner: principal.as_str().to_owned() };
        self.shard.change(principal.actor(), Change::SetPush(change)).await?;
        let catalogue = self.shard.catalogue();
        let id = SubscriptionId(catalogue.subscription(&topic, &name)?.id);
        let record = catalogue.pushes.get(&id).ok_or_else(|| {
            Error::refused(ErrorCode::PushNotFound, "the push was removed as soon as it was set")
        })?;
        let push = self.board.info(record, self.clock.now());
        let secret = (record.secret == drawn).then_some(drawn);
        Ok(Response::Push(Box::new(IssuedPush { push, secret })))
    }

    /// Removes a push.
    pub(super) async fn remove(
        &self,
        principal: &Principal,
        topic: TopicName,
        name: SubscriptionName,
    ) -> Result<Response, Error> {
        self.shard.change(principal.actor(), Change::RemovePush { topic, name }).await?;
        Ok(Response::Done)
    }

    /// What is shown of the push of a subscription, if it has one.
    pub(super) fn info(&self, id: SubscriptionId) -> Option<PushInfo> {
        let catalogue = self.shard.catalogue();
        Some(self.board.info(catalogue.pushes.get(&id)?, self.clock.now()))
    }
}

fn check(set: &SetPush) -> Result<(), Error> {
    let refused = |message| Err(Error::refused(ErrorCode::InvalidArgument, message));
    if set.secret.is_some() && set.new_secret {
        let message = "both a secret and new_secret were given: expected one of them";
        return refused(message.to_owned());
    }
    if let Some(got) = set.url.as_ref().map(String::len).filter(|got| *got > PUSH_URL_BYTES_MAX) {
        return refused(format!("the url has {got} bytes, expected at most {PUSH_URL_BYTES_MAX}"));
    }
    let timeouts = PUSH_TIMEOUT_MS_MIN.into()..=PUSH_TIMEOUT_MS_MAX.into();
    let rows = [
        ("previous_for_ms", set.previous_for_ms, 0..=PUSH_PREVIOUS_FOR_MS_MAX),
        ("max_in_flight", set.max_in_flight.map(u64::from), 1..=PUSH_IN_FLIGHT_MAX.into()),
        ("timeout_ms", set.timeout_ms.map(u64::from), timeouts),
    ];
    for (name, got, allowed) in rows {
        if let Some(got) = got.filter(|got| !allowed.contains(got)) {
            return refused(format!("{name} is {got}, expected {} to {}", allowed.start(), allowed.end()));
        }
    }
    Ok(())
}
