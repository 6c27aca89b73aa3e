//! A subscription as its owner knows it, for whoever asks. The owner answers also while it waits for something else:
//! for plugins, the disk or the writer.

use levada_delivery::subscription::{ConsumerId, Subscription};
use levada_protocol::{
    ids::SubscriptionId,
    request::{PauseReason, Position, RunState, SubscriptionInfo},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Context, Described,
    consumers::Consumers,
    owner::{OwnerTask, Paused},
};
use crate::{chains, log::Log, rows::SubscriptionRecord, topic::Topic};

/// Whoever wants a description.
pub(super) type Asked = mpsc::Receiver<oneshot::Sender<Described>>;

/// What an owner shows and uses while it waits for something.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) record: &'a SubscriptionRecord,
    pub(super) topic: &'a Topic,
    pub(super) context: &'a Context,
    pub(super) rules: &'a Subscription,
    pub(super) logs: &'a [Log],
    pub(super) consumers: &'a Consumers,
    pub(super) chain: Option<&'a chains::Attached>,
    pub(super) paused: Option<&'a Paused>,
}

impl OwnerTask {
    /// Itself, as it can be shown while it waits, and those who may ask meanwhile.
    pub(super) fn view(&mut self) -> (View<'_>, &mut Asked) {
        let view = View {
            record: &self.record,
            topic: &self.topic,
            context: &self.context,
            rules: &self.rules,
            logs: &self.logs,
            consumers: &self.consumers,
            chain: self.chain.as_ref(),
            paused: self.paused.as_ref(),
        };
        (view, &mut self.asked)
    }

    /// Answers one who asked, after what was said before it asked.
    pub(super) fn answer(&mut self, reply: oneshot::Sender<Described>) {
        for _ in 0..self.commands.len() {
            let Ok(command) = self.commands.try_recv() else { break };
            self.take_command(command);
        }
        self.look(self.context.clock.moment());
        // Whoever asked may have gone.
        let _ = reply.send(self.view().0.describe());
    }
}

impl View<'_> {
    /// Waits for `work`, and answers those who ask meanwhile. Cancel safe if `work` is.
    pub(super) async fn during<T>(&self, asked: &mut Asked, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                // The handle holds the sending side as long as anybody can ask.
                Some(reply) = asked.recv() => {
                    // Whoever asked may have gone.
                    let _ = reply.send(self.describe());
                }
            }
        }
    }

    pub(super) fn positions(&self) -> Vec<Position> {
        let floors = self.topic.partition_ids().zip(self.rules.floors());
        floors.map(|(number, floor)| Position { partition: number.0, offset: floor.0 }).collect()
    }

    fn names(&self, consumers: impl Iterator<Item = ConsumerId>) -> Vec<String> {
        consumers.filter_map(|id| Some(self.consumers.get(&id.0)?.name.clone())).collect()
    }

    fn describe(&self) -> Described {
        let figures = self.rules.figures();
        let mut oldest = Vec::new();
        let mut stuck = None;
        let mut lag = figures.lag;
        for (number, log) in self.topic.partition_ids().zip(&self.topic.partitions) {
            let partition = self.rules.partition(number);
            stuck = stuck.or_else(|| partition.stuck.map(|offset| (number, offset)));
            // What came while the owner waited it has not looked at.
            let unseen = log.end().0.saturating_sub(partition.end.0);
            lag += unseen;
            if partition.lag + unseen > 0 {
                oldest.push((number, partition.floor));
            }
        }
        let paused = self.paused.map(|paused| paused.reason.clone());
        let stuck =
            stuck.map(|(number, offset)| PauseReason::WindowFull { partition: number.0, offset: offset.0 });
        let state = paused.or(stuck).map_or(RunState::Running, |reason| RunState::Paused { reason });
        let info = SubscriptionInfo {
            topic: self.record.topic.clone(),
            name: self.record.name.clone(),
            id: SubscriptionId(self.record.id).0,
            options: self.record.options.clone(),
            created_ms: self.record.created_ms,
            consumers: self.names(self.rules.consumers()),
            passed_over: self.names(self.rules.passed_over()),
            positions: self.positions(),
            lag,
            oldest_unacked_age_ms: 0,
            in_flight: figures.in_flight,
            redelivered: figures.redelivered,
            dead_lettered: figures.dead_lettered,
            events_lost: figures.lost,
            state,
        };
        Described { info, oldest }
    }
}
