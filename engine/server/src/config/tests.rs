//! Precedence, refusals with their line, and the printed form.

use std::time::Duration;

use bytesize::ByteSize;

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn load(text: &str) -> Result<ServerConfig, Error> {
    let file = file(text);
    ServerConfig::load(Some(file.path()), &Overrides::default())
}

#[test]
fn file_values_are_human_and_replace_defaults() {
    let config =
        load("[subscribe]\ntail_bytes_max = \"128MiB\"\n[listen]\nidle_timeout = \"30s\"\n[telemetry]\nlog_format = \"json\"\n").unwrap();
    assert_eq!(config.subscribe.tail_bytes_max, ByteSize::mib(128));
    assert_eq!(config.listen.idle_timeout, Duration::from_secs(30));
    assert_eq!(config.telemetry.log_format, LogFormat::Json);
    assert_eq!(config.listen.connections_max, ServerConfig::default().listen.connections_max);
}

#[test]
fn flags_win_over_the_file() {
    let file = file(
        "data_dir = \"from-file\"\n[http]\naddress = \"127.0.0.1:9\"\n[listen]\naddress = \"127.0.0.1:8\"\n",
    );
    let overrides = Overrides {
        data_dir: Some("from-flag".into()),
        listen: Some(([127, 0, 0, 1], 7).into()),
        ..Overrides::default()
    };
    let config = ServerConfig::load(Some(file.path()), &overrides).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("from-flag"));
    assert_eq!((config.http.address.port(), config.listen.address.port()), (9, 7));
}

#[test]
fn an_unknown_key_or_section_is_refused_with_its_line_and_the_nearest() {
    for (text, line, said) in [
        (
            "# comment\n[listen]\nadress = \"127.0.0.1:1\"\n",
            3,
            "\"adress\" is not known, expected a setting, perhaps address;",
        ),
        ("[lisen]\naddress = 1\n", 1, "\"lisen\" is not known, expected a setting, perhaps listen;"),
        ("data_dir = \"x\"\nretention_interval = \"1s\"\n", 2, "perhaps store.retention_interval;"),
        ("[http]\nzzz = 1\n", 2, "\"zzz\" is not known, expected a setting;"),
    ] {
        let error = load(text).unwrap_err();
        assert_eq!(error.code(), ErrorCode::ConfigInvalid);
        let error = error.to_string();
        assert!(error.contains(&format!("line {line}: ")) && error.contains(said), "{text}: {error}");
    }
}

