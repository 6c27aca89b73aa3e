//! Who makes a change, as it is told.

use std::net::SocketAddr;

use serde::Serialize;

/// Who makes a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Actor {
    pub(crate) principal: String,
    /// How it came in, such as `token 1f…`; `None` for local callers and the engine.
    pub(crate) proof: Option<String>,
    /// From where; nothing for local callers and the engine.
    #[serde(flatten)]
    pub(crate) origin: Origin,
}

/// Where a call comes from, as the audit topic tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Origin {
    /// The address at the other end of its connection.
    pub(crate) peer: Option<SocketAddr>,
    /// What names the request.
    pub(crate) request: Option<String>,
}

impl Actor {
    /// The engine itself, for what it does in the background.
    pub(crate) fn engine() -> Self {
        Self { principal: "engine".to_owned(), proof: None, origin: Origin::default() }
    }
}
