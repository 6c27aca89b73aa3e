//! Choices that several commands offer: the form of the output, an order of delivery, a durability.

use clap::ValueEnum;
use levada_protocol::{publish::Durability, request::Order};

/// How results are printed.
#[expect(missing_docs, reason = "without a text of their own the values stand on one line of every help")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// How the consumers of a subscription share its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OrderArg {
    /// Events of one key in order, to one consumer at a time; events without a key in no order
    Key,
    /// Events of one partition in order: one consumer is active, the others stand by
    Partition,
    /// No order: every consumer gets a share
    None,
}

/// An order as it is typed and shown.
pub fn order_word(order: Order) -> &'static str {
    match order {
        Order::Key => "key",
        Order::Partition => "partition",
        Order::None => "none",
    }
}

impl From<OrderArg> for Order {
    fn from(order: OrderArg) -> Self {
        match order {
            OrderArg::Key => Self::Key,
            OrderArg::Partition => Self::Partition,
            OrderArg::None => Self::None,
        }
    }
}

/// What an acknowledgement of the engine means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DurabilityArg {
    /// Synced to disk: survives a power cut
    Sync,
    /// Written to the operating system: survives a crash of the engine only
    Os,
}

impl DurabilityArg {
    /// The word of the protocol.
    pub fn word(self) -> &'static str {
        Durability::from(self).as_str()
    }
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Self {
        match durability {
            DurabilityArg::Sync => Self::Sync,
            DurabilityArg::Os => Self::Os,
        }
    }
}
