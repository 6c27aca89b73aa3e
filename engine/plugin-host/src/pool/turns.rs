//! The schedule of the workers: a lane for each attachment point, with what it has to run. Pure: it has no threads and
//! no clock.

use std::{collections::VecDeque, time::Duration};

use super::Work;

/// What a slice that is running is counted as until it ends.
pub(super) const SLICE: Duration = Duration::from_millis(1);

/// Which workers run something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Those for work that begins, and may be expected to end within its slice.
    Quick,
    /// Those for what was put aside, and for attachment points whose last slice was far over its end.
    Long,
}

impl Class {
    pub(super) const ALL: [Self; 2] = [Self::Quick, Self::Long];
}

/// One of something for each class.
#[derive(Debug, Default)]
pub(super) struct PerClass<T> {
    quick: T,
    long: T,
}

impl<T: Copy + Ord> PerClass<T> {
    pub(super) fn of(&self, class: Class) -> T {
        match class {
            Class::Quick => self.quick,
            Class::Long => self.long,
        }
    }

    pub(super) fn of_mut(&mut self, class: Class) -> &mut T {
        match class {
            Class::Quick => &mut self.quick,
            Class::Long => &mut self.long,
        }
    }

    fn raise(&mut self, class: Class, least: T) {
        let of = self.of_mut(class);
        *of = (*of).max(least);
    }
}

/// All lanes, and what is under way.
pub(super) struct State {
    /// One per share, by the index that the share has.
    pub(super) lanes: Vec<Lane>,
    /// Lanes without a share.
    free: Vec<usize>,
    /// Lanes with something queued, put aside or running.
    busy: Vec<usize>,
    /// The most time that a lane had had on workers of a class when its turn came: a lane that returns to them is
    /// counted as having had as much.
    turn: PerClass<Duration>,
    /// Calls of one lane that may have begun and not ended.
    begun_max: usize,
    /// Workers that wait for work.
    pub(super) waiting: PerClass<usize>,
    pub(super) closed: bool,
}

/// What an attachment point has to run.
#[derive(Default)]
pub(super) struct Lane {
    /// How much time it has had on workers of each class, which do not compete with each other.
    had: PerClass<Duration>,
    /// What has begun and waits for its next slice.
    aside: VecDeque<Work>,
    queued: VecDeque<Work>,
    /// Slices under way.
    running: usize,
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
    /// Whose worker it was.
    pub(super) class: Class,
    /// How long the slice took.
    pub(super) slice: Duration,
    pub(super) overran: bool,
    /// The work, if it has not ended.
    pub(super) aside: Option<Work>,
}

impl State {
    /// No lanes yet; at most `begun_max` calls of a lane will be under way.
    pub(super) fn new(begun_max: usize) -> Self {
        Self {
            lanes: Vec::new(),
            free: Vec::new(),
            busy: Vec::new(),
            turn: PerClass::default(),
            begun_max,
            waiting: PerClass::default(),
            closed: false,
        }
    }

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
            Class::ALL.into_iter().for_each(|class| of.had.raise(class, self.turn.of(class)));
            self.busy.push(lane);
        }
    }

    /// Takes something for a worker of this class to run, from the lane that has had the least time on them.
    pub(super) fn next(&mut self, class: Class) -> Option<Taken> {
        let had = |of: &Lane| of.had.of(class) + SLICE * u32::try_from(of.running).unwrap_or(u32::MAX);
        let (lane, _) = self.runnable(class).min_by_key(|(_, of)| had(of))?;
        let of = &mut self.lanes[lane];
        self.turn.raise(class, of.had.of(class));
        let begun = if class == Class::Long { of.aside.pop_front() } else { None };
        let (work, has_begun) = match begun {
            Some(work) => (work, true),
            None => (of.queued.pop_front()?, false),
        };
        of.running += 1;
        Some(Taken { lane, work, has_begun })
    }

    /// True if a worker of this class finds something to run.
    pub(super) fn has_more(&self, class: Class) -> bool {
        self.runnable(class).next().is_some()
    }

    /// True if it finds something in this lane.
    pub(super) fn is_runnable(&self, lane: usize, class: Class) -> bool {
        self.lanes.get(lane).is_some_and(|of| of.is_runnable(class, self.begun_max))
    }

    fn runnable(&self, class: Class) -> impl Iterator<Item = (usize, &Lane)> {
        let busy = self.busy.iter().map(|lane| (*lane, &self.lanes[*lane]));
        busy.filter(move |(_, of)| of.is_runnable(class, self.begun_max))
    }

    /// Counts a slice, and puts the work aside that has not ended.
    pub(super) fn end_slice(&mut self, ended: Ended) {
        let of = &mut self.lanes[ended.lane];
        of.running -= 1;
        *of.had.of_mut(ended.class) += ended.slice;
        // A lane that comes to workers of another class has no claim to what others had of them before.
        if ended.class == Class::Quick && (ended.aside.is_some() || ended.overran) {
            of.had.raise(Class::Long, self.turn.of(Class::Long));
        }
        if of.overran && !ended.overran {
            of.had.raise(Class::Quick, self.turn.of(Class::Quick));
        }
        of.overran = ended.overran;
        of.aside.extend(ended.aside);
        if of.running > 0 || !of.aside.is_empty() || !of.queued.is_empty() {
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
    /// True if a worker of this class may run something of it: each call begins on a quick one, unless the lane's last
    /// slice was far over its end, and continues on a long one.
    fn is_runnable(&self, class: Class, begun_max: usize) -> bool {
        let may_begin = !self.queued.is_empty() && self.aside.len() + self.running < begun_max;
        match class {
            Class::Quick => may_begin && !self.overran,
            Class::Long => !self.aside.is_empty() || (may_begin && self.overran),
        }
    }
}
