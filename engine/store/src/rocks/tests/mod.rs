//! The store on a real disk.

use crate::{RocksOptions, RocksStore, conformance};

#[test]
fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run(&|name| std::sync::Arc::new(RocksStore::open(dir.path().join(name), RocksOptions::default()).unwrap()));
}
