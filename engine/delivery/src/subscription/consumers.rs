//! All attached consumers: who has room, whose turn it is, who does not respond.
//!
//! The order of the list is the policies' business: where one consumer is active, it is the first. It must not know
//! offsets.

use levada_protocol::error::ErrorCode;

use super::consumer::{Consumer, ConsumerId, Room, Share};

/// Most consumers of one subscription.
pub const CONSUMERS_MAX: usize = 1_024;

/// The attached consumers, in order of attachment until a policy changes that.
#[derive(Debug)]
pub(super) struct Consumers {
    list: Vec<Consumer>,
    in_flight_max: Room,
    /// Events in flight at all of them.
    in_flight: u64,
    /// Whose turn it is.
    next: usize,
    /// Changes with the list and its order.
    version: u64,
}

impl Consumers {
    /// None yet; `in_flight_max` holds for each.
    pub(super) fn new(in_flight_max: Room) -> Self {
        Self { list: Vec::new(), in_flight_max, in_flight: 0, next: 0, version: 0 }
    }

    /// Changes what each may have in flight. One that has more gets nothing until it has less.
    pub(super) fn set_in_flight_max(&mut self, in_flight_max: Room) {
        self.in_flight_max = in_flight_max;
    }

    pub(super) fn attach(&mut self, id: ConsumerId) -> Result<(), ErrorCode> {
        assert!(self.index_of(id).is_none(), "consumer {} is attached twice", id.0);
        if self.list.len() >= CONSUMERS_MAX {
            return Err(ErrorCode::LimitExceeded);
        }
        self.list.push(Consumer::new(id));
        self.version += 1;
        Ok(())
    }

    /// Removes a consumer of which nothing is in flight.
    pub(super) fn detach(&mut self, id: ConsumerId) {
        if let Some(index) = self.index_of(id) {
            self.list.remove(index);
            self.version += 1;
        }
    }

    /// Makes the consumer at `index` the first; the first becomes the last.
    pub(super) fn make_first(&mut self, index: usize) {
        let heir = self.list.remove(index);
        let before = std::mem::replace(&mut self.list[0], heir);
        self.list.push(before);
        self.version += 1;
    }

    pub(super) fn index_of(&self, id: ConsumerId) -> Option<usize> {
        self.list.iter().position(|it| it.id() == id)
    }

    pub(super) fn find(&self, id: ConsumerId) -> Option<&Consumer> {
        self.list.iter().find(|it| it.id() == id)
    }

    /// A consumer whose deliveries in flight do not change; those change by [`Consumers::deliver`] and the like.
    pub(super) fn find_mut(&mut self, id: ConsumerId) -> Option<&mut Consumer> {
        self.list.iter_mut().find(|it| it.id() == id)
    }

    pub(super) fn list(&self) -> &[Consumer] {
        &self.list
    }

    /// Changes with every attachment, detachment and change of the order.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Events in flight at all consumers.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// What may be sent to the consumer at `index`; `None` if nothing.
    pub(super) fn room(&self, index: usize) -> Option<Room> {
        self.list[index].room(self.in_flight_max)
    }

    /// All who have room, the one whose turn it is first.
    pub(super) fn with_room(&self) -> impl Iterator<Item = (usize, Room)> {
        let count = self.list.len();
        (0..count)
            .map(move |step| (self.next + step) % count)
            .filter_map(|index| Some((index, self.room(index)?)))
    }

    /// The places of those who may run dry before they get more, where each gets `used` of what is assigned now.
    pub(super) fn short(&self, used: impl Fn(usize) -> Room) -> impl Iterator<Item = usize> {
        let is_short = move |place: &usize| self.list[*place].is_short(self.in_flight_max, used(*place));
        (0..self.list.len()).filter(is_short)
    }

    /// True if a consumer is silent, and another one is not and takes deliveries.
    pub(super) fn somebody_responds(&self) -> bool {
        self.list.iter().any(Consumer::is_silent)
            && (0..self.list.len()).any(|index| {
                let consumer = &self.list[index];
                !consumer.is_silent() && (!consumer.is_idle() || self.room(index).is_some())
            })
    }

    /// Consumers that are passed over: silent ones, while others respond.
    pub(super) fn passed_over(&self) -> impl Iterator<Item = ConsumerId> {
        let passing = self.somebody_responds();
        self.list.iter().filter(move |consumer| passing && consumer.is_silent()).map(Consumer::id)
    }

    /// Charges the consumer at `index` for a delivery; returns its number. The next one has its turn.
    pub(super) fn deliver(&mut self, index: usize, events: u64, bytes: u64, alone: bool) -> u64 {
        self.in_flight += events;
        self.next = (index + 1) % self.list.len();
        self.list[index].deliver(events, bytes, alone)
    }

    /// A part of a delivery that is no longer in flight.
    pub(super) fn release(&mut self, id: ConsumerId, share: Share) {
        let consumer = self.find_mut(id).expect("a consumer's deliveries end before it does");
        consumer.release(share);
        self.in_flight -= share.events;
    }

    /// Puts a part back in flight, as [`Consumer::restore`] does.
    pub(super) fn restore(&mut self, index: usize, share: Share) {
        self.in_flight += share.events;
        self.list[index].restore(share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Consumers {
        let mut consumers = Consumers::new(Room { events: 10, bytes: 1_000 });
        for id in 0..3 {
            consumers.attach(ConsumerId(id)).unwrap();
            consumers.find_mut(ConsumerId(id)).unwrap().grant(5, 500);
        }
        consumers
    }

    fn turns(consumers: &Consumers) -> Vec<usize> {
        consumers.with_room().map(|(index, _)| index).collect()
    }

    #[test]
    fn turns_go_round_among_those_who_have_room() {
        let mut consumers = three();
        assert_eq!(turns(&consumers), [0, 1, 2]);
        assert_eq!(consumers.deliver(0, 5, 50, false), 1);
        assert_eq!(turns(&consumers), [1, 2], "the first has no credit left");
        consumers.deliver(2, 1, 10, true);
        assert_eq!(turns(&consumers), [1], "the third must have nothing else");
        assert_eq!(consumers.in_flight(), 6);
        consumers.release(ConsumerId(2), Share { events: 1, bytes: 10, alone: true });
        assert_eq!((turns(&consumers), consumers.in_flight()), (vec![1, 2], 5));
    }

    #[test]
    fn the_silent_are_passed_over_while_somebody_responds() {
        let mut consumers = three();
        for id in [0, 1] {
            let consumer = consumers.find_mut(ConsumerId(id)).unwrap();
            consumer.lapse(0, 1);
            consumer.lapse(1, 2);
        }
        assert_eq!(consumers.passed_over().collect::<Vec<_>>(), [ConsumerId(0), ConsumerId(1)]);
        consumers.find_mut(ConsumerId(2)).unwrap().hold(true);
        assert_eq!(consumers.passed_over().next(), None, "the third takes nothing");
    }

    #[test]
    fn the_version_changes_with_the_list_and_its_order() {
        let mut consumers = three();
        let mut versions = vec![consumers.version()];
        consumers.make_first(1);
        versions.push(consumers.version());
        assert_eq!(consumers.list().iter().map(|it| it.id().0).collect::<Vec<_>>(), [1, 2, 0]);
        consumers.detach(ConsumerId(2));
        versions.push(consumers.version());
        assert!(versions.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
