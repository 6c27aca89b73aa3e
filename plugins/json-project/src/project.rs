//! Rewriting a payload in one pass: what stays is copied as it is written.

use levada_plugin::json::{Cursor, Invalid, Kind, Text};

use crate::rules::{Mode, Node, Rules};

/// What the rules made of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Projected<'r> {
    /// The new payload is in the output; false if every field stayed under its name.
    pub(crate) changed: bool,
    /// A field that no rule names has this whole name, which a rule reads as a path.
    pub(crate) mistaken: Option<&'r str>,
}

/// Applies the rules to `payload`, which must be a JSON object, and writes the result to `out`.
pub(crate) fn project<'r>(
    rules: &'r Rules,
    payload: &[u8],
    out: &mut String,
) -> Result<Projected<'r>, Invalid> {
    out.clear();
    let projected = Projected { changed: false, mistaken: None };
    let mut projection = Projection { cursor: Cursor::new(payload)?, out, projected };
    if projection.cursor.kind()? != Kind::Object {
        return Err(Invalid { at: projection.cursor.position(), expected: "an object" });
    }
    projection.object(&rules.root, rules.mode)?;
    projection.cursor.finish()?;
    Ok(projection.projected)
}

struct Projection<'a, 'o, 'r> {
    cursor: Cursor<'a>,
    out: &'o mut String,
    projected: Projected<'r>,
}

impl<'r> Projection<'_, '_, 'r> {
    /// Copies the value at the cursor, as far as the rules about its parts let it; arrays element
    /// by element. False, and nothing copied, if it has no parts and only listed parts stay.
    fn value(&mut self, node: &'r Node, mode: Mode) -> Result<bool, Invalid> {
        match self.cursor.kind()? {
            Kind::Object => self.object(node, mode).map(|()| true),
            Kind::Array => self.array(node, mode).map(|()| true),
            _ if mode == Mode::Keep => self.skip().map(|()| false),
            _ => self.copy().map(|()| true),
        }
    }

    fn object(&mut self, node: &'r Node, mode: Mode) -> Result<(), Invalid> {
        self.out.push('{');
        let first = self.out.len();
        let mut name = self.cursor.enter_object()?;
        while let Some(member) = name {
            let before = self.out.len();
            if before > first {
                self.out.push(',');
            }
            if !self.member(node, mode, &member)? {
                self.out.truncate(before);
                self.projected.changed = true;
            }
            name = self.cursor.next_member()?;
        }
        self.out.push('}');
        Ok(())
    }

    fn array(&mut self, node: &'r Node, mode: Mode) -> Result<(), Invalid> {
        self.out.push('[');
        let first = self.out.len();
        let mut more = self.cursor.enter_array()?;
        while more {
            let before = self.out.len();
            if before > first {
                self.out.push(',');
            }
            if !self.value(node, mode)? {
                self.out.truncate(before);
                self.projected.changed = true;
            }
            more = self.cursor.next_element()?;
        }
        self.out.push(']');
        Ok(())
    }

    /// Passes a member's value, and copies the member if it stays.
    fn member(&mut self, node: &'r Node, mode: Mode, name: &Text<'_>) -> Result<bool, Invalid> {
        let rule = node.inner.iter().find(|inner| name.is(&inner.name));
        let renamed = rule.and_then(|rule| rule.renamed.as_deref());
        if rule.is_none() && !node.dotted.is_empty() {
            let mistaken = node.dotted.iter().find(|dotted| name.is(dotted));
            self.projected.mistaken = self.projected.mistaken.or_else(|| mistaken.map(String::as_str));
        }
        let gives_way = renamed.is_none() && !node.taken.is_empty() && node.taken.contains(&*name.decode());
        let stays = match mode {
            Mode::Keep => rule.is_some_and(Node::holds_listed),
            Mode::Drop => !rule.is_some_and(|rule| rule.listed),
            Mode::Whole => true,
        };
        if gives_way || !stays {
            return self.skip().map(|()| false);
        }
        self.projected.changed |= renamed.is_some();
        match renamed {
            Some(new) => push_text(self.out, new),
            None => {
                self.out.push('"');
                self.out.push_str(name.raw());
                self.out.push('"');
            }
        }
        self.out.push(':');
        match rule {
            Some(rule) if !rule.inner.is_empty() => {
                let inside = if mode == Mode::Keep && rule.listed { Mode::Whole } else { mode };
                self.value(rule, inside)
            }
            _ => self.copy().map(|()| true),
        }
    }

    fn skip(&mut self) -> Result<(), Invalid> {
        self.cursor.value().map(|_| ())
    }

    fn copy(&mut self) -> Result<(), Invalid> {
        self.out.push_str(self.cursor.value()?.raw());
        Ok(())
    }
}

