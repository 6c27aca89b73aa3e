//! Measuring an output: the event that it makes of its input event, against every limit.
//!
//! Must not know where the event goes.

use levada_protocol::{
    batch::{EVENT_HEADER_BYTES, EventRef},
    event::{EventTooLarge, is_engine_header},
    limits::{
        ENGINE_HEADERS_BYTES_MAX, ENGINE_HEADERS_MAX, EVENT_BYTES_MAX, EVENT_ID_BYTES_MAX,
        HEADER_NAME_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX,
    },
    verdict::Change,
};

use crate::outputs::OutputRef;

/// An event's fixed part with every optional field: offset delta, id length, time to live.
const FIXED_BYTES_MAX: usize = EVENT_HEADER_BYTES + 10;

/// The name of a header of the engine's own that the output would set and the input does not have, or not as often.
pub(crate) fn forged<'a>(event: &EventRef<'_>, output: OutputRef<'a>) -> Option<&'a [u8]> {
    let engines = || output.set_headers().filter(|(name, _)| is_engine_header(name));
    let is_forged = |header: &(&[u8], &[u8])| {
        let wanted = engines().filter(|other| other == header).count();
        let had = event.headers().filter(|other| other == header).count();
        wanted > had
    };
    // An input has few such headers, so that a long list ends early.
    engines().find(|header| is_forged(header)).map(|(name, _)| name)
}

/// How many bytes the output's event takes in a batch at most.
///
/// Counted with every optional field, so that an event that passes fits any empty batch builder.
///
/// # Errors
/// If a part of the event is over its limit.
#[inline]
pub(crate) fn measure<'a>(event: &EventRef<'a>, output: OutputRef<'a>) -> Result<usize, EventTooLarge> {
    // Most outputs keep the headers, which the input's limits cover: then nothing needs to be walked through.
    let kept = match (output.keeps_headers(), output.payload_len()) {
        (true, Change::Keep) => Some(event.headers_and_payload_len()),
        (true, Change::Remove) if event.header_count() == 0 => Some(0),
        (true, Change::Set(len)) if event.header_count() == 0 => Some(len),
        _ => None,
    };
    if let Some(kept) = kept {
        let key = match output.key_len() {
            Change::Keep => event.key().map_or(0, <[u8]>::len),
            Change::Remove => 0,
            Change::Set(len) => len,
        };
        let id = output.id_len();
        let total = FIXED_BYTES_MAX + key + id + kept;
        if (key <= KEY_BYTES_MAX) & (id <= EVENT_ID_BYTES_MAX) & (total <= EVENT_BYTES_MAX) {
            return Ok(total);
        }
    }
    measure_all(event, output)
}

/// The same by every part, which also names the one that is too large.
fn measure_all<'a>(event: &EventRef<'a>, output: OutputRef<'a>) -> Result<usize, EventTooLarge> {
    let parts = output.parts(event);
    let (mut count, mut bytes, mut name_longest) = (0, 0, 0);
    let (mut engine_count, mut engine_bytes) = (0, 0);
    for (name, value) in output.headers(event) {
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
    let (key, id) = (parts.key.map_or(0, <[u8]>::len), output.id_len());
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
    use bytes::Bytes;
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        event::Event,
        verdict::Output,
    };
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::outputs::Outputs;

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
            let id = id.unwrap_or_default();
            let answer = Bytes::from([vec![0; len], id.as_bytes().to_vec()].concat());
            let change = |which: usize| [Change::Keep, Change::Remove, Change::Set(&answer[..len])][which];
            let id = std::str::from_utf8(&answer[len..]).unwrap();
            let output = Output {
                key: change(new_key), payload: change(new_payload), id: Some(id), ..Output::default()
            };
            let mut outputs = Outputs::of(answer.clone());
            let output = outputs.add(&output, 0);
            prop_assert_eq!(measure(&event, output), measure_all(&event, output));
        }
    }
}
