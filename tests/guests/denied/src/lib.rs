//! A plugin that imports what no engine grants.

pub mod bindings;

use bindings::{
    exports::levada::plugin::batch::{Failure, Guest, Interest, Setup},
    levada::{denied::disk, plugin::types::HeaderInterest},
};

/// The component.
#[derive(Debug)]
pub struct Denied;

impl Guest for Denied {
    fn init(_: Setup) -> Result<Interest, String> {
        disk::erase();
        Ok(Interest { key: true, headers: HeaderInterest::All, payload: true, tick_ms: None })
    }

    fn process(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
        Ok(Vec::new())
    }
}
