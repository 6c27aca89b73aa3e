//! What is published: lines of a file or of stdin, each one event.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal as _, Read as _},
    path::Path,
};

use bytes::Bytes;
use levada_json::{InvalidEvent, read_event};
use levada_protocol::{
    dead_letters::{DEAD_LETTER_HEADER_PREFIX, REDRIVES_HEADER},
    error::ErrorCode,
    event::Event,
    limits::EVENT_BYTES_MAX,
};
use levada_terminal::{Failure, output::Output};
use tokio::sync::mpsc;

use super::place::{Place, read_place};
use crate::args::InputArgs;

/// Longest line: JSON writes a byte as six characters at most, and an event has its names and quotes besides.
const LINE_BYTES_MAX: u64 = 8 * EVENT_BYTES_MAX as u64;
/// What some programs of Windows write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// And before UTF-16.
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// A line's event, or what was wrong with the line.
pub(super) type Input = Result<Line, Failure>;

/// An event and the line that it came from.
#[derive(Debug)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: u64,
    pub(super) event: Event,
    /// Where it is to go, of lines that say so.
    pub(super) place: Option<Place>,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A payload as it is.
    Raw,
    /// An event as JSON.
    Json,
    /// An event as JSON that says where it is to go.
    Placed,
}

/// Lines that are still to be read, and what every one of them gets.
pub(super) struct Lines {
    source: Box<dyn BufRead + Send>,
    form: Form,
    /// What a wrong line leaves undone.
    undone: &'static str,
    /// The key of events that name none.
    key: Option<Bytes>,
    /// Headers before an event's own.
    headers: Vec<(String, Bytes)>,
    /// The time to live of events that name none.
    ttl_ms: Option<u32>,
}

impl Lines {
    /// The lines that the arguments name. Says so if they are to be typed. `undone` is what a wrong line leaves undone.
    pub(super) fn open(
        output: &Output,
        args: &InputArgs,
        form: Form,
        undone: &'static str,
    ) -> Result<Self, Failure> {
        Ok(Self {
            source: open(output, &args.file, form)?,
            form,
            undone,
            key: args.key.clone().map(Bytes::from),
            headers: args.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect(),
            ttl_ms: args.ttl,
        })
    }

    /// Turns lines into events until the input ends, a line is wrong, or the receiver is dropped.
    pub(super) fn read(mut self, sender: &mpsc::Sender<Input>) {
        let mut line = Vec::new();
        for number in 1.. {
            let input = match self.next_line(number, &mut line) {
                Ok(false) => return,
                Ok(true) if self.form != Form::Raw && is_blank(&line) => continue,
                Ok(true) => self.line(&line, number),
                Err(problem) => Err(self.refused(number, &problem, None)),
            };
            let wrong = input.is_err();
            if sender.blocking_send(input).is_err() || wrong {
                return;
            }
        }
    }

    /// Reads a line without its end, and without a mark before the first; false at the end of the input.
    fn next_line(&mut self, number: u64, line: &mut Vec<u8>) -> Result<bool, String> {
        line.clear();
        let got = (&mut self.source)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', line)
            .map_err(|error| format!("the input cannot be read: {error}"))?;
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        } else if got as u64 == LINE_BYTES_MAX {
            return Err(format!("expected at most {LINE_BYTES_MAX} bytes, got more"));
        }
        if number == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(got > 0)
    }

    fn line(&self, line: &[u8], number: u64) -> Result<Line, Failure> {
        let invalid = |invalid| self.refused(number, &format!("{invalid}"), self.help(&invalid));
        let mut event = if self.form == Form::Raw {
            // Later lines may begin with such bytes of their own.
            if number == 1 && UTF16_MARKS.iter().any(|mark| line.starts_with(mark)) {
                return Err(invalid(InvalidEvent::Encoding(
                    "UTF-16, as its byte order mark says".to_owned(),
                )));
            }
            Event::new(Bytes::copy_from_slice(line))
        } else {
            read_event(line).map_err(invalid)?
        };
        let place = (self.form == Form::Placed).then(|| read_place(line)).transpose();
        let place = place.map_err(|problem| self.refused(number, &problem, None))?;
        // What the engine wrote into a dead letter, or a redriven one, it writes itself where that is due again.
        event
            .headers
            .retain(|(name, _)| !name.starts_with(DEAD_LETTER_HEADER_PREFIX) && name != REDRIVES_HEADER);
        event.headers.splice(..0, self.headers.iter().cloned());
        event.key = event.key.or_else(|| self.key.clone());
        event.ttl_ms = event.ttl_ms.or(self.ttl_ms);
        Ok(Line { number, event, place })
    }

    fn refused(&self, number: u64, problem: &str, help: Option<&str>) -> Failure {
        let undone = self.undone;
        Failure::new(ErrorCode::InvalidArgument, format!("line {number}: {problem}"))
            .hint(help.map_or_else(|| undone.to_owned(), |help| format!("{help}; {undone}")))
    }

    /// What helps with a line that is no event.
    fn help(&self, invalid: &InvalidEvent) -> Option<&'static str> {
        let is_placed = self.form == Form::Placed;
        match invalid {
            InvalidEvent::NoObject(_) if is_placed => {
                Some("`jq -c '{topic: \"TOPIC\", payload: .}'` makes an event of each line")
            }
            InvalidEvent::NoObject(_) => Some("--raw publishes each line as it is"),
            InvalidEvent::NoContent { is_bare: true } if is_placed => Some(
                "an event's content is its payload: `jq -c '{topic: \"TOPIC\", payload: .}'` puts each line into one",
            ),
            InvalidEvent::NoContent { is_bare: true } => Some(
                "an event's content is its payload: `jq -c '{payload: .}'` puts each line into one, and --raw publishes \
                 each line as it is",
            ),
            InvalidEvent::UnknownField { nearest: None, .. } if is_placed => {
                Some("besides these `topic` and `partition` say where the event goes")
            }
            InvalidEvent::Unfinished => Some("`jq -c .` puts each event on one line"),
            InvalidEvent::Encoding(_) => Some(
                "`iconv -f UTF-16 -t UTF-8` makes UTF-8 of UTF-16; other bytes belong in `payload_base64` or `key_base64`",
            ),
            _ => None,
        }
    }
}

