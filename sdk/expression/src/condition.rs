//! A condition that is ready to be asked.

use crate::{
    evaluate::{Event, Source},
    expression::Expression,
    json::{Invalid, Scanner},
    parse::{self, ParseError},
};

/// A parsed condition. It keeps a table that is used again from event to event, so that asking allocates nothing for
/// most payloads.
#[derive(Debug)]
pub struct Condition {
    scanner: Scanner,
    expression: Expression,
}

impl Condition {
    /// Parses a whole condition.
    ///
    /// # Errors
    /// With the column, counted in characters from 1, and what was expected there.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let (expression, scanner) = parse::condition(text)?;
        Ok(Self { scanner, expression })
    }

    /// Whether it names a field of the payload; one that does not never looks at payloads.
    pub fn needs_payload(&self) -> bool {
        !self.scanner.is_empty()
    }

    /// Whether it holds for this event.
    ///
    /// # Errors
    /// If it names a field and the payload is no JSON, or there is none.
    pub fn holds(&mut self, source: &impl Source) -> Result<bool, Invalid> {
        let fields = if self.scanner.is_empty() {
            None
        } else {
            Some(self.scanner.scan(source.payload().unwrap_or_default())?)
        };
        Ok(Event { fields, source }.holds(&self.expression))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Order {
        payload: &'static str,
        key: Option<&'static str>,
    }

    impl Source for Order {
        fn payload(&self) -> Option<&[u8]> {
            Some(self.payload.as_bytes())
        }

        fn key(&self) -> Option<&[u8]> {
            self.key.map(str::as_bytes)
        }

        fn header(&self, name: &str) -> Option<&[u8]> {
            (name == "region").then_some(b"eu".as_slice())
        }
    }

    const ORDER: Order = Order {
        payload: r#"{"amount": 250, "key": "inner", "paid": true, "name": "\u00e9", "none": null, "items": [1]}"#,
        key: Some("7"),
    };

    #[test]
    fn fields_headers_and_the_key_are_asked_in_one_language() {
        for (text, expected) in [
            (r#"amount > 100 and header.region = "eu""#, true),
            (r#"amount > 100 and header.region = "us""#, false),
            (r#"amount > 250 or header.region in ["us", "eu"]"#, true),
            (r#"key = "7" and .key = "inner""#, true),
            ("key = 7 and key < 8", true),
            (r#"key = "inner""#, false),
            ("paid and not (amount = 0)", true),
            (r#"name = "é""#, true),
            ("exists(none) and none = null and not exists(missing)", true),
            (r#"missing != "x" and not (missing = null)"#, true),
            ("items = 1 or items = null", false),
            (r#"amount = "250""#, false),
        ] {
            assert_eq!(Condition::parse(text).unwrap().holds(&ORDER), Ok(expected), "{text}");
        }
        let keyless = Order { key: None, ..ORDER };
        let holds = |text: &str| Condition::parse(text).unwrap().holds(&keyless).unwrap();
        assert!(!holds("exists(key)") && holds(r#"key != "7""#));
    }

    #[test]
    fn a_payload_that_is_no_json_matters_only_if_a_field_is_asked_for() {
        let text = Order { payload: "plain", key: Some("7") };
        let mut field = Condition::parse("amount > 1 or key = 7").unwrap();
        assert!(field.needs_payload() && field.holds(&text).is_err());
        let mut header = Condition::parse(r#"header.region = "eu" and key = 7"#).unwrap();
        assert!(!header.needs_payload());
        assert_eq!(header.holds(&text), Ok(true));
        assert_eq!(field.holds(&ORDER), Ok(true), "an error leaves nothing behind");
    }
}
