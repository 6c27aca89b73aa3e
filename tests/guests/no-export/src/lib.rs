//! A component that is no plugin: it exports something, but neither of the plugin interfaces.

pub mod bindings;

/// The component.
#[derive(Debug)]
pub struct Unrelated;

impl bindings::Guest for Unrelated {
    fn answer() -> u32 {
        42
    }
}
