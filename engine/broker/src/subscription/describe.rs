//! A subscription as its owner knows it, for whoever asks.

use levada_delivery::subscription::ConsumerId;
use levada_protocol::{
    ids::SubscriptionId,
    request::{Position, SubscriptionInfo},
};

use super::{Described, owner::OwnerTask};

impl OwnerTask {
    pub(super) fn positions(&self) -> Vec<Position> {
        let floors = self.topic.partition_ids().zip(self.rules.floors());
        floors.map(|(number, floor)| Position { partition: number.0, offset: floor.0 }).collect()
    }

    fn names(&self, consumers: impl Iterator<Item = ConsumerId>) -> Vec<String> {
        consumers.filter_map(|id| Some(self.consumers.get(&id.0)?.name.clone())).collect()
    }

    pub(super) fn describe(&mut self) -> Described {
        self.look(self.context.clock.moment());
        let figures = self.rules.figures();
        let mut oldest = Vec::new();
        let mut stuck = None;
        for number in self.topic.partition_ids() {
            let partition = self.rules.partition(number);
            stuck = stuck.or_else(|| partition.stuck.map(|offset| (number, offset)));
            if partition.lag > 0 {
                oldest.push((number, partition.floor));
            }
        }
        let paused = self.paused.as_ref().map(|paused| paused.why.clone());
        let stuck = stuck.map(|(number, offset)| {
            format!("WINDOW_FULL: too much lies above offset {offset} of partition {number}, which is not acknowledged")
        });
        let info = SubscriptionInfo {
            topic: self.record.topic.clone(),
            name: self.record.name.clone(),
            id: SubscriptionId(self.record.id).0,
            options: self.record.options.clone(),
            created_ms: self.record.created_ms,
            consumers: self.names(self.rules.consumers()),
            passed_over: self.names(self.rules.passed_over()),
            positions: self.positions(),
            lag: figures.lag,
            oldest_unacked_age_ms: 0,
            in_flight: figures.in_flight,
            redelivered: figures.redelivered,
            dead_lettered: figures.dead_lettered,
            events_lost: figures.lost,
            paused: paused.or(stuck),
        };
        Described { info, oldest }
    }
}
