//! One consumer: its credit, what it holds, and whether it responds.
//!
//! It must not know offsets.

/// Names an attached consumer; the caller gives a new one at each attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId(pub u64);

/// One attached consumer.
#[derive(Debug)]
pub(super) struct Consumer {
    id: ConsumerId,
    credit_events: u64,
    /// Below zero when the last delivery took more than was left.
    credit_bytes: i64,
    in_flight: u64,
    in_flight_bytes: u64,
    /// It holds an event that must be the only one in flight at its consumer.
    alone: bool,
    /// Its stream takes nothing for now.
    held: bool,
    /// Since when, on the monotonic clock, it has had no room for an event that was for it, and got none.
    lacks_room_since: Option<u64>,
    streamed: Streamed,
    responses: Responses,
    /// Events that it gets in a row before another has its turn.
    in_a_row: u64,
}

/// Deliveries made to a consumer, and how many of those its stream has taken, in order.
#[derive(Debug, Default)]
struct Streamed {
    sent: u64,
    taken: u64,
}

/// How many deliveries in a row timed out, and when the last one did; a delivery that was made before then is not
/// counted as another one.
#[derive(Debug, Default)]
struct Responses {
    lapses: u8,
    lapsed_at: u64,
}

/// For so long after a timeout, others are preferred to a consumer that has ended no delivery since.
const LAPSED_FOR_MS: u64 = 30_000;

/// Timeouts in a row, without any verb in between, after which a consumer is passed over.
const LAPSES_MAX: u8 = 2;

/// Events that a consumer gets in a row at least, and at most, before the one with the least gets some. It gets more than
/// the least number if it settles as many within [`IN_A_ROW_MS`]: fewer and larger deliveries cost both sides less.
const IN_A_ROW_MIN: u64 = 16;
const IN_A_ROW_MAX: u64 = 256;
const IN_A_ROW_MS: u64 = 100;

/// A consumer with half of so many bytes in flight, in two events or more, is busy until it gets more, whatever else it may
/// have.
const ENOUGH_BYTES: u64 = 16 * 1024;

/// How much may be sent to a consumer at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) events: u64,
    pub(super) bytes: u64,
}

/// What a delivery stops or begins to take of what its consumer may have in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) events: u64,
    /// By the events' share of the delivery.
    pub(super) bytes: u64,
    /// All of it has ended or begun, and it must be its consumer's only one.
    pub(super) alone: bool,
}

/// Bytes of a delivery before and after its real size is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resized {
    pub(super) whole: (u64, u64),
    pub(super) in_flight: (u64, u64),
}

impl Consumer {
    pub(super) fn new(id: ConsumerId) -> Self {
        Self {
            id,
            credit_events: 0,
            credit_bytes: 0,
            in_flight: 0,
            in_flight_bytes: 0,
            alone: false,
            held: false,
            lacks_room_since: None,
            streamed: Streamed::default(),
            responses: Responses::default(),
            in_a_row: IN_A_ROW_MIN,
        }
    }

    pub(super) fn id(&self) -> ConsumerId {
        self.id
    }

    /// Events in flight at this consumer.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// True if it holds an event that must be its only one.
    pub(super) fn is_alone(&self) -> bool {
        self.alone
    }

    pub(super) fn grant(&mut self, events: u64, bytes: u64) {
        self.credit_events = self.credit_events.saturating_add(events);
        self.credit_bytes = self.credit_bytes.saturating_add(signed(bytes));
    }

    /// True while its stream takes nothing.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// What may be sent if this much at most may be in flight; `None` if nothing.
    pub(super) fn room(&self, in_flight_max: Room) -> Option<Room> {
        let credit_bytes = u64::try_from(self.credit_bytes).unwrap_or(0);
        let room = Room {
            events: self.credit_events.min(in_flight_max.events.saturating_sub(self.in_flight)),
            bytes: credit_bytes.min(in_flight_max.bytes.saturating_sub(self.in_flight_bytes)),
        };
        (!self.alone && !self.held && room.events > 0 && room.bytes > 0).then_some(room)
    }

