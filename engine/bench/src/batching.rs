//! How events are batched, as the flags say.

use std::sync::Arc;

use bytes::Bytes;
use levada_client::PublisherOptions;
use levada_protocol::{batch::EVENT_HEADER_BYTES, limits::BATCH_BODY_BYTES_MAX};

use crate::args::BenchCommon;

/// The publisher's options.
pub(crate) fn publisher_options(common: &BenchCommon) -> PublisherOptions {
    let defaults = PublisherOptions::default();
    let bytes = usize::try_from(common.batch_bytes).unwrap_or(BATCH_BODY_BYTES_MAX);
    let by_count = common.batch.map(|events| events as usize * record_bytes(common));
    PublisherOptions {
        batch_bytes: by_count.unwrap_or(bytes).clamp(1, BATCH_BODY_BYTES_MAX),
        in_flight: common.in_flight.map_or(defaults.in_flight, usize::from),
        ..defaults
    }
}

/// How many events fill a batch.
pub(crate) fn batch_events(common: &BenchCommon) -> u32 {
    let events = publisher_options(common).batch_bytes / record_bytes(common);
    u32::try_from(events).unwrap_or(u32::MAX).max(1)
}

/// Bytes of an event in a batch, its header and key included.
pub(crate) fn record_bytes(common: &BenchCommon) -> usize {
    EVENT_HEADER_BYTES + common.size as usize + keys(common).first().map_or(0, Bytes::len)
}

/// The keys in turn.
pub(crate) fn keys(common: &BenchCommon) -> Arc<[Bytes]> {
    (0..common.keys).map(|key| Bytes::from(format!("key-{key:06}"))).collect()
}
