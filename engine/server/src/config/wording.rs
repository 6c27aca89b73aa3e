//! What is wrong with a setting, in sentences of ours: the libraries that read them have their own.
//!
//! Pure.

use super::{KEYS, nearest};

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
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
    match unknown {
        Some((key, _)) => {
            let meant = nearest(key, KEYS.iter().map(|(key, _)| *key));
            let meant = meant.map_or(String::new(), |meant| format!(", perhaps {meant}"));
            format!(
                "{key:?} is not known, expected a setting{meant}; `levada serve --print-config` shows all settings"
            )
        }
        None => message,
    }
}

/// What was expected, without the words of a programming language.
fn kind(expected: &str) -> String {
    match expected {
        "usize" | "u16" | "u32" | "u64" => "a whole number of 0 or more".to_owned(),
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
        let unknown = ours("unknown field `lisen`, expected one of `data_dir`, `listen`");
        assert!(
            unknown.starts_with("\"lisen\" is not known, expected a setting, perhaps listen;"),
            "{unknown}"
        );
    }
}
