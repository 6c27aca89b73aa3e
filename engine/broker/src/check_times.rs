//! The transactions that wait for their decision, as far as that is durable, and when each group is asked about them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use levada_protocol::ids::{GroupName, Timestamp, TransactionId};
use tokio::sync::Notify;

use crate::rows::{TransactionKey, Undecided};

/// What waits for a decision.
#[derive(Debug, Default)]
pub(crate) struct CheckTimes {
    waiting: Mutex<HashMap<GroupName, Waiting>>,
    changed: Notify,
}

/// How many transactions wait.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UndecidedCounts {
    /// Their groups are asked about them.
    pub(crate) prepared: u64,
    /// A person has to decide.
    pub(crate) parked: u64,
}

/// What waits of one group.
#[derive(Debug, Default)]
struct Waiting {
    known: HashMap<TransactionId, Undecided>,
    /// Those that are not parked, by the time at which somebody is asked.
    by_time: BTreeSet<(Timestamp, TransactionId)>,
}

impl Waiting {
    /// What is due, the longest due first.
    fn due(&self, now: Timestamp) -> impl Iterator<Item = &TransactionId> {
        let is_due = move |id: &&TransactionId| self.known.get(*id).is_some_and(|it| it.is_due(now));
        let early = self.by_time.iter().take_while(move |(time, _)| *time <= now);
        // By a clock that was ahead, and set back since.
        let late = self.by_time.iter().rev().map(|(_, id)| id).take_while(is_due);
        let late = late.take_while(move |id| self.known[*id].next_check.is_some_and(|at| at > now));
        early.map(|(_, id)| id).chain(late)
    }

    /// When the first check is due; `now` if it is by now.
    fn first(&self, now: Timestamp) -> Option<Timestamp> {
        let (first, _) = self.by_time.first()?;
        Some(if self.due(now).next().is_some() { now } else { *first })
    }

    /// How many questions wait for an answer: asked, and not due again yet.
    fn unanswered(&self, now: Timestamp) -> usize {
        let asked = |undecided: &&Undecided| undecided.checks > 0 && !undecided.is_due(now);
        self.known.values().filter(|it| it.next_check.is_some()).filter(asked).count()
    }

    fn remove(&mut self, id: &TransactionId) {
        if let Some(time) = self.known.remove(id).and_then(|it| it.next_check) {
            self.by_time.remove(&(time, id.clone()));
        }
    }

    fn insert(&mut self, id: TransactionId, undecided: Undecided) {
        if let Some(time) = undecided.next_check {
            self.by_time.insert((time, id.clone()));
        }
        self.known.insert(id, undecided);
    }
}

impl CheckTimes {
    fn lock(&self) -> MutexGuard<'_, HashMap<GroupName, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a transaction waits; `None`: it does not any more.
    pub(crate) fn set(&self, key: TransactionKey, undecided: Option<Undecided>) {
        let mut waiting = self.lock();
        let of_group = waiting.entry(key.group.clone()).or_default();
        of_group.remove(&key.id);
        match undecided {
            Some(undecided) => of_group.insert(key.id, undecided),
            None if of_group.known.is_empty() => drop(waiting.remove(&key.group)),
            None => {}
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// Forgets all, and takes over what the store was found to hold.
    pub(crate) fn recover<'a>(&self, found: impl Iterator<Item = (&'a TransactionKey, &'a Undecided)>) {
        let mut waiting = self.lock();
        waiting.clear();
        for (key, undecided) in found {
            waiting.entry(key.group.clone()).or_default().insert(key.id.clone(), *undecided);
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// Waits until something has changed. For one who waits at a time.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// When the first of these groups is asked about something; `now` if that is by now.
    pub(crate) fn next<'a>(
        &self,
        groups: impl Iterator<Item = &'a GroupName>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let waiting = self.lock();
        let first = |group| waiting.get(group).and_then(|it: &Waiting| it.first(now));
        groups.filter_map(first).min()
    }

    /// What a group is to be asked about by now, the longest due first, so that at most `max` questions wait for an answer.
    pub(crate) fn due(&self, group: &GroupName, now: Timestamp, max: usize) -> Vec<TransactionKey> {
        let waiting = self.lock();
        let Some(of_group) = waiting.get(group) else { return Vec::new() };
        let max = max.saturating_sub(of_group.unanswered(now));
        let due = of_group.due(now).take(max);
        due.map(|id| TransactionKey { group: group.clone(), id: id.clone() }).collect()
    }

    /// How many wait.
    pub(crate) fn counts(&self) -> UndecidedCounts {
        let mut counts = UndecidedCounts::default();
        for waiting in self.lock().values() {
            counts.prepared += waiting.by_time.len() as u64;
            counts.parked += (waiting.known.len() - waiting.by_time.len()) as u64;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(group: &str, id: &str) -> TransactionKey {
        TransactionKey { group: group.parse().unwrap(), id: id.parse().unwrap() }
    }

    fn waits(at: Option<u64>) -> Option<Undecided> {
        let next_check = at.map(Timestamp);
        Some(Undecided { prepared: Timestamp(0), bytes: 1, checks: 0, next_check })
    }

    #[test]
    fn a_group_is_asked_about_its_own_in_the_order_of_their_times() {
        let times = CheckTimes::default();
        times.set(key("a", "late"), waits(Some(9)));
        times.set(key("a", "soon"), waits(Some(3)));
        times.set(key("a", "parked"), waits(None));
        times.set(key("b", "other"), waits(Some(1)));
        let (a, b) = (key("a", "x").group, key("b", "x").group);
        let now = Timestamp(0);
        assert_eq!(times.next([&a].into_iter(), now), Some(Timestamp(3)));
        assert_eq!(times.next([&a, &b].into_iter(), now), Some(Timestamp(1)));
        assert_eq!(times.next([&a].into_iter(), Timestamp(7)), Some(Timestamp(7)));
        assert_eq!(times.due(&a, Timestamp(2), 9), []);
        assert_eq!(times.due(&a, Timestamp(9), 9), [key("a", "soon"), key("a", "late")]);
        assert_eq!(times.due(&a, Timestamp(9), 1), [key("a", "soon")]);
        assert_eq!(times.counts(), UndecidedCounts { prepared: 3, parked: 1 });
        times.set(key("a", "soon"), waits(Some(12)));
        assert_eq!(times.due(&a, Timestamp(9), 9), [key("a", "late")], "asked again later");
        for id in ["late", "soon", "parked"] {
            times.set(key("a", id), None);
        }
        assert_eq!(
            (times.next([&a].into_iter(), now), times.lock().len()),
            (None, 1),
            "nothing is kept of a group"
        );
        let asked = |at| waits(Some(at)).map(|it| Undecided { checks: 1, ..it });
        (0..5).for_each(|id| times.set(key("a", &id.to_string()), waits(Some(id))));
        times.set(key("a", "2"), asked(50));
        times.set(key("a", "3"), asked(51));
        assert_eq!(
            times.due(&a, Timestamp(9), 4),
            [key("a", "0"), key("a", "1")],
            "two are not answered yet"
        );
        assert_eq!(times.due(&a, Timestamp(50), 4).len(), 3, "one of them is due again");
        times.set(key("a", "ahead"), waits(Some(u64::MAX / 2)));
        assert_eq!(times.due(&a, Timestamp(9), 9).last(), Some(&key("a", "ahead")), "the clock was set back");
        times.recover([(&key("a", "old"), &waits(Some(5)).unwrap())].into_iter());
        assert_eq!(times.counts(), UndecidedCounts { prepared: 1, parked: 0 });
    }
}
