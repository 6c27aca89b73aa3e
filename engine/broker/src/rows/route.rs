//! A route: its record under its id.

use levada_protocol::{ids::RouteId, request::RouteSpec};
use serde::{Deserialize, Serialize};

use super::{record::Record, tag};

/// A route, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RouteRecord {
    pub(crate) id: u64,
    pub(crate) source_id: u32,
    pub(crate) spec: RouteSpec,
    /// Where each source partition began.
    pub(crate) positions: Vec<u64>,
    pub(crate) created_ms: u64,
    pub(crate) owner: String,
}

impl Record for RouteRecord {
    const NAME: &'static str = "route";
    const TAG: u8 = tag::CATALOGUE_ROUTE;
    type Key = RouteId;
}

#[cfg(test)]
mod tests {
    use levada_protocol::request::{StageSpec, Start};
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let spec = RouteSpec {
            name: "big".parse().unwrap(),
            from: "orders".parse().unwrap(),
            to: vec!["large".parse().unwrap()],
            chain: vec![StageSpec { plugin: "router".to_owned(), ..StageSpec::default() }],
            start: Start::Offset(5),
        };
        let route = RouteRecord {
            id: 4,
            source_id: 1,
            spec,
            positions: vec![5],
            created_ms: 7,
            owner: "me".to_owned(),
        };
        let expected = "0186a2696404a9736f757263655f696401a47370656385a46e616d65a3626967a466726f6da66f7264657273 \
            a2746f91a56c61726765a5636861696e9186a6706c7567696ea6726f75746572a6636f6e666967a27b7da86f \
            6e5f6572726f72c0a772657472696573c0ab646561646c696e655f6d73c0b06d656d6f72795f62797465735f \
            6d6178c0a5737461727482a26174a66f6666736574a576616c756505a9706f736974696f6e739105aa637265 \
            617465645f6d7307a56f776e6572a26d65";
        check::bytes(&RouteId(4), &route, "04 0000000000000004", expected);
    }

    proptest! {
        #[test]
        fn it_comes_back(
            (id, source_id, created_ms) in any::<(u64, u32, u64)>(), name in "[a-z0-9_-]{0,20}", from in "[a-z0-9._-]{0,20}", owner in ".{0,20}",
            to in prop::collection::vec("[a-z]{1,9}", 0..3), positions in prop::collection::vec(any::<u64>(), 0..8),
            start in prop_oneof![Just(Start::Earliest), any::<u64>().prop_map(Start::Time)],
        ) {
            let (name, from) = (format!("r{name}").parse().unwrap(), format!("t{from}").parse().unwrap());
            let to = to.iter().map(|name| name.parse().unwrap()).collect();
            let spec = RouteSpec { name, from, to, chain: vec![StageSpec::default()], start };
            let record = RouteRecord { id, source_id, spec, positions, created_ms, owner };
            check::comes_back(&RouteId(id), &record);
        }
    }
}
