//! What bytes say, as JSON: bytes as hexadecimal digits, and integers that a double does not hold as decimal text.

use bytes::Bytes;
use levada_protocol::{
    batch::{Batch, EventRef},
    deliver::{DeliverHeader, EndEntry, Runs},
    duplicates::Placed,
    error::{ErrorCode, Refusal},
    frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType, read_message},
    ids::Offset,
    progress::{Progress, Scanned, SearchState},
    publish::{Ack, AckOutcome, PublishHeader},
    request::{CheckBack, Notice, Open, Opened},
    schedule::Due,
    verbs::{Credit, Rejection, Settled, VerbKind, Verbs},
    verdict::{Change, HeadersChange, Output, Verdict, Verdicts},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// The largest integer that every JSON reader keeps exactly.
const EXACT_MAX: u64 = (1 << 53) - 1;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decodes a whole frame as whoever gets it must: an error where it must be refused.
pub(crate) fn frame(bytes: &[u8]) -> Result<Value, String> {
    let head = bytes.first_chunk().ok_or("shorter than a frame header")?;
    let header = FrameHeader::read(head).map_err(|error| error.to_string())?;
    let mut payload = Bytes::copy_from_slice(&bytes[FRAME_HEADER_BYTES..]);
    if payload.len() != header.len {
        return Err(format!("{} bytes of payload, expected {}", payload.len(), header.len));
    }
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let value = match header.kind {
        FrameType::Open => message::<Open>(&payload)?,
        FrameType::Opened => match read_message::<Opened>(&payload) {
            Ok(Opened::Unknown) => return Err("an answer of a kind that nobody asked for".to_owned()),
            _ => message::<Opened>(&payload)?,
        },
        FrameType::Notice => message::<Notice>(&payload)?,
        FrameType::Error => message::<Refusal>(&payload)?,
        FrameType::CheckBack => message::<CheckBack>(&payload)?,
        FrameType::Chunk => json!(hex(&payload)),
        FrameType::Publish => {
            let header = PublishHeader::read(&mut payload).map_err(|error| text(&error))?;
            json!({
                "correlation": header.correlation,
                "partition": header.partition.0,
                "durability": header.durability.map(|durability| durability.as_str()),
                "expect_offset": header.expect_offset.map(|offset| offset.0),
                "deliver_at": match header.due {
                    Some(Due::At(time)) => Some(time.0),
                    Some(Due::After(_)) | None => None,
                },
                "delay_ms": match header.due {
                    Some(Due::After(delay)) => Some(delay),
                    Some(Due::At(_)) | None => None,
                },
                "batch": batch(&payload)?,
            })
        }
        FrameType::Ack => {
            json!(Ack::read_all(&payload).map_err(|error| text(&error))?.iter().map(ack).collect::<Vec<_>>())
        }
        FrameType::Deliver => delivery(payload)?,
        FrameType::Credit => {
            let credit = Credit::read(&payload).map_err(|error| text(&error))?;
            json!({ "events": credit.events, "bytes": credit.bytes })
        }
        FrameType::Verbs => verbs(&Verbs::read(&payload).map_err(|error| text(&error))?),
        FrameType::Settled => settled(&Settled::read(&payload).map_err(|error| text(&error))?),
        FrameType::End => entries(&EndEntry::read_all(&payload).map_err(|error| text(&error))?),
        FrameType::Progress => progress(&Progress::read(&payload).map_err(|error| text(&error))?),
    };
    Ok(exact(value))
}

/// The message as JSON, with every field, if it is a `T` at all.
fn message<T: DeserializeOwned + Serialize>(payload: &[u8]) -> Result<Value, String> {
    let message = read_message::<T>(payload).map_err(|error| error.to_string())?;
    let mut value = serde_json::to_value(message).map_err(|error| error.to_string())?;
    if let Some(key) = value.pointer_mut("/search/key").filter(|key| key.is_array()) {
        let bytes: Vec<u8> = serde_json::from_value(key.take()).map_err(|error| error.to_string())?;
        *key = json!(hex(&bytes));
    }
    Ok(value)
}

