//! A plugin's answer to a call: one verdict per input event, in order.
//!
//! Entries, each 4 bytes and then what its kind says:
//!
//! ```text
//!  0      1          2        4
//!  +------+----------+--------+-------------------------------------------------------------+
//!  | kind | flags    | n      | 0 drop: the next n events                                   |
//!  | u8   | u8       | u16    | 1 keep: the next n events, as they are                      |
//!  |      |          |        | 2 reject: one event; n bytes of reason follow               |
//!  |      |          |        | 3 emit: one event; n outputs follow                         |
//!  |      |          |        | 4 produce: reserved, no event; n outputs follow             |
//!  +------+----------+--------+-------------------------------------------------------------+
//! ```
//!
//! `flags` 1, of a reject: the plugin could not decode the event. Other flags, and those of other kinds, are 0, and a
//! reader does not look at them.
//!
//! Kind 4 is reserved for outputs that are made of no event: what a plugin answers to a call that hands it none, such
//! as a tick. It covers no event, and what one of its outputs does not give is absent instead of the input event's.
//! Every call has events today, so readers refuse it.
//!
//! An output; what it does not give is the input event's:
//!
//! ```text
//!  0       4        6            8         10       12        14        16       24
//!  +-------+--------+------------+---------+--------+---------+---------+--------+
//!  | len   | fields | target_len | key_len | id_len | headers | removed | time   |
//!  | u32   | u16    | u16        | u16     | u16    | u16     | u16     | u64    |
//!  +-------+--------+------------+---------+--------+---------+---------+--------+
//!  | target | key | id | headers: (name_len u8, value_len u16, name, value) each   |
//!  | removed: (name_len u8, name) each | payload: the rest of `len`                |
//!  +---------------------------------------------------------------------------+
//! ```
//!
//! `len` counts the whole output. `fields`: 1 target, 2 key, 4 no key, 8 time, 16 id, 32 headers replace the
//! input's, 64 headers are set and `removed` ones taken away, 128 payload, 256 no payload (a tombstone).

use crate::{limits::REASON_BYTES_MAX, publish::clip, wire::Reader};

/// The kind that is reserved for outputs of no event.
const PRODUCE: u8 = 4;
/// The flag of a reject.
const UNDECODABLE: u8 = 1;
const OUTPUT_HEADER_BYTES: usize = 24;
const TARGET: u16 = 1;
const KEY: u16 = 2;
const NO_KEY: u16 = 4;
const TIME: u16 = 8;
const ID: u16 = 16;
const HEADERS_REPLACE: u16 = 32;
const HEADERS_PATCH: u16 = 64;
const PAYLOAD: u16 = 128;
const NO_PAYLOAD: u16 = 256;

/// One verdict, borrowed from a plugin's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The next events, this many, are dropped.
    Drop(u16),
    /// The next events, this many, go on as they are.
    Keep(u16),
    /// The next event is refused, with a reason.
    Reject(&'a str),
    /// The next event is refused because it cannot be decoded, with what is wrong with it.
    Undecodable(&'a str),
    /// The next event becomes these.
    Emit(Vec<Output<'a>>),
}

/// A field of an output: the input's, none, or a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Change<T> {
    /// As in the input event.
    #[default]
    Keep,
    /// The output has none.
    Remove,
    /// The output has this.
    Set(T),
}

/// What happens to the input's headers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HeadersChange<'a> {
    /// As in the input event.
    #[default]
    Keep,
    /// These and no others.
    Replace(Vec<(&'a str, &'a [u8])>),
    /// The input's, with the first list set and the names of the second taken away.
    Patch(Vec<(&'a str, &'a [u8])>, Vec<&'a str>),
}

/// An event that a plugin makes from an input event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output<'a> {
    /// The topic to append to; `None` is the route's first target. Routes only.
    pub target: Option<&'a str>,
    /// The key.
    pub key: Change<&'a [u8]>,
    /// The event time in milliseconds since the Unix epoch; `None` keeps the input's.
    pub time: Option<u64>,
    /// The event id; an output has none unless it is set.
    pub id: Option<&'a str>,
    /// The headers.
    pub headers: HeadersChange<'a>,
    /// The payload.
    pub payload: Change<&'a [u8]>,
}

