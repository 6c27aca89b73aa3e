//! First start, restart, expiry, foreign files, damage, and who may read what.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use levada_protocol::error::ErrorCode;

use super::*;
use crate::{
    config::TlsConfig,
    tests::issuer::{self, OtherCa, dns, uri},
};

/// 2026-01-01T00:00:00Z.
const NOW: Timestamp = Timestamp(1_767_225_600_000);

fn later(days: u64) -> Timestamp {
    Timestamp(NOW.0 + days * 86_400_000)
}

struct Place {
    dir: tempfile::TempDir,
    files: TlsFiles,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let files = TlsFiles::new(dir.path(), &TlsConfig::default());
    Place { dir, files }
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
    assert_eq!(mode(place.files.ca_pem().parent().unwrap()), 0o700);
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

fn chain(place: &Place, name: &str) -> Vec<CertificateDer<'static>> {
    place.files.certificates(&place.files.path(name), &place.read(name)).unwrap()
}

/// Whether clients that have this CA trust this certificate; they check its dates themselves.
fn trusts(ca: &[u8], server: &[u8], now: Timestamp) -> bool {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    is_good(&TlsFiles::new(Path::new("nowhere"), &TlsConfig::default()), server, ca, now, &provider).unwrap()
}

#[test]
fn a_ca_near_its_end_is_renewed_so_that_old_copies_stay_good_until_they_end() {
    let place = place();
    prepare(&place.files, NOW).unwrap();
    let (old_ca, old_server) = (place.read("ca.pem"), place.read("server.pem"));
    let early = later(3_650 - 366);
    let identity = prepare(&place.files, early).unwrap();
    assert_eq!((place.read("ca.pem"), identity.concerns), (old_ca.clone(), Vec::new()));

    let due = later(3_650 - 364);
    let identity = prepare(&place.files, due).unwrap();
    let renewed = chain(&place, "ca.pem");
    assert_eq!(renewed.len(), 2, "the new one, and the old one behind it");
    assert_eq!(renewed[1..], place.files.certificates(Path::new("old"), &old_ca).unwrap());
    assert!(!dates::Dates::read(&renewed[0]).unwrap().has_ended(due, authority::ms(DAY * 3_649)));
    let server = place.read("server.pem");
    assert_ne!(server, old_server);
    assert!(trusts(&old_ca, &server, due) && trusts(&place.read("ca.pem"), &server, due));
    let said = format!("{:?}", identity.concerns);
    assert!(said.contains("OldCopies") && said.contains("2035-12-30 00:00 UTC"), "{said}");

    let after = prepare(&place.files, later(3_651)).unwrap();
    assert_eq!(after.concerns, [], "no copy that is left can be good");
    assert_eq!(chain(&place, "ca.pem"), renewed);
}

#[test]
fn a_ca_that_expired_while_nobody_looked_is_renewed_alone() {
    let place = place();
    prepare(&place.files, NOW).unwrap();
    let (old_ca, key) = (place.read("ca.pem"), place.read("ca.key"));
    let identity = prepare(&place.files, later(5_000)).unwrap();
    assert_eq!((chain(&place, "ca.pem").len(), identity.concerns), (1, Vec::new()));
    assert_ne!(place.read("ca.pem"), old_ca);
    assert_eq!(place.read("ca.key"), key);
    assert!(trusts(&place.read("ca.pem"), &place.read("server.pem"), later(5_000)));
}

#[test]
fn a_ca_made_while_the_clock_ran_ahead_is_renewed_as_one_that_expired_is() {
    let place = place();
    prepare(&place.files, later(3_650)).unwrap();
    let (early_ca, key) = (place.read("ca.pem"), place.read("ca.key"));
    let identity = prepare(&place.files, NOW).unwrap();
    let (ca, server) = (place.read("ca.pem"), place.read("server.pem"));
    assert_eq!((chain(&place, "ca.pem").len(), identity.concerns), (1, Vec::new()));
    assert!(dates::Dates::read(&chain(&place, "ca.pem")[0]).unwrap().has_begun(NOW));
    assert_eq!(place.read("ca.key"), key, "who holds the other certificate need not fetch a key");
    assert!(trusts(&ca, &server, NOW));
    assert!(trusts(&early_ca, &server, NOW), "same name and key");
    prepare(&place.files, later(1)).unwrap();
    assert_eq!((place.read("ca.pem"), place.read("server.pem")), (ca, server), "once is enough");
}

