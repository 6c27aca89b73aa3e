//! The plugins: the versions of each, which one is active, and which numbers were given.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use levada_protocol::{error::ErrorCode, ids::PluginName};

use crate::{
    error::Error,
    rows::{PluginLineRecord, PluginRecord},
};

/// All plugins. Copies share everything until one of them changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plugins {
    lines: Arc<BTreeMap<PluginName, Line>>,
    versions: Arc<HashMap<u64, Arc<PluginRecord>>>,
}

/// The versions of one plugin; there may be none, if they were removed.
#[derive(Debug, Clone, Default)]
struct Line {
    versions: BTreeMap<u32, Arc<PluginRecord>>,
    /// What a chain runs that names the plugin without a version; 0 if there is no version.
    active: u32,
    /// The last number that was given: none is given twice.
    last: u32,
}

impl Plugins {
    /// Takes up a line that is stored.
    pub(crate) fn restore_line(&mut self, record: PluginLineRecord) {
        let line = Arc::make_mut(&mut self.lines).entry(record.name).or_default();
        (line.active, line.last) = (record.active, record.last);
    }

    /// Takes up a version that is stored.
    pub(crate) fn restore_version(&mut self, record: PluginRecord) {
        self.add(Arc::new(record));
    }

    fn add(&mut self, record: Arc<PluginRecord>) -> &mut Line {
        Arc::make_mut(&mut self.versions).insert(record.id, Arc::clone(&record));
        let line = Arc::make_mut(&mut self.lines).entry(record.name.clone()).or_default();
        line.versions.insert(record.version, record);
        line
    }

    /// Adds a new version and makes it the active one. Returns what is stored of the line.
    pub(crate) fn deploy(&mut self, record: PluginRecord) -> PluginLineRecord {
        let (name, version) = (record.name.clone(), record.version);
        let line = self.add(Arc::new(record));
        (line.active, line.last) = (version, line.last.max(version));
        line.record(&name)
    }

    /// Removes a version. If it was the active one, the newest that is left becomes active. Returns what is stored of
    /// the line, unless there is no such version.
    pub(crate) fn remove(&mut self, name: &PluginName, version: u32) -> Option<PluginLineRecord> {
        let line = Arc::make_mut(&mut self.lines).get_mut(name)?;
        let removed = line.versions.remove(&version)?;
        if line.active == version {
            line.active = line.versions.last_key_value().map_or(0, |(newest, _)| *newest);
        }
        let record = line.record(name);
        Arc::make_mut(&mut self.versions).remove(&removed.id);
        Some(record)
    }

    /// The last number that was given to a version of the plugin, 0 if none was.
    pub(crate) fn last_version(&self, name: &PluginName) -> u32 {
        self.lines.get(name).map_or(0, |line| line.last)
    }

    /// The versions of a plugin, oldest first.
    pub(crate) fn versions(&self, name: &PluginName) -> impl DoubleEndedIterator<Item = &Arc<PluginRecord>> {
        self.lines.get(name).into_iter().flat_map(|line| line.versions.values())
    }

    /// The version with this id.
    pub(crate) fn by_id(&self, id: u64) -> Option<&Arc<PluginRecord>> {
        self.versions.get(&id)
    }

    /// True if chains that name this version's plugin without a version run it.
    pub(crate) fn is_active(&self, record: &PluginRecord) -> bool {
        self.lines.get(&record.name).is_some_and(|line| line.active == record.version)
    }

    /// The version that `name` (the active one) or `name@version` means.
    ///
    /// # Errors
    /// `INVALID_NAME`, `INVALID_ARGUMENT` if it is no reference, `PLUGIN_NOT_FOUND`.
    pub(crate) fn resolve(&self, reference: &str) -> Result<&Arc<PluginRecord>, Error> {
        let not_found = |message| Error::refused(ErrorCode::PluginNotFound, message);
        let (name, version) = match reference.split_once('@') {
            None => (reference, None),
            Some((name, version)) => {
                let version = version.parse::<u32>().map_err(|_| {
                    let message = format!("plugin reference {reference:?}: expected name or name@version");
                    Error::refused(ErrorCode::InvalidArgument, message)
                })?;
                (name, Some(version))
            }
        };
        let name: PluginName = name.parse()?;
        let line = self.lines.get(&name);
        match version {
            None => line
                .and_then(|line| line.versions.get(&line.active))
                .ok_or_else(|| not_found(format!("there is no plugin {name}"))),
            Some(version) => line
                .and_then(|line| line.versions.get(&version))
                .ok_or_else(|| not_found(format!("plugin {name} has no version {version}"))),
        }
    }