/// Decodes one batch.
pub(crate) fn batch(bytes: &[u8]) -> Result<Value, String> {
    let batch = Batch::check(Bytes::copy_from_slice(bytes)).map_err(|error| error.to_string())?;
    let header = batch.header();
    Ok(exact(json!({
        "codec": header.codec,
        "flags": header.flags,
        "count": header.count,
        "span": header.span,
        "body_len": header.body_len,
        "uncompressed_len": header.uncompressed_len,
        "crc32c": format!("{:08x}", header.crc),
        "producer_id": hex(&header.producer_id.to_le_bytes()),
        "epoch": header.epoch,
        "time_span_ms": header.time_span_ms,
        "first_sequence": header.first_sequence,
        "max_event_time": header.max_event_time,
        "events": batch.events().map(|event| self::event(&event)).collect::<Vec<_>>(),
    })))
}

fn event(event: &EventRef<'_>) -> Value {
    let header = |(name, value): (&[u8], &[u8])| json!([String::from_utf8_lossy(name), hex(value)]);
    json!({
        "offset_delta": event.offset_delta(),
        "time": event.time().0,
        "key": event.key().map(hex),
        "id": event.id(),
        "ttl_ms": event.ttl_ms(),
        "headers": event.headers().map(header).collect::<Vec<_>>(),
        "payload": event.payload().map(hex),
    })
}

fn ack(ack: &Ack) -> Value {
    let (correlation, partition) = (ack.correlation, ack.partition.0);
    match &ack.outcome {
        AckOutcome::Appended { base, count, duplicate, duplicates } => {
            let mut value = json!({
                "correlation": correlation,
                "partition": partition,
                "outcome": "appended",
                "first_offset": base.map(|base| base.0),
                "count": count,
                "repeat": duplicate,
            });
            if let Some(duplicates) = duplicates {
                let events = 0..count + duplicates.count();
                let placed = events.filter_map(|event| match duplicates.placed(event) {
                    Placed::Stored(_) => None,
                    Placed::Duplicate(of) => Some(json!({ "event": event, "of": of.map(|of| of.0) })),
                });
                value["duplicates"] = placed.collect();
            }
            value
        }
        AckOutcome::OffsetMismatch { next, message } => json!({
            "correlation": correlation,
            "partition": partition,
            "outcome": "refused",
            "code": ErrorCode::OffsetMismatch.number(),
            "text": message,
            "next_offset": next.0,
            "retry_after_ms": null,
        }),
        AckOutcome::Scheduled { first, count, duplicate } => json!({
            "correlation": correlation,
            "partition": partition,
            "outcome": "scheduled",
            "first_id": first,
            "count": count,
            "repeat": duplicate,
        }),
        AckOutcome::Refused(refusal) => json!({
            "correlation": correlation,
            "partition": partition,
            "outcome": "refused",
            "code": refusal.code.number(),
            "text": refusal.message,
            "retry_after_ms": refusal.retry_after_ms,
        }),
    }
}

fn delivery(mut payload: Bytes) -> Result<Value, String> {
    let header = DeliverHeader::read(&mut payload).map_err(|error| error.to_string())?;
    let mut runs = Vec::new();
    let mut count = 0;
    for run in Runs::new(payload) {
        let run = run.map_err(|error| error.to_string())?;
        let mut batches = Vec::new();
        for placed in run.batches() {
            let (base, found) = placed.map_err(|error| error.to_string())?;
            count += found.count();
            let events = found.events().map(|event| event.offset(base).0);
            let offsets: Vec<u64> = events.collect();
            batches.push(json!({
                "base_offset": base.0,
                "offsets": offsets,
                "batch": batch(found.bytes())?,
            }));
        }
        runs.push(json!({
            "base_offset": run.base.0,
            "append_time": run.append_time.0,
            "len": run.batches.len(),
            "hops": run.hops,
            "batches": batches,
        }));
    }
    if count != header.count {
        return Err(format!("{count} events, the header says {}", header.count));
    }
    Ok(json!({
        "partition": header.partition.0,
        "built": header.built,
        "attempt": header.attempt,
        "count": header.count,
        "token": header.token.0,
        "span": header.span,
        "runs": runs,
    }))
}

