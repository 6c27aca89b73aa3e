//! Reading a batch without copying it.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    BATCH_HEADER_BYTES, BATCH_VERSION, BatchError, BatchHeader, EVENT_HEADER_BYTES, FLAG_IDS, FLAG_SELECTION,
    FLAG_TTLS, NO_KEY, NO_PAYLOAD, check, checksum,
};
use crate::{
    event::{Event, MadeBy},
    ids::{Offset, Timestamp},
};

/// A batch whose bytes were checked: its events can be walked without further error.
///
/// Cheap to clone: the bytes are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    bytes: Bytes,
    header: BatchHeader,
}

impl Batch {
    /// Checks bytes that must be exactly one batch of a publisher: version, lengths, limits, every event's layout,
    /// checksum, and that no header is the engine's own.
    pub fn check(bytes: Bytes) -> Result<Self, BatchError> {
        let header = check::check_whole(&bytes, MadeBy::Client)?;
        Ok(Self { bytes, header })
    }

    /// Checks the batch at the front of `bytes` and cuts it off. It may be the engine's, whose events may carry headers
    /// on top of the limits that publishers obey.
    pub fn check_first(bytes: &mut Bytes) -> Result<Self, BatchError> {
        let len = check::claimed_len(bytes)?;
        let bytes = bytes.split_to(len);
        let header = check::check_whole(&bytes, MadeBy::Engine)?;
        Ok(Self { bytes, header })
    }

    /// Cuts off the batch at the front of `bytes`, reading its header alone.
    ///
    /// For bytes that were checked when they arrived and have not left memory since; bytes from a disk want
    /// [`Batch::verify`] as well.
    pub fn read_first(bytes: &mut Bytes) -> Result<Self, BatchError> {
        let len = check::claimed_len(bytes)?;
        let header = check::check_header(bytes, MadeBy::Engine)?;
        Ok(Self { bytes: bytes.split_to(len), header })
    }

    /// Compares the checksum with the bytes. What was checked at arrival and still has its checksum is sound.
    pub fn verify(&self) -> Result<(), BatchError> {
        check::check_checksum(&self.header, &self.bytes)
    }

    /// A batch made by this process's own builder.
    pub(super) fn trusted(bytes: Bytes) -> Self {
        let header = BatchHeader::read(&bytes).expect("the builder writes whole headers");
        Self { bytes, header }
    }

    /// The header's fields.
    #[inline]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Header and body as they travel and are stored.
    #[inline]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many events there are; at least 1.
    #[inline]
    pub fn count(&self) -> u32 {
        self.header.count
    }

    /// How many offsets the batch covers from its base.
    #[inline]
    pub fn span(&self) -> u32 {
        self.header.span
    }

    /// The events in order, borrowed.
    #[inline]
    pub fn events(&self) -> Events<'_> {
        Events { body: &self.bytes[BATCH_HEADER_BYTES..], header: self.header, index: 0 }
    }

    /// True if events of it may have a time to live; if false, none has.
    #[inline]
    pub fn has_ttls(&self) -> bool {
        self.header.flags & FLAG_TTLS != 0
    }

    /// Where a part of this batch lies in its shared bytes, as a slice that shares them.
    ///
    /// # Panics
    /// If `part` is no slice of this batch's bytes.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }

    /// The same batch without the events that `is_out` names by their index, their records copied as they lie; `None` if
    /// none is left. Whose sequence it is stays; offsets follow on each other.
    ///
    /// # Panics
    /// If the batch is a selection, whose offsets do not follow from its indexes: a caller's mistake.
    pub fn without(&self, is_out: impl Fn(u32) -> bool) -> Option<Self> {
        let header = self.header();
        assert!(!header.is_selection(), "events are taken out of plain batches");
        let base_time = header.base_time();
        let mut bytes = BytesMut::with_capacity(self.bytes().len());
        bytes.resize(BATCH_HEADER_BYTES, 0);
        let (mut count, mut time_span_ms) = (0, 0);
        for (index, event) in (0..).zip(self.events()) {
            if is_out(index) {
                continue;
            }
            count += 1;
            let time_delta = event.time().0.saturating_sub(base_time);
            time_span_ms = time_span_ms.max(u32::try_from(time_delta).expect("a delta has 32 bits"));
            bytes.extend_from_slice(event.record());
        }
        if count == 0 {
            return None;
        }
        let body_len = u32::try_from(bytes.len() - BATCH_HEADER_BYTES).expect("less than a whole body");
        let mut out = &mut bytes[..BATCH_HEADER_BYTES];
        out.put_u8(BATCH_VERSION);
        out.put_u8(0);
        out.put_u16_le(header.flags);
        out.put_u32_le(count);
        out.put_u32_le(count);
        out.put_u32_le(body_len);
        out.put_u32_le(body_len);
        out.put_u32_le(0);
        out.put_u128_le(header.producer_id);
        out.put_u32_le(header.epoch);
        out.put_u32_le(time_span_ms);
        out.put_u64_le(header.first_sequence);
        out.put_u64_le(base_time + u64::from(time_span_ms));
        let crc = checksum(&bytes);
        bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        Some(Self::trusted(bytes.freeze()))
    }
}

