//! Contexts: engines by name, each with its address, its CA and a token, and which of them is the current one.
//!
//! Owns what a context is, and the text that contexts are kept in. Pure: files are `store.rs`.

pub(crate) mod store;

use std::{collections::BTreeMap, fmt, str::FromStr};

use levada_protocol::{
    ids::{InvalidName, parse_name},
    token::Token,
};
use levada_server::nearest;
use levada_terminal::{Failure, FailureCode};
use serde::Serialize;

/// How the text begins.
const HEAD: &str = "# Engines that `levada --context` knows by name. `levada context` writes this file.\n\
                    # It may hold tokens: nobody but its owner may read it.\n\n";
/// Keys of the text, at its top and of each context.
const KEYS: [&str; 2] = ["current", "contexts"];
const KEYS_OF_ONE: [&str; 3] = ["addr", "ca", "token"];
/// Names that an error lists.
const NAMED_MAX: usize = 20;

/// A context's name: `[a-z0-9][a-z0-9_-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ContextName(String);

impl ContextName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContextName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        parse_name("context", name).map(|name| Self(name.to_string()))
    }
}

impl fmt::Display for ContextName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An engine, as whoever uses it keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Host and port.
    pub(crate) addr: String,
    /// The PEM text of its CA.
    pub(crate) ca: Option<String>,
    pub(crate) token: Option<Token>,
}

/// All contexts of a user.
#[derive(Debug, Default)]
pub(crate) struct Contexts {
    /// The one that commands use if nothing else is said. It is among `all`.
    current: Option<ContextName>,
    all: BTreeMap<ContextName, Context>,
}

impl Contexts {
    pub(crate) fn current(&self) -> Option<&ContextName> {
        self.current.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ContextName, &Context)> {
        self.all.iter()
    }

    /// The context of this name.
    ///
    /// # Errors
    /// If there is none: the names that there are, and the nearest.
    pub(crate) fn get(&self, name: &ContextName) -> Result<&Context, Failure> {
        self.all.get(name).ok_or_else(|| self.absent(name))
    }

    /// Adds a context, or replaces it if that is wished.
    ///
    /// # Errors
    /// If there is one of this name that is not to be replaced.
    pub(crate) fn add(&mut self, name: ContextName, context: Context, replace: bool) -> Result<(), Failure> {
        if self.all.contains_key(&name) && !replace {
            let message = format!("there is a context {name} already");
            return Err(Failure::new(FailureCode::ContextExists, message).hint(format!(
                "--replace puts the new one in its place, `levada context show {name}` shows the old one"
            )));
        }
        self.all.insert(name, context);
        Ok(())
    }

    /// Makes a context the current one.
    ///
    /// # Errors
    /// If there is none of this name.
    pub(crate) fn choose(&mut self, name: &ContextName) -> Result<(), Failure> {
        self.get(name)?;
        self.current = Some(name.clone());
        Ok(())
    }

    /// Removes a context; if it was the current one, none is afterwards. Returns whether it was.
    ///
    /// # Errors
    /// If there is none of this name.
    pub(crate) fn remove(&mut self, name: &ContextName) -> Result<bool, Failure> {
        self.all.remove(name).ok_or_else(|| self.absent(name))?;
        let was_current = self.current.take_if(|current| current == name).is_some();
        Ok(was_current)
    }

    fn absent(&self, name: &ContextName) -> Failure {
        let mut names: Vec<&str> = self.all.keys().take(NAMED_MAX).map(ContextName::as_str).collect();
        let more = (self.all.len() > NAMED_MAX).then(|| format!("and {} more", self.all.len() - NAMED_MAX));
        names.extend(more.as_deref());
        let there_are = match names.as_slice() {
            [] => "there are none".to_owned(),
            [only] => format!("there is {only}"),
            names => format!("there are {}", names.join(", ")),
        };
        let message = format!("there is no context {name}; {there_are}");
        let meant = nearest(name.as_str(), self.all.keys().map(ContextName::as_str));
        let meant = meant.map_or(String::new(), |meant| format!("the nearest name is {meant}; "));
        Failure::new(FailureCode::ContextNotFound, message)
            .hint(format!("{meant}`levada context list` shows the contexts, `levada context add` makes one"))
    }

