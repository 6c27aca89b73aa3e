//! From a condition's text to an expression. Every error names the column, counted in characters from 1.
//!
//! ```text
//! any     = all { ("||" | "or") all }
//! all     = not { ("&&" | "and") not }
//! not     = ("!" | "not") not | "(" any ")" | "exists" "(" name ")" | value [ comparison value | "in" list ]
//! list    = "[" literal { "," literal } "]"
//! value   = literal | name
//! literal = number | string | "true" | "false" | "null"
//! name    = "key" | "header" "." segment | ["."] segment { "." segment }
//! segment = word | string (after a dot)
//! ```

use crate::{
    expression::{Comparison, Expression, Literal, Operand},
    json::{Cursor, Kind, Number, Scanner, Value},
};

/// Longest condition in bytes of UTF-8.
pub const CONDITION_BYTES_MAX: usize = 16 * 1024;
/// How deep parentheses and negations may nest.
pub const DEPTH_MAX: usize = 64;
/// Most levels of a field's path.
pub const SEGMENTS_MAX: usize = 32;
/// Most comparisons, `exists` and names alone in one condition: each is evaluated for every event.
pub const TERMS_MAX: usize = 256;
/// Most different fields of the payload in one condition: each is looked for at every name of a payload.
pub const FIELDS_MAX: usize = 64;

/// Words that stand for signs: a field of such a name is written behind a dot.
const OPERATORS: [&str; 3] = ["and", "or", "not"];

/// Where and why a text is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct ParseError {
    /// The column of the mistake, counted in characters from 1.
    pub column: usize,
    /// What was expected there, and what was found.
    pub message: String,
}

