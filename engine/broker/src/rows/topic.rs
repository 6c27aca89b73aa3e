//! A topic: its record under its id.

use levada_protocol::{
    ids::{TopicId, TopicName},
    request::TopicSettings,
};
use serde::{Deserialize, Serialize};

use super::{record::Record, tag};

/// A topic, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TopicRecord {
    pub(crate) id: u32,
    pub(crate) name: TopicName,
    pub(crate) settings: TopicSettings,
    pub(crate) created_ms: u64,
    pub(crate) owner: String,
}

impl TopicRecord {
    pub(crate) fn id(&self) -> TopicId {
        TopicId(self.id)
    }
}

impl Record for TopicRecord {
    const NAME: &'static str = "topic";
    const TAG: u8 = tag::CATALOGUE_TOPIC;
    type Key = TopicId;
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        publish::Durability,
        request::{OnFull, Retain},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::rows::{Row, check};

    #[test]
    fn the_bytes_are_these() {
        let settings = TopicSettings {
            partitions: 4,
            durability: Durability::Os,
            retain: Retain::TimeAndSize,
            retain_for_ms: 5,
            max_bytes: 6,
            dedup_window_ms: 7,
            dedup_header: "source".to_owned(),
            backlog_max_events: 8,
            backlog_max_bytes: 9,
            backlog_max_age_ms: 10,
            on_full: OnFull::DropOldest,
        };
        let topic = TopicRecord {
            id: 1,
            name: "orders".parse().unwrap(),
            settings,
            created_ms: 7,
            owner: "me".to_owned(),
        };
        let expected = "0185a2696401a46e616d65a66f7264657273a873657474696e67738baa706172746974696f6e7304aa647572 \
            6162696c697479a26f73a672657461696ead74696d655f616e645f73697a65ad72657461696e5f666f725f6d \
            7305a96d61785f627974657306af64656475705f77696e646f775f6d7307ac64656475705f686561646572a6 \
            736f75726365b26261636b6c6f675f6d61785f6576656e747308b16261636b6c6f675f6d61785f627974657309b26261636b6c6f675f6d61785f6167655f6d730aa76f6e5f66756c6cab64726f705f6f6c64657374aa637265617465645f6d7307a56f776e6572a26d65";
        check::bytes(&TopicId(1), &topic, "01 00000001", expected);
        // As it was before topics had a dedup window, and a quota.
        let older = "0185a2696401a46e616d65a66f7264657273a873657474696e677385aa706172746974696f6e7304aa647572 \
            6162696c697479a26f73a672657461696ead74696d655f616e645f73697a65ad72657461696e5f666f725f6d \
            7305a96d61785f627974657306aa637265617465645f6d7307a56f776e6572a26d65";
        let settings = TopicSettings {
            partitions: 4,
            durability: Durability::Os,
            retain: Retain::TimeAndSize,
            retain_for_ms: 5,
            max_bytes: 6,
            ..TopicSettings::default()
        };
        assert_eq!(TopicRecord::decode(&check::from_hex(older)), Ok(TopicRecord { settings, ..topic }));
    }

    proptest! {
        #[test]
        fn it_comes_back(
            id in any::<u32>(), name in "[a-z0-9._-]{0,40}", owner in ".{0,20}", created_ms in any::<u64>(),
            (partitions, retain_for_ms, max_bytes) in any::<(u16, u64, u64)>(), retain in 0..4_usize, drops_oldest in any::<bool>(), is_os in any::<bool>(),
        ) {
            let retain =
                [Retain::TimeAndAcked, Retain::TimeAndSize, Retain::UntilAcked, Retain::Compact][retain];
            let name = format!("t{name}").parse().unwrap();
            let durability = if is_os { Durability::Os } else { Durability::Sync };
            let settings = TopicSettings {
                partitions,
                durability,
                retain,
                retain_for_ms,
                max_bytes,
                dedup_window_ms: created_ms / 2,
                dedup_header: owner.clone(),
                backlog_max_events: max_bytes / 3,
                backlog_max_bytes: retain_for_ms / 3,
                backlog_max_age_ms: created_ms / 3,
                on_full: if drops_oldest { OnFull::DropOldest } else { OnFull::default() },
            };
            check::comes_back(&TopicId(id), &TopicRecord { id, name, settings, created_ms, owner });
        }
    }
}
