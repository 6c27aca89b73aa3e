//! The bytes of server-sent events.

use std::io::Write as _;

use crate::positions::{self, Positions};

/// How long a client waits before it connects again, in milliseconds.
const RETRY_MS: u32 = 2_000;

/// What a stream begins with.
pub(crate) fn retry() -> Vec<u8> {
    format!("retry: {RETRY_MS}\n\n").into_bytes()
}

/// What is sent when there is nothing to send.
pub(crate) fn comment() -> Vec<u8> {
    b":\n\n".to_vec()
}

/// An id without an event: the client keeps it, and its program sees nothing.
pub(crate) fn id_alone(out: &mut Vec<u8>, next: &Positions) {
    put(out, b"id", positions::format(next).as_bytes());
    out.push(b'\n');
}

/// An event. Line ends in its data become line ends of the event's, which in JSON lie between tokens.
pub(crate) fn event(out: &mut Vec<u8>, next: &Positions, kind: &[u8], data: &[u8]) {
    put(out, b"id", positions::format(next).as_bytes());
    out.extend_from_slice(b"event: ");
    out.extend(kind.iter().filter(|byte| !is_line_end(**byte)));
    out.push(b'\n');
    data.split(|byte| is_line_end(*byte)).for_each(|line| put(out, b"data", line));
    out.push(b'\n');
}

/// Says which offsets of a partition were dropped before they were read.
pub(crate) fn events_lost(out: &mut Vec<u8>, partition: u16, first: u64, last: u64) {
    let count = last - first + 1;
    writeln!(
        out,
        "event: events_lost\ndata: {{\"partition\":{partition},\"first\":{first},\"last\":{last},\"count\":{count}}}\n"
    )
    .expect("bytes are written to memory");
}

/// Says how many events were passed over because a plugin of the caller's permission failed on them.
pub(crate) fn events_withheld(out: &mut Vec<u8>, count: u64) {
    writeln!(out, "event: events_withheld\ndata: {{\"count\":{count}}}\n")
        .expect("bytes are written to memory");
}

fn put(out: &mut Vec<u8>, field: &[u8], value: &[u8]) {
    out.extend_from_slice(field);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_cannot_be_made_to_look_like_another() {
        let mut out = Vec::new();
        let next = Positions::from([(0, 18), (1, 42)]);
        event(&mut out, &next, b"a\r\nid: 9", b"{\n \"a\":\r1}");
        let text = "id: 0:18,1:42\nevent: aid: 9\ndata: {\ndata:  \"a\":\ndata: 1}\n\n";
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }

    #[test]
    fn what_was_lost_is_named() {
        let mut out = Vec::new();
        events_lost(&mut out, 1, 5, 9);
        let text = "event: events_lost\ndata: {\"partition\":1,\"first\":5,\"last\":9,\"count\":5}\n\n";
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }
}
