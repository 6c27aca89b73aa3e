//! Values that the flags of several commands take, parsed once: durations, sizes, rates, shares. Knows no command.

use std::{str::FromStr, time::Duration};

/// A duration as people write it (`72h`, `7d`, `90s`), in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationMs(pub u64);

impl FromStr for DurationMs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected a duration such as 90s, 72h or 7d";
        let duration = humantime::parse_duration(text).map_err(|_| format!("{expected}, got {text:?}"))?;
        let milliseconds = u64::try_from(duration.as_millis());
        milliseconds.map(Self).map_err(|_| format!("{expected}, got one that is too long"))
    }
}

impl From<DurationMs> for Duration {
    fn from(milliseconds: DurationMs) -> Self {
        Self::from_millis(milliseconds.0)
    }
}

/// A size in bytes as people write it: `100`, `64MiB`, `1GB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let size: Result<bytesize::ByteSize, String> = text.parse();
    size.map(|size| size.as_u64())
        .map_err(|_| format!("expected a size such as 4096, 64MiB or 1GB, got {text:?}"))
}

/// How long something is to go on: not for no time at all.
pub fn parse_length(text: &str) -> Result<DurationMs, String> {
    match text.parse()? {
        DurationMs(0) => Err("expected a duration of 1ms or more".to_owned()),
        length => Ok(length),
    }
}

/// Events a second: from one in about a quarter of an hour to more than any disk stores.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err(format!("expected events a second, a number from 0.001 to 10000000, got {text:?}")),
    }
}

/// A share above 0, at most 1.
pub fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err(format!("expected a share above 0 and at most 1, got {text:?}")),
    }
}
