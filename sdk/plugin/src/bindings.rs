//! Generated from `wit/plugin.wit`, and nothing else: the world of plugins that work on batch bytes.
#![allow(missing_docs, reason = "wit/plugin.wit documents what is generated from it")]
#![allow(clippy::all, unused_qualifications, unreachable_pub, reason = "generated code")]

wit_bindgen::generate!({
    world: "batch-plugin",
    path: "wit",
    pub_export_macro: true,
    export_macro_name: "export_batch_plugin",
    default_bindings_module: "levada_plugin::bindings",
});
