//! One consumer's credit and what it holds.
//!
//! Owns the accounting. It must not know offsets.

/// Names an attached consumer; the caller gives a new one at each attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId(pub u64);

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) id: ConsumerId,
    credit_events: u64,
    /// May be negative: the last delivery may take more than was left.
    credit_bytes: i64,
    /// Promised to reads under way.
    reserved_events: u64,
    reserved_bytes: u64,
    pub(super) in_flight: u64,
    pub(super) in_flight_bytes: u64,
    /// It holds an event that nothing else may be in flight beside.
    pub(super) alone: bool,
    /// Deliveries made to it, and how many of those its stream has taken, in order.
    sent: u64,
    taken: u64,
    /// How many times in a row, and when last, deliveries timed out; a delivery made before the last time does not count
    /// once more.
    lapses: u8,
    lapsed_at: u64,
    /// Its stream takes nothing for now.
    pub(super) held: bool,
}

/// Timeouts in a row, without a word about any delivery, after which a consumer is passed over.
const LAPSES_MAX: u8 = 2;

/// How much may be sent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) events: u64,
    pub(super) bytes: u64,
}

impl Consumer {
    pub(super) fn new(id: ConsumerId) -> Self {
        Self {
            id,
            credit_events: 0,
            credit_bytes: 0,
            reserved_events: 0,
            reserved_bytes: 0,
            in_flight: 0,
            in_flight_bytes: 0,
            alone: false,
            sent: 0,
            taken: 0,
            lapses: 0,
            lapsed_at: 0,
            held: false,
        }
    }

    pub(super) fn grant(&mut self, events: u64, bytes: u64) {
        self.credit_events = self.credit_events.saturating_add(events);
        self.credit_bytes = self.credit_bytes.saturating_add(signed(bytes));
    }

    /// What may be sent under these bounds; `None` if nothing.
    pub(super) fn room(&self, in_flight_max: u64, in_flight_bytes_max: u64) -> Option<Room> {
        let held = self.in_flight.saturating_add(self.reserved_events);
        let held_bytes = self.in_flight_bytes.saturating_add(self.reserved_bytes);
        let credit_bytes = u64::try_from(self.credit_bytes).unwrap_or(0);
        let room = Room {
            events: self
                .credit_events
                .saturating_sub(self.reserved_events)
                .min(in_flight_max.saturating_sub(held)),
            bytes: credit_bytes
                .saturating_sub(self.reserved_bytes)
                .min(in_flight_bytes_max.saturating_sub(held_bytes)),
        };
        (!self.alone && !self.held && room.events > 0 && room.bytes > 0).then_some(room)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.reserved_events == 0
    }

    pub(super) fn load(&self) -> u64 {
        self.in_flight + self.reserved_events
    }

    pub(super) fn reserve(&mut self, room: Room) {
        self.reserved_events += room.events;
        self.reserved_bytes += room.bytes;
    }

    pub(super) fn unreserve(&mut self, room: Room) {
        self.reserved_events -= room.events;
        self.reserved_bytes -= room.bytes;
    }

    /// Notes that a delivery timed out.
    pub(super) fn lapse(&mut self, sent_at: u64, now: u64) {
        if sent_at >= self.lapsed_at {
            self.lapses = self.lapses.saturating_add(1);
            self.lapsed_at = now;
        }
    }

    /// Notes that it said what became of a delivery.
    pub(super) fn heard(&mut self) {
        self.lapses = 0;
    }

    /// True if its deliveries time out again and again.
    pub(super) fn is_silent(&self) -> bool {
        self.lapses >= LAPSES_MAX
    }

    /// Its stream has taken this many of its deliveries.
    pub(super) fn taken(&mut self, deliveries: u64) {
        self.taken = self.taken.max(deliveries);
    }

    /// True if its stream has taken its delivery of this number.
    pub(super) fn has_taken(&self, number: u64) -> bool {
        number <= self.taken
    }

    /// Takes what was sent from the credit and puts it in flight; answers which of its deliveries this is, from 1.
    pub(super) fn take(&mut self, events: u64, bytes: u64) -> u64 {
        self.credit_events = self.credit_events.saturating_sub(events);
        self.credit_bytes = self.credit_bytes.saturating_sub(signed(bytes));
        self.in_flight += events;
        self.in_flight_bytes += bytes;
        self.sent += 1;
        self.sent
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
