//! Makes a program of the README's Rust snippet, so that the tests run what users copy.

use std::{env, fs, path::Path};

const README: &str = "../README.md";

fn main() {
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
    let to = Path::new(&env::var("OUT_DIR").expect("cargo says where to build")).join("snippet.rs");
    fs::write(to, free).expect("the build folder can be written");
}
