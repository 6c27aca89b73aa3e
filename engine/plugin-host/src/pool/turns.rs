//! Whose turn it is: places, and what each has to run. Pure: who runs it, and when, is told.

use std::{collections::VecDeque, time::Duration};

use super::Work;

/// What a slice that is running is counted as until it ends.
pub(super) const SLICE: Duration = Duration::from_millis(1);

/// All places, and what is under way.
#[derive(Default)]
pub(super) struct State {
    /// One per share, by the index that the share has.
    pub(super) lanes: Vec<Lane>,
    /// Lanes without a share.
    free: Vec<usize>,
    /// Lanes with something queued, put aside or running.
    busy: Vec<usize>,
    /// The most that a place had had when its turn came: what one that comes anew is counted as having had.
    turn: Duration,
    /// Workers that wait for work.
    pub(super) waiting: Waiting,
    pub(super) closed: bool,
}

/// Which workers serve a place now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Those for work that begins, and may be expected to end within its slice.
    Quick,
    /// Those for what was put aside, and for places whose last slice was far over its end.
    Long,
}

/// How many workers of each class wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    quick: usize,
    long: usize,
}

impl Waiting {
    pub(super) fn of(&mut self, class: Class) -> &mut usize {
        match class {
            Class::Quick => &mut self.quick,
            Class::Long => &mut self.long,
        }
    }
}

/// A place, as the pool sees it.
#[derive(Default)]
pub(super) struct Lane {
    /// How much time on workers the place has had.
    had: Duration,
    /// What has begun and waits for its next slice.
    aside: VecDeque<Work>,
    queued: VecDeque<Work>,
    /// Slices under way.
    running: u32,
    /// The last slice was far over its end.
    overran: bool,
    /// Where it is among the busy ones.
    busy_at: Option<usize>,
    /// Its share is gone.
    abandoned: bool,
}

/// What a worker took.
pub(super) struct Taken {
    pub(super) lane: usize,
    pub(super) work: Work,
    /// It was put aside before.
    pub(super) has_begun: bool,
}

/// What a worker did.
pub(super) struct Ended {
    pub(super) lane: usize,
    /// How long the slice took.
    pub(super) slice: Duration,
    pub(super) overran: bool,
    /// The work, if it has not ended.
    pub(super) aside: Option<Work>,
}

impl State {
    /// A lane for a share.
    pub(super) fn new_lane(&mut self) -> usize {
        if let Some(lane) = self.free.pop() {
            self.lanes[lane] = Lane::default();
            return lane;
        }
        self.lanes.push(Lane::default());
        self.lanes.len() - 1
    }

    /// The share is gone, and so will be the lane when it has no more work. After the host has shut down there is none.
    pub(super) fn abandon(&mut self, lane: usize) {
        let Some(left) = self.lanes.get_mut(lane) else { return };
        left.abandoned = true;
        if left.busy_at.is_none() {
            self.free.push(lane);
        }
    }

    pub(super) fn queue(&mut self, lane: usize, work: Work) {
        let Some(of) = self.lanes.get_mut(lane) else { return };
        of.queued.push_back(work);
        if of.busy_at.is_none() {
            of.busy_at = Some(self.busy.len());
            of.had = of.had.max(self.turn);
            self.busy.push(lane);
        }
    }

    /// Takes something for a worker of this class to run, from the place that has had the least.
    pub(super) fn next(&mut self, class: Class) -> Option<Taken> {
        let (lane, _) = self.runnable(class).min_by_key(|(_, of)| of.had + SLICE * of.running)?;
        let of = &mut self.lanes[lane];
        self.turn = self.turn.max(of.had);
        // What has begun goes first: so no more calls of a place are under way than there are workers.
        let (work, has_begun) = match of.aside.pop_front() {
            Some(work) => (work, true),
            None => (of.queued.pop_front()?, false),
        };
        of.running += 1;
        Some(Taken { lane, work, has_begun })
    }

    /// True if there is more for workers of this class than those that run have taken.
    pub(super) fn has_more(&self, class: Class) -> bool {
        self.runnable(class).next().is_some()
    }

    /// Whose workers a place waits for; `None` if it has nothing to run.
    pub(super) fn class_of(&self, lane: usize) -> Option<Class> {
        self.lanes.get(lane).filter(|of| of.has_work()).map(Lane::class)
    }

    fn runnable(&self, class: Class) -> impl Iterator<Item = (usize, &Lane)> {
        let busy = self.busy.iter().map(|lane| (*lane, &self.lanes[*lane]));
        busy.filter(move |(_, of)| of.has_work() && of.class() == class)
    }

    /// Counts a slice, and puts the work aside that has not ended.
    pub(super) fn end_slice(&mut self, ended: Ended) {
        let of = &mut self.lanes[ended.lane];
        of.running -= 1;
        of.had += ended.slice;
        of.overran = ended.overran;
        of.aside.extend(ended.aside);
        if of.running > 0 || of.has_work() {
            return;
        }
        if let Some(at) = of.busy_at.take() {
            if of.abandoned {
                self.free.push(ended.lane);
            }
            self.busy.swap_remove(at);
            if let Some(moved) = self.busy.get(at) {
                self.lanes[*moved].busy_at = Some(at);
            }
        }
    }
}

impl Lane {
    fn has_work(&self) -> bool {
        !self.aside.is_empty() || !self.queued.is_empty()
    }

    /// Whose workers run what it would run next.
    fn class(&self) -> Class {
        if self.aside.is_empty() && !self.overran { Class::Quick } else { Class::Long }
    }
}
