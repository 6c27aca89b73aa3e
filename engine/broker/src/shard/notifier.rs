//! The task that sends notifications: to subscriptions and readers that there is something new, to callers what was
//! decided.
//!
//! Waking a task from a thread of the shard costs a system call each time, so the shard hands over a whole commit at
//! once, and the waking is done on the runtime, where it costs next to nothing.

use std::sync::Arc;

use tokio::{sync::mpsc, task::JoinHandle};

use super::group::Reply;
use crate::{tasks::Tasks, topic::Topic};

/// Commits whose notifications may be queued. With more the shard waits.
const QUEUED_MAX: usize = 1_024;

/// Who is notified of one commit, in this order.
#[derive(Debug)]
struct Notifications {
    topics: Vec<Arc<Topic>>,
    replies: Vec<Reply>,
}

/// The shard's end.
#[derive(Debug)]
pub(super) struct Notifier {
    queue: mpsc::Sender<Notifications>,
}

impl Notifier {
    /// Starts the task. It outlives the other tasks and ends when the shard's threads have.
    pub(super) fn start(tasks: &Tasks) -> (Self, JoinHandle<()>) {
        let (sender, mut queue) = mpsc::channel::<Notifications>(QUEUED_MAX);
        let task = tasks.spawn_last(async move {
            while let Some(Notifications { topics, replies }) = queue.recv().await {
                topics.iter().for_each(|topic| topic.wake());
                replies.into_iter().for_each(Reply::send);
            }
        });
        (Self { queue: sender }, task)
    }

    /// Notifies first those who wait for events of these topics, then the callers. Blocks: for threads, not for tasks.
    ///
    /// Callers with a way of their own hear of it by that.
    pub(super) fn notify(&self, topics: Vec<Arc<Topic>>, mut replies: Vec<Reply>) {
        replies.extract_if(.., |reply| reply.is_dispatched()).for_each(Reply::send);
        if topics.is_empty() && replies.is_empty() {
            return;
        }
        // Without a runtime nothing waits any more. A reply that is dropped sends its failure itself.
        let _ = self.queue.blocking_send(Notifications { topics, replies });
    }
}
