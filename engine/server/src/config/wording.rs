//! What is wrong with a setting, in sentences of ours: the libraries that read them have their own.
//!
//! Pure.

use super::{nearest, settings};

/// The message of a library about a key or a value, as we say it. One of ours stays as it is.
pub(super) fn ours(message: &str) -> String {
    let message = message.trim().replace('\n', " ");
    for prefix in ["invalid type: ", "invalid value: ", "unknown variant: ", "unknown variant "] {
        if let Some((got, expected)) =
            message.strip_prefix(prefix).and_then(|rest| rest.rsplit_once(", expected "))
        {
            let got = got.strip_prefix("found ").unwrap_or(got);
            return format!("expected {}, got {}", kind(expected), got.replace('`', ""));
        }
    }
    if message == "wanted string or table" {
        return "expected text, got another kind of value".to_owned();
    }
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
    match unknown {
        Some((key, others)) => {
            let meant = meant(key, others).map_or(String::new(), |meant| format!(", perhaps {meant}"));
            format!(
                "{key:?} is not known, expected a setting{meant}; `levada serve --print-config` shows all settings"
            )
        }
        None => message,
    }
}

/// The nearest setting of the same section, or section; or else of another section, with its full name.
fn meant(key: &str, others: &str) -> Option<String> {
    let beside = others.split('`').skip(1).step_by(2);
    if let Some(found) = nearest(key, beside) {
        return Some(found.to_owned());
    }
    let settings: Vec<String> = settings().collect();
    let last = |setting: &str| setting.rsplit('.').next().map(str::to_owned);
    let found = nearest(key, settings.iter().map(|setting| setting.rsplit('.').next().unwrap_or(setting)))?;
    settings.iter().find(|setting| last(setting).as_deref() == Some(found)).cloned()
}

/// What was expected, without the words of a programming language.
fn kind(expected: &str) -> String {
    match expected {
        "usize" | "u16" | "u32" | "u64" => "a whole number of 0 or more".to_owned(),
        "i32" => "a whole number".to_owned(),
        "f64" | "floating point number" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        section if section.starts_with("struct ") => "a section".to_owned(),
        "a string" | "string" | "path string" | "string or map" | "a borrowed string" => "text".to_owned(),
        other => other.replace('`', ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_of_libraries_become_ours() {
        for (theirs, expected) in [
            (
                "invalid type: string \"x\", expected usize",
                "expected a whole number of 0 or more, got string \"x\"",
            ),
            (
                "invalid type: found string \"x\", expected u16",
                "expected a whole number of 0 or more, got string \"x\"",
            ),
            ("unknown variant `loud`, expected `text` or `json`", "expected text or json, got loud"),
            ("expected a duration such as 5s, got \"x\"", "expected a duration such as 5s, got \"x\""),
        ] {
            assert_eq!(ours(theirs), expected);
        }
        for (key, meant) in [
            ("lisen", ", perhaps listen;"),
            ("mtu", ";"),
            ("retention_intervall", ", perhaps store.retention_interval;"),
            ("idle_timeout", ", perhaps listen.idle_timeout;"),
        ] {
            let unknown = ours(&format!("unknown field `{key}`, expected one of `data_dir`, `listen`"));
            let said = format!("\"{key}\" is not known, expected a setting{meant}");
            assert!(unknown.starts_with(&said), "{unknown}");
        }
    }
}
