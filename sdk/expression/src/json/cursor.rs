//! Walking a JSON text value by value; everything that makes a text no JSON is found here.

use super::value::{Kind, Text, Value};

/// How deep arrays and objects of a text may nest.
pub const DEPTH_MAX: u32 = 128;

/// Where and why a text is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("byte {at} of the payload is no JSON: expected {expected}")]
pub struct Invalid {
    /// The offset in bytes, from 0.
    pub at: usize,
    /// What could have stood there.
    pub expected: &'static str,
}

/// A position in a JSON text.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
    /// How many arrays and objects are open.
    depth: u32,
}

impl<'a> Cursor<'a> {
    /// Stands before the first value of `text`.
    ///
    /// # Errors
    /// If the text is not UTF-8.
    pub fn new(text: &'a [u8]) -> Result<Self, Invalid> {
        match std::str::from_utf8(text) {
            Ok(text) => Ok(Self { text, at: 0, depth: 0 }),
            Err(error) => Err(Invalid { at: error.valid_up_to(), expected: "UTF-8" }),
        }
    }

    /// How many bytes were passed.
    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }

    /// The text from `start` to the cursor.
    ///
    /// # Panics
    /// If `start` is no position at which this cursor stood.
    #[inline]
    pub fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    /// What the next value is, by its first byte; passes the white space before it.
    #[inline]
    pub fn kind(&mut self) -> Result<Kind, Invalid> {
        match self.next_byte() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::Text),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            _ => Err(self.expected("a value")),
        }
    }

    /// Passes the next value, whatever it is.
    pub fn value(&mut self) -> Result<Value<'a>, Invalid> {
        let kind = self.kind()?;
        let start = self.at;
        let escaped = match kind {
            Kind::Text => self.string()?,
            Kind::Object | Kind::Array => {
                self.container()?;
                false
            }
            scalar => {
                self.scalar(scalar)?;
                false
            }
        };
        Ok(Value::new(kind, self.since(start), escaped))
    }

    /// Enters an object, and passes its first name and the colon; `None` if it is empty, and then passes its end.
    #[inline]
    pub fn enter_object(&mut self) -> Result<Option<Text<'a>>, Invalid> {
        self.check_depth()?;
        self.pass(b'{', "an object")?;
        if self.next_byte() == Some(b'}') {
            self.at += 1;
            return Ok(None);
        }
        self.depth += 1;
        self.name().map(Some)
    }

    /// After a member's value: passes the next name and the colon; `None` at the object's end, which is passed.
    #[inline]
    pub fn next_member(&mut self) -> Result<Option<Text<'a>>, Invalid> {
        match self.next_byte() {
            Some(b',') => {
                self.at += 1;
                self.name().map(Some)
            }
            Some(b'}') => {
                self.at += 1;
                self.depth = self.depth.saturating_sub(1);
                Ok(None)
            }
            _ => Err(self.expected(", or }")),
        }
    }

    /// Enters an array; false if it is empty, and then passes its end.
    #[inline]
    pub fn enter_array(&mut self) -> Result<bool, Invalid> {
        self.check_depth()?;
        self.pass(b'[', "an array")?;
        if self.next_byte() == Some(b']') {
            self.at += 1;
            return Ok(false);
        }
        self.depth += 1;
        Ok(true)
    }

    /// After an element: true if another one follows, false at the array's end, which is passed.
    #[inline]
    pub fn next_element(&mut self) -> Result<bool, Invalid> {
        match self.next_byte() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(b']') => {
                self.at += 1;
                self.depth = self.depth.saturating_sub(1);
                Ok(false)
            }
            _ => Err(self.expected(", or ]")),
        }
    }

    /// After the last value: nothing but white space may follow.
    pub fn finish(&mut self) -> Result<(), Invalid> {
        match self.next_byte() {
            None => Ok(()),
            Some(_) => Err(self.expected("nothing after the value")),
        }
    }

    #[inline]
    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    /// The next byte that is no white space, not passed.
    #[inline]
    fn next_byte(&mut self) -> Option<u8> {
        loop {
            let byte = self.peek()?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    #[inline]
    fn pass(&mut self, byte: u8, expected: &'static str) -> Result<(), Invalid> {
        if self.next_byte() != Some(byte) {
            return Err(self.expected(expected));
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn check_depth(&self) -> Result<(), Invalid> {
        if self.depth == DEPTH_MAX { Err(self.expected("at most 128 levels")) } else { Ok(()) }
    }

    #[cold]
    fn expected(&self, expected: &'static str) -> Invalid {
        Invalid { at: self.at, expected }
    }

    /// Passes a member's name and the colon behind it.
    #[inline]
    fn name(&mut self) -> Result<Text<'a>, Invalid> {
        if self.next_byte() != Some(b'"') {
            return Err(self.expected("a name in quotes"));
        }
        let start = self.at;
        let escaped = self.string()?;
        let name = Text::new(&self.text[start + 1..self.at - 1], escaped);
        self.pass(b':', "a colon")?;
        Ok(name)
    }

    /// Passes an array or object with all that is in it. Open brackets are bits, 1 for an object.
    fn container(&mut self) -> Result<(), Invalid> {
        let (mut objects, mut depth) = (0_u128, 0);
        loop {
            let entered = match self.kind()? {
                Kind::Text => {
                    self.string()?;
                    false
                }
                kind @ (Kind::Object | Kind::Array) => {
                    let object = kind == Kind::Object;
                    let more = if object { self.enter_object()?.is_some() } else { self.enter_array()? };
                    if more {
                        objects = objects << 1 | u128::from(object);
                        depth += 1;
                    }
                    more
                }
                scalar => {
                    self.scalar(scalar)?;
                    false
                }
            };
            if !entered && !self.next_in(&mut objects, &mut depth)? {
                return Ok(());
            }
        }
    }

    /// After a value: moves to the next one of the innermost container that has more; false if none is open.
    #[inline]
    fn next_in(&mut self, objects: &mut u128, depth: &mut u32) -> Result<bool, Invalid> {
        while *depth > 0 {
            let more = if *objects & 1 == 1 { self.next_member()?.is_some() } else { self.next_element()? };
            if more {
                return Ok(true);
            }
            *objects >>= 1;
            *depth -= 1;
        }
        Ok(false)
    }

    #[inline]
    fn scalar(&mut self, kind: Kind) -> Result<(), Invalid> {
        match kind {
            Kind::Number => self.number(),
            Kind::Null => self.word("null"),
            _ if self.peek() == Some(b't') => self.word("true"),
            _ => self.word("false"),
        }
    }

    #[inline]
    fn word(&mut self, word: &'static str) -> Result<(), Invalid> {
        if !self.bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.expected("true, false or null"));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), Invalid> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    #[inline]
    fn digits(&mut self) -> Result<(), Invalid> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    /// Passes a string, its quotes included; true if it holds escapes.
    #[inline]
    fn string(&mut self) -> Result<bool, Invalid> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at = plain_until(self.bytes(), self.at);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.expected("no control character in a string")),
                None => return Err(self.expected("a closing quote")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Invalid> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let hex = self.bytes().get(self.at + 1..self.at + 5);
                if !hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.expected("four hex digits after \\u"));
                }
                self.at += 5;
            }
            _ => return Err(self.expected("an escape")),
        }
        Ok(())
    }
}

/// Where, from `at` on, the first quote, backslash or control character is; the text's length if there is none.
#[inline]
fn plain_until(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // Of each byte the high bit is set where it is zero. Above the first such byte there may be false ones, and
    // only the first is checked.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5c)) | control) & HIGH;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..0x20) {
            break;
        }
        at += 1;
    }
    at
}
