//! Whether a subscription has consumers, and since when it has none: what its owner, those who attach and whoever deletes it for
//! having none must agree about.

use levada_protocol::ids::Timestamp;
use tokio::sync::watch;

/// A subscription that has had no consumer for so long raises an alarm: 24 hours.
pub(crate) const UNATTENDED_ALARM_MS: u64 = 24 * 3_600_000;

/// Shared by the handle of a subscription and its owner.
#[derive(Debug)]
pub(crate) struct Attendance(watch::Sender<State>);

#[derive(Debug, Clone, Copy)]
struct State {
    /// How many consumers are attached, or about to be.
    attached: u64,
    /// Since when the owner has none.
    since: Option<Timestamp>,
    /// The alarm about that was logged.
    alarmed: bool,
    gate: Gate,
}

/// Whether consumers may attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// They wait: the subscription is being deleted for having none.
    Held,
    /// It was deleted.
    Shut,
}

/// Keeps consumers from attaching until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold<'a> {
    attendance: &'a Attendance,
    /// Since when there is no consumer.
    pub(crate) since: Timestamp,
}

impl Attendance {
    /// No consumer is attached since then.
    pub(super) fn new(since: Timestamp) -> Self {
        Self(watch::Sender::new(State { attached: 0, since: Some(since), alarmed: false, gate: Gate::Open }))
    }

    /// Counts a consumer that is about to be attached; false if the subscription was deleted. Waits while it may be. Cancel
    /// safe: a call that is given up counts nobody.
    pub(super) async fn enter(&self) -> bool {
        loop {
            let mut state = self.0.subscribe();
            let mut gate = Gate::Open;
            self.0.send_if_modified(|state| {
                gate = state.gate;
                state.attached += u64::from(gate == Gate::Open);
                false
            });
            match gate {
                Gate::Open => return true,
                Gate::Shut => return false,
                // Its sender is this, and so is not dropped.
                Gate::Held => drop(state.wait_for(|state| state.gate != Gate::Held).await),
            }
        }
    }

    /// Counts a consumer no more.
    pub(super) fn leave(&self) {
        self.0.send_if_modified(|state| {
            state.attached -= 1;
            false
        });
    }

    /// How many consumers are attached, or about to be.
    pub(super) fn attached(&self) -> u64 {
        self.0.borrow().attached
    }

    /// Since when the owner has no consumer; `None` if it has one.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.0.borrow().since
    }

    /// The owner has consumers, or none since a time.
    pub(super) fn set_since(&self, since: Option<Timestamp>) {
        self.0.send_if_modified(|state| {
            state.alarmed &= since.is_some();
            state.since = since;
            false
        });
    }

    /// True if the alarm is to be logged: for the first time since there was a consumer.
    pub(crate) fn begins_alarm(&self) -> bool {
        let mut begins = false;
        self.0.send_if_modified(|state| {
            begins = state.since.is_some() && !std::mem::replace(&mut state.alarmed, true);
            false
        });
        begins
    }

    /// Keeps consumers from attaching; `None` if one is attached, or about to be.
    pub(crate) fn hold(&self) -> Option<Hold<'_>> {
        let mut since = None;
        self.0.send_if_modified(|state| {
            since = state.since.filter(|_| state.attached == 0 && state.gate == Gate::Open);
            if since.is_some() {
                state.gate = Gate::Held;
            }
            false
        });
        since.map(|since| Hold { attendance: self, since })
    }

    fn set_gate(&self, gate: Gate) {
        self.0.send_modify(|state| state.gate = gate);
    }
}

impl Hold<'_> {
    /// The subscription was deleted: whoever waits, or comes later, is told so.
    pub(crate) fn shut(self) {
        self.attendance.set_gate(Gate::Shut);
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if self.attendance.0.borrow().gate == Gate::Held {
            self.attendance.set_gate(Gate::Open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINCE: Timestamp = Timestamp(7);

    /// Polls an attach once.
    async fn poll(entering: &mut (impl Future<Output = bool> + Unpin)) -> Option<bool> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *entering).poll(context) {
                std::task::Poll::Ready(entered) => Some(entered),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn whoever_comes_while_it_is_held_waits_and_is_attached_if_it_was_not_deleted() {
        let attendance = Attendance::new(SINCE);
        let hold = attendance.hold().unwrap();
        assert!(attendance.hold().is_none(), "once at a time");
        let mut entering = Box::pin(attendance.enter());
        assert_eq!(poll(&mut entering).await, None);
        let given_up = Box::pin(attendance.enter());
        drop(given_up);
        assert_eq!(hold.since, SINCE);
        drop(hold);
        assert!(entering.await);
        assert_eq!(attendance.attached(), 1, "who gave up is not counted");
        assert!(attendance.hold().is_none(), "one is about to be attached");
        attendance.leave();
        assert!(attendance.hold().is_some());
    }

    #[tokio::test]
    async fn whoever_comes_while_it_is_deleted_or_later_is_not_attached() {
        let attendance = Attendance::new(SINCE);
        let hold = attendance.hold().unwrap();
        let mut entering = Box::pin(attendance.enter());
        assert_eq!(poll(&mut entering).await, None);
        hold.shut();
        assert!(!entering.await && !attendance.enter().await);
        assert_eq!(attendance.attached(), 0);
    }

    #[tokio::test]
    async fn the_alarm_begins_once_for_each_time_without_a_consumer() {
        let attendance = Attendance::new(SINCE);
        assert!(attendance.begins_alarm() && !attendance.begins_alarm());
        attendance.set_since(None);
        assert!(!attendance.begins_alarm() && attendance.hold().is_none());
        attendance.set_since(Some(Timestamp(9)));
        assert_eq!(attendance.since(), Some(Timestamp(9)));
        assert!(attendance.begins_alarm() && !attendance.begins_alarm());
    }
}
