//! The outputs of a validated answer: where each part of them is in the answer's bytes.
//!
//! So they can be kept with the answer and need not be parsed again. Must not know limits.

use bytes::Bytes;
use levada_protocol::{
    batch::{EventParts, EventRef, Headers},
    ids::Timestamp,
    verdict::{Change, HeadersChange, Output},
};

/// An answer's bytes and the outputs in them that may be followed.
#[derive(Debug)]
pub(crate) struct Outputs {
    answer: Bytes,
    list: Vec<Stored>,
    set: Vec<(Part, Part)>,
    removed: Vec<Part>,
}

/// A part of the answer's bytes.
#[derive(Debug, Clone, Copy)]
struct Part {
    start: u32,
    len: u32,
}

#[derive(Debug)]
struct Stored {
    target: usize,
    key: Change<Part>,
    time: Option<u64>,
    id: Option<Part>,
    payload: Change<Part>,
    headers: StoredHeaders,
}

/// What happens to the input's headers; the numbers are ranges of `set` and `removed`.
#[derive(Debug, Clone, Copy)]
struct StoredHeaders {
    keeps: bool,
    set: (u32, u32),
    removed: (u32, u32),
}

/// How far [`Outputs`] were filled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    outputs: usize,
    set: usize,
    removed: usize,
}

impl Outputs {
    /// No outputs of `answer`, which is at most 4 GiB long.
    pub(crate) fn of(answer: Bytes) -> Self {
        Self { answer, list: Vec::new(), set: Vec::new(), removed: Vec::new() }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { outputs: self.list.len(), set: self.set.len(), removed: self.removed.len() }
    }

    /// Forgets every output that was added after `mark`.
    pub(crate) fn undo(&mut self, mark: Mark) {
        self.list.truncate(mark.outputs);
        self.set.truncate(mark.set);
        self.removed.truncate(mark.removed);
    }

    /// Adds an output that was read from the answer, for the target of this index.
    pub(crate) fn add(&mut self, output: &Output<'_>, target: usize) -> OutputRef<'_> {
        let (first_set, first_removed) = (self.set.len(), self.removed.len());
        let (set, removed): (&[_], &[_]) = match &output.headers {
            HeadersChange::Keep => (&[], &[]),
            HeadersChange::Replace(set) => (set, &[]),
            HeadersChange::Patch(set, removed) => (set, removed),
        };
        let answer = &self.answer;
        let part = |bytes: &[u8]| Part::of(answer, bytes);
        self.set.extend(set.iter().map(|(name, value)| (part(name.as_bytes()), part(value))));
        self.removed.extend(removed.iter().map(|name| part(name.as_bytes())));
        let stored = Stored {
            target,
            key: map(output.key, part),
            time: output.time,
            // An empty id is none.
            id: output.id.filter(|id| !id.is_empty()).map(|id| part(id.as_bytes())),
            payload: map(output.payload, part),
            headers: StoredHeaders {
                keeps: !matches!(output.headers, HeadersChange::Replace(_)),
                set: narrow(first_set, self.set.len()),
                removed: narrow(first_removed, self.removed.len()),
            },
        };
        let index = self.list.len();
        self.list.push(stored);
        OutputRef { outputs: self, stored: &self.list[index] }
    }

    /// The output at `index`; `None` beyond the last.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<OutputRef<'_>> {
        Some(OutputRef { outputs: self, stored: self.list.get(index)? })
    }

    fn bytes(&self, part: Part) -> &[u8] {
        let start = part.start as usize;
        &self.answer[start..start + part.len as usize]
    }
}

impl Part {
    /// Where `part`, which was read from `answer`, is in it.
    #[inline]
    fn of(answer: &[u8], part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).saturating_sub(answer.as_ptr() as usize);
        let start = start.min(answer.len());
        let len = part.len().min(answer.len() - start);
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { start: narrow(start), len: narrow(len) }
    }
}

fn len(change: Change<Part>) -> Change<usize> {
    match change {
        Change::Keep => Change::Keep,
        Change::Remove => Change::Remove,
        Change::Set(part) => Change::Set(part.len as usize),
    }
}

fn narrow(start: usize, end: usize) -> (u32, u32) {
    (u32::try_from(start).unwrap_or(u32::MAX), u32::try_from(end).unwrap_or(u32::MAX))
}

fn map<'a>(change: Change<&'a [u8]>, part: impl Fn(&'a [u8]) -> Part) -> Change<Part> {
    match change {
        Change::Keep => Change::Keep,
        Change::Remove => Change::Remove,
        Change::Set(bytes) => Change::Set(part(bytes)),
    }
}

/// One output, borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutputRef<'a> {
    outputs: &'a Outputs,
    stored: &'a Stored,
}

impl<'a> OutputRef<'a> {
    /// The index of the target that it chose; 0 if it chose none.
    pub(crate) fn target(&self) -> usize {
        self.stored.target
    }

