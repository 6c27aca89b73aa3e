//! What a plugin's output becomes: its fields over those of the input event, measured against every limit.
//!
//! Must not know where the event goes.

use std::slice;

use levada_protocol::{
    batch::{EVENT_HEADER_BYTES, EventParts, EventRef, Headers},
    event::{EventTooLarge, is_engine_header},
    ids::Timestamp,
    limits::{
        ENGINE_HEADERS_BYTES_MAX, ENGINE_HEADERS_MAX, EVENT_BYTES_MAX, EVENT_ID_BYTES_MAX,
        HEADER_NAME_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX,
    },
    verdict::{Change, HeadersChange, Output},
};

/// An event's fixed part with every optional field: offset delta, id length, time to live.
const FIXED_BYTES_MAX: usize = EVENT_HEADER_BYTES + 10;

/// Everything of the new event but its headers. An id is never inherited; a time to live always is.
pub(crate) fn parts_of<'a>(event: &EventRef<'a>, output: &Output<'a>) -> EventParts<'a> {
    EventParts {
        key: changed(output.key, event.key()),
        payload: match output.payload {
            Change::Keep => event.payload(),
            Change::Remove => None,
            Change::Set(payload) => Some(payload),
        },
        time: output.time.map_or_else(|| event.time(), Timestamp),
        id: output.id.filter(|id| !id.is_empty()),
        ttl_ms: event.ttl_ms(),
    }
}

fn changed<'a>(change: Change<&'a [u8]>, input: Option<&'a [u8]>) -> Option<&'a [u8]> {
    match change {
        Change::Keep => input,
        Change::Remove => None,
        Change::Set(value) => Some(value),
    }
}

/// The new event's headers, in order: the input's that stay, then those that are set.
pub(crate) fn headers_of<'a>(event: &EventRef<'a>, output: &'a Output<'a>) -> OutputHeaders<'a> {
    let (kept, set, removed): (_, &[_], &[_]) = match &output.headers {
        HeadersChange::Keep => (Some(event.headers()), &[], &[]),
        HeadersChange::Replace(set) => (None, set, &[]),
        HeadersChange::Patch(set, removed) => (Some(event.headers()), set, removed),
    };
    OutputHeaders { kept, set, removed, rest: set.iter() }
}

/// See [`headers_of`].
#[derive(Debug, Clone)]
pub(crate) struct OutputHeaders<'a> {
    kept: Option<Headers<'a>>,
    set: &'a [(&'a str, &'a [u8])],
    removed: &'a [&'a str],
    rest: slice::Iter<'a, (&'a str, &'a [u8])>,
}

impl<'a> Iterator for OutputHeaders<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(kept) = &mut self.kept {
            for (name, value) in kept.by_ref() {
                let replaced = self.set.iter().any(|(set, _)| set.as_bytes() == name);
                if !replaced && !self.removed.iter().any(|gone| gone.as_bytes() == name) {
                    return Some((name, value));
                }
            }
            self.kept = None;
        }
        self.rest.next().map(|(name, value)| (name.as_bytes(), *value))
    }
}

/// The name of a header of the engine's own that the output would set and the input does not have, or not as often.
pub(crate) fn forged<'a>(event: &EventRef<'_>, output: &Output<'a>) -> Option<&'a str> {
    let set: &[(&'a str, &'a [u8])] = match &output.headers {
        HeadersChange::Keep => return None,
        HeadersChange::Replace(set) | HeadersChange::Patch(set, _) => set,
    };
    let engines = || set.iter().filter(|(name, _)| is_engine_header(name.as_bytes()));
    let is_forged = |(name, value): &(&str, &[u8])| {
        let wanted = engines().filter(|other| **other == (*name, *value)).count();
        let had = event.headers().filter(|other| *other == (name.as_bytes(), *value)).count();
        wanted > had
    };
    // An input has few such headers, so that a long list ends early.
    engines().find(|header| is_forged(header)).map(|(name, _)| *name)
}