/// Why bytes are no verdicts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the plugin's answer is malformed: {what}")]
pub struct VerdictError {
    what: &'static str,
}

/// Walks a plugin's answer.
#[derive(Debug, Clone)]
pub struct Verdicts<'a> {
    reader: Reader<'a>,
}

impl<'a> Verdicts<'a> {
    /// Walks `answer`.
    pub fn new(answer: &'a [u8]) -> Self {
        Self { reader: Reader::new(answer) }
    }
}

impl<'a> Iterator for Verdicts<'a> {
    type Item = Result<Verdict<'a>, VerdictError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let verdict = read_verdict(&mut self.reader);
        if verdict.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(verdict)
    }
}

fn read_verdict<'a>(reader: &mut Reader<'a>) -> Result<Verdict<'a>, VerdictError> {
    let cut_off = VerdictError { what: "a verdict is cut off" };
    let head = (|| Some((reader.u8()?, reader.u8()?, reader.u16()?)))();
    let (kind, flags, n) = head.ok_or_else(|| cut_off.clone())?;
    match kind {
        0 => Ok(Verdict::Drop(n)),
        1 => Ok(Verdict::Keep(n)),
        2 => {
            let reason = reader.take(usize::from(n)).ok_or(cut_off)?;
            let reason =
                std::str::from_utf8(reason).map_err(|_| VerdictError { what: "a reason is not UTF-8" })?;
            Ok(if flags & UNDECODABLE == 0 { Verdict::Reject(reason) } else { Verdict::Undecodable(reason) })
        }
        3 => (0..n).map(|_| read_output(reader)).collect::<Result<Vec<_>, _>>().map(Verdict::Emit),
        PRODUCE => Err(VerdictError {
            what: "outputs of no event are for a call without events, which this was not",
        }),
        _ => Err(VerdictError { what: "a verdict's kind is unknown" }),
    }
}

fn read_output<'a>(reader: &mut Reader<'a>) -> Result<Output<'a>, VerdictError> {
    let cut_off = || VerdictError { what: "an output is cut off" };
    let len = reader.u32().ok_or_else(cut_off)? as usize;
    let record = len.checked_sub(4).and_then(|rest| reader.take(rest)).ok_or_else(cut_off)?;
    let mut fields = Reader::new(record);
    (|| {
        let flags = fields.u16()?;
        let (target_len, key_len, id_len) = (fields.u16()?, fields.u16()?, fields.u16()?);
        let (headers, removed, time) = (fields.u16()?, fields.u16()?, fields.u64()?);
        let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).ok();
        let target = text(fields.take(usize::from(target_len))?)?;
        let key = fields.take(usize::from(key_len))?;
        let id = text(fields.take(usize::from(id_len))?)?;
        let mut set = Vec::with_capacity(usize::from(headers));
        for _ in 0..headers {
            let (name_len, value_len) = (fields.u8()?, fields.u16()?);
            set.push((text(fields.take(usize::from(name_len))?)?, fields.take(usize::from(value_len))?));
        }
        let mut gone = Vec::with_capacity(usize::from(removed));
        for _ in 0..removed {
            let name_len = fields.u8()?;
            gone.push(text(fields.take(usize::from(name_len))?)?);
        }
        let payload = fields.rest();
        Some(Output {
            target: (flags & TARGET != 0).then_some(target),
            key: change(flags, KEY, NO_KEY, key),
            time: (flags & TIME != 0).then_some(time),
            id: (flags & ID != 0).then_some(id),
            headers: match flags & (HEADERS_REPLACE | HEADERS_PATCH) {
                0 => HeadersChange::Keep,
                HEADERS_REPLACE => HeadersChange::Replace(set),
                _ => HeadersChange::Patch(set, gone),
            },
            payload: change(flags, PAYLOAD, NO_PAYLOAD, payload),
        })
    })()
    .ok_or(VerdictError { what: "an output's parts do not fit its length, or a name is not UTF-8" })
}

