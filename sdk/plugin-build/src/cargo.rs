//! Running cargo inside cargo.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// The target that guests are compiled for: no WASI, so that nothing is imported but what the WIT world names.
const TARGET: &str = "wasm32-unknown-unknown";
/// SIMD makes scanning bytes several times faster; a small stack halves the time that an instance takes to make.
const RUSTFLAGS: [&str; 2] = ["-Ctarget-feature=+simd128", "-Clink-arg=-zstack-size=131072"];
/// What an outer cargo leaves in the environment that would change what the inner one does.
const FOREIGN: [&str; 9] = [
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_TARGET_DIR",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
];

/// Compiles the package of `manifest` and returns where the core module is.
pub(crate) fn build(manifest: &Path, target_dir: &Path) -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    for name in FOREIGN {
        command.env_remove(name);
    }
    command
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\u{1f}"))
        .args(["build", "--lib", "--profile", "guest", "--target", TARGET])
        .args(["--message-format", "json-render-diagnostics", "--quiet"])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(target_dir)
        .stdin(Stdio::null());
    let output = command.output().context("starting cargo")?;
    if !output.status.success() {
        bail!("cargo: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let messages = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
    module_of(&messages, manifest)?
        .context("the crate has no library of crate-type \"cdylib\", so there is no WebAssembly module")
}

/// Finds the module among cargo's messages.
fn module_of(messages: &str, manifest: &Path) -> Result<Option<PathBuf>> {
    let manifest = fs::canonicalize(manifest).context("reading the manifest's path")?;
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let text = |field: &str| message.get(field).and_then(serde_json::Value::as_str);
        if text("reason") != Some("compiler-artifact")
            || text("manifest_path").map(Path::new) != Some(&*manifest)
        {
            continue;
        }
        let files = message.get("filenames").and_then(serde_json::Value::as_array).into_iter().flatten();
        let module = files.filter_map(serde_json::Value::as_str).find(|file| file.ends_with(".wasm"));
        if let Some(module) = module {
            return Ok(Some(PathBuf::from(module)));
        }
    }
    Ok(None)
}

/// The local files that `module` was compiled from, as cargo noted them beside it.
pub(crate) fn sources(module: &Path) -> Result<Vec<PathBuf>> {
    let notes = module.with_extension("d");
    let text = fs::read_to_string(&notes).with_context(|| format!("reading {}", notes.display()))?;
    let (_, files) = text.split_once(": ").unwrap_or_default();
    // A space in a path is written with a backslash before it.
    let files = files.trim_end().replace("\\ ", "\0");
    Ok(files.split(' ').filter(|file| !file.is_empty()).map(|file| file.replace('\0', " ").into()).collect())
}