/// A batch borrowed from bytes that were checked before by a party that the reader trusts, as a plugin trusts
/// its engine: the walk verifies nothing again and allocates nothing.
///
/// Bytes that are no batch after all make the walk panic, never read outside of them.
#[derive(Debug, Clone, Copy)]
pub struct BatchRef<'a> {
    header: BatchHeader,
    body: &'a [u8],
}

impl<'a> BatchRef<'a> {
    /// Cuts the batch at the front of `bytes` off; `None` if they are fewer than its header says.
    #[inline]
    pub fn split_first(bytes: &mut &'a [u8]) -> Option<Self> {
        let header = BatchHeader::read(bytes)?;
        let (batch, rest) = bytes.split_at_checked(header.total_len())?;
        *bytes = rest;
        Some(Self { header, body: &batch[BATCH_HEADER_BYTES..] })
    }

    /// The header's fields.
    #[inline]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The events in order.
    #[inline]
    pub fn events(&self) -> Events<'a> {
        Events { body: self.body, header: self.header, index: 0 }
    }
}

/// The events of one batch, in order.
#[derive(Debug, Clone)]
pub struct Events<'a> {
    body: &'a [u8],
    header: BatchHeader,
    index: u32,
}

impl<'a> Iterator for Events<'a> {
    type Item = EventRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<EventRef<'a>> {
        let len = u32::from_le_bytes(*self.body.first_chunk::<4>()?) as usize;
        // Bytes that were not checked may claim any length; the walk must end on them too.
        let len = len.max(EVENT_HEADER_BYTES);
        let (record, rest) = self.body.split_at(len);
        self.body = rest;
        let event = EventRef {
            record,
            flags: self.header.flags,
            index: self.index,
            base_time: self.header.base_time(),
        };
        self.index += 1;
        Some(event)
    }
}

/// One event, borrowed from its batch; fields are decoded when asked for.
#[derive(Debug, Clone, Copy)]
pub struct EventRef<'a> {
    record: &'a [u8],
    flags: u16,
    index: u32,
    base_time: u64,
}