fn change(flags: u16, set: u16, remove: u16, value: &[u8]) -> Change<&[u8]> {
    if flags & set != 0 {
        Change::Set(value)
    } else if flags & remove != 0 {
        Change::Remove
    } else {
        Change::Keep
    }
}

/// Writes verdicts; runs of drops and keeps become one entry.
#[derive(Debug, Default)]
pub struct VerdictWriter {
    bytes: Vec<u8>,
    run: Option<(u8, u16)>,
}

impl VerdictWriter {
    /// An empty answer.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next event is dropped.
    #[inline]
    pub fn drop_event(&mut self) {
        self.extend_run(0);
    }

    /// The next event goes on as it is.
    #[inline]
    pub fn keep(&mut self) {
        self.extend_run(1);
    }

    /// The next event is refused; the reason is cut to 1 KiB.
    pub fn reject(&mut self, reason: &str) {
        self.reject_with(0, reason);
    }

    /// The next event is refused because it cannot be decoded; what is wrong with it is cut to 1 KiB.
    pub fn undecodable(&mut self, error: &str) {
        self.reject_with(UNDECODABLE, error);
    }

    fn reject_with(&mut self, flags: u8, reason: &str) {
        let reason = clip(reason, REASON_BYTES_MAX);
        self.end_run();
        self.entry(2, flags, u16::try_from(reason.len()).expect("clipped to 1 KiB"));
        self.bytes.extend_from_slice(reason.as_bytes());
    }

    /// The next event becomes `outputs`.
    ///
    /// # Panics
    /// If there are more than 65,535 outputs, or a part of one is over 64 KiB where its length is a u16.
    pub fn emit(&mut self, outputs: &[Output<'_>]) {
        self.end_run();
        self.entry(3, 0, narrow(outputs.len()));
        for output in outputs {
            self.output(output);
        }
    }

    /// The answer's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.end_run();
        self.bytes
    }

    #[inline]
    fn extend_run(&mut self, kind: u8) {
        match &mut self.run {
            Some((of, n)) if *of == kind && *n < u16::MAX => *n += 1,
            _ => {
                self.end_run();
                self.run = Some((kind, 1));
            }
        }
    }

    #[inline]
    fn end_run(&mut self) {
        if let Some((kind, n)) = self.run.take() {
            self.entry(kind, 0, n);
        }
    }

    #[inline]
    fn entry(&mut self, kind: u8, flags: u8, n: u16) {
        let [low, high] = n.to_le_bytes();
        self.bytes.extend_from_slice(&[kind, flags, low, high]);
    }

