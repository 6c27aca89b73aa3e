//! The thread that decides: it takes what has queued, in order, has the state decide it, and writes one commit.
//!
//! It waits for the disk only if nothing is queued behind it: otherwise the syncer does.

use std::{
    sync::{Arc, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use levada_protocol::{error::ErrorCode, ids::Timestamp};
use levada_store::{Commit, Store, commit::Term};
use tokio::sync::mpsc;

use super::{
    command::Command,
    fail_stop::FailStopGuard,
    group::Group,
    piggyback::PiggybackQueue,
    state::State,
    syncer::{Durable, ToSyncer},
    view::ShardView,
};
use crate::{clock::Clock, error::Error, guard::Guard, identity, rows::EngineId};

/// A commit of at most this many bytes with nothing queued behind it is synced by the writer itself.
const OWN_SYNC_BYTES_MAX: usize = 16 * 1024;
/// Opening a store again is slow and holds reads up: no more often than this.
const REOPEN_INTERVAL: Duration = Duration::from_millis(500);

/// The writer's thread.
pub(super) struct Writer {
    /// First, so that it is dropped before the commands that wait.
    pub(super) _fail_stop: FailStopGuard,
    pub(super) inbox: Inbox,
    pub(super) state: State,
    pub(super) identity: Identity,
    pub(super) store: Arc<dyn Store>,
    pub(super) guard: Arc<Guard>,
    pub(super) view: Arc<ShardView>,
    pub(super) groups: std_mpsc::SyncSender<ToSyncer>,
    pub(super) durable: Arc<Durable>,
    /// Bytes of an encoded commit, unless one command alone needs more.
    pub(super) commit_bytes_max: usize,
    /// When the store was last tried to be opened again.
    pub(super) reopened: Option<Instant>,
    /// What gives events their append times.
    pub(super) clock: Clock,
}

/// Who writes, and which shard's history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub(super) shard: u16,
    /// This writer's: higher than that of every commit before it, also after the store was opened again.
    pub(super) term: Term,
}

/// What the writer takes commands from.
pub(super) struct Inbox {
    commands: mpsc::Receiver<Command>,
    piggyback: Arc<PiggybackQueue>,
    /// A command that did not fit into the commit before.
    held: Option<Command>,
}

impl Inbox {
    pub(super) fn new(commands: mpsc::Receiver<Command>, piggyback: Arc<PiggybackQueue>) -> Self {
        Self { commands, piggyback, held: None }
    }

    /// Waits for a command; `None` if every handle is gone.
    fn next(&mut self) -> Option<Command> {
        self.held.take().or_else(|| self.commands.blocking_recv())
    }

    /// The next command that has queued, unless it is longer than `room`.
    fn next_within(&mut self, room: usize) -> Option<Command> {
        let command = self.held.take().or_else(|| self.commands.try_recv().ok())?;
        if command.encoded_len_max() <= room {
            return Some(command);
        }
        self.held = Some(command);
        None
    }

    /// The next proposal that waits for a commit, unless it is longer than `room`. What is left makes a commit of its
    /// own.
    fn next_piggyback(&mut self, room: usize) -> Option<Command> {
        let proposal = self.piggyback.pop_if(|proposal| proposal.encoded_len_max() <= room);
        if proposal.is_none() && self.held.is_none() && !self.piggyback.is_empty() {
            self.held = Some(Command::Wake);
        }
        proposal.map(Command::Propose)
    }

    /// True if nothing waits.
    fn is_empty(&self) -> bool {
        self.held.is_none() && self.commands.is_empty()
    }

    /// Takes no more, and refuses what has queued.
    fn refuse_all(&mut self, error: &Error) {
        self.commands.close();
        // Those that were being sent at this moment come as well.
        while let Some(command) = self.next() {
            command.refuse(error);
        }
        self.refuse_piggyback(error);
    }

    fn refuse_piggyback(&mut self, error: &Error) {
        while let Some(proposal) = self.piggyback.pop_if(|_| true) {
            Command::Propose(proposal).refuse(error);
        }
    }
}

impl Writer {
    /// Runs until it is stopped or every handle is dropped.
    pub(super) fn run(mut self) {
        while let Some(first) = self.inbox.next() {
            if self.is_open() {
                if self.decide(first) {
                    break;
                }
            } else if self.refuse(first) {
                break;
            }
        }
        while !self.inbox.piggyback.is_empty() && self.view.closed().is_none() {
            self.decide(Command::Wake);
        }
        self.inbox.refuse_all(&Error::ShuttingDown);
    }

    /// Makes one commit of the command and of what has queued behind it; true if one says stop.
    fn decide(&mut self, first: Command) -> bool {
        let mut now = self.clock.now();
        let mut group = Group::new(self.state.next_index());
        // The first is taken whatever its length: there is no commit into which it would fit better.
        let mut stop = self.state.take(first, &mut group, now);
        while !stop && let Some(command) = self.inbox.next_within(self.room(&group)) {
            if command.begins_a_wait() {
                // It may have come after the commit was begun, and must not wait for less than it says.
                now = now.max(self.clock.now());
            }
            stop = self.state.take(command, &mut group, now);
        }
        let mut room = if group.is_empty() { usize::MAX } else { self.room(&group) };
        while let Some(proposal) = self.inbox.next_piggyback(room) {
            self.state.take(proposal, &mut group, now);
            room = self.room(&group);
        }
        self.write(group, now);
        stop
    }

    /// How many bytes the commit may still grow by.
    fn room(&self, group: &Group) -> usize {
        self.commit_bytes_max.saturating_sub(group.draft.encoded_len())
    }

    /// Writes what must be durable before anything is taken: the engine's id, if it is new; and the end of a time at
    /// which the clock ran ahead. To be called once, before [`Writer::run`]. Returns the id.
    ///
    /// # Errors
    /// If a new id could not be stored.
    pub(super) fn begin(&mut self) -> Result<EngineId, Error> {
        let (mut group, now) = (Group::new(self.state.next_index()), self.clock.now());
        self.state.check_clock(&mut group, now);
        let known = self.state.engine_id();
        let is_new = known.is_none();
        let id = known.map_or_else(identity::new_engine_id, Ok)?;
        if is_new {
            self.state.set_engine_id(id, &mut group);
        }
        self.write(group, now);
        match self.view.closed() {
            Some(closed) if is_new => Err(closed.error()),
            // What else was to be written waits: the store can be read, and may take writes again.
            _ => Ok(id),
        }
    }

    /// Writes the group's commit and hands it to the syncer.
    fn write(&mut self, mut group: Group, now: Timestamp) {
        if group.is_empty() {
            return;
        }
        self.state.flush(&mut group, now);
        let ops = group.take_ops();
        if !ops.is_empty() {
            let next = Commit::after(self.state.last(), self.identity.term, now, ops);
            let commit = Commit { shard: self.identity.shard, ..next };
            if let Err(error) = self.store.apply(&commit) {
                tracing::error!(%error, "commit failed, no writes are taken");
                self.view.close(error.code(), error.to_string());
                group.fail(error.code(), &error.to_string());
                return;
            }
            let last = self.store.last();
            if last.index != commit.index {
                // The store has taken it for one that it had long ago: it is ahead of this writer.
                let message = "the store has commits of another writer, this one has stopped writing";
                tracing::error!(applied = %last.index, commit = %commit.index, "{message}");
                self.view.close(ErrorCode::StorageFenced, message.to_owned());
                group.fail(ErrorCode::StorageFenced, message);
                return;
            }
            self.state.set_last(last);
            group.set_written();
            self.durable.answer_written(&mut group);
        }
        let small = group.draft.encoded_len() <= OWN_SYNC_BYTES_MAX;
        if small && self.durable.is_idle() && self.inbox.is_empty() {
            // Nothing is queued behind it: handing it over would only cost a wake-up.
            self.durable.make_durable(vec![group]);
            return;
        }
        self.durable.sending();
        // The syncer outlives the writer: it ends when this sender is dropped, or by a panic, which closes the shard.
        // What it did not take says by being dropped that its outcome is unknown.
        let _ = self.groups.send(ToSyncer::Group(Box::new(group)));
    }

    /// Refuses what is there while the store takes no writes; true if the command says stop.
    fn refuse(&mut self, first: Command) -> bool {
        let error = self.view.closed().map_or(Error::ShuttingDown, |closed| closed.error());
        let stop = matches!(first, Command::Stop);
        first.refuse(&error);
        self.inbox.refuse_piggyback(&error);
        stop
    }

    /// True if writes are taken. After a full disk, or without file descriptors, opens the store again as soon as that
    /// succeeds; what was decided ahead of it is thrown away. A successful reopen does not prove that there is disk
    /// space; the guard decides whether more may be published.
    fn is_open(&mut self) -> bool {
        let Some(closed) = self.view.closed() else { return true };
        let tried = self.reopened.is_some_and(|tried| tried.elapsed() < REOPEN_INTERVAL);
        if !closed.heals() || tried {
            return false;
        }
        let (reply, reached) = std_mpsc::sync_channel(1);
        if self.groups.send(ToSyncer::Barrier(reply)).is_err() || reached.recv().is_err() {
            return false;
        }
        let reopened = self.store.reopen();
        self.view.note_reopened();
        let reopened = reopened.map_err(Error::from).and_then(|()| self.state.reload());
        self.reopened = Some(Instant::now());
        match reopened {
            Ok(()) => {
                self.view.show_again(Arc::new(self.state.catalogue().clone()));
                // What was decided and is not there any more must not share term and index with what comes now.
                self.identity.term = Term(self.identity.term.max(self.state.last().term).0 + 1);
                if closed.code == ErrorCode::StorageFull {
                    self.guard.met_the_end();
                }
                self.view.open();
                tracing::info!("the store is open again, writes are taken");
                true
            }
            Err(error) => {
                let reason = error.to_string();
                if reason != closed.reason {
                    tracing::warn!(%error, "the store could not be opened again");
                }
                // Not everything gets better by itself.
                self.view.close(error.code(), reason);
                false
            }
        }
    }
}
