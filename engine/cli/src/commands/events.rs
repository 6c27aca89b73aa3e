//! Prints deliveries as NDJSON, one write a frame. Shared by `read` and `subscribe`.

use levada_client::Delivery;
use levada_protocol::ids::Offset;

use crate::{
    ndjson::{self, Place},
    output::Output,
};

/// Prints the first `limit` events of a delivery; answers how many that were and the last one's offset.
pub(super) fn print(
    output: &Output,
    topic: &str,
    subscription: Option<&str>,
    delivery: &Delivery,
    limit: u64,
) -> anyhow::Result<(u64, Option<Offset>)> {
    let mut lines = Vec::new();
    let (mut count, mut last) = (0, None);
    for (offset, _appended, event) in delivery.events() {
        if count == limit {
            break;
        }
        let place = Place {
            topic,
            partition: delivery.partition(),
            offset,
            delivery: subscription.map(|name| (name, delivery.attempt())),
        };
        ndjson::write_line(&mut lines, place, &event)?;
        (count, last) = (count + 1, Some(offset));
    }
    output.bytes(&lines)?;
    Ok((count, last))
}
