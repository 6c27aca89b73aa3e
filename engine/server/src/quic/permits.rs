//! What a session's principal may do, while the session lasts: its open streams end when they are not allowed any more, and the
//! session when its proof does not hold.
//!
//! The broker checks each call as it begins; this is for what goes on after that.

use std::{
    collections::HashMap,
    future,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_broker::{Broker, Conditions, Error, Principal};
use levada_protocol::{access::Requires as _, error::Refusal, request::Open};
use tokio::{
    sync::{Notify, oneshot},
    time,
};

use crate::wire_error;

/// How long requests under way may take to be answered when the session ends: the one among them may be what ended it.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// The open streams of a session, with what must stay true for each.
pub(super) struct Permits {
    broker: Broker,
    principal: Principal,
    open: Mutex<HashMap<u64, OpenStream>>,
    next: AtomicU64,
    left: Notify,
}

struct OpenStream {
    conditions: Conditions,
    is_request: bool,
    /// Says why the stream must end.
    revoke: oneshot::Sender<Refusal>,
}

/// A stream that is open; dropped when it ends.
pub(super) struct Permit<'a> {
    permits: &'a Permits,
    number: u64,
    revoked: oneshot::Receiver<Refusal>,
}

impl Permits {
    pub(super) fn new(broker: Broker, principal: Principal) -> Self {
        let (open, next) = (Mutex::default(), AtomicU64::new(0));
        Self { broker, principal, open, next, left: Notify::new() }
    }

    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Enters a stream, before the broker checks it: what changes from then on is noticed.
    pub(super) fn enter(&self, open: &Open) -> Permit<'_> {
        let (revoke, revoked) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let is_request = matches!(open, Open::Request(_));
        self.lock().insert(number, OpenStream { conditions: open.required().into(), is_request, revoke });
        Permit { permits: self, number, revoked }
    }

    /// From now on this must stay true for a stream. What has changed before is noticed here.
    ///
    /// # Errors
    /// As [`Broker::check_conditions`].
    pub(super) fn require(&self, number: u64, conditions: Conditions) -> Result<(), Error> {
        let mut open = self.lock();
        self.broker.check_conditions(&self.principal, &conditions)?;
        if let Some(stream) = open.get_mut(&number) {
            stream.conditions = conditions;
        }
        Ok(())
    }

    pub(super) fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Ends streams that are not allowed any more; returns why the session must end, once it must.
    pub(super) async fn watch(&self) -> Refusal {
        let mut changes = self.broker.follow_identities();
        loop {
            if let Err(error) = self.broker.check(&self.principal, &[]) {
                let refusal = wire_error::refusal(&error);
                self.end(&refusal).await;
                return refusal;
            }
            // A request was checked as it began, and may have taken effect: it is answered.
            self.revoke(|stream| {
                if stream.is_request {
                    return None;
                }
                self.broker
                    .check_conditions(&self.principal, &stream.conditions)
                    .err()
                    .map(|error| wire_error::refusal(&error))
            });
            self.broker.identities_may_differ(&self.principal, &mut changes).await;
        }
    }

    /// Ends all streams; requests have a moment to be answered.
    async fn end(&self, refusal: &Refusal) {
        self.revoke(|stream| (!stream.is_request).then(|| refusal.clone()));
        let answered = async {
            while !self.lock().is_empty() {
                self.left.notified().await;
            }
        };
        let _ = time::timeout(LAST_ANSWERS, answered).await;
    }

    /// Ends the streams for which there is a reason.
    fn revoke(&self, reason: impl Fn(&OpenStream) -> Option<Refusal>) {
        let mut open = self.lock();
        let revoked: Vec<(u64, Refusal)> =
            open.iter().filter_map(|(number, stream)| Some((*number, reason(stream)?))).collect();
        for (number, refusal) in revoked {
            if let Some(stream) = open.remove(&number) {
                // It fails if the stream ends by itself at this moment.
                let _ = stream.revoke.send(refusal);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, OpenStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// The stream's number among those of the session.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Why the stream must end, once it must. Cancel safe.
    pub(super) async fn revoked(&mut self) -> Refusal {
        match (&mut self.revoked).await {
            Ok(refusal) => refusal,
            // The session ends, and the stream with it.
            Err(_) => future::pending().await,
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.permits.lock().remove(&self.number);
        self.permits.left.notify_one();
    }
}