#[test]
fn a_ca_renewed_while_the_clock_ran_ahead_is_renewed_again() {
    let place = place();
    prepare(&place.files, NOW).unwrap();
    prepare(&place.files, later(3_600)).unwrap();
    prepare(&place.files, later(30)).unwrap();
    let ca = chain(&place, "ca.pem");
    assert!(dates::Dates::read(&ca[0]).unwrap().has_begun(later(30)));
    assert!(trusts(&place.read("ca.pem"), &place.read("server.pem"), later(30)));
}

#[test]
fn a_ca_of_somebody_else_is_never_renewed_and_its_end_is_announced() {
    let place = place();
    prepare(&place.files, NOW).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut company = params(NOW, DAY * 1_000);
    company.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    company.distinguished_name.push(DnType::CommonName, "Company CA");
    let pem = company.self_signed(&key).unwrap().pem();
    fs::write(place.files.ca_pem(), &pem).unwrap();
    fs::write(place.files.path("ca.key"), key.serialize_pem()).unwrap();
    for (days, kind) in [(900, "[]"), (990, "EndsSoon"), (1_001, "Ended")] {
        let identity = prepare(&place.files, later(days)).unwrap();
        let said = format!("{:?}", identity.concerns);
        assert!(said.contains(kind), "{days}: {said}");
        assert_eq!(place.read("ca.pem"), pem.as_bytes());
    }
}

#[test]
fn a_ca_key_of_another_ca_is_refused() {
    let (ours, other) = (place(), place());
    prepare(&ours.files, NOW).unwrap();
    prepare(&other.files, NOW).unwrap();
    fs::write(ours.files.path("ca.key"), other.read("ca.key")).unwrap();
    let error = prepare(&ours.files, NOW).err().unwrap();
    assert_eq!(error.code(), ErrorCode::TlsFailed);
    assert!(error.to_string().contains("ca.key"), "{error}");
}

#[test]
fn what_an_operator_must_know_is_said_when_it_is_new_and_once_a_day() {
    let place = place();
    prepare(&place.files, NOW).unwrap();
    fs::remove_file(place.files.path("ca.key")).unwrap();
    let late = |hours: u64| Timestamp(later(SERVER_LIFETIME.as_secs() / 86_400 + 1).0 + hours * 3_600_000);
    let ended = || prepare(&place.files, late(0)).unwrap().concerns;
    assert!(format!("{:?}", ended()).contains("Ended"));
    let mut concerns = concern::Concerns::default();
    assert!(concerns.say(ended(), late(0)));
    assert!(!concerns.say(ended(), late(23)));
    assert!(concerns.say(ended(), late(24)));
    assert!(concerns.say(Vec::new(), late(25)));
}

