//! What a machine can check of the house rules: who may depend on whom, and what every file looks like.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::support::package;

const LINES_MAX: usize = 800;

pub(crate) fn root() -> PathBuf {
    package().join("..").canonicalize().unwrap()
}

/// Files with this ending below a folder, build output and git's own left out.
pub(crate) fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                found.extend(files(&path, ending));
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// A package: where it lies, and what it depends on outside of its tests.
struct Package {
    folder: String,
    dependencies: Vec<String>,
}

/// All packages by name.
fn packages() -> BTreeMap<String, Package> {
    let root = root();
    let mut packages = BTreeMap::new();
    for path in files(&root, "Cargo.toml") {
        let manifest: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        let Some(name) = manifest.get("package").and_then(|package| package["name"].as_str()) else {
            continue;
        };
        let names = |table: Option<&toml::Value>| -> Vec<String> {
            let table = table.and_then(toml::Value::as_table);
            table.into_iter().flat_map(|table| table.keys().cloned()).collect()
        };
        let mut dependencies = names(manifest.get("dependencies"));
        for target in manifest.get("target").and_then(toml::Value::as_table).into_iter().flatten() {
            dependencies.extend(names(target.1.get("dependencies")));
        }
        let folder = path.parent().unwrap().strip_prefix(&root).unwrap().display().to_string();
        packages.insert(name.to_owned(), Package { folder, dependencies });
    }
    packages
}

/// The engine's layers, top down: each may depend on those named, and on nothing else of ours.
const LAYERS: [(&str, &[&str]); 19] = [
    (
        "levada-engine",
        &[
            "levada-bench",
            "levada-demo",
            "levada-bundled",
            "levada-terminal",
            "levada-server",
            "levada-client",
            "levada-json",
            "levada-protocol",
        ],
    ),
    (
        "levada-bench",
        &[
            "levada-rig",
            "levada-bundled",
            "levada-terminal",
            "levada-server",
            "levada-store",
            "levada-client",
            "levada-protocol",
        ],
    ),
    ("levada-demo", &["levada-rig", "levada-bundled", "levada-terminal", "levada-client", "levada-protocol"]),
    ("levada-rig", &["levada-terminal", "levada-client", "levada-protocol"]),
    ("levada-bundled", &["levada-client", "levada-protocol"]),
    ("levada-terminal", &["levada-client", "levada-json", "levada-protocol"]),
    ("levada-json", &["levada-protocol"]),
    ("levada-cloudevents", &["levada-json", "levada-protocol"]),
    (
        "levada-server",
        &[
            "levada-gateway",
            "levada-webhook",
            "levada-broker",
            "levada-plugin-host",
            "levada-store",
            "levada-protocol",
        ],
    ),
    ("levada-webhook", &["levada-broker", "levada-cloudevents", "levada-protocol"]),
    ("levada-gateway", &["levada-broker", "levada-cloudevents", "levada-json", "levada-protocol"]),
    (
        "levada-broker",
        &[
            "levada-chain",
            "levada-stage",
            "levada-delivery",
            "levada-store",
            "levada-expression",
            "levada-json",
            "levada-protocol",
        ],
    ),
    ("levada-chain", &["levada-stage", "levada-protocol"]),
    ("levada-plugin-host", &["levada-stage", "levada-protocol"]),
    ("levada-stage", &["levada-protocol"]),
    ("levada-store", &["levada-protocol"]),
    ("levada-delivery", &["levada-protocol"]),
    ("levada-client", &["levada-protocol"]),
    ("levada-expression", &["levada-protocol"]),
];

#[test]
fn every_stored_row_has_its_bytes_and_its_round_trip_tested() {
    let rows: Vec<_> = files(&root().join("engine/broker/src/rows"), ".rs")
        .into_iter()
        .map(|path| (fs::read_to_string(&path).unwrap(), path))
        .filter(|(text, _)| text.contains("\nimpl Row for ") || text.contains("\nimpl Record for "))
        .collect();
    assert!(rows.len() >= 15, "the rows were found");
    for (text, path) in rows {
        for test in ["fn the_bytes_are_these()", "fn it_comes_back("] {
            assert!(text.contains(test), "{} has no test `{test}`", path.display());
        }
    }
}

/// Fields of messages whose values have a type of their own.
const TYPED: [&str; 8] =
    ["name", "topic", "subscription", "from", "state", "durability", "interface", "paused"];

