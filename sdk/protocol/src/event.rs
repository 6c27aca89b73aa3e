//! What an event is made of, apart from the bytes it is stored in.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    ids::Timestamp,
    limits::{
        ENGINE_HEADERS_BYTES_MAX, ENGINE_HEADERS_MAX, EVENT_BYTES_MAX, EVENT_ID_BYTES_MAX,
        HEADER_NAME_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX,
    },
};

/// An event as a publisher makes it: key, headers, payload, event time, event id.
///
/// Immutable once stored. `Event::default()` is an event without key and id, with an empty payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Orders and places the event; `None` lets the publisher choose a partition. An empty key is a key.
    pub key: Option<Bytes>,
    /// Name and value pairs, in order; names may repeat.
    pub headers: Vec<(String, Bytes)>,
    /// The content. `None` is a tombstone, which says that what the key names is gone; empty is ordinary data. A
    /// tombstone is stored and delivered like any other event; in a topic that keeps the last event of each key
    /// ([`Retain::Compact`](crate::request::Retain::Compact)) it takes the place of all before it, and goes itself some time
    /// after 24 hours.
    pub payload: Option<Bytes>,
    /// When it happened, by the publisher's clock. It is stored and delivered as it is; nothing is ordered, found or
    /// dropped by it. `None` lets the publisher set the time at which it took the event; a stored event has a time.
    pub time: Option<Timestamp>,
    /// The publisher's own identity for the event. It is stored and delivered, and places an event without a key, so
    /// that equal ids meet in one partition. On a topic with a dedup window a second event of an id within the window
    /// is not stored; on any other two events of one id are two events. What keeps a resend from being stored twice are
    /// the producer's sequences, not this.
    pub id: Option<Box<str>>,
    /// Milliseconds after its append at which a subscription no longer delivers it, by the engine's wall clock; a delayed
    /// event is appended when it is due. It goes to the dead-letter topic if the subscription says so, and is read from
    /// the log as any other while it is retained. A route passes on what is left of the time. `None` or 0: for ever.
    pub ttl_ms: Option<u32>,
}

// An event is moved several times on its way into a batch, and what is larger than this is moved by a call of memcpy.
const _: () = assert!(size_of::<Event>() <= 128);

impl Default for Event {
    fn default() -> Self {
        Self {
            key: None,
            headers: Vec::new(),
            payload: Some(Bytes::new()),
            time: None,
            id: None,
            ttl_ms: None,
        }
    }
}

impl Event {
    /// An event with this payload and nothing else.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: Some(payload.into()), ..Self::default() }
    }

    /// The same event with this key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same event with one header more.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same event with a time to live, in whole milliseconds: see [`Event::ttl_ms`]. One that is longer than
    /// 4,294,967,295 ms, 49 days, is shortened to that, and one below a millisecond prolonged to it.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl_ms = Some(u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX).max(1));
        self
    }

    /// The same event with this event time.
    #[must_use]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }
}

/// The prefix of the names of the engine's own headers. Only the engine adds such headers.
pub const ENGINE_HEADER_PREFIX: &str = "lv-";

/// True for the name of a header of the engine's own.
#[inline]
pub fn is_engine_header(name: &[u8]) -> bool {
    name.starts_with(ENGINE_HEADER_PREFIX.as_bytes())
}

/// An event of a publisher with a header that is the engine's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "event has the header {name:?}, and names that begin with {ENGINE_HEADER_PREFIX} are the engine's own: give it another"
)]
pub struct HeaderReserved {
    /// The header's name.
    pub name: String,
}

impl HeaderReserved {
    pub(crate) fn new(name: &[u8]) -> Self {
        Self { name: String::from_utf8_lossy(name).into_owned() }
    }
}

/// Which limit an event breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event {part} is {got} {unit}, the limit is {limit}")]
pub struct EventTooLarge {
    /// What is too large.
    pub part: &'static str,
    /// Its size.
    pub got: usize,
    /// The limit, in the same unit.
    pub limit: usize,
    /// The unit of both.
    pub unit: &'static str,
}

impl EventTooLarge {
    /// The first of these sizes that is over its limit, by the name and the unit that it has in the second list. Names
    /// are checked last: this runs for every event.
    #[inline]
    pub fn first_of<const N: usize>(
        sizes: [(usize, usize); N],
        names: [(&'static str, &'static str); N],
    ) -> Result<(), Self> {
        // All of them at once, without a branch each.
        if !sizes.iter().fold(false, |over, (got, limit)| over | (got > limit)) {
            return Ok(());
        }
        let named = sizes.into_iter().zip(names).find(|((got, limit), _)| got > limit);
        named.map_or(Ok(()), |((got, limit), (part, unit))| Err(Self { part, got, limit, unit }))
    }
}

/// Sizes of an event's parts, checked against every limit by one function.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EventSizes {
    pub(crate) total: usize,
    pub(crate) key: usize,
    pub(crate) id: usize,
    pub(crate) headers: usize,
    pub(crate) headers_bytes: usize,
    pub(crate) header_name_longest: usize,
}

/// Who made an event, and with that which limits it obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MadeBy {
    /// A publisher.
    Client,
    /// The engine, which may have added headers of its own.
    Engine,
}

impl MadeBy {
    /// How many more headers than a client's it may have.
    pub(crate) fn more_headers(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Engine => ENGINE_HEADERS_MAX,
        }
    }

    /// How many more bytes than a client's it may have.
    pub(crate) fn more_bytes(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Engine => ENGINE_HEADERS_BYTES_MAX,
        }
    }
}

impl EventSizes {
    #[inline]
    pub(crate) fn check(&self, by: MadeBy) -> Result<(), EventTooLarge> {
        EventTooLarge::first_of(
            [
                (self.total, EVENT_BYTES_MAX + by.more_bytes()),
                (self.key, KEY_BYTES_MAX),
                (self.id, EVENT_ID_BYTES_MAX),
                (self.headers, HEADERS_MAX + by.more_headers()),
                (self.header_name_longest, HEADER_NAME_BYTES_MAX),
                (self.headers_bytes, HEADERS_BYTES_MAX + by.more_bytes()),
            ],
            [
                ("size", "bytes"),
                ("key", "bytes"),
                ("id", "bytes"),
                ("header count", "headers"),
                ("header name", "bytes"),
                ("headers", "bytes"),
            ],
        )
    }
}