    /// True if it has room, and what it has together with `used` may be settled before long.
    pub(super) fn is_short(&self, in_flight_max: Room, used: Room) -> bool {
        self.room(in_flight_max).filter(|room| used.events < room.events).is_some_and(|room| {
            let (events, bytes) = (self.in_flight + used.events, self.in_flight_bytes + used.bytes);
            let bytes_max = bytes.saturating_add(room.bytes).min(ENOUGH_BYTES);
            events <= 1 || (events * 2 <= self.in_flight + room.events && bytes * 2 <= bytes_max)
        })
    }

    /// There is an event for it, and it has no room; returns since when that is so.
    pub(super) fn lack_room(&mut self, now: u64) -> u64 {
        *self.lacks_room_since.get_or_insert(now)
    }

    /// Charges a delivery and counts it as in flight; returns its number among this consumer's, from 1.
    pub(super) fn deliver(&mut self, events: u64, bytes: u64, alone: bool) -> u64 {
        self.lacks_room_since = None;
        self.credit_events = self.credit_events.saturating_sub(events);
        self.credit_bytes = self.credit_bytes.saturating_sub(signed(bytes));
        self.in_flight += events;
        self.in_flight_bytes += bytes;
        self.alone |= alone;
        self.streamed.sent += 1;
        self.streamed.sent
    }

    /// A delivery that it was charged did not get into its stream.
    pub(super) fn unsend(&mut self, charged: Room) {
        self.grant(charged.events, charged.bytes);
        self.streamed.sent -= 1;
    }

    /// Replaces the estimated size of a delivery by its real one.
    pub(super) fn correct(&mut self, Resized { whole, in_flight }: Resized) {
        let charged = self.credit_bytes.saturating_add(signed(whole.0));
        self.credit_bytes = charged.saturating_sub(signed(whole.1));
        self.in_flight_bytes = self.in_flight_bytes - in_flight.0 + in_flight.1;
    }

    /// A part of a delivery that is no longer in flight.
    pub(super) fn release(&mut self, share: Share) {
        self.in_flight -= share.events;
        self.in_flight_bytes -= share.bytes;
        self.alone &= !share.alone;
    }

    /// Puts a part of a delivery back in flight whose acknowledgement failed.
    pub(super) fn restore(&mut self, share: Share) {
        self.in_flight += share.events;
        self.in_flight_bytes += share.bytes;
        self.alone |= share.alone;
    }

    /// Its stream has taken this many of its deliveries.
    pub(super) fn taken(&mut self, deliveries: u64) {
        self.streamed.taken = self.streamed.taken.max(deliveries);
    }

    /// True if its stream has taken its delivery of this number.
    pub(super) fn has_taken(&self, number: u64) -> bool {
        number <= self.streamed.taken
    }

    /// Records that a delivery timed out which was made at `sent_at`.
    pub(super) fn lapse(&mut self, sent_at: u64, now: u64) {
        if sent_at >= self.responses.lapsed_at {
            self.responses.lapses = self.responses.lapses.saturating_add(1);
            self.responses.lapsed_at = now;
        }
    }

    /// Events that it gets in a row before another has its turn.
    pub(super) fn in_a_row(&self) -> u64 {
        self.in_a_row
    }

    /// Records that it settled a delivery of so many events after this time.
    pub(super) fn settled(&mut self, events: u64, after_ms: u64) {
        let settles = events.saturating_mul(IN_A_ROW_MS) / after_ms.max(1);
        if after_ms > IN_A_ROW_MS {
            self.in_a_row = self.in_a_row.min(settles).max(IN_A_ROW_MIN);
        } else {
            self.in_a_row = self.in_a_row.max(settles.min(2 * events).min(IN_A_ROW_MAX));
        }
    }

    /// Records that it ended a delivery, in time or not.
    pub(super) fn respond(&mut self) {
        self.responses.lapses = 0;
    }

    /// True if its last delivery timed out not long ago, and it has ended none since.
    pub(super) fn has_lapsed(&self, now: u64) -> bool {
        self.responses.lapses > 0 && now < self.responses.lapsed_at.saturating_add(LAPSED_FOR_MS)
    }

    /// True if its deliveries time out again and again.
    pub(super) fn is_silent(&self) -> bool {
        self.responses.lapses >= LAPSES_MAX
    }
}

