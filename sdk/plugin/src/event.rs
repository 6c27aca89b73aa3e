//! An event as a plugin sees it.

use levada_protocol::{
    batch::{EventRef, Headers},
    ids::{Offset, Timestamp},
};

/// One event, borrowed from the call's bytes; fields are decoded when asked for.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    event: EventRef<'a>,
    base: Offset,
    append_time: Timestamp,
}

impl<'a> Incoming<'a> {
    #[inline]
    pub(crate) fn new(event: EventRef<'a>, base: Offset, append_time: Timestamp) -> Self {
        Self { event, base, append_time }
    }

    /// The event's offset in its partition.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.event.offset(self.base).0
    }

    /// The publisher's event time in milliseconds since the Unix epoch.
    #[inline]
    pub fn time(&self) -> u64 {
        self.event.time().0
    }

    /// When the engine appended the event, in milliseconds since the Unix epoch.
    #[inline]
    pub fn append_time(&self) -> u64 {
        self.append_time.0
    }

    /// The event id, if the publisher gave one.
    #[inline]
    pub fn id(&self) -> Option<&'a str> {
        self.event.id()
    }

    /// The key, if there is one; an empty key is a key.
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.event.key()
    }

    /// The headers in order: name (UTF-8) and value.
    #[inline]
    pub fn headers(&self) -> Headers<'a> {
        self.event.headers()
    }

    /// The value of the first header of this name.
    #[inline]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.event.header(name)
    }

    /// The payload; `None` for a tombstone.
    #[inline]
    pub fn payload(&self) -> Option<&'a [u8]> {
        self.event.payload()
    }
}

/// The event as it lies in its batch, for what takes one so, such as a condition of `levada-expression`.
impl<'a> AsRef<EventRef<'a>> for Incoming<'a> {
    fn as_ref(&self) -> &EventRef<'a> {
        &self.event
    }
}
