//! Generated from the plugin contract with one import more, and nothing else.
#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "the calling convention works on raw pointers")
)]
#![allow(missing_docs, reason = "wit/plugin.wit documents what is generated from it")]
#![allow(clippy::all, unused_qualifications, unreachable_pub, reason = "generated code")]

wit_bindgen::generate!({
    path: "../../../sdk/plugin/wit",
    inline: "
        package levada:denied;

        interface disk {
            erase: func();
        }

        world denied {
            import disk;
            include levada:plugin/batch-plugin@0.1.0;
        }
    ",
    world: "levada:denied/denied",
    generate_all,
});

#[cfg(target_arch = "wasm32")]
use super::Denied;
#[cfg(target_arch = "wasm32")]
export!(Denied);