    /// Reads the text that [`Contexts::to_text`] made, or a person has changed.
    ///
    /// # Errors
    /// What is wrong, in words that quote no value.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            format!("line {}: {}", before.matches('\n').count() + 1, error.message())
        })?;
        check_keys(&table, &KEYS, "")?;
        let mut all = BTreeMap::new();
        for (name, value) in table_at(&table, "contexts", "")?.into_iter().flatten() {
            let name: ContextName = name.parse().map_err(|error: InvalidName| error.to_string())?;
            let place = format!(" of context {name}");
            let one = value.as_table().ok_or_else(|| format!("context {name} is no table"))?;
            all.insert(name, Context::parse(one, &place)?);
        }
        let current = match text_at(&table, "current", "")? {
            Some(name) => Some(name.parse().map_err(|error: InvalidName| error.to_string())?),
            None => None,
        };
        match &current {
            Some(name) if !all.contains_key(name) => {
                Err(format!("current is {name}, expected the name of a context"))
            }
            _ => Ok(Self { current, all }),
        }
    }

    /// The text to keep, secrets included.
    pub(crate) fn to_text(&self) -> String {
        #[derive(Serialize)]
        struct One<'a> {
            addr: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            token: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            ca: Option<&'a str>,
        }

        #[derive(Serialize)]
        struct All<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            current: Option<&'a str>,
            contexts: BTreeMap<&'a str, One<'a>>,
        }

        let one = |context: &'_ Context| context.token.as_ref().map(Token::reveal);
        let contexts = self.all.iter().map(|(name, context)| {
            let form = One { addr: &context.addr, token: one(context), ca: context.ca.as_deref() };
            (name.as_str(), form)
        });
        let form =
            All { current: self.current.as_ref().map(ContextName::as_str), contexts: contexts.collect() };
        let text = toml::to_string_pretty(&form).expect("texts in tables can be written as TOML");
        format!("{HEAD}{text}")
    }
}

impl Context {
    fn parse(table: &toml::Table, place: &str) -> Result<Self, String> {
        check_keys(table, &KEYS_OF_ONE, place)?;
        let addr = text_at(table, "addr", place)?.ok_or_else(|| format!("addr{place} is missing"))?;
        let token = match text_at(table, "token", place)? {
            Some(text) => {
                Some(Token::parse(&text).map_err(|error| format!("token{place} is wrong: {error}"))?)
            }
            None => None,
        };
        Ok(Self { addr, ca: text_at(table, "ca", place)?, token })
    }
}

fn check_keys(table: &toml::Table, known: &[&str], place: &str) -> Result<(), String> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let meant = nearest(key, known.iter().copied());
            let meant = meant.map_or(String::new(), |meant| format!("; the nearest is {meant}"));
            Err(format!("{key:?}{place} is not known, expected {}{meant}", known.join(", ")))
        }
    }
}

fn text_at(table: &toml::Table, key: &str, place: &str) -> Result<Option<String>, String> {
    let text = |value: &toml::Value| match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("{key}{place} is a {}, expected a text", value.type_str())),
    };
    table.get(key).map(text).transpose()
}

fn table_at<'a>(table: &'a toml::Table, key: &str, place: &str) -> Result<Option<&'a toml::Table>, String> {
    let inner = |value: &'a toml::Value| match value.as_table() {
        Some(inner) => Ok(inner),
        None => Err(format!("{key}{place} is a {}, expected a table", value.type_str())),
    };
    table.get(key).map(inner).transpose()
}

#[cfg(test)]
mod tests {
    use levada_protocol::ids::TokenId;

    use super::*;

    fn name(name: &str) -> ContextName {
        name.parse().unwrap()
    }

