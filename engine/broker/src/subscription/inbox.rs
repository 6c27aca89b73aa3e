//! What others tell the owner: commands in order, and what needs no room among those.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    command::Command,
    signals::{Signals, ToldRange},
};

/// Commands that may wait for the owner.
const COMMANDS_QUEUED_MAX: usize = 1_024;
/// Commands that are taken before deliveries have their turn.
const COMMANDS_PER_TURN: usize = 256;

/// The owner's side.
#[derive(Debug)]
pub(super) struct Inbox {
    commands: mpsc::Receiver<Command>,
    signals: Arc<Signals>,
}

impl Inbox {
    /// An inbox, and the way into it.
    pub(super) fn new() -> (mpsc::Sender<Command>, Arc<Signals>, Self) {
        let (sender, commands) = mpsc::channel(COMMANDS_QUEUED_MAX);
        let signals = Arc::<Signals>::default();
        (sender, Arc::clone(&signals), Self { commands, signals })
    }

    /// Commands for one turn, the first of which is waited for; `None` once nobody can send any. An empty list says that
    /// the owner was woken for another reason. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Vec<Command>> {
        let first = tokio::select! {
            biased;
            () = self.signals.woken() => return Some(self.departed()),
            first = self.commands.recv() => first?,
        };
        let mut commands = vec![first];
        while commands.len() < COMMANDS_PER_TURN
            && let Ok(command) = self.commands.try_recv()
        {
            commands.push(command);
        }
        Some(commands)
    }

    /// Commands for one turn that wait already. Never waits.
    pub(super) fn queued(&mut self) -> Vec<Command> {
        let mut commands = self.departed();
        while commands.len() < COMMANDS_PER_TURN
            && let Ok(command) = self.commands.try_recv()
        {
            commands.push(command);
        }
        commands
    }

    /// Which losses clients were told of since the last call.
    pub(super) fn told(&mut self) -> Vec<ToldRange> {
        self.signals.take_told()
    }

    /// What reaches the owner without room among the commands.
    pub(super) fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    /// True if no command waits.
    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Departures, behind what the same consumers said before: that is in the queue.
    fn departed(&mut self) -> Vec<Command> {
        let departed = self.signals.take();
        if departed.is_empty() {
            return Vec::new();
        }
        let mut commands = Vec::with_capacity(self.commands.len() + departed.len());
        for _ in 0..self.commands.len() {
            let Ok(command) = self.commands.try_recv() else { break };
            commands.push(command);
        }
        commands.extend(departed.into_iter().map(|consumer| Command::Detach { consumer }));
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(commands: &[Command]) -> Vec<String> {
        commands.iter().map(|command| format!("{command:?}")).collect()
    }

    #[tokio::test]
    async fn a_departure_comes_behind_what_was_said_before_even_if_the_queue_is_full() {
        let (sender, signals, mut inbox) = Inbox::new();
        while sender.try_send(Command::Resume).is_ok() {}
        signals.add(7);
        let commands = inbox.next().await.unwrap();
        assert_eq!(commands.len(), COMMANDS_QUEUED_MAX + 1);
        assert_eq!(names(&commands[COMMANDS_QUEUED_MAX..]), ["Detach { consumer: 7 }"]);
        assert!(inbox.is_empty());
    }

    #[tokio::test]
    async fn commands_are_taken_in_turns_and_a_wake_brings_none() {
        let (sender, signals, mut inbox) = Inbox::new();
        (0..COMMANDS_PER_TURN + 1).for_each(|_| sender.try_send(Command::Resume).unwrap());
        assert_eq!(inbox.next().await.unwrap().len(), COMMANDS_PER_TURN);
        signals.wake();
        assert_eq!(names(&inbox.next().await.unwrap()), [""; 0]);
        assert_eq!(inbox.next().await.unwrap().len(), 1);
        drop(sender);
        assert!(inbox.next().await.is_none());
    }
}
