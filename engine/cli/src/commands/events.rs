//! Prints deliveries, one write a frame: as NDJSON, or their payloads alone. Shared by `read` and `subscribe`.

use levada_client::Delivery;
use levada_json::{Location, write_event};
use levada_protocol::{batch::EventRef, ids::Offset};
use levada_terminal::output::{Output, Unwritten, counted};

use crate::args::SubscribeArgs;

/// How events are printed, and what they are of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Printer<'a> {
    pub(super) topic: &'a str,
    pub(super) subscription: Option<&'a str>,
    /// Payloads as they are, each with a line end behind it, instead of JSON.
    pub(super) payload_alone: bool,
}

/// What of a delivery was printed.
#[derive(Debug, Default)]
pub(super) struct Printed {
    pub(super) count: u64,
    /// Of payloads.
    pub(super) bytes: u64,
    /// The last event's offset.
    pub(super) last: Option<Offset>,
}

/// What is said of events that were not shown.
pub(super) fn withheld_remark(events: u64) -> String {
    format!(
        "{} withheld: a plugin of your permission (`read … via …`) failed on them",
        counted(events, "event")
    )
}

impl<'a> Printer<'a> {
    /// For the events of a subscription.
    pub(super) fn of(args: &'a SubscribeArgs) -> Self {
        Self {
            topic: args.subscription.topic.as_str(),
            subscription: Some(args.subscription.name.as_str()),
            payload_alone: args.payload,
        }
    }
}

impl Printer<'_> {
    /// Prints the first events of a delivery: `limit` of them at most, and none behind the one that brings the payloads to
    /// `bytes`.
    pub(super) fn print(
        &self,
        output: &Output,
        delivery: &Delivery,
        limit: u64,
        bytes: u64,
    ) -> Result<Printed, Unwritten> {
        let mut lines = Vec::new();
        let mut printed = Printed::default();
        for (offset, _appended, event) in delivery.events() {
            if printed.count == limit || printed.bytes >= bytes {
                break;
            }
            self.write(&mut lines, delivery, offset, &event);
            printed.count += 1;
            printed.bytes += event.payload().map_or(0, |payload| payload.len() as u64);
            printed.last = Some(offset);
        }
        output.bytes(&lines)?;
        Ok(printed)
    }

    /// Writes one event behind what `out` holds.
    pub(super) fn write(&self, out: &mut Vec<u8>, delivery: &Delivery, offset: Offset, event: &EventRef<'_>) {
        if self.payload_alone {
            out.extend_from_slice(event.payload().unwrap_or_default());
            out.push(b'\n');
            return;
        }
        let location = Location {
            topic: self.topic,
            partition: delivery.partition(),
            offset,
            delivery: self.subscription.map(|name| (name, delivery.attempt())),
        };
        write_event(out, location, event);
    }
}
