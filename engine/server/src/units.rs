//! How values are written in configuration: sizes ("64MiB", never rounded), durations, addresses, lists, files, log filters.

/// For `#[serde(with = "units::size")]`.
pub(crate) mod size {
    use std::fmt;

    use bytesize::ByteSize;
    use serde::{
        Deserializer, Serializer,
        de::{Error, Visitor},
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
            size.map_err(|_| E::custom(format_args!("expected a size such as 64MiB or 1GB, got {bytes}")))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
            text.parse()
                .map_err(|_| E::custom(format_args!("expected a size such as 64MiB or 1GB, got {text:?}")))
        }
    }
}

/// For `#[serde(with = "units::duration")]`.
pub(crate) mod duration {
    use std::{fmt, time::Duration};

    use serde::{
        Deserializer, Serializer,
        de::{Error, Visitor},
    };

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(Text)
    }

    /// Takes text with a unit, and says what is expected.
    struct Text;

    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration such as 500ms, 30s or 1h")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            humantime::parse_duration(text).map_err(|_| {
                E::custom(format_args!("expected a duration such as 500ms, 30s or 1h, got {text:?}"))
            })
        }
    }
}

/// For `#[serde(with = "units::address")]`: where to listen.
pub(crate) mod address {
    use std::{
        fmt,
        net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _},
    };

    use serde::{
        Deserializer, Serializer,
        de::{Error, Visitor},
    };

    const EXPECTED: &str =
        "expected an address such as 127.0.0.1:7600 or localhost:7600, or a port alone such as 7600";

    /// The address that a text means: with a host's name, which is looked up, or with a port alone, on 127.0.0.1.
    pub(crate) fn parse(text: &str) -> Result<SocketAddr, String> {
        let wrong = || format!("{EXPECTED}, got {text:?}");
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
            return Ok((Ipv4Addr::LOCALHOST, port).into());
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        if host.is_empty() || host.contains(':') {
            return Err(wrong());
        }
        let found = (host, port).to_socket_addrs();
        let found: Vec<SocketAddr> = found
            .map_err(|error| format!("{EXPECTED}, and no address is known for {host:?}: {error}"))?
            .collect();
        // One socket listens to one address; the usual one comes first.
        let usual = found.iter().find(|address| address.is_ipv4()).or_else(|| found.first());
        usual.copied().ok_or_else(|| format!("{EXPECTED}, and no address is known for {host:?}"))
    }

    pub(crate) fn serialize<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(address)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
        deserializer.deserialize_any(Address)
    }

    struct Address;

    impl Visitor<'_> for Address {
        type Value = SocketAddr;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(EXPECTED.trim_start_matches("expected "))
        }

        fn visit_u64<E: Error>(self, port: u64) -> Result<SocketAddr, E> {
            self.visit_str(&port.to_string())
        }

        fn visit_i64<E: Error>(self, port: i64) -> Result<SocketAddr, E> {
            self.visit_str(&port.to_string())
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<SocketAddr, E> {
            parse(text).map_err(E::custom)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn an_address_is_one_or_a_hosts_name_or_a_port_alone() {
            for (text, expected) in [
                ("127.0.0.1:7600", "127.0.0.1:7600"),
                ("[::1]:0", "[::1]:0"),
                ("localhost:9000", "127.0.0.1:9000"),
                ("9000", "127.0.0.1:9000"),
                (":9000", "127.0.0.1:9000"),
                ("0", "127.0.0.1:0"),
            ] {
                assert_eq!(parse(text).map(|address| address.to_string()), Ok(expected.to_owned()), "{text}");
            }
            for wrong in [
                "",
                "nowhere",
                "localhost",
                "localhost:",
                ":",
                "127.0.0.1",
                "70000",
                "::1:9000",
                "localhost:x",
            ] {
                let said = parse(wrong).unwrap_err();
                assert!(
                    said.contains("localhost:7600") && said.ends_with(&format!("got {wrong:?}")),
                    "{said}"
                );
            }
        }
    }
}

