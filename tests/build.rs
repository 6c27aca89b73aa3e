//! Makes a program of the README's Rust snippet, and functions of the client's doc examples, so that the tests run what users
//! copy.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

const README: &str = "../README.md";
const CLIENT: &str = "../sdk/client/src";

fn main() {
    snippet();
    doc_examples();
}

fn snippet() {
    // Cargo runs this in the folder of the package. Where that was when this was compiled says nothing: several clones may
    // share one build folder.
    println!("cargo::rerun-if-changed={README}");
    let text = fs::read_to_string(README).expect("the README can be read");
    let (_, rest) = text.split_once("```rust\n").expect("the README has a Rust snippet");
    let (snippet, _) = rest.split_once("```").expect("the snippet ends");
    let fixed = "\"127.0.0.1:7600\"";
    assert!(snippet.contains(fixed), "the snippet names an engine's address");
    // The tests' engines listen on ports that happen to be free.
    let free = snippet
        .replace(fixed, "std::env::var(\"LEVADA_ADDR\").expect(\"the test says where its engine is\")");
    write("snippet.rs", &free);
}

/// A module for each example of the client's documentation, named after its file, `NAMES` of all of them.
fn doc_examples() {
    println!("cargo::rerun-if-changed={CLIENT}");
    let (mut modules, mut counts, mut names) = (String::new(), BTreeMap::new(), Vec::new());
    for file in files(Path::new(CLIENT)) {
        let text = fs::read_to_string(&file).expect("the client's source can be read");
        let lines = text.lines().map(str::trim_start).map(doc_line);
        let (mut example, mut inside) = (String::new(), false);
        for line in lines {
            match line {
                Some("```no_run") => inside = true,
                Some("```") if std::mem::replace(&mut inside, false) => {
                    let stem = stem(&file);
                    let count = counts.entry(stem.clone()).and_modify(|count| *count += 1).or_insert(1);
                    let (name, code) =
                        (format!("{stem}_{count}"), as_function(&std::mem::take(&mut example)));
                    writeln!(modules, "pub(super) mod {name} {{\n{code}\n}}").expect("a string takes text");
                    names.push(name);
                }
                // One of neither runs by itself, as a doc test.
                Some(fence) if fence.len() > 3 && fence.starts_with("```") => {
                    panic!("{}: an example begins with ``` or ```no_run, got {fence}", file.display())
                }
                Some(line) if inside => {
                    let shown = line.strip_prefix("# ").unwrap_or(line);
                    writeln!(example, "{shown}").expect("a string takes text");
                }
                _ => {}
            }
        }
    }
    let all = format!("pub(super) const NAMES: &[&str] = &{names:?};\n{modules}");
    write("doc_examples.rs", &all);
}

fn doc_line(line: &str) -> Option<&str> {
    let text = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))?;
    Some(text.strip_prefix(' ').unwrap_or(text))
}

/// The code of an example, whose function the tests call, on the engine that they say.
fn as_function(code: &str) -> String {
    code.replace("async fn ", "pub(in super::super) async fn ")
        .replace("\"localhost:7600\"", "super::super::address()")
        .replace("\"levada-data/tls/ca.pem\"", "super::super::ca_file()")
}

fn stem(file: &Path) -> String {
    let stem = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    let own = stem(file).filter(|stem| stem != "mod");
    own.or_else(|| stem(file.parent()?)).expect("a source file has a name")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the client's source is there");
    let mut all: Vec<PathBuf> =
        entries.map(|entry| entry.expect("the client's source can be listed").path()).collect();
    all.sort();
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    all.into_iter().flat_map(below).filter(|path| path.extension().is_some_and(|it| it == "rs")).collect()
}

fn write(name: &str, text: &str) {
    let to = Path::new(&env::var("OUT_DIR").expect("cargo says where to build")).join(name);
    fs::write(to, text).expect("the build folder can be written");
}