fn open(output: &Output, file: &Path, form: Form) -> Result<Box<dyn BufRead + Send>, Failure> {
    if file != Path::new("-") {
        let unreadable = |error| Failure::unreadable(file, &error);
        let opened = File::open(file).map_err(unreadable)?;
        return match opened.metadata() {
            Ok(found) if found.is_dir() => Err(unreadable(io::ErrorKind::IsADirectory.into())),
            _ => Ok(Box::new(BufReader::new(opened))),
        };
    }
    if io::stdin().is_terminal() {
        let line = match form {
            Form::Raw => "each line is a payload",
            Form::Json => "each line is an event as JSON",
            Form::Placed => "each line is an event as JSON with its topic",
        };
        output.remark(&format!("reading standard input: {line}; Ctrl-D ends it"));
    }
    Ok(Box::new(BufReader::new(io::stdin())))
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(source: impl BufRead + Send + 'static, form: Form) -> Lines {
        let source = Box::new(source);
        Lines { source, form, undone: "nothing was published", key: None, headers: Vec::new(), ttl_ms: None }
    }

    fn inputs(lines: Lines) -> Vec<Input> {
        let (sender, mut receiver) = mpsc::channel(100);
        lines.read(&sender);
        drop(sender);
        std::iter::from_fn(|| receiver.blocking_recv()).collect()
    }

    fn events(lines: Lines) -> Vec<Event> {
        inputs(lines).into_iter().map(|input| input.unwrap().event).collect()
    }

    #[test]
    fn a_wrong_line_is_named_and_ends_the_input() {
        let read = inputs(lines(
            "{\"payload\":1}\n\n{\"payload\":2}\r\nnonsense\n{\"payload\":3}\n".as_bytes(),
            Form::Json,
        ));
        let numbers: Vec<u64> =
            read.iter().filter_map(|input| input.as_ref().ok()).map(|line| line.number).collect();
        assert_eq!(numbers, [1, 3]);
        assert_eq!(read.len(), 3);
        assert!(read[2].as_ref().is_err_and(|failure| failure.to_string().starts_with("line 4: ")));
    }

    #[test]
    fn raw_lines_are_payloads_with_or_without_a_last_line_end() {
        let payloads: Vec<Bytes> = events(lines("one\n\nthree".as_bytes(), Form::Raw))
            .into_iter()
            .map(|event| event.payload.unwrap())
            .collect();
        assert_eq!(payloads, ["one", "", "three"]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_an_event() {
        let marked = "\u{feff}{\"payload\":1}\n\u{feff}{\"payload\":2}\n".as_bytes();
        let payloads: Vec<Bytes> =
            events(lines(marked, Form::Json)).into_iter().map(|event| event.payload.unwrap()).collect();
        assert_eq!(payloads, ["1", "2"]);
        assert_eq!(events(lines("\u{feff}one".as_bytes(), Form::Raw))[0].payload.as_ref().unwrap(), "one");
        assert_eq!(events(lines("\u{feff}\r\n".as_bytes(), Form::Json)), []);
        for form in [Form::Raw, Form::Json, Form::Placed] {
            let refused = inputs(lines(&b"\xff\xfeh\0i\0"[..], form)).remove(0).unwrap_err();
            assert!(refused.to_string().contains("UTF-16"), "{refused}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused_at_its_limit() {
        let mut endless = lines(BufReader::new(io::repeat(b'x')), Form::Json);
        assert!(endless.next_line(1, &mut Vec::new()).is_err());
    }

    #[test]
    fn defaults_come_first_and_yield_and_headers_of_dead_letters_stay_behind() {
        let text =
            r#"{"payload":1,"key":"own","headers":{"a":"2","lv-dlq-topic":"orders","lv-redrives":"1"}}"#;
        let with_defaults = Lines {
            key: Some("default".into()),
            headers: vec![("a".to_owned(), "1".into())],
            ..lines(format!("{text}\n{{\"payload\":1}}").leak().as_bytes(), Form::Json)
        };
        let read = events(with_defaults);
        assert_eq!(read[0].key.as_ref().unwrap(), "own");
        assert_eq!(read[0].headers, [("a".to_owned(), "1".into()), ("a".to_owned(), Bytes::from("2"))]);
        assert_eq!(read[1].key.as_ref().unwrap(), "default");
    }
}
