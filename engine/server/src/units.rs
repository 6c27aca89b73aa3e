//! How sizes are written in configuration: "64MiB", and never rounded.

/// For `#[serde(with = "units::size")]`.
pub(crate) mod size {
    use std::fmt;

    use bytesize::ByteSize;
    use serde::{
        Deserializer, Serializer,
        de::{Error, Unexpected, Visitor},
    };

    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];

    /// The size in the largest unit that needs no fraction.
    pub(crate) fn text(size: ByteSize) -> String {
        let bytes = size.as_u64();
        let whole = UNITS.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
        whole.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
    }

    pub(crate) fn serialize<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*size))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        deserializer.deserialize_any(Size)
    }

    /// Takes text and plain numbers, and says what is expected.
    struct Size;

    impl Visitor<'_> for Size {
        type Value = ByteSize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a size such as 64MiB or 1GB")
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<ByteSize, E> {
            Ok(ByteSize(bytes))
        }

        fn visit_i64<E: Error>(self, bytes: i64) -> Result<ByteSize, E> {
            let size = u64::try_from(bytes).map(ByteSize);
            size.map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
            text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
        }
    }
}