#[test]
fn names_and_states_in_messages_are_typed() {
    let messages = files(&root().join("sdk/protocol/src/request"), ".rs");
    assert!(messages.len() >= 8, "the messages were found");
    for path in messages {
        for line in fs::read_to_string(&path).unwrap().lines() {
            let Some((field, kind)) = line.trim().trim_start_matches("pub ").split_once(": ") else {
                continue;
            };
            assert!(
                !TYPED.contains(&field) || !kind.contains("String"),
                "{}: `{}` is a text, expected a type of its own",
                path.display(),
                line.trim()
            );
        }
    }
}

#[test]
fn layers_depend_downwards_alone() {
    let packages = packages();
    assert!(packages.len() >= 12, "the manifests were found");
    for (name, below) in LAYERS {
        for dependency in packages[name].dependencies.iter().filter(|it| it.starts_with("levada-")) {
            assert!(
                below.contains(&dependency.as_str()),
                "{name} depends on {dependency}, it may on {below:?}"
            );
        }
    }
    let of_protocol = &packages["levada-protocol"].dependencies;
    assert!(!of_protocol.iter().any(|it| it.starts_with("levada-")), "{of_protocol:?}");
}

#[test]
fn nothing_in_sdk_plugins_and_examples_knows_the_engine() {
    let packages = packages();
    let of_engine: Vec<&String> = packages
        .iter()
        .filter(|(_, package)| package.folder.starts_with("engine/"))
        .map(|(name, _)| name)
        .collect();
    assert!(of_engine.len() >= 6);
    for (name, package) in &packages {
        if ["sdk/", "plugins/", "examples", "tests/guests/"].iter().any(|it| package.folder.starts_with(it)) {
            for dependency in &package.dependencies {
                assert!(!of_engine.contains(&dependency), "{name} depends on {dependency}");
            }
        }
    }
}

#[test]
fn each_large_thing_is_known_to_one_crate() {
    let packages = packages();
    for (thing, allowed) in [
        ("rocksdb", &["levada-store"][..]),
        ("wasmtime", &["levada-plugin-host"]),
        ("axum", &["levada-server", "levada-gateway"]),
        ("rusqlite", &["levada-examples", "levada-tests"]),
        ("quinn", &["levada-server", "levada-client", "levada-bench"]),
    ] {
        for (name, package) in &packages {
            let knows = package.dependencies.iter().any(|it| it == thing);
            assert!(!knows || allowed.contains(&name.as_str()), "{name} depends on {thing}");
        }
    }
}

#[test]
fn protocol_expression_and_delivery_see_neither_tokio_nor_a_clock() {
    let packages = packages();
    for name in ["levada-protocol", "levada-expression", "levada-delivery"] {
        let package = &packages[name];
        for absent in ["tokio", "tokio-util", "quinn", "humantime", "jiff"] {
            assert!(!package.dependencies.iter().any(|it| it == absent), "{name} depends on {absent}");
        }
        for file in files(&root().join(&package.folder).join("src"), ".rs") {
            let text = fs::read_to_string(&file).unwrap();
            for absent in ["SystemTime", "Instant::now", "std::fs", "std::net", "std::thread"] {
                assert!(!text.contains(absent), "{} names {absent}", file.display());
            }
        }
    }
}

#[test]
fn every_source_file_begins_with_what_it_is() {
    for file in files(&root(), ".rs") {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! "), "{} does not begin with `//! `", file.display());
    }
}

#[test]
fn every_source_file_is_short_and_clean() {
    for file in [".rs", ".toml", ".md", ".wit"].iter().flat_map(|ending| files(&root(), ending)) {
        let (name, text) = (file.display(), fs::read_to_string(&file).unwrap());
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX || !name.to_string().ends_with(".rs"), "{name} has {lines} lines");
        for (number, line) in (1..).zip(text.lines()) {
            assert_eq!(line.trim_end(), line, "{name}:{number} ends with a space");
            assert!(!line.contains('\t'), "{name}:{number} has a tab");
        }
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{name} ends with one line end");
    }
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["todo".to_uppercase(), "fixme".to_uppercase(), "xxx:".to_uppercase()];
    for file in files(&root(), ".rs") {
        let text = fs::read_to_string(&file).unwrap();
        for word in &words {
            assert!(!text.contains(word.as_str()), "{} says {word}", file.display());
        }
        assert!(
            !text.contains(&["#[", "ignore"].concat()),
            "{} has a test that does not run",
            file.display()
        );
    }
}

#[test]
fn no_program_knows_where_its_source_was_when_it_was_compiled() {
    let compiled_in = ["env!(\"CARGO_MANIFEST", "_DIR\")"].concat();
    for file in files(&root(), ".rs") {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            !text.contains(&compiled_in),
            "{} has {compiled_in}: clones share a build folder",
            file.display()
        );
    }
}
