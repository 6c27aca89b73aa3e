//! What a reader looks for, if it does not want every event.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Which events a reader wants, and how much the engine may scan for them. An event is delivered if all that is given
/// here holds for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Search {
    /// A condition over payload, headers and key, in the language of the plugin `json-filter`.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// The event's key has exactly these bytes.
    pub key: Option<SearchKey>,
    /// Stored bytes after which the search ends with a cursor, give or take one read. 0: the engine's limit, or none for
    /// a reader that follows, which must not give any other.
    pub scan_bytes_max: u64,
    /// Events after whose delivery the search ends with a cursor. 0: any number.
    pub events_max: u64,
}

/// A key, as bytes on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchKey(pub Bytes);

impl Serialize for SearchKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for SearchKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(KeyVisitor)
    }
}

/// Reads bytes, and a list of them, which is what formats without bytes have. A text is refused: which bytes it means
/// would be a guess.
struct KeyVisitor;

impl<'de> de::Visitor<'de> for KeyVisitor {
    type Value = SearchKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key as bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<SearchKey, E> {
        Ok(SearchKey(Bytes::copy_from_slice(bytes)))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<SearchKey, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = list.next_element()? {
            bytes.push(byte);
        }
        Ok(SearchKey(bytes.into()))
    }
}
