//! Builds a plugin crate to a WebAssembly component: cargo for `wasm32-unknown-unknown`, then wit-component.
//!
//! Used from build scripts ([`build_in_script`]) and from tests ([`build`]). It must not know the engine: what it
//! makes is a file.
//!
//! The guest is compiled with the profile `guest`, which its workspace defines, with SIMD on and a stack of
//! 128 KiB. The build goes to a target folder of its own: cargo locks a target folder while it builds, and a build
//! script runs inside such a build.

mod cargo;
mod component;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Builds the guest crate in `crate_dir` and returns where the component is: a file in `target_dir` that is only
/// rewritten when it changes.
///
/// Uses the cargo that runs this process (`CARGO`), or the one in the path. Needs no network once the workspace's
/// dependencies were fetched. Builds into one `target_dir` wait for each other.
///
/// # Errors
/// If the crate does not compile, or what it compiles to does not fit the WIT world that it was generated from;
/// the compiler's messages are in the error.
pub fn build(crate_dir: impl AsRef<Path>, target_dir: impl AsRef<Path>) -> Result<PathBuf> {
    Ok(build_guest(crate_dir.as_ref(), target_dir.as_ref())?.component)
}

/// [`build`] for a build script: also tells cargo which files the component depends on.
///
/// # Errors
/// As [`build`].
#[expect(clippy::print_stdout, reason = "this is how a build script talks to cargo")]
pub fn build_in_script(crate_dir: impl AsRef<Path>, target_dir: impl AsRef<Path>) -> Result<PathBuf> {
    let guest = build_guest(crate_dir.as_ref(), target_dir.as_ref())?;
    for source in &guest.sources {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    Ok(guest.component)
}

/// A component and what it was made of.
struct Guest {
    component: PathBuf,
    sources: Vec<PathBuf>,
}

fn build_guest(crate_dir: &Path, target_dir: &Path) -> Result<Guest> {
    let manifest = crate_dir.join("Cargo.toml");
    let module = cargo::build(&manifest, target_dir)
        .with_context(|| format!("building the guest crate {}", crate_dir.display()))?;
    let component = module.with_extension("component.wasm");
    component::encode(&module, &component)
        .with_context(|| format!("making {} a component", module.display()))?;
    let mut sources = cargo::sources(&module)?;
    sources.push(manifest);
    Ok(Guest { component, sources })
}