    fn output(&mut self, output: &Output<'_>) {
        let start = self.bytes.len();
        let empty = (Vec::new(), Vec::new());
        let (header_flags, set, removed) = match &output.headers {
            HeadersChange::Keep => (0, &empty.0, &empty.1),
            HeadersChange::Replace(set) => (HEADERS_REPLACE, set, &empty.1),
            HeadersChange::Patch(set, removed) => (HEADERS_PATCH, set, removed),
        };
        let (key_flag, key) = parts(output.key, KEY, NO_KEY);
        let (payload_flag, payload) = parts(output.payload, PAYLOAD, NO_PAYLOAD);
        let flag = |given: bool, bit: u16| if given { bit } else { 0 };
        let fields = header_flags
            | key_flag
            | payload_flag
            | flag(output.target.is_some(), TARGET)
            | flag(output.time.is_some(), TIME)
            | flag(output.id.is_some(), ID);
        let (target, id) = (output.target.unwrap_or_default(), output.id.unwrap_or_default());
        let out = &mut self.bytes;
        out.extend_from_slice(&[0; 4]);
        let lengths = [target.len(), key.len(), id.len(), set.len(), removed.len()];
        out.extend_from_slice(&fields.to_le_bytes());
        for len in lengths {
            out.extend_from_slice(&narrow(len).to_le_bytes());
        }
        out.extend_from_slice(&output.time.unwrap_or(0).to_le_bytes());
        for part in [target.as_bytes(), key, id.as_bytes()] {
            out.extend_from_slice(part);
        }
        for (name, value) in set {
            out.push(narrow_name(name));
            out.extend_from_slice(&narrow(value.len()).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(value);
        }
        for name in removed {
            out.push(narrow_name(name));
            out.extend_from_slice(name.as_bytes());
        }
        out.extend_from_slice(payload);
        let len = u32::try_from(out.len() - start).expect("an output is far below 4 GiB");
        debug_assert!(out.len() - start >= OUTPUT_HEADER_BYTES, "an output has its fixed part");
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }
}

fn parts(change: Change<&[u8]>, set: u16, remove: u16) -> (u16, &[u8]) {
    match change {
        Change::Keep => (0, &[]),
        Change::Remove => (remove, &[]),
        Change::Set(value) => (set, value),
    }
}

fn narrow(len: usize) -> u16 {
    u16::try_from(len).expect("a part of an output is at most 65,535 long")
}

fn narrow_name(name: &str) -> u8 {
    u8::try_from(name.len()).expect("a header name is at most 128 bytes")
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    /// Whether they replace the input's, what is set, and what is taken away.
    type OwnedHeaders = (bool, Vec<(String, Vec<u8>)>, Vec<String>);

    /// An output that owns its parts.
    #[derive(Debug, Clone)]
    struct Owned {
        target: Option<String>,
        key: Change<Vec<u8>>,
        time: Option<u64>,
        id: Option<String>,
        headers: Option<OwnedHeaders>,
        payload: Change<Vec<u8>>,
    }

    impl Owned {
        fn borrow(&self) -> Output<'_> {
            fn change(change: &Change<Vec<u8>>) -> Change<&[u8]> {
                match change {
                    Change::Keep => Change::Keep,
                    Change::Remove => Change::Remove,
                    Change::Set(value) => Change::Set(value),
                }
            }
            Output {
                target: self.target.as_deref(),
                key: change(&self.key),
                time: self.time,
                id: self.id.as_deref(),
                headers: match &self.headers {
                    None => HeadersChange::Keep,
                    Some((true, set, _)) => HeadersChange::Replace(pairs(set)),
                    Some((false, set, removed)) => {
                        HeadersChange::Patch(pairs(set), removed.iter().map(String::as_str).collect())
                    }
                },
                payload: change(&self.payload),
            }
        }
    }

    fn pairs(set: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
        set.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect()
    }

    fn any_change() -> impl Strategy<Value = Change<Vec<u8>>> {
        prop_oneof![Just(Change::Keep), Just(Change::Remove), vec(any::<u8>(), 0..30).prop_map(Change::Set)]
    }

    fn any_output() -> impl Strategy<Value = Owned> {
        let headers = (any::<bool>(), vec((".{0,8}", vec(any::<u8>(), 0..9)), 0..4), vec(".{0,8}", 0..3));
        let text = || option::of(".{0,12}");
        (text(), any_change(), option::of(any::<u64>()), text(), option::of(headers), any_change()).prop_map(
            |(target, key, time, id, headers, payload)| Owned { target, key, time, id, headers, payload },
        )
    }

    /// What is said about one event.
    #[derive(Debug, Clone)]
    enum Said {
        Drop,
        Keep,
        Reject(String),
        Undecodable(String),
        Emit(Vec<Owned>),
    }

