//! Checking that an answer is one: a verdict for every event, nothing over a limit.

use levada_protocol::{
    limits::{
        CALL_OUTPUT_BYTES_MAX, CALL_OUTPUT_EVENTS_MAX, EVENT_BYTES_MAX, EVENT_ID_BYTES_MAX,
        HEADER_NAME_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX, TOPIC_NAME_BYTES_MAX_INTERNAL,
    },
    verdict::{Change, HeadersChange, Output, Verdict, Verdicts},
};

/// Checks the verdicts on `events` events.
///
/// # Errors
/// One sentence that says what is wrong.
pub(crate) fn check(answer: &[u8], events: u32) -> Result<(), String> {
    if answer.len() > CALL_OUTPUT_BYTES_MAX {
        return Err(over("it", answer.len(), CALL_OUTPUT_BYTES_MAX, "bytes"));
    }
    let mut tally = Tally::default();
    for verdict in Verdicts::new(answer) {
        match verdict.map_err(|error| error.to_string())? {
            Verdict::Drop(n) | Verdict::Keep(n) => tally.events(u64::from(n)),
            Verdict::Reject(_) => tally.events(1),
            Verdict::Emit(outputs) => {
                tally.events(1);
                tally.outputs(outputs.len())?;
                outputs.iter().try_for_each(check_output)?;
            }
        }
    }
    tally.finish(events)
}

/// Counts what an answer covers.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    events: u64,
    outputs: usize,
}

impl Tally {
    pub(crate) fn events(&mut self, more: u64) {
        self.events += more;
    }

    pub(crate) fn outputs(&mut self, more: usize) -> Result<(), String> {
        self.outputs = self.outputs.saturating_add(more);
        if self.outputs > CALL_OUTPUT_EVENTS_MAX {
            return Err(over("it", self.outputs, CALL_OUTPUT_EVENTS_MAX, "outputs, or more,"));
        }
        Ok(())
    }

    pub(crate) fn finish(&self, events: u32) -> Result<(), String> {
        if self.events != u64::from(events) {
            return Err(format!("it has verdicts on {} events, expected {events}", self.events));
        }
        Ok(())
    }
}

/// Checks the limits of an event on what an output gives; its sum with what it keeps is for whoever builds it.
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
    use levada_protocol::verdict::VerdictWriter;

    use super::*;

    fn emit(output: Output<'_>) -> Result<(), String> {
        let mut writer = VerdictWriter::new();
        writer.emit(&[output]);
        check(&writer.finish(), 1)
    }

    #[test]
    fn every_event_wants_one_verdict() {
        let mut writer = VerdictWriter::new();
        writer.keep();
        writer.drop_event();
        writer.reject("no");
        writer.emit(&[Output::default(), Output::default()]);
        let answer = writer.finish();
        assert_eq!(check(&answer, 4), Ok(()));
        assert!(check(&answer, 3).unwrap_err().contains("verdicts on 4 events, expected 3"));
        assert!(check(&answer, 5).is_err());
        assert!(check(&answer[..answer.len() - 1], 4).is_err());
    }

    #[test]
    fn outputs_obey_the_limits_of_events() {
        let (key, key_over) = (vec![0; KEY_BYTES_MAX], vec![0; KEY_BYTES_MAX + 1]);
        assert_eq!(emit(Output { key: Change::Set(&key), ..Output::default() }), Ok(()));
        assert!(emit(Output { key: Change::Set(&key_over), ..Output::default() }).is_err());
        let (name, name_over) = ("n".repeat(HEADER_NAME_BYTES_MAX), "n".repeat(HEADER_NAME_BYTES_MAX + 1));
        let named =
            |name| Output { headers: HeadersChange::Replace(vec![(name, &b""[..])]), ..Output::default() };
        assert_eq!(emit(named(&name)), Ok(()));
        assert!(emit(named(&name_over)).is_err());
        let (payload, payload_over) = (vec![0; EVENT_BYTES_MAX], vec![0; EVENT_BYTES_MAX + 1]);
        assert_eq!(emit(Output { payload: Change::Set(&payload), ..Output::default() }), Ok(()));
        assert!(emit(Output { payload: Change::Set(&payload_over), ..Output::default() }).is_err());
    }

    #[test]
    fn the_number_of_outputs_is_limited() {
        let mut writer = VerdictWriter::new();
        writer.emit(&vec![Output::default(); CALL_OUTPUT_EVENTS_MAX]);
        assert_eq!(check(&writer.finish(), 1), Ok(()));
        let mut writer = VerdictWriter::new();
        writer.emit(&vec![Output::default(); CALL_OUTPUT_EVENTS_MAX + 1]);
        assert!(check(&writer.finish(), 1).is_err());
    }
}
