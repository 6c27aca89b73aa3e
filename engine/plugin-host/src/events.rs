//! The typed interface: from batch bytes to records as far as a plugin is interested, and from its verdicts to
//! verdict bytes.

use levada_protocol::{
    batch::{BatchRef, EventRef},
    deliver::RunRef,
    ids::Offset,
    verdict as bytes,
};

use crate::{
    bindings::{Change, Event, HeaderInterest, HeadersChange, Interest, Output, Verdict},
    lengths,
};

/// The events of `runs` as records.
///
/// # Panics
/// If `runs` are not runs of checked batches.
pub(crate) fn lower<'a>(mut runs: &'a [u8], count: u32, interest: &Interest) -> Vec<Event<'a>> {
    let mut events = Vec::with_capacity(count as usize);
    while let Some(run) = RunRef::split_first(&mut runs) {
        let (mut base, mut batches) = (run.header.base, run.batches);
        while let Some(batch) = BatchRef::split_first(&mut batches) {
            events.extend(batch.events().map(|event| lower_event(&event, base, interest)));
            base = base.plus(u64::from(batch.header().span));
        }
    }
    events
}

fn lower_event<'a>(event: &EventRef<'a>, base: Offset, interest: &Interest) -> Event<'a> {
    let headers = match &interest.headers {
        HeaderInterest::None => Vec::new(),
        HeaderInterest::All => headers(event, |_| true),
        HeaderInterest::Named(names) => headers(event, |name| names.iter().any(|wanted| wanted == name)),
    };
    Event {
        offset: event.offset(base).0,
        time: event.time().0,
        id: event.id(),
        key: event.key().filter(|_| interest.key),
        headers,
        payload: event.payload().filter(|_| interest.payload),
    }
}

fn headers<'a>(event: &EventRef<'a>, wanted: impl Fn(&str) -> bool) -> Vec<(&'a str, &'a [u8])> {
    let named = |(name, value)| Some((std::str::from_utf8(name).ok()?, value));
    event.headers().filter_map(named).filter(|(name, _)| wanted(name)).collect()
}

/// Writes typed verdicts as bytes.
///
/// # Errors
/// One sentence that names the length that is over its limit.
pub(crate) fn lift(verdicts: &[Verdict]) -> Result<Vec<u8>, String> {
    let mut outputs_left = lengths::OutputsLeft::default();
    let mut writer = bytes::VerdictWriter::new();
    for verdict in verdicts {
        match verdict {
            Verdict::Drop => writer.drop_event(),
            Verdict::Keep => writer.keep(),
            Verdict::Reject(reason) => writer.reject(reason),
            Verdict::Emit(outputs) => {
                outputs_left.take(outputs.len())?;
                let outputs: Vec<bytes::Output<'_>> = outputs.iter().map(lift_output).collect();
                outputs.iter().try_for_each(lengths::check_output)?;
                writer.emit(&outputs);
            }
        }
    }
    let answer = writer.finish();
    lengths::check_answer(answer.len())?;
    Ok(answer)
}

fn lift_output(output: &Output) -> bytes::Output<'_> {
    bytes::Output {
        target: output.topic.as_deref(),
        key: lift_change(&output.key),
        time: output.time,
        id: output.id.as_deref(),
        headers: match &output.headers {
            HeadersChange::Keep => bytes::HeadersChange::Keep,
            HeadersChange::Replace(set) => bytes::HeadersChange::Replace(pairs(set)),
            HeadersChange::Patch(patch) => {
                let removed = patch.remove.iter().map(String::as_str).collect();
                bytes::HeadersChange::Patch(pairs(&patch.set), removed)
            }
        },
        payload: lift_change(&output.payload),
    }
}

fn pairs(headers: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect()
}

fn lift_change(change: &Change) -> bytes::Change<&[u8]> {
    match change {
        Change::Keep => bytes::Change::Keep,
        Change::Remove => bytes::Change::Remove,
        Change::Set(value) => bytes::Change::Set(value),
    }
}
