//! How a configuration names a field.
//!
//! ```text
//! path    = ["."] segment { "." segment }
//! segment = name | string
//! ```
//!
//! A `string` is one of JSON, in quotes: it names a field whose name holds a dot, a quote or nothing at all. So
//! `user.email` is the field `email` inside `user`, and `."user.email"` or `"user.email"` the field `user.email`.

use super::{Cursor, Kind};

/// Most levels of a path.
const LEVELS_MAX: usize = 32;

/// The names on the way to a field.
///
/// # Errors
/// A sentence for the person who wrote the path.
pub fn path(text: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let mut rest = text.strip_prefix('.').unwrap_or(text);
    loop {
        let (name, after) = segment(rest).ok_or_else(|| {
            format!("expected names with a dot between them, in quotes if they hold a dot themselves, got {text:?}")
        })?;
        names.push(name);
        if names.len() > LEVELS_MAX {
            return Err(format!("expected at most {LEVELS_MAX} levels, got {text:?}"));
        }
        rest = match after.strip_prefix('.') {
            Some(rest) => rest,
            None => return Ok(names),
        };
    }
}

/// The first name, and what follows it: nothing, or a dot and more.
fn segment(text: &str) -> Option<(String, &str)> {
    if !text.starts_with('"') {
        let len = text.find('.').unwrap_or(text.len());
        let name = &text[..len];
        return (!name.is_empty() && !name.contains('"')).then(|| (name.to_owned(), &text[len..]));
    }
    let value = Cursor::new(text.as_bytes()).and_then(|mut cursor| cursor.value()).ok()?;
    let name = value.as_text().filter(|_| value.kind() == Kind::Text)?.decode().into_owned();
    let after = &text[value.raw().len()..];
    (after.is_empty() || after.starts_with('.')).then_some((name, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_name() {
        for (text, names) in [
            ("user.email", &["user", "email"][..]),
            (".user.email", &["user", "email"]),
            (r#""user.email""#, &["user.email"]),
            (r#"."user.email".at"#, &["user.email", "at"]),
            (r#"a."".b"#, &["a", "", "b"]),
            (r#""say \"hi\"""#, &["say \"hi\""]),
            ("with space.ok", &["with space", "ok"]),
        ] {
            assert_eq!(path(text).unwrap(), names, "{text}");
        }
    }

    #[test]
    fn what_names_no_field_is_refused() {
        for text in ["", ".", "a.", "a..b", r#""a"#, r#""a"b"#, r#"a"b""#, &"a.".repeat(40)] {
            assert!(path(text).is_err(), "{text}");
        }
    }
}
