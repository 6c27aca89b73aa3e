//! The configuration as a tree of names.

use std::collections::{BTreeMap, BTreeSet};

use levada_plugin::json;
use serde::Deserialize;

use crate::OnInvalid;

/// The configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The paths that stay, as [`json::path`] reads them; everything else goes.
    keep: Option<Vec<String>>,
    /// The paths that go; everything else stays.
    drop: Option<Vec<String>>,
    /// Path to the field's new name, which replaces the path's last part.
    #[serde(default)]
    rename: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) on_invalid: OnInvalid,
}

/// What becomes of every field.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) mode: Mode,
    pub(crate) root: Node,
}

/// What becomes of fields by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Only what is listed stays.
    Keep,
    /// Only what is listed goes.
    Drop,
    /// All stays: the inside of a field that is kept.
    Whole,
}

/// What the rules say about a field, and about those inside it.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// It is one of the paths of `keep` or `drop`.
    pub(crate) listed: bool,
    pub(crate) renamed: Option<String>,
    pub(crate) inner: Vec<Self>,
    /// New names of fields directly inside: a field that has one of them already gives way.
    pub(crate) taken: BTreeSet<String>,
    /// What begins with a field of this object and leads inside it, written with dots: a field that has this for its
    /// whole name was probably meant.
    pub(crate) dotted: Vec<String>,
}

impl Rules {
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let (mode, listed) = match (&config.keep, &config.drop) {
            (Some(_), Some(_)) => return Err("expected keep or drop, got both".to_owned()),
            (Some(keep), None) => (Mode::Keep, &keep[..]),
            (None, Some(drop)) => (Mode::Drop, &drop[..]),
            (None, None) if config.rename.is_empty() => {
                return Err("expected at least one of keep, drop and rename".to_owned());
            }
            (None, None) => (Mode::Whole, &[][..]),
        };
        let mut root = Node::default();
        for path in listed {
            let names = json::path(path)?;
            root.suspect(&names);
            let node = root.reach(&names);
            if std::mem::replace(&mut node.listed, true) {
                return Err(format!("expected each path once, got {path:?} twice"));
            }
        }
        if mode == Mode::Drop
            && let Some(name) = root.hidden()
        {
            return Err(format!(
                "drop: the path to {name:?} never matches, a field around it is dropped whole"
            ));
        }
        for (path, name) in &config.rename {
            let names = json::path(path)?;
            root.suspect(&names);
            let (last, parents) = names.split_last().expect("a path has at least one name");
            let parent = root.reach(parents);
            if !parent.taken.insert(name.clone()) {
                return Err(format!("rename: two fields of one object become {name:?}"));
            }
            parent.reach(std::slice::from_ref(last)).renamed = Some(name.clone());
        }
        Ok(Self { mode, root })
    }
}

impl Node {
    /// True if it or something inside it is listed.
    pub(crate) fn holds_listed(&self) -> bool {
        self.listed || self.inner.iter().any(Self::holds_listed)
    }

    /// A listed field inside one that is listed itself.
    fn hidden(&self) -> Option<&str> {
        self.inner.iter().find_map(|inner| {
            let within = inner.inner.iter().find(|below| inner.listed && below.holds_listed());
            within.map(|below| below.name.as_str()).or_else(|| inner.hidden())
        })
    }

    /// Notes, at each object that the path leads through, what of it could be one name with dots.
    fn suspect(&mut self, path: &[String]) {
        if let [first, inside @ ..] = path
            && !inside.is_empty()
        {
            self.dotted.push(path.join("."));
            self.reach(std::slice::from_ref(first)).suspect(inside);
        }
    }

    /// The node of this path below, made if need be.
    fn reach(&mut self, path: &[String]) -> &mut Self {
        let Some((name, rest)) = path.split_first() else { return self };
        let known = self.inner.iter().position(|node| &node.name == name);
        let at = known.unwrap_or_else(|| {
            self.inner.push(Self { name: name.clone(), ..Self::default() });
            self.inner.len() - 1
        });
        self.inner[at].reach(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(config: &str) -> String {
        Rules::new(&serde_json::from_str(config).unwrap()).err().unwrap()
    }

    #[test]
    fn a_configuration_says_something_and_no_two_things() {
        assert!(refusal("{}").contains("at least one of keep, drop and rename"));
        assert!(refusal(r#"{"keep": ["a"], "drop": ["b"]}"#).contains("keep or drop"));
        assert!(refusal(r#"{"keep": ["a."]}"#).contains("\"a.\""));
        assert!(refusal(r#"{"drop": ["a", "a"]}"#).contains("twice"));
        assert!(refusal(r#"{"drop": ["a", "a.b"]}"#).contains("the path to \"b\" never matches"));
        assert!(refusal(r#"{"rename": {"": "b"}}"#).contains("\"\""));
        assert!(refusal(r#"{"rename": {"a": "c", "b": "c"}}"#).contains("become \"c\""));
        let same_name_elsewhere = r#"{"rename": {"a": "c", "x.b": "c"}}"#;
        assert!(Rules::new(&serde_json::from_str(same_name_elsewhere).unwrap()).is_ok());
    }
}