impl<'a> EventRef<'a> {
    #[inline]
    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.record[at], self.record[at + 1]])
    }

    #[inline]
    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.record[at], self.record[at + 1], self.record[at + 2], self.record[at + 3]])
    }

    #[inline]
    fn after_offset(&self) -> usize {
        EVENT_HEADER_BYTES + if self.flags & FLAG_SELECTION != 0 { 4 } else { 0 }
    }

    #[inline]
    fn after_id_len(&self) -> usize {
        self.after_offset() + if self.flags & FLAG_IDS != 0 { 2 } else { 0 }
    }

    /// Where the key begins.
    #[inline]
    fn key_start(&self) -> usize {
        self.after_id_len() + if self.flags & FLAG_TTLS != 0 { 4 } else { 0 }
    }

    #[inline]
    fn key_len(&self) -> usize {
        match self.u16_at(4) {
            NO_KEY => 0,
            len => usize::from(len),
        }
    }

    #[inline]
    fn id_len(&self) -> usize {
        if self.flags & FLAG_IDS == 0 { 0 } else { usize::from(self.u16_at(self.after_offset())) }
    }

    #[inline]
    fn headers_start(&self) -> usize {
        self.key_start() + self.key_len() + self.id_len()
    }

    /// The event's offset minus its batch's base offset.
    #[inline]
    pub fn offset_delta(&self) -> u32 {
        if self.flags & FLAG_SELECTION == 0 { self.index } else { self.u32_at(EVENT_HEADER_BYTES) }
    }

    /// The event's own offset in a batch that begins at `base`.
    #[inline]
    pub fn offset(&self, base: Offset) -> Offset {
        base.plus(u64::from(self.offset_delta()))
    }

    /// The publisher's event time.
    #[inline]
    pub fn time(&self) -> Timestamp {
        Timestamp(self.base_time.saturating_add(u64::from(self.u32_at(8))))
    }

    /// The key, if the event has one.
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        if self.u16_at(4) == NO_KEY {
            return None;
        }
        let start = self.key_start();
        Some(&self.record[start..start + self.key_len()])
    }

    /// The event id, if it has one.
    #[inline]
    pub fn id(&self) -> Option<&'a str> {
        let start = self.key_start() + self.key_len();
        match self.id_len() {
            0 => None,
            len => std::str::from_utf8(&self.record[start..start + len]).ok(),
        }
    }

    /// Milliseconds after its append at which it is no longer delivered.
    #[inline]
    pub fn ttl_ms(&self) -> Option<u32> {
        (self.flags & FLAG_TTLS != 0).then(|| self.u32_at(self.after_id_len())).filter(|ttl| *ttl != 0)
    }

    /// How many headers there are.
    #[inline]
    pub fn header_count(&self) -> u16 {
        self.u16_at(6) & !NO_PAYLOAD
    }

    /// The headers in order.
    #[inline]
    pub fn headers(&self) -> Headers<'a> {
        Headers { rest: &self.record[self.headers_start()..], left: self.header_count() }
    }

    /// The value of the first header of this name.
    #[inline]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
    }

    /// The payload; `None` for a tombstone.
    #[inline]
    pub fn payload(&self) -> Option<&'a [u8]> {
        if self.u16_at(6) & NO_PAYLOAD != 0 {
            return None;
        }
        let mut headers = self.headers();
        while headers.next().is_some() {}
        Some(headers.rest)
    }

    /// How many bytes headers and payload take together; no header is read.
    #[inline]
    pub fn headers_and_payload_len(&self) -> usize {
        self.record.len() - self.headers_start()
    }

    /// The whole record as it lies in the batch.
    #[inline]
    pub fn record(&self) -> &'a [u8] {
        self.record
    }

    /// The same event with bytes of its own, sharing those of `batch`.
    ///
    /// # Panics
    /// If the event is not one of `batch`.
    pub fn to_event(&self, batch: &Batch) -> Event {
        self.event(|bytes| batch.share(bytes))
    }

    /// The event with its own copy of its bytes: it keeps nothing of the batch in memory.
    pub fn to_copied_event(&self) -> Event {
        self.event(Bytes::copy_from_slice)
    }

    fn event(&self, bytes: impl Fn(&[u8]) -> Bytes) -> Event {
        Event {
            key: self.key().map(&bytes),
            headers: self
                .headers()
                .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), bytes(value)))
                .collect(),
            payload: self.payload().map(&bytes),
            time: Some(self.time()),
            id: self.id().map(Box::from),
            ttl_ms: self.ttl_ms(),
        }
    }
}

/// The headers of one event, in order: name (UTF-8) and value.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let (name_len, value_len) =
            (usize::from(self.rest[0]), usize::from(u16::from_le_bytes([self.rest[1], self.rest[2]])));
        let (name, rest) = self.rest[3..].split_at(name_len);
        let (value, rest) = rest.split_at(value_len);
        self.rest = rest;
        Some((name, value))
    }
}

/// Batches that lie back to back, each with the base offset that follows from those before it.
///
/// This is what a stored value holds. Every batch is checked as it is reached.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
    next: Offset,
}

impl Batches {
    /// Walks `bytes`, whose first batch begins at `base`.
    pub fn new(base: Offset, bytes: Bytes) -> Self {
        Self { rest: bytes, next: base }
    }
}

impl Iterator for Batches {
    type Item = Result<(Offset, Batch), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let base = self.next;
        match Batch::check_first(&mut self.rest) {
            Ok(batch) => {
                self.next = base.plus(u64::from(batch.span()));
                Some(Ok((base, batch)))
            }
            Err(error) => {
                self.rest = Bytes::new();
                Some(Err(error))
            }
        }
    }
}
