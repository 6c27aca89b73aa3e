//! Prints deliveries, one write a frame: as NDJSON, or their payloads alone. Shared by `read` and `subscribe`.

use levada_client::Delivery;
use levada_json::{Location, write_event};
use levada_protocol::{batch::EventRef, ids::Offset};
use levada_terminal::output::{Output, Unwritten};

/// How events are printed, and what they are of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Printer<'a> {
    pub(super) topic: &'a str,
    pub(super) subscription: Option<&'a str>,
    /// Payloads as they are, each with a line end behind it, instead of JSON.
    pub(super) payload_alone: bool,
}

impl Printer<'_> {
    /// Prints the first `limit` events of a delivery; returns how many that were, and the last one's offset.
    pub(super) fn print(
        &self,
        output: &Output,
        delivery: &Delivery,
        limit: u64,
    ) -> Result<(u64, Option<Offset>), Unwritten> {
        let mut lines = Vec::new();
        let (mut count, mut last) = (0, None);
        for (offset, _appended, event) in delivery.events() {
            if count == limit {
                break;
            }
            self.write(&mut lines, delivery, offset, &event);
            (count, last) = (count + 1, Some(offset));
        }
        output.bytes(&lines)?;
        Ok((count, last))
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
