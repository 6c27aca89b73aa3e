//! Generated from the plugin contract, and nothing else.
#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "the calling convention works on raw pointers")
)]
#![allow(missing_docs, reason = "wit/plugin.wit documents what is generated from it")]
#![allow(clippy::all, unused_qualifications, unreachable_pub, reason = "generated code")]

wit_bindgen::generate!({
    world: "batch-plugin",
    path: "../../../sdk/plugin/wit",
});

#[cfg(target_arch = "wasm32")]
use super::Hostile;
#[cfg(target_arch = "wasm32")]
export!(Hostile);