/// Parses a whole condition; returns it with the scanner whose slots it names.
pub(crate) fn condition(text: &str) -> Result<(Expression, Scanner), ParseError> {
    if text.len() > CONDITION_BYTES_MAX {
        let message = format!("expected at most {CONDITION_BYTES_MAX} bytes, got {}", text.len());
        return Err(ParseError { column: 1, message });
    }
    let mut parser = Parser { text, at: 0, depth: 0, terms: 0, fields: 0, scanner: Scanner::new() };
    let expression = parser.any()?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.expected("and, or, or the end"));
    }
    Ok((expression, parser.scanner))
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Comparisons, `exists` and names alone so far.
    terms: usize,
    /// Different fields so far.
    fields: usize,
    scanner: Scanner,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Expression, ParseError> {
        let mut parts = vec![self.all()?];
        while self.accept("||") || self.accept_word("or") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Any(parts) })
    }

    fn all(&mut self) -> Result<Expression, ParseError> {
        let mut parts = vec![self.not()?];
        while self.accept("&&") || self.accept_word("and") {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::All(parts) })
    }

    fn not(&mut self) -> Result<Expression, ParseError> {
        self.skip_space();
        if self.rest().starts_with("!=") {
            return Err(self.expected("a condition"));
        }
        if self.accept("!") || self.accept_word("not") {
            return self.nested(|parser| Ok(Expression::Not(Box::new(parser.not()?))));
        }
        if self.accept("(") {
            return self.nested(|parser| {
                let inner = parser.any()?;
                parser.require(")")?;
                Ok(inner)
            });
        }
        let start = self.at;
        self.terms += 1;
        if self.terms > TERMS_MAX {
            return Err(self.error(start, format!("expected at most {TERMS_MAX} comparisons")));
        }
        if self.word() == Some("exists") && self.accept("(") {
            let operand = self.value()?;
            if matches!(operand, Operand::Literal(_)) {
                return Err(self.error(start, "exists wants the name of a field or header".to_owned()));
            }
            self.require(")")?;
            return Ok(Expression::Exists(operand));
        }
        self.at = start;
        self.comparison()
    }

    fn nested(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<Expression, ParseError>,
    ) -> Result<Expression, ParseError> {
        if self.depth == DEPTH_MAX {
            return Err(self.error(self.at, format!("expected at most {DEPTH_MAX} levels of ( and !")));
        }
        self.depth += 1;
        let inner = parse(self);
        self.depth -= 1;
        inner
    }

    fn comparison(&mut self) -> Result<Expression, ParseError> {
        const COMPARISONS: [(&str, Comparison); 7] = [
            ("==", Comparison::Equal),
            ("=", Comparison::Equal),
            ("!=", Comparison::Unequal),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let start = self.at;
        let left = self.value()?;
        for (sign, comparison) in COMPARISONS {
            if self.accept(sign) {
                let right = self.value()?;
                return Ok(Expression::Compare(left, comparison, right));
            }
        }
        if self.accept_word("in") {
            return Ok(Expression::In(left, self.list()?));
        }
        if let Operand::Literal(literal) = &left
            && !matches!(literal, Literal::Bool(_))
        {
            return Err(self.error(start, "a number or text alone is no condition, compare it".to_owned()));
        }
        Ok(Expression::True(left))
    }

    fn list(&mut self) -> Result<Vec<Literal>, ParseError> {
        self.require("[")?;
        let mut literals = Vec::new();
        loop {
            self.skip_space();
            let start = self.at;
            match self.value()? {
                Operand::Literal(literal) => literals.push(literal),
                Operand::Field(_) | Operand::Header(_) | Operand::Key => {
                    return Err(self.error(start, "expected a number, text, true, false or null".to_owned()));
                }
            }
            if !self.accept(",") {
                self.require("]")?;
                return Ok(literals);
            }
        }
    }

    fn value(&mut self) -> Result<Operand, ParseError> {
        self.skip_space();
        match self.rest().bytes().next() {
            Some(b'"') => self.string().map(Literal::Text).map(Operand::Literal),
            Some(b'-' | b'0'..=b'9') => self.number().map(Literal::Number).map(Operand::Literal),
            Some(b'.') => self.path(Vec::new()),
            _ => {
                let start = self.at;
                let word = self.word().ok_or_else(|| self.expected("a field, a header or a value"))?;
                match word {
                    operator if OPERATORS.contains(&operator) => {
                        let found = format!("found {operator}; a field of that name is .{operator}");
                        Err(self.error(start, format!("expected a field, a header or a value, {found}")))
                    }
                    "true" => Ok(Operand::Literal(Literal::Bool(true))),
                    "false" => Ok(Operand::Literal(Literal::Bool(false))),
                    "null" => Ok(Operand::Literal(Literal::Null)),
                    "header" if self.rest().starts_with('.') => self.segment().map(Operand::Header),
                    "key" if !self.rest().starts_with('.') => Ok(Operand::Key),
                    first => self.path(vec![first.to_owned()]),
                }
            }
        }
    }

    /// The rest of a field's path, each segment after a dot.
    fn path(&mut self, mut segments: Vec<String>) -> Result<Operand, ParseError> {
        let start = self.at;
        while self.rest().starts_with('.') {
            if segments.len() == SEGMENTS_MAX {
                return Err(self.error(self.at, format!("expected at most {SEGMENTS_MAX} levels")));
            }
            segments.push(self.segment()?);
        }
        let slot = self.scanner.want(&segments);
        self.fields = self.fields.max(slot + 1);
        if self.fields > FIELDS_MAX {
            return Err(self.error(start, format!("expected at most {FIELDS_MAX} different fields")));
        }
        Ok(Operand::Field(slot))
    }

    /// A dot, and a word or a string after it.
    fn segment(&mut self) -> Result<String, ParseError> {
        self.at += 1;
        if self.rest().starts_with('"') {
            return self.string();
        }
        self.word().map(str::to_owned).ok_or_else(|| self.expected("a name after the dot"))
    }

    /// A word: letters, digits, `_` and `-`, beginning with a letter or `_`.
    fn word(&mut self) -> Option<&'a str> {
        self.skip_space();
        let rest = self.rest();
        let inside = |character: char| character.is_alphanumeric() || matches!(character, '_' | '-');
        let len = rest.find(|character| !inside(character)).unwrap_or(rest.len());
        let word = &rest[..len];
        if !word.starts_with(|first: char| first.is_alphabetic() || first == '_') {
            return None;
        }
        self.at += len;
        Some(word)
    }

    fn string(&mut self) -> Result<String, ParseError> {
        let value = self.json(Kind::Text)?;
        Ok(value.as_text().map(|text| text.decode().into_owned()).unwrap_or_default())
    }

    fn number(&mut self) -> Result<Number, ParseError> {
        let start = self.at;
        let value = self.json(Kind::Number)?;
        value.as_number().ok_or_else(|| self.error(start, "expected a number".to_owned()))
    }

    /// A value as JSON writes it.
    fn json(&mut self, kind: Kind) -> Result<Value<'a>, ParseError> {
        let rest = self.rest();
        let value = Cursor::new(rest.as_bytes()).and_then(|mut cursor| cursor.value());
        match value {
            Ok(value) if value.kind() == kind => {
                self.at += value.raw().len();
                Ok(value)
            }
            Ok(_) => Err(self.expected("a value")),
            Err(invalid) => Err(self.error(self.at + invalid.at, format!("expected {}", invalid.expected))),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn accept(&mut self, sign: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    /// Passes this word, if it stands here as a whole.
    fn accept_word(&mut self, word: &str) -> bool {
        let before = self.at;
        let found = self.word() == Some(word);
        if !found {
            self.at = before;
        }
        found
    }

    fn require(&mut self, sign: &str) -> Result<(), ParseError> {
        if self.accept(sign) { Ok(()) } else { Err(self.expected(sign)) }
    }

    /// What should stand here, and what does.
    fn expected(&self, what: &str) -> ParseError {
        let found = match self.rest().chars().next() {
            Some(character) => format!("{character:?}"),
            None => "the end".to_owned(),
        };
        self.error(self.at, format!("expected {what}, found {found}"))
    }

    fn error(&self, at: usize, message: String) -> ParseError {
        let column = self.text.get(..at).map_or(0, |before| before.chars().count()) + 1;
        ParseError { column, message }
    }
}

#[cfg(test)]
mod tests;
