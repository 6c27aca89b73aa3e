//! How a section of the settings is defined: its fields, defaults and explanations in one list, and its checks of ranges.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use bytesize::ByteSize;

use super::Error;
use crate::units;

/// A setting: its name in the section, and the explanation that `--print-config` repeats.
pub(super) type Setting = (&'static str, &'static [&'static str]);

/// Defines a section together with its defaults and explanations.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $section:ident {
            $($(#[doc = $doc:literal])+ $(#[serde($($serde:tt)*)])? $name:ident: $kind:ty = $default:expr;)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $section {
            $($(#[doc = $doc])+ $(#[serde($($serde)*)])? pub $name: $kind,)+
        }

        impl Default for $section {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl $section {
            /// What the section is about, for `--print-config`.
            pub(super) const ABOUT: &[&str] = &[$($about),+];
            /// Every setting, in order.
            pub(super) const SETTINGS: &[crate::config::section::Setting] =
                &[$((stringify!($name), &[$($doc),+]),)+];
        }
    };
}

pub(super) use section;

const LONGEST: Duration = Duration::from_secs(86_400);

/// Refuses a value that does not hold, by the setting's full name.
pub(super) fn require(
    key: &'static str,
    holds: bool,
    got: impl Display,
    expected: &'static str,
) -> Result<(), Error> {
    if holds {
        Ok(())
    } else {
        Err(Error::Range { key, got: got.to_string(), expected: expected.to_owned() })
    }
}

/// Refuses a number outside its range.
pub(super) fn number<T: PartialOrd + Display>(
    key: &'static str,
    got: T,
    range: RangeInclusive<T>,
) -> Result<(), Error> {
    if range.contains(&got) {
        return Ok(());
    }
    let expected = format!("{} to {}", range.start(), range.end());
    Err(Error::Range { key, got: got.to_string(), expected })
}

/// Refuses a size outside its range.
pub(super) fn size(key: &'static str, got: ByteSize, range: RangeInclusive<ByteSize>) -> Result<(), Error> {
    if range.contains(&got) {
        return Ok(());
    }
    let expected = format!("{} to {}", units::size::text(*range.start()), units::size::text(*range.end()));
    Err(Error::Range { key, got: units::size::text(got), expected })
}

/// Refuses a duration below `least` or above a day.
pub(super) fn duration(key: &'static str, got: Duration, least: Duration) -> Result<(), Error> {
    if (least..=LONGEST).contains(&got) {
        return Ok(());
    }
    let text = |duration| humantime::format_duration(duration).to_string();
    Err(Error::Range { key, got: text(got), expected: format!("{} to {}", text(least), text(LONGEST)) })
}
