//! What identifies an event within a dedup window: a hash of its id, and of a header if the topic says so. The hash is
//! stored, so it never changes.

use levada_protocol::batch::EventRef;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The hash by which ids are compared: XXH3-128, seed 0, of the id; or of the id, a byte 0xff, which no id has, and the
/// value of the first header with this name. An event without that header is identified by its id alone, and one without
/// an id not at all.
#[inline]
pub(crate) fn hash(event: &EventRef<'_>, header: &str) -> Option<u128> {
    let id = event.id()?.as_bytes();
    let Some(value) = (!header.is_empty()).then(|| event.header(header)).flatten() else {
        return Some(xxh3_128(id));
    };
    let mut hash = Xxh3::new();
    hash.update(id);
    hash.update(&[0xff]);
    hash.update(value);
    Some(hash.digest128())
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        event::Event,
    };

    use super::*;

    #[test]
    fn an_event_is_identified_for_good_by_its_id_and_the_header_that_belongs_to_it() {
        let mut builder = BatchBuilder::new();
        let event = |id: &str| Event { id: Some(id.into()), ..Event::new("x") };
        let events = [
            event("order-42"),
            event("order-42").with_header("source", "web"),
            event("order-42").with_header("source", ""),
            Event::new("x").with_header("source", "web"),
        ];
        events.iter().for_each(|event| builder.push(event).unwrap());
        let batch = builder.finish(Stamp::ENGINE);
        let hashes = |header: &str| batch.events().map(|event| hash(&event, header)).collect::<Vec<_>>();
        // By the reference implementation of XXH3.
        let id = 0xd303_ab4e_cd50_1a89_fbc3_5a92_d7ec_0b0a;
        assert_eq!(hashes(""), [Some(id), Some(id), Some(id), None]);
        let web = 0xc1d9_42b3_bd2a_42b5_165d_3428_061b_b5c1;
        let empty = 0xcc1b_fc1c_e39e_c1c3_5322_a181_6efa_377c;
        assert_eq!(hashes("source"), [Some(id), Some(web), Some(empty), None]);
    }
}
