//! Values of attributes as HTTP headers: the percent-coding of the HTTP binding, and quoted strings.

use std::borrow::Cow;

/// A text as a header's value: space, `"`, `%` and whatever is not printable ASCII is percent-coded as UTF-8.
pub fn encode(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| matches!(byte, 0x21..=0x7e) && byte != b'"' && byte != b'%';
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut coded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if is_plain(byte) {
            coded.push(char::from(byte));
        } else {
            let digit = |half: u8| char::from(b"0123456789ABCDEF"[usize::from(half)]);
            coded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    Cow::Owned(coded)
}

/// The text of a header's value: a quoted string is unquoted, then percent-coding is undone once. `None` if a quoted
/// string does not end, a `%` is not followed by two hexadecimal digits, or the result is not UTF-8.
pub fn decode(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii();
    let value = if value.first() == Some(&b'"') { Cow::Owned(unquote(value)?) } else { Cow::Borrowed(value) };
    if !value.contains(&b'%') {
        return String::from_utf8(value.into_owned()).ok();
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.iter();
    while let Some(&byte) = rest.next() {
        if byte == b'%' {
            let mut half = || char::from(*rest.next()?).to_digit(16).and_then(|half| u8::try_from(half).ok());
            let (high, low) = (half()?, half()?);
            bytes.push(high << 4 | low);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// What is between the quotes, backslashes resolved; `None` if the string ends elsewhere.
fn unquote(value: &[u8]) -> Option<Vec<u8>> {
    let mut inner = Vec::with_capacity(value.len());
    let mut rest = value[1..].iter();
    loop {
        match *rest.next()? {
            b'"' => break,
            b'\\' => inner.push(*rest.next()?),
            byte => inner.push(byte),
        }
    }
    rest.next().is_none().then_some(inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_coded_as_the_binding_says() {
        for (text, coded) in [
            ("plain/~!", "plain/~!"),
            ("Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ("a \"quote\" and 100%", "a%20%22quote%22%20and%20100%25"),
            ("%41", "%2541"),
            ("\n\u{7f}", "%0A%7F"),
        ] {
            assert_eq!(encode(text), coded);
            assert_eq!(decode(coded.as_bytes()).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_others_send_is_understood() {
        for (value, text) in [
            ("\"quoted \\\"string\\\"\"", Some("quoted \"string\"")),
            ("\"a%20b\"", Some("a b")),
            ("%e2%82%ac", Some("€")),
            ("  spaces around ", Some("spaces around")),
            ("raw €", Some("raw €")),
            ("%2541", Some("%41")),
            ("\"open", None),
            ("\"a\" b", None),
            ("100%", None),
            ("%4", None),
            ("%zz", None),
            ("%+1", None),
            ("%ff", None),
        ] {
            assert_eq!(decode(value.as_bytes()).as_deref(), text, "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_coded_text_is_visible_ascii_and_decoded_as_it_was(text in any::<String>()) {
            let coded = encode(&text);
            prop_assert!(coded.bytes().all(|byte| matches!(byte, 0x21..=0x7e)));
            prop_assert_eq!(decode(coded.as_bytes()), Some(text.clone()));
        }

        #[test]
        fn no_value_makes_it_panic(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            decode(&value);
        }
    }
}