/// How many bytes the output's event takes in a batch at most; an error if a part of it is over its limit.
///
/// Counted with every optional field, so that an event that passes fits any empty batch builder.
#[inline]
pub(crate) fn measure(event: &EventRef<'_>, output: &Output<'_>) -> Result<usize, EventTooLarge> {
    // Most outputs keep the headers, which the input's limits cover: then nothing needs to be walked through.
    let kept = match (&output.headers, output.payload) {
        (HeadersChange::Keep, Change::Keep) => Some(event.headers_and_payload_len()),
        (HeadersChange::Keep, Change::Remove) if event.header_count() == 0 => Some(0),
        (HeadersChange::Keep, Change::Set(payload)) if event.header_count() == 0 => Some(payload.len()),
        _ => None,
    };
    if let Some(kept) = kept {
        let key = changed(output.key, event.key()).map_or(0, <[u8]>::len);
        let id = output.id.map_or(0, str::len);
        let total = FIXED_BYTES_MAX + key + id + kept;
        if (key <= KEY_BYTES_MAX) & (id <= EVENT_ID_BYTES_MAX) & (total <= EVENT_BYTES_MAX) {
            return Ok(total);
        }
    }
    measure_all(&parts_of(event, output), headers_of(event, output))
}

/// The same by every part, which also names the one that is too large.
fn measure_all(parts: &EventParts<'_>, headers: OutputHeaders<'_>) -> Result<usize, EventTooLarge> {
    let (mut count, mut bytes, mut name_longest) = (0, 0, 0);
    let (mut engine_count, mut engine_bytes) = (0, 0);
    for (name, value) in headers {
        let len = 3 + name.len() + value.len();
        // The input event has it, on top of the limits of its own headers.
        if is_engine_header(name) {
            engine_count += 1;
            engine_bytes += len;
        } else {
            count += 1;
            bytes += len;
        }
        name_longest = name_longest.max(name.len());
    }
    let (key, id) = (parts.key.map_or(0, <[u8]>::len), parts.id.map_or(0, str::len));
    let total = FIXED_BYTES_MAX + key + id + bytes + parts.payload.map_or(0, <[u8]>::len);
    let checked = EventTooLarge::first_of(
        [
            (key, KEY_BYTES_MAX),
            (id, EVENT_ID_BYTES_MAX),
            (count, HEADERS_MAX),
            (name_longest, HEADER_NAME_BYTES_MAX),
            (bytes, HEADERS_BYTES_MAX),
            (engine_count, ENGINE_HEADERS_MAX),
            (engine_bytes, ENGINE_HEADERS_BYTES_MAX),
            (total, EVENT_BYTES_MAX),
        ],
        [
            ("key", "bytes"),
            ("id", "bytes"),
            ("header count", "headers"),
            ("header name", "bytes"),
            ("headers", "bytes"),
            ("count of the engine's headers", "headers"),
            ("engine's headers", "bytes"),
            ("size", "bytes"),
        ],
    );
    checked.map(|()| total + engine_bytes)
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        event::Event,
    };
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn what_keeps_its_headers_is_measured_like_everything_else(
            (key, payload) in (option::of(vec(any::<u8>(), 0..9)), option::of(vec(any::<u8>(), 0..9))),
            headers in vec(("[a-z]{1,5}", vec(any::<u8>(), 0..9)), 0..3),
            (new_key, new_payload) in (0..3usize, 0..3usize), id in option::of("[a-z]{0,5}"),
            len in prop_oneof![Just(0), Just(KEY_BYTES_MAX), Just(KEY_BYTES_MAX + 1), Just(EVENT_BYTES_MAX)],
        ) {
            let mut stored = Event { key: key.map(Into::into), payload: payload.map(Into::into), ..Event::default() };
            for (name, value) in headers {
                stored = stored.with_header(&name, value);
            }
            let mut builder = BatchBuilder::new();
            builder.push(&stored).unwrap();
            let batch = builder.finish(Stamp::ENGINE);
            let event = batch.events().next().unwrap();
            let long = vec![0; len];
            let change = |which: usize| [Change::Keep, Change::Remove, Change::Set(&long[..])][which];
            let output = Output {
                key: change(new_key), payload: change(new_payload), id: id.as_deref(), ..Output::default()
            };
            let all = measure_all(&parts_of(&event, &output), headers_of(&event, &output));
            prop_assert_eq!(measure(&event, &output), all);
        }
    }
}
