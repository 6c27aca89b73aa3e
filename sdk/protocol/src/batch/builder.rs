//! Making a batch: events in, checked bytes out.

use bytes::{BufMut, Bytes};

use super::{
    BATCH_HEADER_BYTES, BATCH_VERSION, Batch, EVENT_HEADER_BYTES, EventRef, FLAG_IDS, FLAG_SELECTION,
    FLAG_TRACED, FLAG_TTLS, NO_KEY, NO_PAYLOAD, checksum,
};
use crate::{
    event::{Event, EventSizes, EventTooLarge, HeaderReserved, MadeBy, is_engine_header},
    ids::{Epoch, ProducerId, Sequence, Timestamp},
    limits::{BATCH_BODY_BYTES_MAX, BATCH_BYTES_TARGET, BATCH_EVENTS_MAX},
    trace::TRACE_HEADER,
};

/// Why an event was not added to a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchFull {
    /// The batch has no room; finish it and push again to a new one.
    #[error("the batch is full")]
    Full,
    /// The event can be in no batch.
    #[error(transparent)]
    TooLarge(#[from] EventTooLarge),
    /// The event can be in no batch of a publisher.
    #[error(transparent)]
    HeaderReserved(#[from] HeaderReserved),
}

/// Everything of an event but its headers.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventParts<'a> {
    /// See [`Event::key`].
    pub key: Option<&'a [u8]>,
    /// See [`Event::payload`].
    pub payload: Option<&'a [u8]>,
    /// See [`Event::time`].
    pub time: Timestamp,
    /// See [`Event::id`].
    pub id: Option<&'a str>,
    /// See [`Event::ttl_ms`].
    pub ttl_ms: Option<u32>,
}

impl<'a> EventParts<'a> {
    /// The parts of a stored event.
    #[inline]
    pub fn of(event: &EventRef<'a>) -> Self {
        Self {
            key: event.key(),
            payload: event.payload(),
            time: event.time(),
            id: event.id(),
            ttl_ms: event.ttl_ms(),
        }
    }
}

/// Whose sequence a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The publisher object.
    pub producer_id: ProducerId,
    /// Its fencing epoch.
    pub epoch: Epoch,
    /// The sequence of the first event.
    pub first_sequence: Sequence,
}

impl Stamp {
    /// The stamp of batches that the engine builds itself.
    pub const ENGINE: Self =
        Self { producer_id: ProducerId(0), epoch: Epoch(0), first_sequence: Sequence(0) };
}

/// At most how many bytes an event adds to a batch.
#[inline]
pub fn record_bytes(event: &Event) -> usize {
    let optional = event.id.as_deref().map_or(0, str::len) + 6;
    let headers: usize = event.headers.iter().map(|(name, value)| 3 + name.len() + value.len()).sum();
    let [key, payload] = [&event.key, &event.payload].map(|part| part.as_ref().map_or(0, |part| part.len()));
    EVENT_HEADER_BYTES + optional + headers + key + payload
}

/// Collects events into the bytes of one batch.
///
/// A builder is reused: [`BatchBuilder::finish`] leaves it empty, without memory. The next batch begins with a little more
/// than the last one took, up to the usual size of a batch.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: Vec<u8>,
    /// How long the last batch was.
    last_len: usize,
    by: MadeBy,
    flags: u16,
    count: u32,
    span: u32,
    base_time: u64,
    max_time: u64,
}

impl BatchBuilder {
    /// A builder of plain batches, where an event's offset delta is its index.
    pub fn new() -> Self {
        Self::with_flags(0, MadeBy::Client)
    }

    /// A builder of the engine's own plain batches, whose events may carry headers on top of a publisher's limits.
    pub fn of_engine() -> Self {
        Self::with_flags(0, MadeBy::Engine)
    }

    /// A builder of selections, where every event says its own offset delta. The events may be the engine's.
    pub fn selection() -> Self {
        Self::with_flags(FLAG_SELECTION, MadeBy::Engine)
    }

    fn with_flags(flags: u16, by: MadeBy) -> Self {
        Self { bytes: Vec::new(), last_len: 0, by, flags, count: 0, span: 0, base_time: 0, max_time: 0 }
    }