/// For `#[serde(with = "units::names")]`: a list, or one text with commas between, as in the environment.
pub(crate) mod names {
    use std::{fmt, fmt::Display, marker::PhantomData, str::FromStr};

    use serde::{
        Deserializer, Serializer,
        de::{Error, SeqAccess, Visitor},
    };

    pub(crate) fn serialize<T: Display, S: Serializer>(
        names: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(names.iter().map(T::to_string))
    }

    pub(crate) fn deserialize<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_any(Names(PhantomData))
    }

    struct Names<T>(PhantomData<T>);

    impl<'de, T: FromStr<Err = String>> Visitor<'de> for Names<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of texts")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
            let parts = text.split(',').map(str::trim).filter(|_| !text.is_empty());
            parts.map(|part| part.parse().map_err(E::custom)).collect()
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut names = Vec::new();
            while let Some(name) = list.next_element::<String>()? {
                names.push(name.parse().map_err(A::Error::custom)?);
            }
            Ok(names)
        }
    }
}

/// For `#[serde(with = "units::file")]`: a path; an empty one means none.
pub(crate) mod file {
    use std::{fmt, path::PathBuf};

    use serde::{
        Deserializer, Serialize as _, Serializer,
        de::{Error, Visitor},
    };

    pub(crate) fn serialize<S: Serializer>(file: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        match file {
            Some(file) => file.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        deserializer.deserialize_any(File)
    }

    struct File;

    impl Visitor<'_> for File {
        type Value = Option<PathBuf>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the path of a file")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Option<PathBuf>, E> {
            Ok((!text.is_empty()).then(|| PathBuf::from(text)))
        }
    }
}

/// Log filters.
pub(crate) mod filter {
    use tracing_subscriber::filter::{LevelFilter, Targets};

    /// What a filter is, for messages.
    pub(crate) const EXPECTED: &str = "a level (off, error, warn, info, debug or trace), or target=level pairs with \
                                       commas between, such as info,levada_broker=debug";

    /// The filter that a text means; `None` if a part is neither a level nor a target with one: a target alone would
    /// silence all others.
    pub(crate) fn parse(text: &str) -> Option<Targets> {
        text.split(',').try_fold(Targets::new(), |filter, part| match part.trim().rsplit_once('=') {
            None => Some(filter.with_default(level(part.trim())?)),
            Some((target, word)) => Some(filter.with_target(module(target.trim())?, level(word.trim())?)),
        })
    }

    /// A target, which is the path of a module or its beginning.
    fn module(target: &str) -> Option<&str> {
        let is_path = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
        (!target.is_empty() && target.bytes().all(is_path)).then_some(target)
    }

    /// The level of a word; numbers are none.
    fn level(word: &str) -> Option<LevelFilter> {
        word.parse().ok().filter(|_| word.starts_with(|first: char| first.is_ascii_alphabetic()))
    }

    #[cfg(test)]
    mod tests {
        use tracing::Level;

        use super::*;

        #[test]
        fn a_filter_is_a_level_or_pairs() {
            for text in ["info", "OFF", "warn,levada_server=debug", "levada=trace, debug"] {
                assert!(parse(text).is_some(), "{text}");
            }
            let filter = parse("warn, levada_server = debug").unwrap();
            let passes =
                |target| [Level::WARN, Level::DEBUG].map(|level| filter.would_enable(target, &level));
            assert_eq!(passes("levada_server::quic"), [true, true]);
            assert_eq!(passes("levada_broker"), [true, false]);
            for text in [
                "loud",
                "",
                "info,",
                "levada_server",
                "levada_server=loud",
                "=info",
                "levada_server=",
                "3",
                "x=3",
                "*=debug",
                "a=b=debug",
                "levada_server[stream]=debug",
            ] {
                assert!(parse(text).is_none(), "{text}");
            }
        }
    }
}
