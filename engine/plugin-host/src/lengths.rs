//! The lengths that an answer must keep to so that it can be handed on; what it says is validated by the caller.

use levada_protocol::{
    limits::{
        CALL_OUTPUT_BYTES_MAX, CALL_OUTPUT_EVENTS_MAX, EVENT_BYTES_MAX, EVENT_ID_BYTES_MAX,
        HEADER_NAME_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX, TOPIC_NAME_BYTES_MAX_INTERNAL,
    },
    verdict::{Change, HeadersChange, Output},
};

/// Checks the length of a whole answer in bytes.
///
/// # Errors
/// One sentence with the length and the limit.
pub(crate) fn check_answer(len: usize) -> Result<(), String> {
    if len > CALL_OUTPUT_BYTES_MAX {
        return Err(over("it", len, CALL_OUTPUT_BYTES_MAX, "bytes"));
    }
    Ok(())
}

/// How many outputs an answer may still have: a count that the byte layout can hold for any of its verdicts.
#[derive(Debug)]
pub(crate) struct OutputsLeft(usize);

impl Default for OutputsLeft {
    fn default() -> Self {
        Self(CALL_OUTPUT_EVENTS_MAX)
    }
}

impl OutputsLeft {
    /// Takes `count` outputs off.
    ///
    /// # Errors
    /// One sentence if there are more than are left.
    pub(crate) fn take(&mut self, count: usize) -> Result<(), String> {
        let left = self.0.checked_sub(count).ok_or_else(|| {
            let taken = (CALL_OUTPUT_EVENTS_MAX - self.0).saturating_add(count);
            over("it", taken, CALL_OUTPUT_EVENTS_MAX, "outputs, or more,")
        })?;
        self.0 = left;
        Ok(())
    }
}

/// Checks the lengths of an output's own parts, so that the byte layout can hold each of them.
///
/// # Errors
/// One sentence that names the part, its length and the limit.
pub(crate) fn check_output(output: &Output<'_>) -> Result<(), String> {
    let size = |change: &Change<&[u8]>| if let Change::Set(bytes) = change { bytes.len() } else { 0 };
    let (set, removed) = match &output.headers {
        HeadersChange::Keep => (&[][..], &[][..]),
        HeadersChange::Replace(set) => (&set[..], &[][..]),
        HeadersChange::Patch(set, removed) => (&set[..], &removed[..]),
    };
    let names = set.iter().map(|(name, _)| name.len()).chain(removed.iter().map(|name| name.len()));
    let headers_bytes: usize = set.iter().map(|(name, value)| 3 + name.len() + value.len()).sum();
    let rows = [
        ("an output's topic", output.target.map_or(0, str::len), TOPIC_NAME_BYTES_MAX_INTERNAL, "bytes"),
        ("an output's key", size(&output.key), KEY_BYTES_MAX, "bytes"),
        ("an output's event id", output.id.map_or(0, str::len), EVENT_ID_BYTES_MAX, "bytes"),
        ("an output's payload", size(&output.payload), EVENT_BYTES_MAX, "bytes"),
        ("an output", set.len().max(removed.len()), HEADERS_MAX, "headers"),
        ("an output's header name", names.max().unwrap_or(0), HEADER_NAME_BYTES_MAX, "bytes"),
        ("an output's header part", headers_bytes, HEADERS_BYTES_MAX, "bytes"),
    ];
    match rows.into_iter().find(|(_, got, limit, _)| got > limit) {
        Some((what, got, limit, unit)) => Err(over(what, got, limit, unit)),
        None => Ok(()),
    }
}

fn over(what: &str, got: usize, limit: usize, unit: &str) -> String {
    format!("{what} has {got} {unit}, the limit is {limit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_and_its_outputs_have_a_limit() {
        assert_eq!(check_answer(CALL_OUTPUT_BYTES_MAX), Ok(()));
        assert!(check_answer(CALL_OUTPUT_BYTES_MAX + 1).is_err());
        let mut left = OutputsLeft::default();
        assert_eq!(left.take(1), Ok(()));
        assert_eq!(left.take(CALL_OUTPUT_EVENTS_MAX - 1), Ok(()));
        let error = left.take(1).unwrap_err();
        assert!(error.contains(&format!("{} outputs", CALL_OUTPUT_EVENTS_MAX + 1)), "{error}");
        assert!(OutputsLeft::default().take(usize::MAX).is_err());
    }

    #[test]
    fn the_parts_of_an_output_have_the_limits_of_events() {
        let (key, key_over) = (vec![0; KEY_BYTES_MAX], vec![0; KEY_BYTES_MAX + 1]);
        let keyed = |key| check_output(&Output { key: Change::Set(key), ..Output::default() });
        assert_eq!(keyed(&key), Ok(()));
        assert!(keyed(&key_over).is_err());
        let (name, name_over) = ("n".repeat(HEADER_NAME_BYTES_MAX), "n".repeat(HEADER_NAME_BYTES_MAX + 1));
        let named = |name| {
            let headers = HeadersChange::Replace(vec![(name, &b""[..])]);
            check_output(&Output { headers, ..Output::default() })
        };
        assert_eq!(named(&name), Ok(()));
        assert!(named(&name_over).is_err());
        let (payload, payload_over) = (vec![0; EVENT_BYTES_MAX], vec![0; EVENT_BYTES_MAX + 1]);
        let loaded = |payload| check_output(&Output { payload: Change::Set(payload), ..Output::default() });
        assert_eq!(loaded(&payload), Ok(()));
        assert!(loaded(&payload_over).is_err());
    }
}