#[test]
fn a_certificate_that_changes_is_served_from_then_on() {
    let place = place();
    let identity = prepare(&place.files, NOW).unwrap();
    let mut watch = Watch::new(place.files.clone(), &identity, NOW);
    assert!(watch.refresh(later(700)).is_none());
    assert!(watch.refresh(later(740)).is_some(), "85 days before its end");
    assert!(watch.refresh(later(740)).is_none());
    fs::write(place.files.path("server.key"), b"nothing of use").unwrap();
    assert!(watch.refresh(later(740)).is_none(), "what is in force stays");
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
fn files_of_somebody_else_are_not_replaced_while_one_of_them_is_missing() {
    for (name, without) in [
        ("server.pem", &["ca.key"][..]),
        ("server.key", &["ca.key"]),
        ("server.pem", &["ca.key", "ca.pem"]),
        ("server.key", &["ca.key", "ca.pem"]),
    ] {
        let place = place();
        let identity = prepare(&place.files, NOW).unwrap();
        without.iter().for_each(|name| fs::remove_file(place.files.path(name)).unwrap());
        let all =
            || ["ca.pem", "ca.key", "server.pem", "server.key"].map(|name| place.files.read(name).unwrap());
        let (before, removed) = (all(), place.read(name));
        let mut watch = Watch::new(place.files.clone(), &identity, NOW);
        fs::remove_file(place.files.path(name)).unwrap();
        let while_missing = all();
        let error = prepare(&place.files, NOW).err().unwrap();
        assert!(matches!(error, Error::Missing { .. }), "{error:?}");
        assert!(error.to_string().contains(&format!("{name} holds no usable")), "{error}");
        assert!(watch.refresh(NOW).is_none(), "what is in force stays");
        assert_eq!(all(), while_missing);

        fs::write(place.files.path(name), removed).unwrap();
        prepare(&place.files, NOW).unwrap();
        assert_eq!(all(), before);
    }
}

#[test]
fn removing_all_of_them_makes_a_ca_with_a_new_key() {
    let place = place();
    prepare(&place.files, NOW).unwrap();
    let before = place.read("ca.key");
    for name in ["ca.pem", "ca.key", "server.pem", "server.key"] {
        fs::remove_file(place.files.path(name)).unwrap();
    }
    prepare(&place.files, NOW).unwrap();
    assert_ne!(place.read("ca.key"), before);
    assert!(trusts(&place.read("ca.pem"), &place.read("server.pem"), NOW));
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

/// The same place with other settings.
fn with(place: &Place, change: impl FnOnce(&mut TlsConfig)) -> TlsFiles {
    let mut config = place.files.config().clone();
    change(&mut config);
    TlsFiles::new(place.files.ca_pem().parent().unwrap().parent().unwrap(), &config)
}

fn named(place: &Place, names: &[&str]) -> TlsFiles {
    with(place, |config| config.names = names.iter().map(|name| name.parse().unwrap()).collect())
}

#[test]
fn a_name_that_the_certificate_lacks_has_it_made_again_by_the_same_ca() {
    let place = place();
    prepare(&place.files, NOW).unwrap();
    let (ca, first) = (place.read("ca.pem"), place.read("server.pem"));
    prepare(&named(&place, &["localhost", "::1"]), NOW).unwrap();
    assert_eq!(place.read("server.pem"), first, "it has these");

    let two = named(&place, &["engine.example.com", "192.0.2.1"]);
    let identity = prepare(&two, NOW).unwrap();
    let second = place.read("server.pem");
    assert_ne!(second, first);
    assert_eq!((place.read("ca.pem"), identity.concerns), (ca.clone(), Vec::new()));
    assert!(trusts(&ca, &second, NOW), "localhost is still in it");
    assert!(names::not_covered(two.config(), &chain(&place, "server.pem")[0]).is_empty());

    prepare(&named(&place, &["192.0.2.1"]), NOW).unwrap();
    assert_eq!(place.read("server.pem"), second, "one name less needs no other certificate");
    prepare(&named(&place, &["192.0.2.2"]), NOW).unwrap();
    assert_ne!(place.read("server.pem"), second);
}

#[test]
fn the_ca_is_shown_behind_the_certificate_and_named_by_its_fingerprint() {
    let place = place();
    let identity = prepare(&place.files, NOW).unwrap();
    let ca = chain(&place, "ca.pem");
    assert_eq!(identity.certificates, [chain(&place, "server.pem"), ca.clone()].concat());
    let known = identity.ca.unwrap();
    assert_eq!(known.file, place.files.ca_pem());
    assert_eq!(known.fingerprint, fingerprint::fingerprint(&ca[0]));

    let renewed = prepare(&place.files, later(3_650 - 364)).unwrap().ca.unwrap();
    assert_ne!(renewed.fingerprint, known.fingerprint);
    assert_eq!(renewed.fingerprint, fingerprint::fingerprint(&chain(&place, "ca.pem")[0]), "the newest");
}

#[test]
fn a_fingerprint_is_the_sha256_in_hexadecimal_digits() {
    let of_abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(fingerprint::fingerprint(&CertificateDer::from(&b"abc"[..])), of_abc);
}

/// An operator's own certificate for these names, with its CA behind it, in files outside the directory.
fn operators(place: &Place, names: &[&str]) -> (TlsFiles, OtherCa) {
    let company = OtherCa::new("Company CA", issuer::NOW);
    let signed = company.sign("an engine", names.iter().map(|name| dns(name)).collect(), issuer::NOW);
    let dir = place.dir.path();
    let (certificate, key) = (dir.join("chain.pem"), dir.join("chain.key"));
    fs::write(&certificate, [signed.pem.as_str(), company.pem()].concat()).unwrap();
    fs::write(&key, signed.key.serialize_pem()).unwrap();
    let files = with(place, |config| {
        (config.certificate, config.key) = (Some(certificate), Some(key));
        config.names = ["engine.example.com", "b.example.com"].map(|name| name.parse().unwrap()).to_vec();
    });
    (files, company)
}

#[test]
fn an_operators_certificate_that_lacks_a_name_is_served_and_that_is_said() {
    for (names, expected) in [
        (&["engine.example.com"][..], Some("b.example.com")),
        (&["other.example.com"], Some("engine.example.com, b.example.com")),
        (&["*.example.com"], None),
        (&["b.example.com", "engine.example.com"], None),
    ] {
        let place = place();
        let (files, company) = operators(&place, names);
        check(&files).unwrap();
        let identity = prepare(&files, NOW).unwrap();
        let said = format!("{:?}", identity.concerns);
        match expected {
            Some(missing) => {
                assert!(said.contains("LacksNames") && said.contains(&format!("{missing:?}")), "{said}")
            }
            None => assert_eq!(said, "[]"),
        }
        assert!(!place.files.ca_pem().exists(), "no CA of the engine's is made");
        let ca = identity.ca.expect("it is at the end of the chain");
        assert_eq!(ca.file, files.certificate());
        let root = files.certificates(Path::new("company"), company.pem().as_bytes()).unwrap();
        assert_eq!(ca.fingerprint, fingerprint::fingerprint(&root[0]));
    }
}

#[test]
fn an_operators_certificate_is_read_again_and_its_damage_is_named() {
    let place = place();
    let (files, _company) = operators(&place, &["engine.example.com"]);
    let identity = prepare(&files, NOW).unwrap();
    let mut watch = Watch::new(files.clone(), &identity, NOW);
    assert!(watch.refresh(NOW).is_none());
    let before = fs::read(files.certificate()).unwrap();
    operators(&place, &["engine.example.com"]);
    assert!(watch.refresh(NOW).is_some());

    for (name, expected) in [("chain.pem", "no usable certificate"), ("chain.key", "no usable private key")] {
        let path = place.dir.path().join(name);
        let good = fs::read(&path).unwrap();
        fs::write(&path, "nothing of use").unwrap();
        for error in [check(&files).unwrap_err(), prepare(&files, NOW).err().unwrap()] {
            let error = error.to_string();
            assert!(error.contains(name) && error.contains(expected), "{error}");
            assert!(error.contains("name another in the section [tls]"), "{error}");
        }
        assert!(watch.refresh(NOW).is_none(), "what is in force stays");
        fs::remove_file(&path).unwrap();
        let error = check(&files).unwrap_err();
        assert!(matches!(&error, Error::File { action: "read", .. }), "{error:?}");
        fs::write(&path, good).unwrap();
    }
    fs::write(files.certificate(), before).unwrap();
    let error = check(&files).unwrap_err().to_string();
    assert!(error.contains("chain.pem and ") && error.contains("do not go together"), "{error}");
}

#[test]
fn names_of_a_client_are_its_uris_then_its_dns_names_and_never_its_common_name() {
    let ca = OtherCa::new("Clients", issuer::NOW);
    let signed = ca.sign(
        "payment.example",
        vec![dns("b.example"), uri("spiffe://example/b"), dns("a.example"), uri("spiffe://example/a")],
        issuer::PAST,
    );
    let found = client::names(&signed.chain[0]).unwrap();
    assert_eq!(found.uris, ["spiffe://example/b", "spiffe://example/a"]);
    assert_eq!(found.dns, ["b.example", "a.example"]);
    assert_eq!(found.not_after, Timestamp(1_009_843_200_999), "2002-01-01T00:00:00.999Z");
    let nameless = client::names(&ca.sign("payment.example", Vec::new(), issuer::NOW).chain[0]).unwrap();
    assert!(nameless.uris.is_empty() && nameless.dns.is_empty());
    for nonsense in [&b""[..], b"nothing", &signed.chain[0][..100]] {
        assert!(client::names(nonsense).is_err());
    }
}

#[test]
fn another_ca_for_clients_is_taken_and_a_damaged_one_changes_nothing() {
    let place = place();
    let file = place.dir.path().join("clients.pem");
    OtherCa::new("First", issuer::NOW).write(&file);
    let files = with(&place, |config| config.client_ca = Some(file.clone()));
    let identity = prepare(&files, NOW).unwrap();
    let mut watch = Watch::new(files.clone(), &identity, NOW);
    assert!(watch.refresh(NOW).is_none());
    OtherCa::new("Second", issuer::PAST).write(&file);
    assert!(watch.refresh(NOW).is_some());
    let said = format!("{:?}", prepare(&files, NOW).unwrap().concerns);
    assert!(said.contains("ClientCaEnded") && said.contains("2002-01-01"), "{said}");
    fs::write(&file, "nothing of use").unwrap();
    assert!(watch.refresh(NOW).is_none(), "what is in force stays");
    for error in [check(&files).unwrap_err(), prepare(&files, NOW).err().unwrap()] {
        assert!(error.to_string().contains("clients.pem holds no usable certificate"), "{error}");
    }
}