#[test]
fn a_value_of_the_wrong_form_is_refused_with_its_line() {
    let text =
        load("[listen]\naddress = \"127.0.0.1:1\"\nidle_timeout = \"soon\"\n").unwrap_err().to_string();
    assert!(text.ends_with("line 3: expected a duration such as 500ms, 30s or 1h, got \"soon\""), "{text}");
    for (text, said) in [
        ("subscribe.tail_bytes_max = \"much\"", "expected a size such as 64MiB or 1GB, got \"much\""),
        ("subscribe.tail_bytes_max = true", "expected a size such as 64MiB or 1GB, got boolean true"),
        ("subscribe.tail_bytes_max = -1", "expected a size such as 64MiB or 1GB, got -1"),
        ("listen.idle_timeout = 5", "expected a duration such as 500ms, 30s or 1h, got integer 5"),
        ("listen.connections_max = \"many\"", "expected a whole number of 0 or more, got string \"many\""),
        ("listen.connections_max = -1", "expected a whole number of 0 or more, got integer -1"),
        ("listen.mtu_max = 70000", "expected a whole number of 0 or more, got integer 70000"),
        ("rocksdb.background_jobs = \"two\"", "expected a whole number, got string \"two\""),
        ("rocksdb_log.blob_pass = \"half\"", "expected a number, got string \"half\""),
        ("rocksdb.direct_writes = 1", "expected true or false, got integer 1"),
        ("data_dir = 7", "expected text, got integer 7"),
        ("telemetry.log_format = \"loud\"", "expected text or json, got loud"),
        ("listen.address = \"nowhere\"", "or a port alone such as 7600, got \"nowhere\""),
        ("listen.address = 70000", "or a port alone such as 7600, got \"70000\""),
        ("listen = 7600", "expected a section, got integer 7600"),
        ("no toml at all", "line 1: expected TOML: "),
    ] {
        let error = load(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn a_file_that_is_absent_is_named() {
    let error = ServerConfig::load(Some(Path::new("absent.toml")), &Overrides::default()).unwrap_err();
    assert!(error.to_string().contains("absent.toml"), "{error}");
}

#[test]
fn addresses_that_others_can_reach_need_principals_and_the_refusal_says_how_to_make_one() {
    for key in ["listen", "http"] {
        for address in ["0.0.0.0:1", "192.0.2.1:1", "[::]:1", "[2001:db8::1]:1"] {
            let config = load(&format!("{key}.address = \"{address}\"\n")).unwrap();
            let error = require_identities(&config, false).unwrap_err();
            assert_eq!(error.code(), ErrorCode::ConfigInvalid);
            let error = error.to_string();
            assert!(
                error.starts_with(&format!("{key}.address is {address}, expected a loopback")),
                "{error}"
            );
            assert!(error.contains("levada serve --admin-token FILE"), "{error}");
            assert!(require_identities(&config, true).is_ok());
        }
    }
    for address in ["127.0.0.2:0", "[::1]:0"] {
        let config = load(&format!("listen.address = \"{address}\"\n")).unwrap();
        assert!(require_identities(&config, false).is_ok());
    }
}

#[test]
fn http_speaks_tls_wherever_others_can_reach_it() {
    for (text, expected) in [
        ("", Some(false)),
        ("http.tls = \"auto\"", Some(false)),
        ("http.tls = true", Some(true)),
        ("http.tls = \"true\"", Some(true)),
        ("http.address = \"192.0.2.1:1\"", Some(true)),
        ("http.tls = true\nhttp.address = \"192.0.2.1:1\"", Some(true)),
        ("http.tls = false\nhttp.address = \"[::1]:1\"", Some(false)),
        ("http.tls = false\nhttp.address = \"192.0.2.1:1\"", None),
    ] {
        match (load(text), expected) {
            (Ok(config), Some(expected)) => assert_eq!(config.http.uses_tls(), expected, "{text}"),
            (Err(error), None) => {
                let said = error.to_string();
                assert!(
                    said.contains("http.tls is false and http.address 192.0.2.1:1, expected true"),
                    "{said}"
                );
            }
            (got, _) => panic!("{text}: {got:?}"),
        }
    }
}

#[test]
fn names_come_as_a_list_or_with_commas_and_flags_replace_them() {
    let names = |config: &ServerConfig| config.tls.names.iter().map(TlsName::to_string).collect::<Vec<_>>();
    let listed = "tls.names = [\"Engine.example.com\", \"192.0.2.1\"]\n";
    for text in [listed, "tls.names = \"engine.example.com, 192.0.2.1\""] {
        assert_eq!(names(&load(text).unwrap()), ["engine.example.com", "192.0.2.1"], "{text}");
    }
    assert_eq!(names(&load("tls.names = \"\"").unwrap()), [""; 0]);
    let file = file(listed);
    let overrides =
        Overrides { tls_names: vec![parse_tls_name("b.example").unwrap()], ..Overrides::default() };
    assert_eq!(names(&ServerConfig::load(Some(file.path()), &overrides).unwrap()), ["b.example"]);
}

#[test]
fn wrong_settings_of_certificates_are_refused_with_what_is_expected() {
    let many = format!("tls.names = [{}]", "\"a.example\",".repeat(65));
    for (text, said) in [
        ("tls.names = [\"*.example.com\"]", "got \"*.example.com\"; a wildcard covers hosts"),
        ("tls.names = [\"a.example\", \"b:1\"]", "got \"b:1\"; name the host without a port"),
        ("tls.names = \"a.example,,b.example\"", "expected a DNS name such as"),
        ("tls.names = 7", "expected a list of texts, got integer 7"),
        ("tls.names = [7]", "expected text, got integer 7"),
        (&many, "tls.names is 65, expected 0 to 64"),
        ("tls.certificate = \"a.pem\"", "tls.key is not set, expected a file beside tls.certificate"),
        ("tls.key = \"a.key\"", "tls.certificate is not set, expected a file beside tls.key"),
        ("tls.certificate = 7", "expected the path of a file, got integer 7"),
        ("tls.client_ca = true", "expected the path of a file, got boolean true"),
        (
            "tls.client_auth = \"optional\"",
            "tls.client_auth is optional, expected a CA for it in tls.client_ca",
        ),
        ("tls.client_auth = \"required\"", "tls.client_auth is required, expected a CA"),
        ("tls.client_auth = \"perhaps\"", "got perhaps"),
        ("tls.client_auth = true", "expected text, got another kind of value"),
        ("http.tls = 1", "expected auto, true or false, got integer 1"),
        ("http.tls = \"on\"", "expected auto, true or false, got string \"on\""),
    ] {
        let error = load(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn clients_are_asked_for_certificates_once_there_is_a_ca_for_them() {
    let asked = |text: &str| {
        let config = load(text).unwrap();
        config.tls.asked_of_clients().map(|tls::AskedOf { ca, is_required }| (ca.to_owned(), is_required))
    };
    let ca = "tls.client_ca = \"clients.pem\"\n";
    assert_eq!(asked(""), None);
    assert_eq!(asked(ca), Some(("clients.pem".into(), false)));
    for (word, expected) in
        [("auto", Some(false)), ("off", None), ("optional", Some(false)), ("required", Some(true))]
    {
        let text = format!("{ca}tls.client_auth = \"{word}\"\n");
        assert_eq!(asked(&text).map(|(_, is_required)| is_required), expected, "{word}");
    }
}

#[test]
fn addresses_may_be_host_names_and_ports_alone() {
    let config = load("listen.address = \"localhost:9000\"\nhttp.address = 9001\n").unwrap();
    assert_eq!(
        (config.listen.address.to_string(), config.http.address.to_string()),
        ("127.0.0.1:9000".into(), "127.0.0.1:9001".into())
    );
    assert_eq!(load("listen.address = \":0\"").unwrap().listen.address.to_string(), "127.0.0.1:0");
}

#[test]
fn a_filter_that_would_silence_the_log_and_an_empty_directory_are_refused() {
    for (text, said) in [
        (
            "telemetry.log_filter = \"loud\"",
            "telemetry.log_filter is \"loud\", expected a level (off, error, warn",
        ),
        ("telemetry.log_filter = \"\"", "telemetry.log_filter is \"\", expected a level"),
        ("data_dir = \"\"", "data_dir is empty, expected a directory"),
    ] {
        let error = load(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn ranges_are_checked_and_named() {
    for (text, said) in [
        ("listen.mtu_max = 6501", "listen.mtu_max is 6501, expected 1200 to 6500"),
        ("listen.mtu_max = 1199", "listen.mtu_max is 1199"),
        ("listen.connections_max = 0", "listen.connections_max is 0"),
        ("listen.keep_alive = \"20s\"", "listen.idle_timeout is 10s, expected at least listen.keep_alive"),
        ("streams.receive_window = \"1KiB\"", "streams.receive_window is 1KiB, expected 64KiB to 1GiB"),
        ("streams.connection_max = 0", "streams.connection_max is 0"),
        ("publish.groups_unsynced_max = 0", "publish.groups_unsynced_max is 0, expected 1 to 1024"),
        ("publish.producers_idle = \"0s\"", "publish.producers_idle is 0s, expected 1s to 3650days"),
        ("store.catalogue_records_max = 0", "store.catalogue_records_max is 0"),
        ("rocksdb.background_jobs = 0", "rocksdb.background_jobs is 0, expected 2 to 64"),
        ("rocksdb_log.blob_pass = 1.5", "rocksdb_log.blob_pass is 1.5, expected 0 to 1"),
        ("plugins.init_deadline = \"0s\"", "plugins.init_deadline is 0s, expected 1ms to 1day"),
    ] {
        let error = load(text).unwrap_err();
        assert!(matches!(error, Error::Range { .. }) && error.to_string().contains(said), "{text}: {error}");
    }
}

#[test]
fn the_printed_form_names_every_setting_and_reads_back_as_the_same_settings() {
    let mut config = ServerConfig::default();
    config.subscribe.tail_bytes_max = ByteSize::b(1_234_567);
    config.listen.idle_timeout = Duration::from_millis(12_345);
    config.rocksdb_log.blob_garbage_max = 1.0;
    config.tls.names = vec!["engine.example.com".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    (config.tls.certificate, config.tls.key) = (Some("a.pem".into()), Some("a.key".into()));
    config.http.tls = HttpTls::On;
    let text = config.to_toml();
    assert_eq!(load(&text).unwrap(), config, "{text}");
    assert!(text.starts_with("# The data directory"), "{text}");
    assert!(text.contains("\n# QUIC: connections and packets.\n[listen]\n# Where QUIC is served"), "{text}");
    for setting in settings() {
        let key = setting.rsplit('.').next().unwrap();
        assert!(text.contains(&format!("\n{key} = ")), "{setting}");
    }
}
