//! The storage of the engine's state: commits go in, rows come out, and a sync says what a power cut can no longer
//! take back.
//!
//! This crate is the only one that knows RocksDB. It must not know what rows mean (except the log's own
//! value, whose layout it owns), who asks, or what time it is: every time in it came in with a commit.
//!
//! # The data directory
//! ```text
//! format      text, one line: which format the directory has            written once
//! superblock  what must exist: the last durable commit, the manifest    rewritten after every sync
//! ballast     room that is given up to recover on a full disk           grows with what is in no file yet
//! db/         RocksDB, one column family per `Family`                   RocksDB's own LOCK guards it
//! ```
//!
//! # Families
//! One row per kind of key. Every value begins with a format version byte.
//!
//! | family | number | key | value | written by | goes |
//! | --- | --- | --- | --- | --- | --- |
//! | `Meta` | 0 | `applied` | [`commit::AppliedRow`] | the store, in every commit | never |
//! | `Meta` | 0 | any other | the broker's | the writer | with what it belongs to |
//! | `Catalogue` | 1 | the broker's | the broker's | the writer | with its topic, subscription, plugin or route |
//! | `Log` | 2 | [`record::LogKey`], 14 bytes | a record, [`record`] | the writer, once | by range delete when retention passes |
//! | `Cursors` | 3 | the broker's | the broker's | the writer | with its subscription or route |
//! | `Producers` | 4 | the broker's | the broker's | the writer | after seven idle days |
//! | `Dedup` | 5 | the broker's | the broker's | the writer | when its window passes |
//! | `Schedule` | 6 | the broker's | the broker's | the writer | when due or cancelled |
//! | `Prepared` | 7 | the broker's | the broker's | the writer | some time after its decision, see the broker's rows |
//! | `PluginState` | 8 | the broker's | the broker's | the writer | with its route or subscription |
//! | `Side` | 9 | the broker's | the broker's | the writer | with its subscription |

pub mod commit;
pub mod store;

mod follow;
pub mod record;

pub mod conformance;
pub mod memory;
pub mod rocks;

mod error;

pub use commit::{Commit, Family, Op};
pub use error::Error;
pub use memory::MemoryStore;
pub use rocks::{BareStore, Inspect, LogOptions, RocksOptions, RocksStore, Uninspected};
pub use store::{Deleted, ScanLimit, Store, StoreStats};
