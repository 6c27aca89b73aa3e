//! Deciding whether bytes are a batch. Everything a peer or a disk can get wrong ends here, as an error.

use super::{
    BATCH_HEADER_BYTES, BATCH_VERSION, BatchHeader, EVENT_HEADER_BYTES, FLAG_IDS, FLAG_SELECTION, FLAG_TTLS,
    FLAGS_KNOWN, NO_KEY, NO_PAYLOAD, checksum,
};
use crate::{
    error::ErrorCode,
    event::{EventSizes, EventTooLarge, HeaderReserved, MadeBy, is_engine_header},
    limits::{BATCH_BODY_BYTES_MAX, BATCH_EVENTS_MAX, EVENT_BYTES_MAX},
};

/// Why bytes are no batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Shorter or longer than its header says.
    #[error("batch is {got} bytes, expected {expected}")]
    Length {
        /// What the header says, or the least a batch can be.
        expected: usize,
        /// The length in bytes.
        got: usize,
    },
    /// A layout version that this build does not read.
    #[error("batch version is {got}, expected {BATCH_VERSION}")]
    Version {
        /// The value that was read.
        got: u8,
    },
    /// A codec or flag that this build does not read.
    #[error("batch {field} is {got:#x}, which this version does not read")]
    Unsupported {
        /// The field's name.
        field: &'static str,
        /// The value that was read.
        got: u32,
    },
    /// The checksum does not match the bytes.
    #[error("batch checksum is {got:08x}, the bytes give {expected:08x}")]
    Checksum {
        /// The checksum computed from the bytes.
        expected: u32,
        /// The checksum in the header.
        got: u32,
    },
    /// Fewer or more events than the header says.
    #[error("batch holds {got} events, its header says {expected}")]
    Count {
        /// The number in the header.
        expected: u32,
        /// How many were found, at least.
        got: u32,
    },
    /// A header field outside its range.
    #[error("batch {field} is {got}, expected {expected}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// The value that was read.
        got: u64,
        /// What is allowed.
        expected: &'static str,
    },
    /// An event whose parts do not fit its length.
    #[error("event {index} of the batch is malformed: {what}")]
    Event {
        /// Its index in the batch.
        index: u32,
        /// What does not fit.
        what: &'static str,
    },
    /// An event over one of the limits.
    #[error("event {index} of the batch is over a limit")]
    TooLarge {
        /// Its index in the batch.
        index: u32,
        /// Which limit.
        #[source]
        source: EventTooLarge,
    },
    /// An event with a header that only the engine gives.
    #[error("event {index} of the batch cannot be published")]
    HeaderReserved {
        /// Its index in the batch.
        index: u32,
        /// Which header.
        #[source]
        source: HeaderReserved,
    },
}

impl BatchError {
    /// The code with which such a batch is refused.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::EventTooLarge,
            Self::HeaderReserved { .. } => ErrorCode::HeaderReserved,
            Self::Length { .. }
            | Self::Version { .. }
            | Self::Unsupported { .. }
            | Self::Checksum { .. }
            | Self::Count { .. }
            | Self::Field { .. }
            | Self::Event { .. } => ErrorCode::BatchInvalid,
        }
    }
}

/// How long the batch at the front of `bytes` says it is; an error if that is more than there is.
pub(super) fn claimed_len(bytes: &[u8]) -> Result<usize, BatchError> {
    let Some(header) = BatchHeader::read(bytes) else {
        return Err(BatchError::Length { expected: BATCH_HEADER_BYTES, got: bytes.len() });
    };
    let len = header.total_len();
    if len > bytes.len() {
        return Err(BatchError::Length { expected: len, got: bytes.len() });
    }
    Ok(len)
}

