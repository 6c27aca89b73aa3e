//! Generated from a world that has nothing to do with plugins, and nothing else.
#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "the calling convention works on raw pointers")
)]
#![allow(missing_docs, reason = "generated code")]
#![allow(clippy::all, unused_qualifications, unreachable_pub, reason = "generated code")]

wit_bindgen::generate!({
    inline: "
        package levada:unrelated;

        world unrelated {
            export answer: func() -> u32;
        }
    ",
});

#[cfg(target_arch = "wasm32")]
use super::Unrelated;
#[cfg(target_arch = "wasm32")]
export!(Unrelated);
