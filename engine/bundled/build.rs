//! Compiles the plugins that the binary carries, each to `OUT_DIR/NAME.wasm`.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};

const BUNDLED: [&str; 4] = ["json-filter", "json-project", "content-router", "sample"];

fn main() -> Result<()> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    let manifest_dir =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("cargo sets CARGO_MANIFEST_DIR")?);
    let plugins = manifest_dir.join("../../plugins");
    // TARGET_DIR/PROFILE/build/PACKAGE/out: one folder of guests for all builds of this target directory.
    let guests = out_dir.ancestors().nth(4).context("OUT_DIR lies in a target directory")?.join("guests");
    for name in BUNDLED {
        let component = levada_plugin_build::build_in_script(plugins.join(name), &guests)?;
        fs::copy(&component, out_dir.join(format!("{name}.wasm"))).context("copying a component")?;
    }
    Ok(())
}
