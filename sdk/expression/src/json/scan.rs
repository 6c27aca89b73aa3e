//! Finding the values of a few dotted paths in one pass.

use super::{
    cursor::{Cursor, Invalid},
    value::{Kind, Text, Value},
};

/// Finds the values of paths that were named beforehand. Reused from text to text.
#[derive(Debug, Default)]
pub struct Scanner {
    root: Node,
    found: Vec<Option<Span>>,
}

/// A name on the way to a wanted value.
#[derive(Debug, Default)]
struct Node {
    name: String,
    slot: Option<usize>,
    children: Vec<Self>,
    /// The slots of this node and of all below it.
    below: Vec<usize>,
}

/// Where a value is. Without a lifetime, so that the table of them outlives the text.
#[derive(Debug, Clone, Copy)]
struct Span {
    kind: Kind,
    escaped: bool,
    start: usize,
    end: usize,
}

/// What a scan found, by slot.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a, 's> {
    text: &'a str,
    found: &'s [Option<Span>],
}

impl<'a> Fields<'a, '_> {
    /// The value of the path that [`Scanner::want`] gave this slot, if the text has it.
    #[inline]
    pub fn get(&self, slot: usize) -> Option<Value<'a>> {
        let span = self.found.get(slot).copied().flatten()?;
        Some(Value::new(span.kind, &self.text[span.start..span.end], span.escaped))
    }
}

impl Scanner {
    /// A scanner that looks for nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for the value under these names, each one level deeper; returns its slot. A path that is wanted
    /// already keeps its slot. Paths lead through objects, not through arrays.
    pub fn want<S: AsRef<str>>(&mut self, path: &[S]) -> usize {
        let new = self.found.len();
        let slot = self.root.want(path, new);
        if slot == new {
            self.found.push(None);
        }
        slot
    }

    /// True if nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Passes over `text` once.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn scan<'a>(&mut self, text: &'a [u8]) -> Result<Fields<'a, '_>, Invalid> {
        let mut cursor = Cursor::new(text)?;
        self.found.fill(None);
        self.root.walk(&mut cursor, &mut self.found)?;
        cursor.finish()?;
        Ok(Fields { text: cursor.since(0), found: &self.found })
    }
}

impl Node {
    fn want<S: AsRef<str>>(&mut self, path: &[S], new: usize) -> usize {
        let slot = match path.split_first() {
            None => *self.slot.get_or_insert(new),
            Some((name, rest)) => {
                let name = name.as_ref();
                let known = self.children.iter().position(|child| child.name == name);
                let at = known.unwrap_or_else(|| {
                    self.children.push(Self { name: name.to_owned(), ..Self::default() });
                    self.children.len() - 1
                });
                self.children[at].want(rest, new)
            }
        };
        if !self.below.contains(&slot) {
            self.below.push(slot);
        }
        slot
    }

    #[inline]
    fn child(&self, name: &Text<'_>) -> Option<&Self> {
        self.children.iter().find(|child| name.is(&child.name))
    }

    /// Passes the value at the cursor, and notes what of it is wanted.
    fn walk(&self, cursor: &mut Cursor<'_>, found: &mut [Option<Span>]) -> Result<(), Invalid> {
        let kind = cursor.kind()?;
        let start = cursor.position();
        let mut escaped = false;
        if kind == Kind::Object && !self.children.is_empty() {
            let mut name = cursor.enter_object()?;
            while let Some(member) = name {
                match self.child(&member) {
                    Some(child) => {
                        for slot in &child.below {
                            found[*slot] = None;
                        }
                        child.walk(cursor, found)?;
                    }
                    None => {
                        cursor.value()?;
                    }
                }
                name = cursor.next_member()?;
            }
        } else {
            escaped = cursor.value()?.is_escaped();
        }
        if let Some(slot) = self.slot {
            found[slot] = Some(Span { kind, escaped, start, end: cursor.position() });
        }
        Ok(())
    }
}
