//! The input of `levada publish`: lines of a file or of stdin, each one event.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal as _, Read as _},
    path::Path,
};

use bytes::Bytes;
use levada_json::{InvalidEvent, read_event};
use levada_protocol::{error::ErrorCode, event::Event, limits::EVENT_BYTES_MAX};
use levada_terminal::{Failure, output::Output};
use tokio::sync::mpsc;

use crate::args::PublishArgs;

/// Longest line: JSON writes a byte as six characters at most, and an event has its names and quotes besides.
const LINE_BYTES_MAX: u64 = 8 * EVENT_BYTES_MAX as u64;
/// What some programs of Windows write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// And before UTF-16.
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
/// How the names of the headers begin that a dead letter has.
const DEAD_LETTER_HEADER_PREFIX: &str = "lv-dlq-";

/// An event and the line it came from, or what was wrong with that line.
pub(super) type Input = Result<(u64, Event), Failure>;

/// Lines that are still to be read, and what every one of them gets.
pub(super) struct Lines {
    source: Box<dyn BufRead + Send>,
    /// Each line is a payload as it is.
    is_raw: bool,
    /// The key of events that name none.
    key: Option<Bytes>,
    /// Headers before an event's own.
    headers: Vec<(String, Bytes)>,
    /// The time to live of events that name none.
    ttl_ms: Option<u32>,
}

