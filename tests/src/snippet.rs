//! The README's Rust snippet as a program.
#![expect(clippy::print_stdout, reason = "it is what users copy")]

include!(concat!(env!("OUT_DIR"), "/snippet.rs"));