/// Writes a string as JSON does.
fn push_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            plain => out.push(plain),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = r#"{"id": "o-1", "amount": 5, "ship_to": {"city": "Funchal", "zip": 9000},
        "items": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2, "gift": {"to": "x"}}], "note": null}"#;

    fn projected(config: &str, payload: &str) -> Option<String> {
        let rules = Rules::new(&serde_json::from_str(config).unwrap()).unwrap();
        let mut out = String::new();
        let changed = project(&rules, payload.as_bytes(), &mut out).unwrap().changed;
        changed.then_some(out)
    }

    fn order(config: &str) -> String {
        projected(config, ORDER).unwrap()
    }

    #[test]
    fn only_kept_fields_stay() {
        assert_eq!(order(r#"{"keep": ["id", "amount"]}"#), r#"{"id":"o-1","amount":5}"#);
        assert_eq!(order(r#"{"keep": ["ship_to.city", "absent"]}"#), r#"{"ship_to":{"city":"Funchal"}}"#);
        assert_eq!(order(r#"{"keep": ["id.x", "note.y"]}"#), "{}");
        assert_eq!(
            order(r#"{"keep": ["ship_to", "ship_to.city"]}"#),
            r#"{"ship_to":{"city": "Funchal", "zip": 9000}}"#.replace(": ", ":").replace(", ", ",")
        );
    }

    #[test]
    fn dropped_fields_go() {
        let expected = r#"{"id":"o-1","amount":5,"ship_to":{"city":"Funchal"},"note":null}"#;
        assert_eq!(order(r#"{"drop": ["items", "ship_to.zip", "id.x"]}"#), expected);
        assert_eq!(projected(r#"{"drop": ["absent", "id.x"]}"#, ORDER), None);
    }

    #[test]
    fn a_field_whose_name_holds_a_dot_has_a_path() {
        let payload = r#"{"user.email":"x","user":{"email":"y","id":1}}"#;
        assert_eq!(
            projected(r#"{"drop": ["\"user.email\"", "user.email"]}"#, payload).unwrap(),
            r#"{"user":{"id":1}}"#
        );
        assert_eq!(projected(r#"{"keep": [".\"user.email\""]}"#, payload).unwrap(), r#"{"user.email":"x"}"#);
    }

    #[test]
    fn a_field_that_a_path_probably_meant_is_told_of() {
        let mistaken = |config: &str, payload: &str| {
            let rules = Rules::new(&serde_json::from_str(config).unwrap()).unwrap();
            let projected = project(&rules, payload.as_bytes(), &mut String::new()).unwrap();
            projected.mistaken.map(str::to_owned)
        };
        let dotted = r#"{"drop": ["user.email"]}"#;
        assert_eq!(mistaken(dotted, r#"{"user.email":1}"#).as_deref(), Some("user.email"));
        assert_eq!(mistaken(dotted, r#"{"user":{"email":1}}"#), None);
        assert_eq!(mistaken(r#"{"drop": ["a.b.c"]}"#, r#"{"a":[{"b.c":1}]}"#).as_deref(), Some("b.c"));
        let both = r#"{"drop": ["user.email", "\"user.email\""]}"#;
        assert_eq!(mistaken(both, r#"{"user.email":1}"#), None);
    }

    #[test]
    fn a_path_leads_into_every_element_of_an_array() {
        assert_eq!(order(r#"{"keep": ["items.sku"]}"#), r#"{"items":[{"sku":"a"},{"sku":"b"}]}"#);
        assert_eq!(order(r#"{"keep": ["items.gift.to"]}"#), r#"{"items":[{},{"gift":{"to":"x"}}]}"#);
        assert_eq!(
            projected(r#"{"keep": ["a.b"]}"#, r#"{"a":[1,[{"b":2}],{"b":3,"c":4}]}"#).unwrap(),
            r#"{"a":[[{"b":2}],{"b":3}]}"#
        );
        assert_eq!(
            projected(r#"{"drop": ["a.b"]}"#, r#"{"a":[1,{"b":3,"c":4}]}"#).unwrap(),
            r#"{"a":[1,{"c":4}]}"#
        );
    }

    #[test]
    fn renamed_fields_stay_where_they_are() {
        let config = r#"{"keep": ["id", "ship_to", "items.n"], "rename": {"id": "order\"", "ship_to.zip": "code", "items.n": "count", "note": "x"}}"#;
        assert_eq!(
            order(config),
            r#"{"order\"":"o-1","ship_to":{"city":"Funchal","code":9000},"items":[{"count":1},{"count":2}]}"#
        );
    }

    #[test]
    fn a_field_that_has_the_new_name_gives_way() {
        let swapped = projected(r#"{"rename": {"a": "b"}}"#, r#"{"b":1,"a":2,"c":3}"#);
        assert_eq!(swapped.unwrap(), r#"{"b":2,"c":3}"#);
        let exchanged = projected(r#"{"rename": {"a": "b", "b": "a"}}"#, r#"{"b":1,"a":2}"#);
        assert_eq!(exchanged.unwrap(), r#"{"a":1,"b":2}"#);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let rules = Rules::new(&serde_json::from_str(r#"{"keep": ["a"]}"#).unwrap()).unwrap();
        let deep = format!("{{\"a\":{}", "[".repeat(1_000));
        for bad in ["", "[]", "1", "{", "{\"a\":1", "{\"a\":1}x", &deep] {
            assert!(project(&rules, bad.as_bytes(), &mut String::new()).is_err(), "{bad}");
        }
        let rules = Rules::new(&serde_json::from_str(r#"{"keep": ["a.b"]}"#).unwrap()).unwrap();
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(1_000), "]".repeat(1_000));
        assert!(project(&rules, deep.as_bytes(), &mut String::new()).is_err());
    }
}
