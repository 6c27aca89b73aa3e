//! Precedence, refusals with their line, and the printed form.

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
        load("tail_bytes_max = \"128MiB\"\nidle_timeout = \"30s\"\nlog_format = \"json\"\n").unwrap();
    assert_eq!(config.tail_bytes_max, ByteSize::mib(128));
    assert_eq!(config.idle_timeout, Duration::from_secs(30));
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.connections_max, ServerConfig::default().connections_max);
}

#[test]
fn flags_win_over_the_file() {
    let file = file("data_dir = \"from-file\"\nhttp = \"127.0.0.1:9\"\n");
    let overrides = Overrides { data_dir: Some("from-flag".into()), ..Overrides::default() };
    let config = ServerConfig::load(Some(file.path()), &overrides).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("from-flag"));
    assert_eq!(config.http.port(), 9);
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let error = load("# comment\nlisten = \"127.0.0.1:1\"\nlisen = 1\n").unwrap_err();
    assert_eq!(error.code(), ErrorCode::ConfigInvalid);
    let text = error.to_string();
    assert!(text.contains("line 3: \"lisen\" is not known, expected a setting, perhaps listen"), "{text}");
}

#[test]
fn a_value_of_the_wrong_form_is_refused_with_its_line() {
    let text = load("listen = \"127.0.0.1:1\"\nidle_timeout = \"soon\"\n").unwrap_err().to_string();
    assert!(text.ends_with("line 2: expected a duration such as 500ms, 30s or 1h, got \"soon\""), "{text}");
    for (text, said) in [
        ("tail_bytes_max = \"much\"", "expected a size such as 64MiB or 1GB, got \"much\""),
        ("tail_bytes_max = true", "expected a size such as 64MiB or 1GB, got boolean true"),
        ("tail_bytes_max = -1", "expected a size such as 64MiB or 1GB, got -1"),
        ("idle_timeout = 5", "expected a duration such as 500ms, 30s or 1h, got integer 5"),
        ("connections_max = \"many\"", "expected a whole number of 0 or more, got string \"many\""),
        ("connections_max = -1", "expected a whole number of 0 or more, got integer -1"),
        ("mtu_max = 70000", "expected a whole number of 0 or more, got integer 70000"),
        ("data_dir = 7", "expected text, got integer 7"),
        ("log_format = \"loud\"", "expected text or json, got loud"),
        ("listen = \"nowhere\"", "or a port alone such as 7600, got \"nowhere\""),
        ("listen = 70000", "or a port alone such as 7600, got \"70000\""),
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
fn addresses_that_others_can_reach_are_refused() {
    for key in ["listen", "http"] {
        for address in ["0.0.0.0:1", "192.0.2.1:1", "[::]:1"] {
            let error = load(&format!("{key} = \"{address}\"\n")).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("loopback"), "{error}");
        }
    }
    assert!(load("listen = \"[::1]:0\"\n").is_ok());
}

#[test]
fn addresses_may_be_host_names_and_ports_alone() {
    let config = load("listen = \"localhost:9000\"\nhttp = 9001\n").unwrap();
    assert_eq!(
        (config.listen.to_string(), config.http.to_string()),
        ("127.0.0.1:9000".into(), "127.0.0.1:9001".into())
    );
    assert_eq!(load("listen = \":0\"").unwrap().listen.to_string(), "127.0.0.1:0");
}

#[test]
fn a_filter_that_would_silence_the_log_and_an_empty_directory_are_refused() {
    for (text, said) in [
        ("log_filter = \"loud\"", "log_filter is \"loud\", expected a level (off, error, warn"),
        ("log_filter = \"\"", "log_filter is \"\", expected a level"),
        ("data_dir = \"\"", "data_dir is empty, expected a directory"),
    ] {
        let error = load(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn ranges_are_checked() {
    for text in [
        "mtu_max = 6501",
        "mtu_max = 1199",
        "connections_max = 0",
        "keep_alive = \"20s\"",
        "receive_window = \"1KiB\"",
        "streams_max = 0",
    ] {
        assert!(matches!(load(text), Err(Error::Range { .. })), "{text}");
    }
}

#[test]
fn the_printed_form_reads_back_as_the_same_settings() {
    let mut config = ServerConfig { tail_bytes_max: ByteSize::b(1_234_567), ..ServerConfig::default() };
    config.idle_timeout = Duration::from_millis(12_345);
    let text = config.to_toml();
    assert_eq!(load(&text).unwrap(), config, "{text}");
    assert!(text.contains("# The data directory"), "{text}");
}
