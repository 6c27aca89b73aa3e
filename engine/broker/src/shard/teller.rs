//! The task that tells who waits: subscriptions and readers that there is something new, callers what was decided.
//!
//! It owns no decision. Waking a task from a thread of the shard costs a system call each time, so the shard hands
//! over a whole group at once, and the waking is done on the runtime, where it costs next to nothing.

use std::sync::Arc;

use tokio::{sync::mpsc, task::JoinHandle};

use super::group::Reply;
use crate::{tasks::Tasks, topic::Topic};

/// Groups that may wait to be told of. With more the shard waits too.
const QUEUED_MAX: usize = 1_024;

/// Who is to be told of one group, in this order.
#[derive(Debug)]
struct Told {
    topics: Vec<Arc<Topic>>,
    replies: Vec<Reply>,
}

/// The shard's end.
#[derive(Debug)]
pub(super) struct Teller {
    told: mpsc::Sender<Told>,
}

impl Teller {
    /// Starts the task. It outlives the other tasks and ends when the shard's threads have.
    pub(super) fn start(tasks: &Tasks) -> (Self, JoinHandle<()>) {
        let (told, mut queue) = mpsc::channel::<Told>(QUEUED_MAX);
        let task = tasks.spawn_last(async move {
            while let Some(Told { topics, replies }) = queue.recv().await {
                topics.iter().for_each(|topic| topic.wake());
                replies.into_iter().for_each(Reply::send);
            }
        });
        (Self { told }, task)
    }

    /// Tells first those who wait for events of these topics, then the callers. For threads, not for tasks.
    pub(super) fn tell(&self, topics: Vec<Arc<Topic>>, replies: Vec<Reply>) {
        if topics.is_empty() && replies.is_empty() {
            return;
        }
        // Without a runtime nobody waits any more. What is dropped answers for itself.
        let _ = self.told.blocking_send(Told { topics, replies });
    }
}