    /// How many events were pushed.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// True if no event was pushed.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How long the batch is so far, header included.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len().max(BATCH_HEADER_BYTES)
    }

    /// Adds an event behind the others; one without a time gets 0. The builder must be one of plain batches.
    pub fn push(&mut self, event: &Event) -> Result<(), BatchFull> {
        let parts = EventParts {
            key: event.key.as_deref(),
            payload: event.payload.as_deref(),
            time: event.time.unwrap_or_default(),
            id: event.id.as_deref(),
            ttl_ms: event.ttl_ms,
        };
        let headers = event.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_ref()));
        self.push_parts(self.span, &parts, headers)
    }

    /// Adds an event of another batch; `offset_delta` counts only in a selection, and must rise.
    pub fn push_ref(&mut self, offset_delta: u32, event: &EventRef<'_>) -> Result<(), BatchFull> {
        self.push_parts(offset_delta, &EventParts::of(event), event.headers())
    }

    /// Adds an event given in parts; `offset_delta` counts only in a selection, and must rise.
    ///
    /// # Panics
    /// If the builder is one of selections and `offset_delta` does not rise: a caller's mistake.
    pub fn push_parts<'h>(
        &mut self,
        offset_delta: u32,
        parts: &EventParts<'_>,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])> + Clone,
    ) -> Result<(), BatchFull> {
        let missing = if parts.id.is_some() { FLAG_IDS } else { 0 }
            | if parts.ttl_ms.is_some() { FLAG_TTLS } else { 0 };
        if missing & !self.flags != 0 {
            self.add_flags(missing)?;
        }
        let sizes = self.measure(parts, headers.clone());
        sizes.check(self.by)?;
        if self.by == MadeBy::Client
            && let Some((name, _)) = headers.clone().find(|(name, _)| is_engine_header(name))
        {
            return Err(HeaderReserved::new(name).into());
        }
        self.make_room(sizes.total, parts.time)?;
        if self.flags & FLAG_TRACED == 0 && headers.clone().any(|(name, _)| name == TRACE_HEADER.as_bytes()) {
            self.flags |= FLAG_TRACED;
        }
        let selection = self.flags & FLAG_SELECTION != 0;
        assert!(
            !selection || self.count == 0 || offset_delta >= self.span,
            "offset deltas of a selection rise"
        );
        self.span = if selection { offset_delta + 1 } else { self.count + 1 };
        self.count += 1;
        let narrow = |len: usize| u16::try_from(len).expect("lengths were checked against the limits");
        let bytes = &mut self.bytes;
        bytes.reserve(sizes.total);
        bytes.put_u32_le(u32::try_from(sizes.total).expect("an event is at most 1 MiB"));
        bytes.put_u16_le(parts.key.map_or(NO_KEY, |key| narrow(key.len())));
        bytes.put_u16_le(narrow(sizes.headers) | if parts.payload.is_none() { NO_PAYLOAD } else { 0 });
        bytes.put_u32_le(
            u32::try_from(parts.time.0 - self.base_time).expect("make_room keeps the span in 32 bits"),
        );
        if selection {
            bytes.put_u32_le(offset_delta);
        }
        if self.flags & FLAG_IDS != 0 {
            bytes.put_u16_le(narrow(sizes.id));
        }
        if self.flags & FLAG_TTLS != 0 {
            bytes.put_u32_le(parts.ttl_ms.unwrap_or(0));
        }
        if let Some(key) = parts.key {
            bytes.extend_from_slice(key);
        }
        if let Some(id) = parts.id {
            bytes.extend_from_slice(id.as_bytes());
        }
        for (name, value) in headers {
            bytes.put_u8(u8::try_from(name.len()).expect("names were checked against the limit"));
            bytes.put_u16_le(narrow(value.len()));
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value);
        }
        if let Some(payload) = parts.payload {
            bytes.extend_from_slice(payload);
        }
        Ok(())
    }

    /// Closes the batch and empties the builder.
    ///
    /// # Panics
    /// If the builder is empty: a batch has at least one event.
    pub fn finish(&mut self, stamp: Stamp) -> Batch {
        assert!(self.count > 0, "a batch has at least one event");
        let body_len = u32::try_from(self.bytes.len() - BATCH_HEADER_BYTES).expect("a body is at most 1 MiB");
        let mut header = &mut self.bytes[..BATCH_HEADER_BYTES];
        header.put_u8(BATCH_VERSION);
        header.put_u8(0);
        header.put_u16_le(self.flags);
        header.put_u32_le(self.count);
        header.put_u32_le(self.span);
        header.put_u32_le(body_len);
        header.put_u32_le(body_len);
        header.put_u32_le(0);
        header.put_u128_le(stamp.producer_id.0);
        header.put_u32_le(stamp.epoch.0);
        header.put_u32_le(
            u32::try_from(self.max_time - self.base_time).expect("make_room keeps the span in 32 bits"),
        );
        header.put_u64_le(stamp.first_sequence.0);
        header.put_u64_le(self.max_time);
        let crc = checksum(&self.bytes);
        self.bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        self.last_len = self.bytes.len();
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        (self.count, self.span) = (0, 0);
        self.flags &= FLAG_SELECTION;
        Batch::trusted(bytes)
    }

    /// How large the event's record will be, and its parts against the limits.
    #[inline]
    fn measure<'h>(
        &self,
        parts: &EventParts<'_>,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    ) -> EventSizes {
        let optional = |flag: u16, len: usize| if self.flags & flag == 0 { 0 } else { len };
        let fixed =
            EVENT_HEADER_BYTES + optional(FLAG_SELECTION, 4) + optional(FLAG_IDS, 2) + optional(FLAG_TTLS, 4);
        let mut sizes = EventSizes {
            key: parts.key.map_or(0, <[u8]>::len),
            id: parts.id.map_or(0, str::len),
            ..EventSizes::default()
        };
        for (name, value) in headers {
            sizes.headers += 1;
            sizes.headers_bytes += 3 + name.len() + value.len();
            sizes.header_name_longest = sizes.header_name_longest.max(name.len());
        }
        sizes.total =
            fixed + sizes.key + sizes.id + sizes.headers_bytes + parts.payload.map_or(0, <[u8]>::len);
        sizes
    }

    /// Makes sure that a record of `len` bytes and of this time fits, or answers that it does not.
    #[inline]
    fn make_room(&mut self, len: usize, time: Timestamp) -> Result<(), BatchFull> {
        if self.count == 0 {
            self.bytes.clear();
            // A batch is seldom as long as the one before it; growing later would copy all of it.
            let expected = (self.last_len + self.last_len / 8).clamp(BATCH_HEADER_BYTES, BATCH_BYTES_TARGET);
            self.bytes.reserve(expected + len);
            self.bytes.resize(BATCH_HEADER_BYTES, 0);
            (self.base_time, self.max_time) = (time.0, time.0);
        }
        let body = self.bytes.len() - BATCH_HEADER_BYTES;
        if self.count as usize == BATCH_EVENTS_MAX || body + len > BATCH_BODY_BYTES_MAX + self.by.more_bytes()
        {
            return Err(BatchFull::Full);
        }
        let (base, max) = (self.base_time.min(time.0), self.max_time.max(time.0));
        if max - base > u64::from(u32::MAX) {
            return Err(BatchFull::Full);
        }
        if base < self.base_time {
            let shift =
                u32::try_from(self.base_time - base).expect("less than the span, which was just checked");
            self.shift_times(shift);
        }
        (self.base_time, self.max_time) = (base, max);
        Ok(())
    }

    /// Moves the base time back: every event is later by `shift` than it was, seen from the new base.
    fn shift_times(&mut self, shift: u32) {
        let mut at = BATCH_HEADER_BYTES;
        let read = |bytes: &[u8], at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        while at < self.bytes.len() {
            let delta = read(&self.bytes, at + 8) + shift;
            self.bytes[at + 8..at + 12].copy_from_slice(&delta.to_le_bytes());
            at += read(&self.bytes, at) as usize;
        }
    }

    /// Gives every event so far the optional fields of `flags`. Rare: publishers set ids on all events or none.
    fn add_flags(&mut self, flags: u16) -> Result<(), BatchFull> {
        if self.count == 0 {
            self.flags |= flags;
            return Ok(());
        }
        if self.bytes.len() + self.count as usize * 6 > BATCH_BODY_BYTES_MAX + self.by.more_bytes() {
            return Err(BatchFull::Full);
        }
        let mut wider = Self::with_flags(self.flags | flags, self.by);
        for event in self.finish(Stamp::ENGINE).events() {
            wider.push_ref(event.offset_delta(), &event)?;
        }
        *self = wider;
        Ok(())
    }
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_says_whether_some_event_carries_a_trace_context() {
        let traced = Event::new("x").with_header(TRACE_HEADER, "00-…");
        let plain = Event::new("x").with_header("traceparents", "no");
        let mut builder = BatchBuilder::new();
        for (events, is_traced) in [
            (&[plain.clone(), traced.clone(), plain.clone()][..], true),
            (std::slice::from_ref(&plain), false),
            (std::slice::from_ref(&traced), true),
        ] {
            events.iter().for_each(|event| builder.push(event).unwrap());
            let batch = builder.finish(Stamp::ENGINE);
            assert_eq!(batch.header().is_traced(), is_traced);
            assert_eq!(batch.bytes()[2..4], [if is_traced { 8 } else { 0 }, 0]);
            assert_eq!(Batch::check(batch.bytes().clone()), Ok(batch));
        }
        // The flag survives that all events get another optional field.
        builder.push(&traced).unwrap();
        builder.push(&Event { id: Some("id".into()), ..plain }).unwrap();
        let batch = builder.finish(Stamp::ENGINE);
        assert_eq!(batch.header().flags, FLAG_TRACED | FLAG_IDS);
        let mut selection = BatchBuilder::selection();
        batch.events().take(1).for_each(|event| selection.push_ref(0, &event).unwrap());
        assert!(selection.finish(Stamp::ENGINE).header().is_traced());
    }

    #[test]
    fn optional_fields_of_the_first_event_keep_the_buffer() {
        let mut builder = BatchBuilder::new();
        builder.bytes.reserve(100_000);
        let event = Event { id: Some("id".into()), ttl_ms: Some(9), ..Event::new("x") };
        builder.push(&event).unwrap();
        assert!(builder.bytes.capacity() >= 100_000);
    }
}
