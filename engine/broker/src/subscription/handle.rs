//! A running subscription as others reach it: requests, sessions, and whoever collects figures.

use arc_swap::ArcSwap;
use levada_chain::Costs;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use levada_delivery::now::Now;
use levada_protocol::{ids::TopicId, request::Alarm};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    attendance::{Attendance, UNATTENDED_ALARM_MS},
    command::{AckingTransact, Command},
    signals::Signals,
    status::{Described, Status},
};
use crate::{error::Error, floors::Floors, metrics::Delivered, rows::SubscriptionRecord};

/// A running subscription, as others reach it.
#[derive(Debug, Clone)]
pub(crate) struct SubscriptionHandle {
    topic_id: TopicId,
    /// The newest; the owner takes it over.
    record: Arc<ArcSwap<SubscriptionRecord>>,
    commands: mpsc::Sender<Command>,
    status: Arc<Status>,
    costs: Arc<Costs>,
    stop: CancellationToken,
    /// Set when the newest version of a plugin of the chain is another.
    stale: Arc<AtomicBool>,
    /// How many consumers there ever were: the number of the next one.
    consumers: Arc<AtomicU64>,
    signals: Arc<Signals>,
    attendance: Arc<Attendance>,
    /// Why the owner has ended.
    ended: Arc<OnceLock<Error>>,
}

impl SubscriptionHandle {
    /// A handle of a subscription whose owner is about to start; `stop` ends it.
    pub(super) fn new(
        record: &Arc<SubscriptionRecord>,
        commands: mpsc::Sender<Command>,
        signals: Arc<Signals>,
        (status, attendance): (Arc<Status>, Arc<Attendance>),
        stop: CancellationToken,
    ) -> Self {
        Self {
            topic_id: TopicId(record.topic_id),
            record: Arc::new(ArcSwap::new(Arc::clone(record))),
            commands,
            status,
            costs: Arc::default(),
            stop,
            stale: Arc::default(),
            consumers: Arc::new(AtomicU64::new(1)),
            signals,
            attendance,
            ended: Arc::default(),
        }
    }

    /// Set when the chain has to be attached again; and where its costs are counted.
    pub(super) fn chain_signs(&self) -> (Arc<AtomicBool>, Arc<Costs>) {
        (Arc::clone(&self.stale), Arc::clone(&self.costs))
    }

    /// Where the owner says why it has ended.
    pub(super) fn ended_sign(&self) -> Arc<OnceLock<Error>> {
        Arc::clone(&self.ended)
    }

    /// True if the owner has ended, of itself or because it was told to.
    pub(crate) fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    pub(crate) fn record(&self) -> Arc<SubscriptionRecord> {
        self.record.load_full()
    }

    /// Where the owner finds the newest record.
    pub(super) fn newest_record(&self) -> Arc<ArcSwap<SubscriptionRecord>> {
        Arc::clone(&self.record)
    }

    /// True if the owner has to end once it follows this record, so that another begins anew.
    pub(crate) fn begins_anew_with(&self, record: &SubscriptionRecord) -> bool {
        self.record.load().begins_anew_with(record)
    }

    /// Lets the owner take over what has changed of the record.
    pub(crate) fn follow(&self, record: &Arc<SubscriptionRecord>) {
        if **self.record.load() != **record {
            self.record.store(Arc::clone(record));
            self.signals.wake();
        }
    }

    /// Has the owner look at what was redriven to its subscription.
    pub(crate) fn wake(&self) {
        self.signals.wake();
    }

    pub(crate) fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// How far the subscription has come, durably.
    pub(crate) fn floors(&self) -> &Arc<Floors> {
        self.status.floors()
    }

    /// How many events its consumers were sent since the start.
    pub(crate) fn delivered(&self) -> &Delivered {
        self.status.delivered()
    }

    /// What its plugins have cost.
    pub(crate) fn costs(&self) -> &Costs {
        &self.costs
    }

    /// Ends the owner. Answers false, for use in `retain`.
    pub(crate) fn stop(&self) -> bool {
        self.stop.cancel();
        false
    }

    /// Attaches the chain again, now if the subscription waits for its plugins: the newest version of one is another.
    pub(crate) fn reattach(&self) {
        self.stale.store(true, Ordering::Release);
        self.signals.wake();
    }

    /// What is known about the subscription now. Nobody is asked.
    pub(crate) fn describe(&self, now: Now) -> Described {
        let mut described = self.status.describe(&self.record.load(), now.mono_ms);
        let info = &mut described.info;
        if let Some(since) = self.attendance.since()
            && info.consumers.is_empty()
        {
            let for_ms = now.wall.0.saturating_sub(since.0);
            (info.unattended_since_ms, info.unattended_for_ms) = (Some(since.0), Some(for_ms));
            info.alarms.extend((for_ms >= UNATTENDED_ALARM_MS).then_some(Alarm::Unattended));
        }
        described
    }

    /// What it shows to others.
    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    /// How many consumers are attached, or about to be.
    pub(crate) fn attached(&self) -> u64 {
        self.attendance.attached()
    }

    /// Whether it has consumers, and since when it has none.
    pub(crate) fn attendance(&self) -> &Attendance {
        &self.attendance
    }

    /// How many events that were redriven to it alone it has yet to acknowledge.
    pub(crate) fn redriven(&self) -> u64 {
        self.status.redriven()
    }

    /// Ends a pause that nobody asked for.
    pub(crate) async fn resume(&self) -> Result<(), Error> {
        self.send(Command::Resume).await
    }

    /// Acknowledges events and stores others in one commit. The reply comes on the transaction's own channel.
    ///
    /// # Errors
    /// If the owner has ended; nothing has happened then.
    pub(crate) async fn transact(&self, asked: AckingTransact) -> Result<(), Error> {
        self.send(Command::Transact(Box::new(asked))).await
    }

    /// Counts a consumer that is about to be attached; returns its number, new for each. Cancel safe.
    ///
    /// # Errors
    /// If the subscription was deleted.
    pub(super) async fn enter(&self) -> Result<u64, Error> {
        match self.attendance.enter().await {
            true => Ok(self.consumers.fetch_add(1, Ordering::Relaxed)),
            false => Err(self.deleted()),
        }
    }

    /// Detaches a consumer that was counted, without waiting.
    pub(super) fn leave(&self, consumer: u64) {
        self.attendance.leave();
        if let Err(mpsc::error::TrySendError::Full(_)) = self.commands.try_send(Command::Detach { consumer })
        {
            self.signals.add(consumer);
        }
    }

    /// The way to the owner.
    pub(super) fn commands(&self) -> &mpsc::Sender<Command> {
        &self.commands
    }

    pub(super) async fn send(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| self.gone())
    }

    /// What is said of a subscription whose owner has ended.
    pub(super) fn gone(&self) -> Error {
        self.ended.get().cloned().unwrap_or_else(|| self.deleted())
    }

    fn deleted(&self) -> Error {
        let record = self.record.load();
        let message = format!("subscription {}/{} was deleted", record.topic, record.name);
        Error::refused(levada_protocol::error::ErrorCode::SubscriptionNotFound, message)
    }
}