#[cfg(test)]
impl Consumer {
    /// Events and bytes that may still be sent to it.
    pub(super) fn credit(&self) -> (u64, i64) {
        (self.credit_events, self.credit_bytes)
    }

    pub(super) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Room = Room { events: 10, bytes: 100 };

    fn consumer() -> Consumer {
        let mut consumer = Consumer::new(ConsumerId(1));
        consumer.grant(6, 1_000);
        consumer
    }

    #[test]
    fn room_is_the_smaller_of_credit_and_what_may_be_in_flight() {
        let mut consumer = consumer();
        assert_eq!(consumer.room(MAX), Some(Room { events: 6, bytes: 100 }));
        consumer.deliver(4, 30, false);
        assert_eq!(consumer.room(MAX), Some(Room { events: 2, bytes: 70 }));
        consumer.correct(Resized { whole: (30, 100), in_flight: (30, 100) });
        assert_eq!(consumer.room(MAX), None, "no more bytes may be in flight");
        consumer.release(Share { events: 4, bytes: 100, alone: false });
        assert_eq!(consumer.room(MAX), Some(Room { events: 2, bytes: 100 }));
        consumer.hold(true);
        assert_eq!(consumer.room(MAX), None);
    }

    #[test]
    fn a_debt_of_bytes_is_paid_before_more_is_sent() {
        let mut consumer = consumer();
        consumer.deliver(1, 1_500, false);
        consumer.release(Share { events: 1, bytes: 1_500, alone: false });
        consumer.grant(0, 500);
        assert_eq!(consumer.room(MAX), None);
        consumer.grant(0, 1);
        assert_eq!(consumer.room(MAX), Some(Room { events: 5, bytes: 1 }));
    }

    #[test]
    fn one_event_keeps_nobody_busy_and_several_do_by_their_bytes() {
        let (max, nothing) = (Room { events: 10, bytes: 1 << 20 }, Room { events: 0, bytes: 0 });
        let mut consumer = Consumer::new(ConsumerId(1));
        consumer.grant(10, 1 << 20);
        consumer.deliver(1, ENOUGH_BYTES, false);
        assert!(consumer.is_short(max, nothing));
        let one_more = |bytes| Room { events: 1, bytes };
        assert!(!consumer.is_short(max, one_more(1)));
        consumer.release(Share { events: 1, bytes: ENOUGH_BYTES, alone: false });
        consumer.deliver(2, 100, false);
        assert!(consumer.is_short(max, one_more(100)));
        assert!(
            !consumer.is_short(max, Room { events: 4, bytes: 100 }),
            "it has more than half of its events"
        );
        assert!(!consumer.is_short(max, Room { events: 9, bytes: 0 }), "it has room for no more");
    }

    #[test]
    fn a_consumer_gets_as_many_in_a_row_as_it_settles_in_a_tenth_of_a_second_within_bounds() {
        let mut consumer = consumer();
        assert_eq!(consumer.in_a_row(), IN_A_ROW_MIN);
        consumer.settled(16, 5);
        assert_eq!(consumer.in_a_row(), 32, "twice what it has shown");
        consumer.settled(1, 0);
        assert_eq!(consumer.in_a_row(), 32, "a single event shows nothing");
        (0..10).for_each(|_| consumer.settled(consumer.in_a_row(), 100));
        assert_eq!(consumer.in_a_row(), 32, "it settles no more in that time");
        (0..10).for_each(|_| consumer.settled(consumer.in_a_row(), 10));
        assert_eq!(consumer.in_a_row(), IN_A_ROW_MAX);
        consumer.settled(256, 400);
        assert_eq!(consumer.in_a_row(), 64);
        consumer.settled(1, 60_000);
        assert_eq!(consumer.in_a_row(), IN_A_ROW_MIN);
    }

    #[test]
    fn deliveries_of_one_moment_that_time_out_are_one_lapse() {
        let mut consumer = consumer();
        consumer.lapse(0, 100);
        consumer.lapse(0, 100);
        assert!(!consumer.is_silent());
        consumer.lapse(100, 200);
        assert!(consumer.is_silent());
        consumer.respond();
        assert!(!consumer.is_silent());
    }
}
