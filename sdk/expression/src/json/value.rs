//! JSON values as they stand in a text, decoded when asked for.

use std::borrow::Cow;

use super::Number;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// A string.
    Text,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// A value of a JSON text that was checked.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    kind: Kind,
    raw: &'a str,
    escaped: bool,
}

impl<'a> Value<'a> {
    #[inline]
    pub(super) fn new(kind: Kind, raw: &'a str, escaped: bool) -> Self {
        Self { kind, raw, escaped }
    }

    /// What it is.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The value as it is in the text.
    #[inline]
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// True if its text has escapes; false for all that is no string.
    #[inline]
    pub(super) fn is_escaped(&self) -> bool {
        self.escaped
    }

    /// The truth value, if it is one.
    #[inline]
    pub fn as_bool(&self) -> Option<bool> {
        (self.kind == Kind::Bool).then(|| self.raw == "true")
    }

    /// The number, if it is one.
    #[inline]
    pub fn as_number(&self) -> Option<Number> {
        (self.kind == Kind::Number).then(|| Number::parse(self.raw)).flatten()
    }

    /// The string's content, if it is one.
    #[inline]
    pub fn as_text(&self) -> Option<Text<'a>> {
        (self.kind == Kind::Text).then(|| Text::new(&self.raw[1..self.raw.len() - 1], self.escaped))
    }
}

/// A string of a JSON text, without its quotes.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    #[inline]
    pub(super) fn new(raw: &'a str, escaped: bool) -> Self {
        Self { raw, escaped }
    }

    /// As it is between the quotes, escapes and all.
    #[inline]
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// What it means; allocates only if there are escapes.
    #[inline]
    pub fn decode(&self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(unescape(self.raw)) } else { Cow::Borrowed(self.raw) }
    }

    /// True if it means `other`.
    #[inline]
    pub fn is(&self, other: &str) -> bool {
        if self.escaped { unescape(self.raw) == other } else { self.raw == other }
    }
}

/// Resolves the escapes of a checked string; half a surrogate pair becomes U+FFFD.
fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, after)) = rest.split_once('\\') {
        out.push_str(plain);
        let kind = after.as_bytes().first().copied().unwrap_or(b'\\');
        rest = after.get(1..).unwrap_or_default();
        match kind {
            b'u' => rest = push_unicode(&mut out, rest),
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            itself => out.push(char::from(itself)),
        }
    }
    out.push_str(rest);
    out
}

/// Reads what follows `\u`, and the second half of a pair if there is one; returns what is left.
fn push_unicode<'a>(out: &mut String, text: &'a str) -> &'a str {
    let unit = |text: &str| text.get(..4).and_then(|hex| u16::from_str_radix(hex, 16).ok());
    let first = unit(text).unwrap_or(0xfffd);
    let rest = text.get(4..).unwrap_or_default();
    let second = rest.strip_prefix("\\u").and_then(unit);
    let pair = [first, second.unwrap_or(0)];
    let units = if (0xd800..0xdc00).contains(&first) && second.is_some() { &pair[..] } else { &pair[..1] };
    let mut decoded = char::decode_utf16(units.iter().copied());
    match decoded.next() {
        Some(Ok(character)) => {
            out.push(character);
            if units.len() == 2 { rest.get(6..).unwrap_or_default() } else { rest }
        }
        _ => {
            out.push(char::REPLACEMENT_CHARACTER);
            rest
        }
    }
}