    /// Everything of the event that it makes of `event` but the headers. An id is never inherited, a time to live
    /// always is.
    #[inline]
    pub(crate) fn parts(&self, event: &EventRef<'a>) -> EventParts<'a> {
        EventParts {
            key: self.changed(self.stored.key, || event.key()),
            payload: self.changed(self.stored.payload, || event.payload()),
            time: self.stored.time.map_or_else(|| event.time(), Timestamp),
            // It was UTF-8 when it was read.
            id: self.stored.id.and_then(|id| std::str::from_utf8(self.outputs.bytes(id)).ok()),
            ttl_ms: event.ttl_ms(),
        }
    }

    #[inline]
    fn changed(&self, change: Change<Part>, input: impl FnOnce() -> Option<&'a [u8]>) -> Option<&'a [u8]> {
        match change {
            Change::Keep => input(),
            Change::Remove => None,
            Change::Set(part) => Some(self.outputs.bytes(part)),
        }
    }

    /// The headers of the event that it makes of `event`, in order: the input's that remain, then those that are set.
    #[inline]
    pub(crate) fn headers(&self, event: &EventRef<'a>) -> OutputHeaders<'a> {
        OutputHeaders { kept: self.stored.headers.keeps.then(|| event.headers()), output: *self, next: 0 }
    }

    /// True if the new event has exactly the input's headers.
    #[inline]
    pub(crate) fn keeps_headers(&self) -> bool {
        self.stored.headers.keeps && self.set().is_empty() && self.removed().is_empty()
    }

    /// What happens to the payload, with the length of a new one.
    #[inline]
    pub(crate) fn payload_len(&self) -> Change<usize> {
        len(self.stored.payload)
    }

    /// What happens to the key, with the length of a new one.
    #[inline]
    pub(crate) fn key_len(&self) -> Change<usize> {
        len(self.stored.key)
    }

    /// Bytes of the new event's id, 0 if it has none.
    #[inline]
    pub(crate) fn id_len(&self) -> usize {
        self.stored.id.map_or(0, |id| id.len as usize)
    }

    /// The headers that it sets.
    pub(crate) fn set_headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
        let outputs = self.outputs;
        self.set().iter().map(|(name, value)| (outputs.bytes(*name), outputs.bytes(*value)))
    }

    fn set(&self) -> &'a [(Part, Part)] {
        let (start, end) = self.stored.headers.set;
        &self.outputs.set[start as usize..end as usize]
    }

    fn removed(&self) -> &'a [Part] {
        let (start, end) = self.stored.headers.removed;
        &self.outputs.removed[start as usize..end as usize]
    }

    /// True if it sets or removes a header of this name.
    fn replaces(&self, name: &[u8]) -> bool {
        self.set().iter().any(|(set, _)| self.outputs.bytes(*set) == name)
            || self.removed().iter().any(|removed| self.outputs.bytes(*removed) == name)
    }
}

/// The headers of the event that an output makes.
#[derive(Debug, Clone)]
pub(crate) struct OutputHeaders<'a> {
    kept: Option<Headers<'a>>,
    output: OutputRef<'a>,
    /// The index of the header that is set next.
    next: usize,
}

impl<'a> Iterator for OutputHeaders<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(kept) = &mut self.kept {
            for (name, value) in kept.by_ref() {
                if !self.output.replaces(name) {
                    return Some((name, value));
                }
            }
            self.kept = None;
        }
        let (name, value) = self.output.set().get(self.next)?;
        self.next += 1;
        Some((self.output.outputs.bytes(*name), self.output.outputs.bytes(*value)))
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        event::Event,
        verdict::{Verdict, VerdictWriter, Verdicts},
    };

    use super::*;

    /// The outputs of one event, read from an answer as a plugin would write it.
    fn read(outputs: &[Output<'_>]) -> Outputs {
        let mut writer = VerdictWriter::new();
        writer.emit(outputs);
        let answer = Bytes::from(writer.finish());
        let mut found = Outputs::of(answer.clone());
        for verdict in Verdicts::new(&answer) {
            let Verdict::Emit(outputs) = verdict.unwrap() else { panic!("no outputs") };
            for output in &outputs {
                found.add(output, 3);
            }
        }
        found
    }

    fn owned(headers: OutputHeaders<'_>) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        headers.map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn an_output_is_read_back_over_its_input_event() {
        let mut builder = BatchBuilder::new();
        let event = Event { key: Some("k".into()), id: Some("i".into()), ttl_ms: Some(9), ..Event::new("p") };
        builder.push(&event.with_header("a", "1").with_header("b", "2")).unwrap();
        let batch = builder.finish(Stamp::ENGINE);
        let event = batch.events().next().unwrap();
        let set: Vec<(&str, &[u8])> = vec![("b", b"3"), ("c", b"4")];
        let outputs = read(&[
            Output::default(),
            Output {
                target: Some("t"),
                key: Change::Set(b"new"),
                time: Some(77),
                id: Some("id"),
                headers: HeadersChange::Replace(set.clone()),
                payload: Change::Remove,
            },
            Output { headers: HeadersChange::Patch(set, vec!["a"]), ..Output::default() },
        ]);
        let [same, other, patched] = [0, 1, 2].map(|index| outputs.get(index).unwrap());
        assert!(outputs.get(3).is_none());
        let parts = same.parts(&event);
        assert_eq!((parts.key, parts.payload, parts.id), (Some(&b"k"[..]), Some(&b"p"[..]), None));
        assert_eq!((parts.time, parts.ttl_ms, same.target()), (event.time(), Some(9), 3));
        assert!(same.keeps_headers() && !other.keeps_headers() && !patched.keeps_headers());
        let parts = other.parts(&event);
        assert_eq!((parts.key, parts.payload, parts.id), (Some(&b"new"[..]), None, Some("id")));
        assert_eq!(parts.time, Timestamp(77));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(owned(same.headers(&event)), [pair("a", "1"), pair("b", "2")]);
        assert_eq!(owned(other.headers(&event)), [pair("b", "3"), pair("c", "4")]);
        assert_eq!(owned(patched.headers(&event)), [pair("b", "3"), pair("c", "4")]);
    }

    #[test]
    fn what_was_added_after_a_mark_can_be_undone() {
        let mut outputs = read(&[Output::default()]);
        let mark = outputs.mark();
        outputs.add(&Output { headers: HeadersChange::Replace(vec![("a", b"1")]), ..Output::default() }, 0);
        outputs.undo(mark);
        assert!(outputs.get(0).is_some() && outputs.get(1).is_none());
        assert!(outputs.set.is_empty());
    }
}
