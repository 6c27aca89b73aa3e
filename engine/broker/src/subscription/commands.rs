//! What comes from outside: consumers that attach, grant, speak and leave.

use std::sync::Arc;

use levada_delivery::{now::Now, subscription::ConsumerId};
use levada_protocol::{
    request::{Order, Subscribed},
    verbs::{RefusedVerb, Verbs},
};
use tokio::sync::{mpsc, oneshot};

use super::{Attached as AttachedReply, Command, FRAMES_QUEUED_MAX, consumers::Attached, owner::OwnerTask};
use crate::{error::Error, outbound::Window};

/// Commands that are taken before deliveries have their turn.
const COMMANDS_PER_TURN: usize = 256;

impl OwnerTask {
    pub(super) fn take_commands(&mut self, first: Command) {
        self.take_command(first);
        for _ in 0..COMMANDS_PER_TURN {
            let Ok(command) = self.commands.try_recv() else { return };
            self.take_command(command);
        }
    }

    /// Detaches consumers that left while the queue was full: what they said before is in it.
    pub(super) fn take_left(&mut self) {
        let left = self.left.take();
        for _ in 0..self.commands.len() {
            let Ok(command) = self.commands.try_recv() else { break };
            self.take_command(command);
        }
        for consumer in left {
            self.detach(self.context.clock.moment(), consumer);
        }
    }

    pub(super) fn take_command(&mut self, command: Command) {
        match command {
            Command::Attach { consumer, name, created, window, reply } => {
                self.attach(consumer, name, created, window, reply);
            }
            Command::Detach { consumer } => self.detach(self.context.clock.moment(), consumer),
            Command::Credit { consumer, credit } => {
                self.rules.grant(ConsumerId(consumer), credit.events, credit.bytes);
            }
            Command::Room { consumer, held } => {
                if let Some(attached) = self.consumers.get_mut(&consumer) {
                    attached.found_room(held);
                    self.rules.hold(ConsumerId(consumer), attached.is_held());
                }
            }
            Command::Finish { consumer } => {
                if let Some(attached) = self.consumers.get_mut(&consumer) {
                    attached.finishing = true;
                    self.rules.hold(ConsumerId(consumer), true);
                }
            }
            Command::Verbs { consumer, verbs } => self.verbs(consumer, verbs),
            Command::Resume => {
                self.paused = None;
                if let Some(attached) = &self.chain {
                    attached.chain.resume();
                }
            }
        }
    }

    fn attach(
        &mut self,
        consumer: u64,
        name: String,
        created: bool,
        window: Arc<Window>,
        reply: oneshot::Sender<AttachedReply>,
    ) {
        // Without consumers nobody looked.
        self.look(self.context.clock.moment());
        // Every event in flight may be a frame of its own, and answers to verbs come on top.
        let outgoing_max = self.record.options.max_in_flight() as usize + FRAMES_QUEUED_MAX;
        let (outgoing, received) = mpsc::channel(outgoing_max);
        // A loss in every partition finds room.
        let (notices, noticed) = mpsc::channel(self.logs.len().max(1));
        if let Err(code) = self.rules.attach(ConsumerId(consumer)) {
            // The new stream ends at once with the reason.
            let _ = outgoing
                .try_send(Err(Error::refused(code, "the subscription has as many consumers as it may")));
        } else {
            let untold = std::mem::take(&mut self.untold);
            self.consumers.insert(consumer, Attached::new(name, outgoing, notices, untold, window));
        }
        let positions = self.view().0.positions();
        let before = positions.iter().zip(&self.topic.partitions);
        let stored_before = before.map(|(at, log)| at.offset.saturating_sub(log.start().0)).sum();
        let ordered = self.record.options.order() != Order::None;
        let subscribed = Subscribed {
            created,
            partitions: u16::try_from(self.logs.len()).unwrap_or(u16::MAX),
            positions,
            stored_before,
            standby: ordered && self.consumers.len() > 1,
            ack_timeout_ms: self.record.options.ack_timeout_ms(),
        };
        // Whoever asked may have gone; then it is detached like one that goes later.
        let _ = reply.send(AttachedReply { subscribed, outgoing: received, notices: noticed });
    }

    pub(super) fn detach(&mut self, now: Now, consumer: u64) {
        if let Some(gone) = self.consumers.remove(&consumer) {
            self.rules.taken(ConsumerId(consumer), gone.taken());
            if self.consumers.is_empty() {
                self.untold.note_all(gone.untold);
            }
            self.rules.detach(now, ConsumerId(consumer), self.seed);
        }
    }

    fn verbs(&mut self, consumer: u64, verbs: Verbs) {
        let Some(attached) = self.consumers.get_mut(&consumer) else { return };
        let now = self.context.clock.moment();
        let mut ticket = 0;
        for verb in &verbs.verbs {
            match self.rules.verb(now, ConsumerId(consumer), verb, self.seed) {
                Ok(applied) => ticket = applied.ticket,
                Err(code) => {
                    let (partition, first, last) = (verb.partition, verb.first, verb.last);
                    attached.refuse(RefusedVerb { partition, first, last, code });
                }
            }
        }
        attached.note(verbs.sequence, ticket);
    }
}
