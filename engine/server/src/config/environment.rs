//! The variables `LEVADA_…` of the environment: every one is known and says something, but those that a cluster sets.
//!
//! What they say is read with the rest of the settings.

use std::ffi::{OsStr, OsString};

use super::{Error, nearest, settings};

/// The beginning of every variable's name: `LEVADA_LISTEN_ADDRESS` sets `listen.address`.
pub(super) const PREFIX: &str = "LEVADA_";
/// What follows it in variables that are no settings of the server: the client's, and the folder of the build.
const OTHERS: [&str; 7] = ["ADDR", "CA", "CACHE", "CONFIG_DIR", "CONTEXT", "TOKEN", "TOKEN_FILE"];

/// The variable of a setting, without the prefix: `LISTEN_ADDRESS` of `listen.address`.
pub(super) fn variable(key: &str) -> String {
    key.replace('.', "_").to_ascii_uppercase()
}

/// Refuses a variable that is empty, unknown, or no text.
///
/// # Errors
/// Which, and what to do about it.
pub fn check_environment() -> Result<(), Error> {
    check(std::env::vars_os())
}

fn check(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<(), Error> {
    for (name, value) in variables {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let known: Vec<String> =
            settings().map(|key| variable(&key)).chain(OTHERS.map(str::to_owned)).collect();
        let is_known = known.iter().any(|known| *known == rest);
        if !is_known && is_service_link(rest) {
            continue;
        }
        let message = if !is_known {
            // A section's name alone, or a setting without its section, is no typing mistake of any name.
            let is_part = |name: &&String| {
                name.strip_prefix(rest).is_some_and(|setting| setting.starts_with('_'))
                    || name.strip_suffix(rest).is_some_and(|section| section.ends_with('_'))
            };
            let part = (!rest.is_empty()).then(|| known.iter().find(is_part)).flatten();
            let meant = part.map(String::as_str).or_else(|| nearest(rest, known.iter().map(String::as_str)));
            let meant = meant.map_or(String::new(), |meant| format!("; the nearest is {PREFIX}{meant}"));
            format!("is not a known variable{meant}; `levada serve --print-config` shows all settings")
        } else if value.is_empty() {
            "is empty: set a value or unset it".to_owned()
        } else if value.to_str().is_none() {
            format!("is {}, expected UTF-8", shown(&value))
        } else {
            continue;
        };
        return Err(Error::Variable { name: name.into_owned(), message });
    }
    Ok(())
}

/// Whether a cluster made the variable of a service whose name begins with ours: Kubernetes and Docker put such ones
/// into every container beside it, as `LEVADA_SERVICE_HOST` and `LEVADA_PORT_7600_UDP_ADDR`.
fn is_service_link(rest: &str) -> bool {
    let name = format!("_{rest}");
    let has_number = |(_, behind): (&str, &str)| behind.starts_with(|first: char| first.is_ascii_digit());
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.split_once("_PORT_").is_some_and(has_number)
}

fn shown(value: &OsStr) -> String {
    format!("{:?}", value.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn said(name: &str, value: impl Into<OsString>) -> Option<String> {
        check([(name.into(), value.into())].into_iter()).err().map(|error| error.to_string())
    }

    #[test]
    fn known_variables_with_a_value_and_those_of_others_pass() {
        for name in ["LEVADA_DATA_DIR", "LEVADA_LISTEN_ADDRESS"] {
            assert_eq!(said(name, "x"), None, "{name}");
        }
        for name in OTHERS.map(|name| format!("LEVADA_{name}")) {
            assert_eq!(said(&name, "x"), None, "{name}");
        }
        for link in [
            "LEVADA_SERVICE_HOST",
            "LEVADA_SERVICE_PORT_QUIC",
            "LEVADA_PORT",
            "LEVADA_PORT_7600_UDP",
            "LEVADA_PORT_7600_UDP_ADDR",
            "LEVADA_CONSOLE_PORT",
            "LEVADA_CONSOLE_PORT_80_TCP_PROTO",
        ] {
            assert_eq!(said(link, "tcp://10.0.0.1:80"), None, "{link}");
        }
        assert!(said("LEVADA_REPORT", "x").is_some());
        assert_eq!(said("PATH", ""), None);
        assert_eq!(said("LEVADAS", ""), None);
    }

    #[test]
    fn every_setting_has_a_variable_of_its_own() {
        let mut variables: Vec<String> = settings().map(|key| variable(&key)).collect();
        variables.extend(OTHERS.map(str::to_owned));
        let count = variables.len();
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), count);
        assert!(variables.contains(&"ROCKSDB_LOG_BLOB_PASS".to_owned()));
    }

    #[test]
    fn an_empty_variable_is_named() {
        let said = said("LEVADA_DATA_DIR", "").unwrap();
        assert!(said.contains("LEVADA_DATA_DIR is empty"), "{said}");
    }

    #[test]
    fn an_unknown_variable_is_named_with_the_nearest() {
        let near = said("LEVADA_DATADIR", "x").unwrap();
        assert!(
            near.contains("LEVADA_DATADIR is not a known variable; the nearest is LEVADA_DATA_DIR"),
            "{near}"
        );
        for (part, whole) in [("LISTEN", "LISTEN_ADDRESS"), ("LOG_FILTER", "TELEMETRY_LOG_FILTER")] {
            let said = said(&format!("LEVADA_{part}"), "x").unwrap();
            assert!(said.contains(&format!("the nearest is LEVADA_{whole}")), "{said}");
        }
        let lower = said("LEVADA_data_dir", "x").unwrap();
        assert!(lower.contains("LEVADA_data_dir is not a known variable"), "{lower}");
        let far = said("LEVADA_XYZ", "x").unwrap();
        assert!(far.contains("LEVADA_XYZ") && !far.contains("nearest"), "{far}");
    }

    #[test]
    fn a_value_that_is_no_text_is_refused() {
        let said = said("LEVADA_DATA_DIR", OsString::from_vec(vec![b'a', 0xff])).unwrap();
        assert!(said.contains("LEVADA_DATA_DIR is \"a\u{fffd}\", expected UTF-8"), "{said}");
    }
}
