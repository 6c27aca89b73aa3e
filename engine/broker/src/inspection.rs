//! Reading everything that a start reads, before anything is written: a start that would be refused must be refused
//! while nothing was changed yet.

use std::path::{Path, PathBuf};

use levada_protocol::ids::TopicId;
use levada_store::Store;

use crate::{
    artefacts::Artefacts,
    error::Error,
    rows::{self, TopicRecord},
    shard,
};

/// Looks at the state in a store, and at the files beside it, as a start will find them.
#[derive(Debug, Clone)]
pub struct Inspection {
    data_dir: PathBuf,
}

impl Inspection {
    /// For a store in this data directory.
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }

    /// Reads the catalogue, every partition's end, and the artefacts of plugins. It takes reads of the store alone.
    ///
    /// # Errors
    /// If something of it is damaged or missing, by its name.
    pub fn inspect(&self, store: &dyn Store) -> Result<(), Error> {
        let catalogue = shard::inspect(store)?;
        Artefacts::check(&self.data_dir, catalogue.plugins.after(None).map(|(_, record)| record.as_ref()))
    }

    /// A topic's name, if its row can be read.
    pub fn topic_name(&self, store: &dyn Store, topic: TopicId) -> Option<String> {
        Some(rows::get::<TopicRecord>(store, &topic).ok()??.name.to_string())
    }
}