/// Checks that `bytes` are exactly one batch that obeys every limit for its producer.
pub(super) fn check_whole(bytes: &[u8], by: MadeBy) -> Result<BatchHeader, BatchError> {
    let header = check_header(bytes, by)?;
    if header.total_len() != bytes.len() {
        return Err(BatchError::Length { expected: header.total_len(), got: bytes.len() });
    }
    check_checksum(&header, bytes)?;
    check_events(&header, &bytes[BATCH_HEADER_BYTES..], by)?;
    Ok(header)
}

/// Compares the header's checksum with the bytes of the whole batch.
pub(super) fn check_checksum(header: &BatchHeader, bytes: &[u8]) -> Result<(), BatchError> {
    let expected = checksum(bytes);
    if header.crc != expected {
        return Err(BatchError::Checksum { expected, got: header.crc });
    }
    Ok(())
}

pub(super) fn check_header(bytes: &[u8], by: MadeBy) -> Result<BatchHeader, BatchError> {
    let Some(header) = BatchHeader::read(bytes) else {
        return Err(BatchError::Length { expected: BATCH_HEADER_BYTES, got: bytes.len() });
    };
    if bytes[0] != BATCH_VERSION {
        return Err(BatchError::Version { got: bytes[0] });
    }
    if header.codec != 0 {
        return Err(BatchError::Unsupported { field: "codec", got: u32::from(header.codec) });
    }
    if header.flags & !FLAGS_KNOWN != 0 {
        return Err(BatchError::Unsupported { field: "flags", got: u32::from(header.flags) });
    }
    let range = |field, got: u32, allowed: std::ops::RangeInclusive<u32>, expected| {
        if allowed.contains(&got) {
            Ok(())
        } else {
            Err(BatchError::Field { field, got: u64::from(got), expected })
        }
    };
    let events_max = u32::try_from(BATCH_EVENTS_MAX).expect("a small constant");
    range("count", header.count, 1..=events_max, "1 to 10000 events")?;
    if header.body_len as usize > BATCH_BODY_BYTES_MAX + by.more_bytes() {
        return Err(too_long(&header, &bytes[BATCH_HEADER_BYTES..], by));
    }
    range("body_len", header.body_len, 1..=u32::MAX, "at least one event")?;
    range(
        "uncompressed_len",
        header.uncompressed_len,
        header.body_len..=header.body_len,
        "body_len, as codec is 0",
    )?;
    if header.is_selection() {
        range("span", header.span, header.count..=u32::MAX, "at least the count")?;
    } else {
        range("span", header.span, header.count..=header.count, "the count, as the batch is no selection")?;
    }
    if u64::from(header.time_span_ms) > header.max_event_time {
        let got = u64::from(header.time_span_ms);
        return Err(BatchError::Field { field: "time_span_ms", got, expected: "at most max_event_time" });
    }
    Ok(header)
}

/// Why a body is too long: one of its events is over the limit by itself, or they are all together.
#[cold]
fn too_long(header: &BatchHeader, body: &[u8], by: MadeBy) -> BatchError {
    let limit = EVENT_BYTES_MAX + by.more_bytes();
    let mut rest = body;
    for index in 0..header.count {
        let Some(len) = rest.first_chunk::<4>().map(|len| u32::from_le_bytes(*len) as usize) else { break };
        let Some((_, after)) = rest.split_at_checked(len) else { break };
        if len > limit {
            let source = EventTooLarge { part: "size", got: len, limit, unit: "bytes" };
            return BatchError::TooLarge { index, source };
        }
        rest = after;
    }
    BatchError::Field { field: "body_len", got: u64::from(header.body_len), expected: "at most 1 MiB" }
}