    fn contexts() -> Contexts {
        let mut contexts = Contexts::default();
        let token = Some(Token::new(TokenId(7), [9; 32]));
        let ca = Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned());
        contexts.add(name("prod"), Context { addr: "a:1".to_owned(), ca, token }, false).unwrap();
        let bare = Context { addr: "b:2".to_owned(), ca: None, token: None };
        contexts.add(name("dev"), bare, false).unwrap();
        contexts
    }

    #[test]
    fn what_is_kept_comes_back() {
        let mut contexts = contexts();
        for current in [None, Some(name("prod"))] {
            contexts.current.clone_from(&current);
            let text = contexts.to_text();
            let back = Contexts::parse(&text).unwrap();
            assert_eq!((back.to_text(), back.current()), (text, current.as_ref()));
            let prod = back.get(&name("prod")).unwrap();
            let token = prod.token.as_ref().unwrap();
            assert_eq!((prod.addr.as_str(), token.id(), token.secret()), ("a:1", TokenId(7), &[9; 32]));
            assert!(prod.ca.as_ref().unwrap().starts_with("-----BEGIN"));
            assert!(back.get(&name("dev")).unwrap().ca.is_none());
        }
        assert!(Contexts::parse("").unwrap().all.is_empty());
    }

    #[test]
    fn what_a_person_has_made_wrong_is_said_without_a_secret() {
        let secret = Token::new(TokenId(7), [9; 32]).reveal();
        let cut = &secret[..60];
        for (text, said) in [
            (
                "currant = \"a\"",
                "\"currant\" is not known, expected current, contexts; the nearest is current",
            ),
            (
                "[contexts.a]\naddr = \"x\"\ntokn = \"y\"",
                "\"tokn\" of context a is not known, expected addr, ca, token; the nearest is token",
            ),
            ("[contexts.a]\n", "addr of context a is missing"),
            ("[contexts.a]\naddr = 5", "addr of context a is a integer, expected a text"),
            ("contexts = 5", "contexts is a integer, expected a table"),
            ("[contexts]\na = 5", "context a is no table"),
            ("[contexts.Big]\naddr = \"x\"", "context name \"Big\" is invalid"),
            ("current = \"a\"", "current is a, expected the name of a context"),
            (
                &format!("[contexts.a]\naddr = \"x\"\ntoken = \"{cut}\""),
                "token of context a is wrong: a token has 65",
            ),
            (&format!("[contexts.a]\naddr = \"x\"\ntoken = {secret}"), "line 3: "),
            (&format!("[contexts.a]\naddr = \"x\"\ntoken = \"{secret}"), "line 3: "),
        ] {
            let error = Contexts::parse(text).unwrap_err();
            assert!(error.contains(said), "{error}");
            assert!(!error.contains(&secret[17..25]), "{error}");
        }
    }

    #[test]
    fn a_name_that_is_not_there_is_told_those_that_are_and_the_nearest() {
        let contexts = contexts();
        let failure = contexts.get(&name("prd")).unwrap_err();
        assert_eq!(failure.to_string(), "there is no context prd; there are dev, prod");
        assert!(failure.advice().unwrap().starts_with("the nearest name is prod; "), "{failure:?}");
        let failure = Contexts::default().get(&name("prod")).unwrap_err();
        assert_eq!(failure.to_string(), "there is no context prod; there are none");
        let mut many = Contexts::default();
        for number in 0..25 {
            let context = Context { addr: "a:1".to_owned(), ca: None, token: None };
            many.add(name(&format!("c{number:02}")), context, false).unwrap();
        }
        let failure = many.get(&name("prod")).unwrap_err().to_string();
        assert!(failure.ends_with(", c19, and 5 more"), "{failure}");
    }

    #[test]
    fn the_current_context_is_always_one_that_is_there() {
        let mut contexts = contexts();
        assert!(contexts.choose(&name("absent")).is_err());
        contexts.choose(&name("dev")).unwrap();
        assert!(!contexts.remove(&name("prod")).unwrap());
        assert_eq!(contexts.current(), Some(&name("dev")));
        assert!(contexts.remove(&name("dev")).unwrap());
        assert_eq!(contexts.current(), None);
        assert!(contexts.remove(&name("dev")).is_err());
    }

    #[test]
    fn a_context_is_replaced_only_if_that_is_wished() {
        let mut contexts = contexts();
        let other = || Context { addr: "c:3".to_owned(), ca: None, token: None };
        let failure = contexts.add(name("prod"), other(), false).unwrap_err();
        assert_eq!(failure.code().as_str(), "CONTEXT_EXISTS");
        assert_eq!(contexts.get(&name("prod")).unwrap().addr, "a:1");
        contexts.add(name("prod"), other(), true).unwrap();
        assert_eq!(contexts.get(&name("prod")).unwrap().addr, "c:3");
    }
}
