//! What can be attached and what cannot.

use bytes::Bytes;
use levada_plugin_host::Error;
use levada_protocol::{error::ErrorCode, limits};
use levada_stage::{Artefact, CallError, Inspected, Interface, Stage as _};

use crate::support::{Blocking as _, Seen, call, guest, hostile, payloads, spec, start};

#[test]
fn a_plugin_is_inspected_attached_and_called() {
    let host = start();
    let inspected = host.host.inspect_now(&hostile()).unwrap();
    assert_eq!(inspected.interface, Interface::Batch);
    let attachment = host.attach_hostile();
    assert_eq!(
        call(&attachment, payloads(&["a", "drop", "b"])),
        Ok(vec![Seen::Keep, Seen::Drop, Seen::Keep])
    );
    assert_eq!(attachment.interface(), Interface::Batch);
    let stats = attachment.stats();
    assert_eq!((stats.calls, stats.events, stats.errors), (1, 3, 0));
    assert!(stats.memory_bytes_peak > 0 && !stats.busy.is_zero());
}

#[test]
fn the_clock_is_the_calls_own() {
    let host = start();
    let attachment = host.attach_hostile();
    let now = String::from_utf8(7_777_u64.to_le_bytes().to_vec()).unwrap();
    assert_eq!(call(&attachment, payloads(&["clock"])), Ok(vec![Seen::payload(&now)]));
}

#[test]
fn what_is_no_component_is_refused() {
    let host = start();
    let core_module = b"\0asm\x01\0\0\0";
    let component = hostile();
    let bad: [(Bytes, &str); 4] = [
        (Bytes::new(), "not WebAssembly"),
        (Bytes::from_static(b"#!/bin/sh\necho hello\n"), "not WebAssembly"),
        (Bytes::from_static(core_module), "a core WebAssembly module"),
        (component.slice(..component.len() / 2), "out of bounds"),
    ];
    for (bytes, expected) in bad {
        let error = host.host.inspect_now(&bytes).unwrap_err();
        assert_eq!(error.code(), ErrorCode::PluginInvalid, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_component_of_another_purpose_is_refused_by_its_exports() {
    let error = start().host.inspect_now(&guest("tests/guests/no-export")).unwrap_err();
    assert_eq!(error.code(), ErrorCode::PluginExportMissing);
    assert!(error.to_string().contains("exports answer"), "{error}");
}

#[test]
fn an_import_that_nobody_grants_is_named() {
    let error = start().host.inspect_now(&guest("tests/guests/denied")).unwrap_err();
    assert_eq!(error.code(), ErrorCode::PluginImportDenied);
    assert!(error.to_string().contains("levada:denied/disk"), "{error}");
}

#[test]
fn imports_are_looked_at_before_anything_is_compiled() {
    // What follows the imports is missing: a compiler would say so first.
    let denied = guest("tests/guests/denied");
    let error = start().host.inspect_now(&denied.slice(..denied.len() * 3 / 4)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::PluginImportDenied, "{error}");
    assert!(error.to_string().contains("levada:denied/disk"), "{error}");
}

#[test]
fn artefacts_and_configurations_have_a_limit() {
    let host = start();
    let error = host.host.inspect_now(&vec![0; limits::ARTEFACT_BYTES_MAX + 1].into()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::PluginTooLarge);
    let at_limit = host.host.inspect_now(&vec![0; limits::ARTEFACT_BYTES_MAX].into()).unwrap_err();
    assert_eq!(at_limit.code(), ErrorCode::PluginInvalid);
    let attach = |bytes| host.host.attach_now(&Artefact::Bytes(hostile()), spec(&"x".repeat(bytes)));
    assert_eq!(attach(limits::PLUGIN_CONFIG_BYTES_MAX + 1).unwrap_err().code(), ErrorCode::InvalidArgument);
    assert!(attach(limits::PLUGIN_CONFIG_BYTES_MAX).is_ok());
}

#[test]
fn init_may_refuse_its_configuration() {
    let host = start();
    let attach = |config| host.host.attach_now(&Artefact::Bytes(hostile()), spec(config)).unwrap_err();
    let refused = attach("refuse");
    assert_eq!(refused.code(), ErrorCode::PluginInitRefused);
    assert!(refused.to_string().ends_with("the configuration is not to my taste"), "{refused}");
    let ticks = attach("tick");
    assert_eq!(ticks.code(), ErrorCode::PluginInitRefused);
    assert!(ticks.to_string().contains("serves no ticks"), "{ticks}");
}

#[test]
fn init_is_told_where_it_is() {
    let host = start();
    let refusal = host.host.attach_now(&Artefact::Bytes(hostile()), spec("attributes")).unwrap_err();
    let expected = "plugin=guest version=3 topic=orders attachment-point=route batch-layout=1";
    assert!(refusal.to_string().ends_with(expected), "{refusal}");
}

#[test]
fn an_init_that_misbehaves_is_stopped() {
    let host = start();
    let attach = |config| match host.host.attach_now(&Artefact::Bytes(hostile()), spec(config)) {
        Err(Error::InitFailed(error)) => error,
        other => panic!("{config}: {other:?}"),
    };
    assert_eq!(attach("loop"), CallError::Deadline);
    assert_eq!(attach("memory"), CallError::Memory);
    assert!(matches!(attach("trap"), CallError::Trap(said) if said.contains("init was asked to panic")));
    let mut tiny = spec("");
    tiny.memory_bytes_max = 64 << 10;
    let refused = host.host.attach_now(&Artefact::Bytes(hostile()), tiny).unwrap_err();
    assert!(matches!(refused, Error::InitFailed(CallError::Memory)), "{refused:?}");
}

#[test]
fn an_artefact_in_a_file_must_have_its_hash() {
    let host = start();
    let path = host.cache.path().join("artefact");
    std::fs::write(&path, hostile()).unwrap();
    let Inspected { sha256, .. } = start().host.inspect_now(&hostile()).unwrap();
    let wrong =
        host.host.attach_now(&Artefact::File { path: path.clone(), sha256: [7; 32] }, spec("")).unwrap_err();
    assert_eq!(wrong.code(), ErrorCode::StorageCorrupt);
    let attachment = host.host.attach_now(&Artefact::File { path, sha256 }, spec("")).unwrap();
    assert_eq!(call(&attachment, payloads(&["a"])), Ok(vec![Seen::Keep]));
}