    fn any_said() -> impl Strategy<Value = Said> {
        prop_oneof![
            3 => Just(Said::Drop),
            3 => Just(Said::Keep),
            1 => ".{0,30}".prop_map(Said::Reject),
            1 => ".{0,30}".prop_map(Said::Undecodable),
            1 => vec(any_output(), 0..4).prop_map(Said::Emit),
        ]
    }

    fn written(said: &[Said]) -> Vec<u8> {
        let mut writer = VerdictWriter::new();
        for verdict in said {
            match verdict {
                Said::Drop => writer.drop_event(),
                Said::Keep => writer.keep(),
                Said::Reject(reason) => writer.reject(reason),
                Said::Undecodable(error) => writer.undecodable(error),
                Said::Emit(outputs) => {
                    writer.emit(&outputs.iter().map(Owned::borrow).collect::<Vec<_>>());
                }
            }
        }
        writer.finish()
    }

    proptest! {
        #[test]
        fn any_verdicts_are_read_back(said in vec(any_said(), 0..30)) {
            let answer = written(&said);
            let mut events = said.iter();
            for verdict in Verdicts::new(&answer) {
                match verdict.unwrap() {
                    Verdict::Drop(n) => {
                        prop_assert!(events.by_ref().take(n.into()).all(|said| matches!(said, Said::Drop)));
                    }
                    Verdict::Keep(n) => {
                        prop_assert!(events.by_ref().take(n.into()).all(|said| matches!(said, Said::Keep)));
                    }
                    Verdict::Reject(reason) => {
                        let is_same = matches!(events.next(), Some(Said::Reject(said)) if said == reason);
                        prop_assert!(is_same);
                    }
                    Verdict::Undecodable(error) => {
                        let is_same = matches!(events.next(), Some(Said::Undecodable(said)) if said == error);
                        prop_assert!(is_same);
                    }
                    Verdict::Emit(outputs) => {
                        let Some(Said::Emit(said)) = events.next() else { panic!("an emit of nothing") };
                        prop_assert_eq!(outputs, said.iter().map(Owned::borrow).collect::<Vec<_>>());
                    }
                }
            }
            prop_assert!(events.next().is_none());
            for len in 0..answer.len() {
                // A cut answer is one error at most, and then over.
                let errors = Verdicts::new(&answer[..len]).filter(Result::is_err).count();
                prop_assert!(errors <= 1);
            }
        }
    }

    #[test]
    fn runs_of_one_verdict_are_one_entry_up_to_what_its_count_holds() {
        let answer = written(&vec![Said::Keep; 65_536]);
        let verdicts: Vec<_> = Verdicts::new(&answer).map(Result::unwrap).collect();
        assert_eq!(verdicts, [Verdict::Keep(65_535), Verdict::Keep(1)]);
    }

    #[test]
    fn the_form_of_outputs_without_an_event_is_reserved() {
        let mut answer = written(&[Said::Emit(vec![])]);
        assert_eq!(Verdicts::new(&answer).next(), Some(Ok(Verdict::Emit(vec![]))));
        answer[0] = PRODUCE;
        let mut verdicts = Verdicts::new(&answer);
        let error = verdicts.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("outputs of no event"), "{error}");
        assert_eq!(verdicts.next(), None);
    }

    #[test]
    fn what_is_no_verdict_is_refused() {
        let long = written(&[Said::Reject("x".repeat(2_000))]);
        assert_eq!(long.len(), 4 + REASON_BYTES_MAX, "the writer clips reasons");
        let mut short_output = [vec![3, 0, 1, 0], vec![24; 28]].concat();
        short_output[4..8].copy_from_slice(&23_u32.to_le_bytes());
        for answer in
            [&[5, 0, 1, 0][..], &[1, 0, 1], &[2, 0, 1, 0, 0xff], &[3, 0, 1, 0, 3, 0, 0, 0], &short_output]
        {
            assert!(Verdicts::new(answer).next().unwrap().is_err(), "{answer:?}");
        }
    }
}
