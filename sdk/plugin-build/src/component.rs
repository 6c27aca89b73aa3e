//! From a core module with the types of its WIT world in a custom section to a component.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use wit_component::ComponentEncoder;

/// Writes `module` as a component to `component`, unless that is already there.
pub(crate) fn encode(module: &Path, component: &Path) -> Result<()> {
    let module = fs::read(module).context("reading the module")?;
    let bytes = ComponentEncoder::default().module(&module)?.validate(true).encode()?;
    if fs::read(component).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    let unfinished = component.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&unfinished, &bytes).context("writing the component")?;
    fs::rename(&unfinished, component).context("naming the component")
}
