//! Compiled plugins on disk: used after a restart, never trusted blindly.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use levada_plugin_host::{Attachment, Error, Host};
use levada_stage::Artefact;
use tempfile::TempDir;

use crate::support::{Blocking as _, Seen, call, hostile, payloads, spec, start_in};

/// Attaches without an artefact to compile, which only a compiled form on disk can serve.
fn attach_from_cache(host: &Host, sha256: [u8; 32]) -> Result<Attachment, Error> {
    host.attach_now(&Artefact::File { path: "nowhere".into(), sha256 }, spec(""))
}

/// A folder with the compiled form of the hostile guest in it, that file, and the guest's hash.
fn compiled() -> (TempDir, PathBuf, [u8; 32]) {
    let dir = TempDir::new().unwrap();
    let sha256 = start_in(dir.path()).inspect_now(&hostile()).unwrap().sha256;
    let files = fs::read_dir(dir.path().join("compiled")).unwrap().map(|entry| entry.unwrap().path());
    let file = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "cwasm"))
        .collect::<Vec<_>>();
    assert_eq!(file.len(), 1);
    (dir, file[0].clone(), sha256)
}

/// Asserts that the compiled form is not used, and that the artefact itself still is.
fn assert_recompiled(dir: &Path, sha256: [u8; 32]) {
    let host = start_in(dir);
    assert!(matches!(attach_from_cache(&host, sha256), Err(Error::Io { .. })), "it was trusted");
    let attachment = host.attach_now(&Artefact::Bytes(hostile()), spec("")).unwrap();
    assert_eq!(call(&attachment, payloads(&["a"])), Ok(vec![Seen::Keep]));
    drop((attachment, host));
    assert!(attach_from_cache(&start_in(dir), sha256).is_ok(), "it was not stored again");
}

#[test]
fn a_restarted_host_finds_what_it_compiled() {
    let (dir, file, sha256) = compiled();
    let host = start_in(dir.path());
    let attachment = attach_from_cache(&host, sha256).unwrap();
    assert_eq!(call(&attachment, payloads(&["a", "drop"])), Ok(vec![Seen::Keep, Seen::Drop]));
    for private in [&file, &dir.path().join("compiled/key")] {
        assert_eq!(fs::metadata(private).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::metadata(dir.path().join("compiled")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_changed_file_is_compiled_again() {
    let (dir, file, sha256) = compiled();
    let good = fs::read(&file).unwrap();
    for at in [0, 8, 40, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, &bad).unwrap();
        assert_recompiled(dir.path(), sha256);
    }
    fs::write(&file, &good[..good.len() / 3]).unwrap();
    assert_recompiled(dir.path(), sha256);
    fs::write(&file, b"").unwrap();
    assert_recompiled(dir.path(), sha256);
}

#[test]
fn a_file_that_others_may_write_is_compiled_again() {
    let (dir, file, sha256) = compiled();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).unwrap();
    assert_recompiled(dir.path(), sha256);
}

#[test]
fn code_under_a_foreign_key_or_name_is_compiled_again() {
    let (dir, file, sha256) = compiled();
    let (other_dir, other_file, _) = compiled();
    fs::copy(&other_file, &file).unwrap();
    assert_recompiled(dir.path(), sha256);
    let renamed = other_file.to_str().unwrap().replacen(&hex(sha256), &hex([7; 32]), 1);
    fs::rename(&other_file, renamed).unwrap();
    let host = start_in(other_dir.path());
    assert!(matches!(attach_from_cache(&host, [7; 32]), Err(Error::Io { .. })));
}

#[test]
fn a_forgotten_plugin_and_another_engines_code_leave_no_file() {
    let (dir, file, sha256) = compiled();
    let foreign = file.with_file_name("00-0000000000000000.cwasm");
    fs::write(&foreign, "old").unwrap();
    let host = start_in(dir.path());
    assert!(!foreign.exists());
    assert!(file.exists());
    host.forget(sha256).unwrap();
    assert!(!file.exists());
    host.forget(sha256).unwrap();
}

fn hex(bytes: [u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