fn check_events(header: &BatchHeader, body: &[u8], by: MadeBy) -> Result<(), BatchError> {
    let mut rest = body;
    let mut index = 0;
    let mut next_delta = 0;
    while !rest.is_empty() {
        if index == header.count {
            return Err(BatchError::Count { expected: header.count, got: index + 1 });
        }
        let malformed = |what| BatchError::Event { index, what };
        let Some(len) = rest.first_chunk::<4>().map(|len| u32::from_le_bytes(*len) as usize) else {
            return Err(malformed("its length is cut off"));
        };
        let Some((record, after)) = rest.split_at_checked(len) else {
            return Err(malformed("its length goes past the end of the batch"));
        };
        let delta = check_event(header, record, index, by)?;
        if header.is_selection() {
            if delta < next_delta || delta >= header.span {
                return Err(malformed("its offset delta does not rise or is outside the span"));
            }
            next_delta = delta + 1;
        }
        rest = after;
        index += 1;
    }
    if index != header.count {
        return Err(BatchError::Count { expected: header.count, got: index });
    }
    if header.is_selection() && next_delta != header.span {
        let got = u64::from(header.span);
        return Err(BatchError::Field { field: "span", got, expected: "the last offset delta + 1" });
    }
    Ok(())
}

/// Checks one record and returns its offset delta, if the batch is a selection.
#[inline]
fn check_event(header: &BatchHeader, record: &[u8], index: u32, by: MadeBy) -> Result<u32, BatchError> {
    let malformed = |what| BatchError::Event { index, what };
    let optional = |flag: u16, len: usize| if header.flags & flag == 0 { 0 } else { len };
    let selection = optional(FLAG_SELECTION, 4);
    let fixed = EVENT_HEADER_BYTES + selection + optional(FLAG_IDS, 2) + optional(FLAG_TTLS, 4);
    if record.len() < fixed {
        return Err(malformed("its length is less than its fixed part"));
    }
    let u16_at = |at: usize| u16::from_le_bytes([record[at], record[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    if u32_at(8) > header.time_span_ms {
        return Err(malformed("its time is outside the batch's time span"));
    }
    let key = match u16_at(4) {
        NO_KEY => 0,
        len => usize::from(len),
    };
    let id =
        if header.flags & FLAG_IDS == 0 { 0 } else { usize::from(u16_at(EVENT_HEADER_BYTES + selection)) };
    let count = usize::from(u16_at(6) & !NO_PAYLOAD);
    let mut sizes = EventSizes { total: record.len(), key, id, headers: count, ..EventSizes::default() };
    let Some(after_key) = record.get(fixed + key..) else {
        return Err(malformed("its key goes past its end"));
    };
    let Some((id_bytes, mut rest)) = after_key.split_at_checked(id) else {
        return Err(malformed("its id goes past its end"));
    };
    if id > 0 && std::str::from_utf8(id_bytes).is_err() {
        return Err(malformed("its id is not UTF-8"));
    }
    let before_headers = rest.len();
    let mut reserved = None;
    for _ in 0..count {
        let Some([name_len, value_low, value_high]) = rest.first_chunk::<3>().copied() else {
            return Err(malformed("a header is cut off"));
        };
        let (name_len, value_len) =
            (usize::from(name_len), usize::from(u16::from_le_bytes([value_low, value_high])));
        let (Some(name), Some(after)) = (rest.get(3..3 + name_len), rest.get(3 + name_len + value_len..))
        else {
            return Err(malformed("a header goes past its end"));
        };
        if std::str::from_utf8(name).is_err() {
            return Err(malformed("a header's name is not UTF-8"));
        }
        if by == MadeBy::Client && is_engine_header(name) {
            reserved = reserved.or(Some(name));
        }
        sizes.header_name_longest = sizes.header_name_longest.max(name_len);
        rest = after;
    }
    sizes.headers_bytes = before_headers - rest.len();
    sizes.check(by).map_err(|source| BatchError::TooLarge { index, source })?;
    if u16_at(6) & NO_PAYLOAD != 0 && !rest.is_empty() {
        return Err(malformed("it says that it has no payload, and has one"));
    }
    if let Some(name) = reserved {
        return Err(BatchError::HeaderReserved { index, source: HeaderReserved::new(name) });
    }
    Ok(if header.is_selection() { u32_at(EVENT_HEADER_BYTES) } else { index })
}