impl Lines {
    /// The lines that the arguments name. Says so if they are to be typed.
    pub(super) fn open(output: &Output, args: &PublishArgs) -> Result<Self, Failure> {
        Ok(Self {
            source: open(output, args)?,
            is_raw: args.raw,
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
                Ok(true) if !self.is_raw && is_blank(&line) => continue,
                Ok(true) => self.event(&line, number).map(|event| (number, event)),
                Err(problem) => Err(refused(number, &problem, None)),
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

    fn event(&self, line: &[u8], number: u64) -> Result<Event, Failure> {
        let mut event = if self.is_raw {
            // Later lines may begin with such bytes of their own.
            if number == 1 && UTF16_MARKS.iter().any(|mark| line.starts_with(mark)) {
                let invalid = InvalidEvent::Encoding("UTF-16, as its byte order mark says".to_owned());
                return Err(refused(number, &invalid.to_string(), help(&invalid)));
            }
            Event::new(Bytes::copy_from_slice(line))
        } else {
            read_event(line).map_err(|invalid| refused(number, &invalid.to_string(), help(&invalid)))?
        };
        // What the engine wrote into a dead letter, it writes itself where that is due again.
        event.headers.retain(|(name, _)| !name.starts_with(DEAD_LETTER_HEADER_PREFIX));
        event.headers.splice(..0, self.headers.iter().cloned());
        event.key = event.key.or_else(|| self.key.clone());
        event.ttl_ms = event.ttl_ms.or(self.ttl_ms);
        Ok(event)
    }
}

fn open(output: &Output, args: &PublishArgs) -> Result<Box<dyn BufRead + Send>, Failure> {
    if args.file != Path::new("-") {
        let unreadable = |error| Failure::unreadable(&args.file, &error);
        let file = File::open(&args.file).map_err(unreadable)?;
        return match file.metadata() {
            Ok(found) if found.is_dir() => {
                Err(Failure::unreadable(&args.file, &io::ErrorKind::IsADirectory.into()))
            }
            _ => Ok(Box::new(BufReader::new(file))),
        };
    }
    if io::stdin().is_terminal() {
        let line = if args.raw { "each line is a payload" } else { "each line is an event as JSON" };
        output.remark(&format!("reading standard input: {line}; Ctrl-D ends it"));
    }
    Ok(Box::new(BufReader::new(io::stdin())))
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

fn refused(number: u64, problem: &str, help: Option<&str>) -> Failure {
    let nothing = "neither this line nor any after it was published";
    Failure::new(ErrorCode::InvalidArgument, format!("line {number}: {problem}"))
        .hint(help.map_or_else(|| nothing.to_owned(), |help| format!("{help}; {nothing}")))
}

/// What helps with a line that is no event.
fn help(invalid: &InvalidEvent) -> Option<&'static str> {
    match invalid {
        InvalidEvent::NoObject(_) => Some("--raw publishes each line as it is"),
        InvalidEvent::NoContent { is_bare: true } => Some(
            "an event's content is its payload: `jq -c '{payload: .}'` puts each line into one, and --raw publishes \
             each line as it is",
        ),
        InvalidEvent::Unfinished => Some("`jq -c .` puts each event on one line"),
        InvalidEvent::Encoding(_) => Some(
            "`iconv -f UTF-16 -t UTF-8` makes UTF-8 of UTF-16; other bytes belong in `payload_base64` or `key_base64`",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(source: impl BufRead + Send + 'static, is_raw: bool) -> Lines {
        Lines { source: Box::new(source), is_raw, key: None, headers: Vec::new(), ttl_ms: None }
    }

    fn inputs(lines: Lines) -> Vec<Input> {
        let (sender, mut receiver) = mpsc::channel(100);
        lines.read(&sender);
        drop(sender);
        std::iter::from_fn(|| receiver.blocking_recv()).collect()
    }

    fn events(lines: Lines) -> Vec<Event> {
        inputs(lines).into_iter().map(|input| input.unwrap().1).collect()
    }

    #[test]
    fn a_wrong_line_is_named_and_ends_the_input() {
        let read = inputs(lines(
            "{\"payload\":1}\n\n{\"payload\":2}\r\nnonsense\n{\"payload\":3}\n".as_bytes(),
            false,
        ));
        let numbers: Vec<u64> =
            read.iter().filter_map(|input| input.as_ref().ok()).map(|(line, _)| *line).collect();
        assert_eq!(numbers, [1, 3]);
        assert_eq!(read.len(), 3);
        assert!(read[2].as_ref().is_err_and(|failure| failure.to_string().starts_with("line 4: ")));
    }

    #[test]
    fn raw_lines_are_payloads_with_or_without_a_last_line_end() {
        let payloads: Vec<Bytes> = events(lines("one\n\nthree".as_bytes(), true))
            .into_iter()
            .map(|event| event.payload.unwrap())
            .collect();
        assert_eq!(payloads, ["one", "", "three"]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_an_event() {
        let marked = "\u{feff}{\"payload\":1}\n\u{feff}{\"payload\":2}\n".as_bytes();
        let payloads: Vec<Bytes> =
            events(lines(marked, false)).into_iter().map(|event| event.payload.unwrap()).collect();
        assert_eq!(payloads, ["1", "2"]);
        assert_eq!(events(lines("\u{feff}one".as_bytes(), true))[0].payload.as_ref().unwrap(), "one");
        assert_eq!(events(lines("\u{feff}\r\n".as_bytes(), false)), []);
        for is_raw in [true, false] {
            let refused = inputs(lines(&b"\xff\xfeh\0i\0"[..], is_raw)).remove(0).unwrap_err();
            assert!(refused.to_string().contains("UTF-16"), "{refused}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused_at_its_limit() {
        let mut endless = lines(BufReader::new(io::repeat(b'x')), false);
        assert!(endless.next_line(1, &mut Vec::new()).is_err());
    }

    #[test]
    fn defaults_come_first_and_yield_and_headers_of_dead_letters_stay_behind() {
        let text = r#"{"payload":1,"key":"own","headers":{"a":"2","lv-dlq-topic":"orders"}}"#;
        let with_defaults = Lines {
            key: Some("default".into()),
            headers: vec![("a".to_owned(), "1".into())],
            ..lines(format!("{text}\n{{\"payload\":1}}").leak().as_bytes(), false)
        };
        let read = events(with_defaults);
        assert_eq!(read[0].key.as_ref().unwrap(), "own");
        assert_eq!(read[0].headers, [("a".to_owned(), "1".into()), ("a".to_owned(), Bytes::from("2"))]);
        assert_eq!(read[1].key.as_ref().unwrap(), "default");
    }
}