    /// All versions in the order of names and numbers, from behind `after` on.
    pub(crate) fn after(
        &self,
        after: Option<(PluginName, u32)>,
    ) -> impl Iterator<Item = (&PluginName, &Arc<PluginRecord>)> {
        let from = after.as_ref().map(|(name, _)| name.clone());
        let lines = match from {
            Some(name) => self.lines.range(name..),
            None => self.lines.range::<PluginName, _>(..),
        };
        let all = lines.flat_map(|(name, line)| line.versions.values().map(move |record| (name, record)));
        all.filter(move |(name, record)| match &after {
            Some((of, version)) => *name != of || record.version > *version,
            None => true,
        })
    }

    /// How many versions there are.
    pub(crate) fn len(&self) -> usize {
        self.versions.len()
    }

    /// How many plugins have no version any more, and are remembered for their numbers alone.
    pub(crate) fn removed(&self) -> usize {
        self.lines.values().filter(|line| line.versions.is_empty()).count()
    }
}

impl Line {
    fn record(&self, name: &PluginName) -> PluginLineRecord {
        PluginLineRecord { name: name.clone(), active: self.active, last: self.last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(plugins: &mut Plugins, name: &str, id: u64) -> PluginLineRecord {
        let name: PluginName = name.parse().unwrap();
        let record = PluginRecord {
            id,
            name: name.clone(),
            version: plugins.last_version(&name) + 1,
            sha256: String::new(),
            size: 0,
            interface: String::new(),
            created_ms: 0,
            owner: String::new(),
        };
        plugins.deploy(record)
    }

    #[test]
    fn the_newest_version_is_active_and_the_one_before_it_once_that_is_removed() {
        let (mut plugins, name) = (Plugins::default(), "p".parse().unwrap());
        version(&mut plugins, "p", 1);
        version(&mut plugins, "p", 2);
        assert_eq!(plugins.resolve("p").unwrap().version, 2);
        assert_eq!(plugins.resolve("p@1").unwrap().id, 1);
        assert_eq!(plugins.remove(&name, 2).unwrap().active, 1);
        assert_eq!(plugins.resolve("p").unwrap().version, 1);
        let line = plugins.remove(&name, 1).unwrap();
        assert_eq!((line.active, line.last), (0, 2));
        assert_eq!(plugins.resolve("p").unwrap_err().code(), ErrorCode::PluginNotFound);
        assert_eq!(plugins.removed(), 1);
        assert_eq!(version(&mut plugins, "p", 3).last, 3, "no number is given twice");
        assert_eq!(plugins.removed(), 0);
    }

    #[test]
    fn pages_go_on_behind_a_version_that_is_gone() {
        let mut plugins = Plugins::default();
        for (id, name) in ["a", "b", "b", "c"].into_iter().enumerate() {
            version(&mut plugins, name, id as u64);
        }
        let ids = |after| plugins.after(after).map(|(_, record)| record.id).collect::<Vec<_>>();
        assert_eq!(ids(None), [0, 1, 2, 3]);
        assert_eq!(ids(Some(("b".parse().unwrap(), 1))), [2, 3]);
        assert_eq!(ids(Some(("b".parse().unwrap(), 7))), [3]);
        assert_eq!(ids(Some(("aa".parse().unwrap(), 1))), [1, 2, 3]);
    }

    #[test]
    fn which_version_is_active_is_what_is_stored() {
        let mut plugins = Plugins::default();
        version(&mut plugins, "p", 1);
        version(&mut plugins, "p", 2);
        plugins.restore_line(PluginLineRecord { name: "p".parse().unwrap(), active: 1, last: 5 });
        assert_eq!(plugins.resolve("p").unwrap().version, 1);
        assert!(plugins.is_active(&plugins.by_id(1).unwrap().clone()));
        assert!(!plugins.is_active(&plugins.by_id(2).unwrap().clone()));
        assert_eq!(plugins.last_version(&"p".parse().unwrap()), 5);
    }
}
