//! First start, restart, expiry, foreign files, damage, and who may read what.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// 2026-01-01T00:00:00Z.
const NOW: Timestamp = Timestamp(1_767_225_600_000);

fn later(days: u64) -> Timestamp {
    Timestamp(NOW.0 + days * 86_400_000)
}

struct Place {
    _dir: tempfile::TempDir,
    files: TlsFiles,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let files = TlsFiles::new(dir.path());
    Place { _dir: dir, files }
}

impl Place {
    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.files.path(name)).unwrap()
    }
}

#[test]
fn keys_are_for_their_owner_alone() {
    let place = place();
    prepare(&place.files, NOW).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.files.dir), 0o700);
    for name in ["ca.key", "server.key", "reset.key"] {
        assert_eq!(mode(&place.files.path(name)), 0o600, "{name}");
    }
}

#[test]
fn a_restart_changes_nothing() {
    let place = place();
    let first = prepare(&place.files, NOW).unwrap();
    let names = ["ca.pem", "ca.key", "server.pem", "server.key", "reset.key"];
    let before = names.map(|name| place.read(name));
    let second = prepare(&place.files, later(30)).unwrap();
    assert_eq!(names.map(|name| place.read(name)), before);
    assert_eq!(first.connection_id_key, second.connection_id_key);
    let signed = |identity: &Identity| ring::hmac::sign(&identity.reset_key, b"id").as_ref().to_vec();
    assert_eq!(signed(&first), signed(&second));
}

#[test]
fn a_certificate_near_its_end_is_renewed_by_the_same_ca() {
    for days in [SERVER_LIFETIME.as_secs() / 86_400 - 30, 1_000] {
        let place = place();
        prepare(&place.files, NOW).unwrap();
        let (ca, old) = (place.read("ca.pem"), place.read("server.pem"));
        prepare(&place.files, later(days)).unwrap();
        assert_eq!(place.read("ca.pem"), ca);
        assert_ne!(place.read("server.pem"), old);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        assert!(is_good(&place.files, &place.read("server.pem"), &ca, later(days), &provider).unwrap());
    }
}

#[test]
fn a_certificate_of_another_ca_is_replaced() {
    let (ours, other) = (place(), place());
    prepare(&ours.files, NOW).unwrap();
    prepare(&other.files, NOW).unwrap();
    fs::write(ours.files.path("server.pem"), other.read("server.pem")).unwrap();
    prepare(&ours.files, NOW).unwrap();
    assert_ne!(ours.read("server.pem"), other.read("server.pem"));
}

#[test]
fn a_crash_between_key_and_certificate_is_repaired() {
    let place = place();
    prepare(&place.files, NOW).unwrap();
    fs::remove_file(place.files.path("server.pem")).unwrap();
    prepare(&place.files, NOW).unwrap();
    assert!(place.files.path("server.pem").exists());
}

#[test]
fn files_of_somebody_else_are_used_as_they_are() {
    let place = place();
    prepare(&place.files, NOW).unwrap();
    fs::remove_file(place.files.path("ca.key")).unwrap();
    let before = place.read("server.pem");
    prepare(&place.files, later(5_000)).unwrap();
    assert_eq!(place.read("server.pem"), before);
}

#[test]
fn damage_is_named_with_its_file() {
    for name in ["server.pem", "server.key", "reset.key", "ca.pem"] {
        let place = place();
        prepare(&place.files, NOW).unwrap();
        fs::write(place.files.path(name), b"nothing of use").unwrap();
        let error = prepare(&place.files, NOW).err().unwrap();
        assert_eq!(error.code(), ErrorCode::TlsFailed);
        assert!(error.to_string().contains(name), "{error}");
    }
}