fn verbs(verbs: &Verbs) -> Value {
    let entry = |verb: &levada_protocol::verbs::Verb| {
        let (name, delay_ms, reason) = match &verb.kind {
            VerbKind::Ack => ("ack", None, None),
            VerbKind::Nack { delay_ms } => ("nack", *delay_ms, None),
            VerbKind::InProgress => ("in_progress", None, None),
            VerbKind::Reject { reason, kind } => {
                let word = match kind {
                    Rejection::Refused => "reject",
                    Rejection::Undecodable => "reject_undecodable",
                    Rejection::PushFailed => "reject_push_failed",
                };
                (word, None, Some(reason))
            }
        };
        let (Offset(first), Offset(last)) = (verb.first, verb.last);
        json!({
            "verb": name,
            "partition": verb.partition.0,
            "token": verb.token.0,
            "first": first,
            "last": last,
            "delay_ms": delay_ms,
            "reason": reason,
        })
    };
    json!({ "sequence": verbs.sequence, "verbs": verbs.verbs.iter().map(entry).collect::<Vec<_>>() })
}

fn settled(settled: &Settled) -> Value {
    let entry = |refused: &levada_protocol::verbs::RefusedVerb| {
        json!({
            "partition": refused.partition.0,
            "code": refused.code.number(),
            "first": refused.first.0,
            "last": refused.last.0,
        })
    };
    json!({ "sequence": settled.sequence, "refused": settled.refused.iter().map(entry).collect::<Vec<_>>() })
}

fn entries(entries: &[EndEntry]) -> Value {
    let entry = |entry: &EndEntry| json!({ "partition": entry.partition.0, "next_offset": entry.next.0 });
    json!(entries.iter().map(entry).collect::<Vec<_>>())
}

fn progress(progress: &Progress) -> Value {
    let Scanned { bytes, events, matched, undecodable, withheld } = progress.scanned;
    json!({
        "scanned": bytes,
        "events": events,
        "matched": matched,
        "undecodable": undecodable,
        "withheld": withheld,
        "state": match progress.state {
            SearchState::Running => "running",
            SearchState::Complete => "complete",
            SearchState::Limited => "limited",
        },
        "entries": entries(&progress.positions),
    })
}

/// Decodes a plugin's answer.
pub(crate) fn verdicts(bytes: &[u8]) -> Result<Value, String> {
    let mut list = Vec::new();
    for verdict in Verdicts::new(bytes) {
        list.push(match verdict.map_err(|error| error.to_string())? {
            Verdict::Drop(count) => json!({ "drop": count }),
            Verdict::Keep(count) => json!({ "keep": count }),
            Verdict::Reject(reason) => json!({ "reject": reason }),
            Verdict::Undecodable(error) => json!({ "undecodable": error }),
            Verdict::Emit(outputs) => json!({ "emit": outputs.iter().map(output).collect::<Vec<_>>() }),
        });
    }
    Ok(exact(json!(list)))
}

fn output(output: &Output<'_>) -> Value {
    let bytes = |change: &Change<&[u8]>| match change {
        Change::Keep => json!("keep"),
        Change::Remove => json!("remove"),
        Change::Set(bytes) => json!({ "set": hex(bytes) }),
    };
    let pairs =
        |pairs: &[(&str, &[u8])]| pairs.iter().map(|(name, value)| json!([name, hex(value)])).collect();
    let headers: Value = match &output.headers {
        HeadersChange::Keep => json!("keep"),
        HeadersChange::Replace(with) => json!({ "replace": Value::Array(pairs(with)) }),
        HeadersChange::Patch(set, removed) => json!({ "set": Value::Array(pairs(set)), "removed": removed }),
    };
    json!({
        "target": output.target,
        "key": bytes(&output.key),
        "time": output.time,
        "id": output.id,
        "headers": headers,
        "payload": bytes(&output.payload),
    })
}

fn exact(value: Value) -> Value {
    match value {
        Value::Number(number) if number.as_u64().is_some_and(|number| number > EXACT_MAX) => {
            json!(number.to_string())
        }
        Value::Array(items) => items.into_iter().map(exact).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, exact(value))).collect(),
        other => other,
    }
}
