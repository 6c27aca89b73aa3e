//! A caller's span, so that what the engine does for it can be found in a trace.
//!
//! ```text
//!  0                  16        24      25
//!  +------------------+---------+-------+
//!  | trace id         | span id | flags |
//!  | 16 bytes         | 8 bytes | u8    |
//!  +------------------+---------+-------+
//! ```
//!
//! The fields are those of W3C Trace Context, version 00. A message carries the 25 bytes as MessagePack `bin`; where texts
//! are wanted, as in JSON, it is the text of a `traceparent` header.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes of an encoded trace context.
pub const TRACE_CONTEXT_BYTES: usize = 25;
/// The name of the event header that carries a trace context as text. A batch with such an event has a flag.
pub const TRACE_HEADER: &str = "traceparent";

/// The flag of a span that is recorded.
const SAMPLED: u8 = 1;

/// Identifies a caller's span. Neither id is all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

/// Why bytes or a text are no trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTrace {
    /// Another number of bytes, or a text of another form.
    #[error(
        "expected 25 bytes or a traceparent such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    )]
    Form,
    /// An id of zeros alone.
    #[error("expected a trace id and a span id that are not all zeros")]
    Zero,
}

impl TraceContext {
    /// A context with these ids.
    ///
    /// # Errors
    /// [`InvalidTrace::Zero`] if one of them is all zeros.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) -> Result<Self, InvalidTrace> {
        if trace_id == [0; 16] || span_id == [0; 8] {
            return Err(InvalidTrace::Zero);
        }
        Ok(Self { trace_id, span_id, flags })
    }

    /// The trace that the span belongs to.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The caller's span.
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Bit 0: the span is recorded. The others are kept as they came.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// True if the caller records the span.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The encoded form.
    pub fn to_bytes(self) -> [u8; TRACE_CONTEXT_BYTES] {
        let mut bytes = [0; TRACE_CONTEXT_BYTES];
        bytes[..16].copy_from_slice(&self.trace_id);
        bytes[16..24].copy_from_slice(&self.span_id);
        bytes[24] = self.flags;
        bytes
    }

    /// Decodes exactly [`TRACE_CONTEXT_BYTES`] bytes.
    ///
    /// # Errors
    /// [`InvalidTrace`] for another length or an id of zeros.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidTrace> {
        let (trace_id, rest) = bytes.split_first_chunk().ok_or(InvalidTrace::Form)?;
        let (span_id, rest) = rest.split_first_chunk().ok_or(InvalidTrace::Form)?;
        let [flags] = rest else { return Err(InvalidTrace::Form) };
        Self::new(*trace_id, *span_id, *flags)
    }
}

impl fmt::Display for TraceContext {
    /// The text of a `traceparent` header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace_id, span_id) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.span_id));
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTrace;

    /// Parses the text of a `traceparent` header of version 00.
    fn from_str(text: &str) -> Result<Self, InvalidTrace> {
        let parts: Vec<&str> = text.split('-').collect();
        let ["00", trace_id, span_id, flags] = parts[..] else { return Err(InvalidTrace::Form) };
        let mut bytes = [0; TRACE_CONTEXT_BYTES];
        hex(trace_id, &mut bytes[..16])?;
        hex(span_id, &mut bytes[16..24])?;
        hex(flags, &mut bytes[24..])?;
        Self::from_bytes(&bytes)
    }
}

/// Reads lower-case hexadecimal digits that fill `bytes` exactly.
fn hex(text: &str, bytes: &mut [u8]) -> Result<(), InvalidTrace> {
    let digits: Option<Vec<u8>> = text
        .bytes()
        .map(|digit| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        })
        .collect();
    let digits = digits.filter(|digits| digits.len() == bytes.len() * 2).ok_or(InvalidTrace::Form)?;
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Ok(())
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        serializer.serialize_bytes(&self.to_bytes())
    }
}

impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Whether texts are wanted is not known inside of an enum whose tag may come last, so either form is read.
        deserializer.deserialize_any(Either)
    }
}

struct Either;

impl de::Visitor<'_> for Either {
    type Value = TraceContext;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a trace context")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<TraceContext, E> {
        TraceContext::from_bytes(bytes).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TraceContext, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn context() -> TraceContext {
        TraceContext::new(*b"0123456789abcdef", *b"spanspan", 1).unwrap()
    }

    #[test]
    fn the_bytes_and_the_text_are_these() {
        assert_eq!(context().to_bytes(), *b"0123456789abcdefspanspan\x01");
        let text = "00-30313233343536373839616263646566-7370616e7370616e-01";
        assert_eq!(context().to_string(), text);
        assert_eq!(serde_json::to_string(&context()).unwrap(), format!("{text:?}"));
        let mut bin = vec![0xc4, 25];
        bin.extend(context().to_bytes());
        assert_eq!(rmp_serde::to_vec_named(&context()).unwrap(), bin);
        assert!(context().is_sampled());
    }

    proptest! {
        #[test]
        fn it_comes_back_from_bytes_and_text(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) {
            let Ok(context) = TraceContext::new(trace_id, span_id, flags) else { return Ok(()) };
            prop_assert_eq!(TraceContext::from_bytes(&context.to_bytes()), Ok(context));
            prop_assert_eq!(context.to_string().parse(), Ok(context));
            let packed = rmp_serde::to_vec_named(&context).unwrap();
            prop_assert_eq!(rmp_serde::from_slice::<TraceContext>(&packed).unwrap(), context);
        }

        #[test]
        fn any_other_bytes_or_text_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..40), text in ".{0,60}") {
            prop_assert_eq!(TraceContext::from_bytes(&bytes).is_ok(), bytes.len() == TRACE_CONTEXT_BYTES);
            prop_assert!(text.parse::<TraceContext>().is_err());
        }
    }

    #[test]
    fn an_id_of_zeros_is_none() {
        let mut bytes = context().to_bytes();
        bytes[..16].fill(0);
        assert_eq!(TraceContext::from_bytes(&bytes), Err(InvalidTrace::Zero));
        assert_eq!(TraceContext::new([1; 16], [0; 8], 0), Err(InvalidTrace::Zero));
    }
}
