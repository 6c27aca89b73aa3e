//! What can be typed: good lines, bad lines, and the values in them.

use std::ffi::OsString;

use levada_protocol::request::{Order, StageSpec, SubscriptionOptions};
use levada_terminal::values::parse_size;

use super::{
    values::{parse_header, parse_stage},
    *,
};

fn parse(line: &str) -> Result<Args, clap::Error> {
    // A word in '…' may hold spaces.
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    let words: Vec<OsString> = std::iter::once("levada".to_owned()).chain(words).map(Into::into).collect();
    Named::parse(&words).map(|(args, _)| args)
}

#[test]
fn the_definition_is_sound() {
    use clap::CommandFactory as _;
    Args::command().debug_assert();
}

#[test]
fn good_lines_are_understood() {
    for line in [
        "serve",
        "serve --data-dir d --listen 127.0.0.1:0 --http 127.0.0.1:0 --log-format json --print-config",
        "serve --config levada.toml",
        "demo",
        "demo --events 100 --rate 0 --keep d --output json",
        "topic create orders",
        "topic create orders --partitions 4 --durability os --retain time-and-size --retain-for 7d --max-bytes 10GiB",
        "topic list --addr localhost:1 --ca ca.pem -v --quiet",
        "topic describe dlq.orders.payment",
        "topic set orders --retain-for 90s",
        "topic delete orders --force",
        "topic delete dlq.orders.payment",
        "topic set dlq.orders.payment --retain-for 7d",
        "publish orders",
        "publish orders --key k --header a=b --header c=d=e --file f.ndjson --rate 10.5 --raw --timeout 10s",
        "subscribe orders --subscription payment",
        "subscribe orders -s p --order none --from 2026-01-31T12:00:00Z --plugin json-filter --max 3 --no-ack",
        "subscribe orders -s p --plugin 'json-filter@2:{\"where\": \"amount > 0\"}' --plugin json-project",
        "subscribe orders/p --start -1h --payload",
        "subscribe orders/p --max-bytes 1MiB --nack",
        "subscribe orders/p --nack 5s --max 1",
        "subscribe orders/p --reject 'no such product'",
        "read orders --partition 0 --partition 3 --from 17 --max 5 --follow",
        "read orders --from -5 --payload",
        "read orders --last 5",
        "read orders --where '-1 < amount and not paid' --key -k --since 1h --scan-max 1GiB --max 3 --partition 1",
        "read orders --where 'a > 1' --cursor 0:4,3:0 --follow",
        "read orders --since 2026-01-31T12:00:00Z",
        "read orders --from '2h ago'",
        "read orders --start now",
        "dlq list",
        "dlq list orders",
        "dlq list orders/payment --where 'header.lv-dlq-plugin = \"p@2\"' --from 7 --scan-max 1MiB",
        "dlq list orders/route-big",
        "dlq show dlq.orders.payment --where 'a > 1' --max 3 --from 7 --output json",
        "dlq show orders/payment --offset 7",
        "dlq redrive orders/payment --all",
        "dlq redrive orders/payment --where 'a > 1' --force",
        "dlq redrive orders/payment --offset 1 --offset 2 --to orders",
        "dlq redrive orders/payment --all --to orders --force --from 9 --until 20",
        "dlq redrive orders/route-big --where '-1 < a' --to orders",
        "dlq purge orders/payment --before 7d",
        "dlq purge orders/payment --all --force",
        "subscription describe orders -s payment",
        "subscription create orders/payment --from earliest --ack-timeout 1m --plugin p --memory 1MiB --deadline 1ms",
        "subscription list",
        "subscription list orders",
        "subscription describe orders/payment",
        "subscription resume orders.v1/payment",
        "subscription delete orders/payment",
        "plugin deploy mine mine.wasm --config '{\"a\": 1}'",
        "plugin deploy --bundled",
        "plugin list",
        "plugin remove mine@3",
        "route create big --from orders --to a --to b --plugin content-router:{} --start earliest",
        "route list",
        "route describe big",
        "route resume big",
        "route delete big",
        "completion bash",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn good_lines_of_the_bench_are_understood() {
    for line in [
        "bench publish --size 1024 --events 100 --producers 2 --in-flight 8 --batch-bytes 128KiB --durability os",
        "bench publish --connections 256 --concurrency 1 --duration 60s --runs 5 --output json",
        "bench latency --addr localhost:7600 --ca ca.pem",
        "bench latency --ca ca.pem",
        "bench fanout --subscribers 3 --rate 5000 --order none --consumers 2 --keys 100 --partitions 4",
        "bench catchup --events 10 --max-in-flight 5",
        "bench plugin --plugin json-filter --pass 0.5 --size 200",
        "bench publish --limits --mtu 1452",
        "bench limits --subscribers 2 --rate 100 --time 100ms --mtu 1200 --runs 3 --batch-bytes 16KiB",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn lines_about_transactions_are_understood_or_wrong_usage() {
    for line in [
        "publish orders --prepare shop/order/42 --check-after 1m --partition 3",
        "subscribe orders/s --publish-to invoices --max 3 --max-bytes 1MiB --wait 5s --from earliest --order none",
        "transaction publish",
        "transaction publish --key k --header a=b --ttl 30s --file f.ndjson --timeout 5m",
        "transaction publish shop/order-42 --file - --prepare --check-after 1m",
        "transaction list",
        "transaction list --group shop --all",
        "transaction describe shop/order-42",
        "transaction commit shop/order-42",
        "transaction rollback shop/a/b",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
    for line in [
        "transaction",
        "transaction list shop",
        "transaction list --group Shop",
        "transaction commit",
        "transaction commit order-42",
        "transaction commit shop/",
        "transaction rollback /order-42",
        "transaction describe 'shop/a b'",
        "subscribe orders/s --publish-to dlq.a.b",
        "subscribe orders/s --publish-to invoices --no-ack",
        "subscribe orders/s --publish-to invoices --nack",
        "subscribe orders/s --publish-to invoices --reject why",
        "transaction publish order-42",
        "transaction publish --prepare",
        "transaction publish shop/1 --check-after 5s",
        "transaction publish shop/1 --prepare --check-after 2d",
        "transaction publish --timeout 6m",
        "transaction publish --timeout 0s",
        "transaction publish --header lv-x=1",
        "publish orders --prepare order-42",
        "publish orders --prepare shop/1 --producer importer",
        "publish orders --prepare shop/1 --rate 5",
        "publish orders --prepare shop/1 --delay 5s",
        "publish orders --prepare shop/1 --expect-offset 5",
        "publish orders --prepare shop/1 --durability os",
        "publish orders --check-after 5s",
        "publish orders --prepare shop/1 --check-after 2d",
        "publish orders --prepare shop/1 --check-after 0s",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn bad_lines_about_dead_letters_are_wrong_usage() {
    for line in [
        "dlq",
        "dlq list orders/pay.ment",
        "dlq show orders",
        "dlq show orders/payment --offset 3 --max 2",
        "dlq show orders/payment --max 0",
        "dlq redrive orders/payment --to orders",
        "dlq redrive orders/payment --all --where 'a > 1' --to orders",
        "dlq redrive orders/payment --offset 1 --from 2 --to orders",
        "dlq redrive orders/payment --offset 1 --until 2 --to orders",
        "dlq purge orders/payment",
        "dlq purge orders/payment --all --before 1h",
        "dlq purge orders/payment --before yesterday",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn bad_lines_are_wrong_usage() {
    for line in [
        "",
        "serve extra",
        "serve --listen nowhere",
        "topic",
        "topic create Orders",
        "topic create _own",
        "topic create orders --partitions 0",
        "topic create orders --partitions 1025",
        "topic create orders --retain-for soon",
        "topic create orders --max-bytes many",
        "topic create orders --durability never",
        "topic set orders --partitions 2",
        "topic set orders",
        "publish orders --header nothing",
        "publish orders --rate 0",
        "publish orders --rate fast",
        "publish orders --timeout 0s",
        "publish orders --timeout 7d",
        "subscribe orders -s p --retries 1",
        "subscribe orders -s p --ack-timeout 0s",
        "subscribe orders -s p --max-attempts 0",
        "subscribe orders -s p --max-in-flight 0",
        "route create r --from a --to b --deadline 1s",
        "subscribe orders",
        "subscribe orders -s route-x",
        "subscribe orders -s p --from yesterday",
        "subscribe orders -s p --from -1",
        "subscribe orders/p -s q",
        "read orders --last 0",
        "read orders --last 5 --from 3",
        "publish orders --header lv-dlq-topic=x",
        "subscribe orders -s p --plugin 'json-filter:{where'",
        "subscribe orders -s p --plugin json-filter@0",
        "subscribe orders -s p --plugin json-filter@new",
        "subscribe orders -s p --plugin Filter",
        "subscribe orders -s p --max 0",
        "subscribe orders -s p --max-bytes 0",
        "subscribe orders -s p --nack 50d",
        "subscribe orders -s p --reject",
        "read orders --partition x",
        "subscription describe orders",
        "subscription describe orders/payment -s inventory",
        "subscription describe orders/",
        "plugin deploy",
        "plugin deploy mine",
        "plugin deploy mine mine.wasm --bundled",
        "plugin deploy mine mine.wasm --config nonsense",
        "plugin remove mine@",
        "route create big --from orders",
        "bench",
        "completion cmd",
        "bench publish --size 3",
        "bench publish --events 5 --duration 5s",
        "bench publish --duration 0s",
        "bench fanout --duration 0s",
        "bench publish --addr a:1 --dir d",
        "bench plugin --pass 1.5",
        "bench plugin --plugin unknown",
        "bench publish --limits --addr a:1",
        "bench publish --mtu 1199",
        "bench limits --mtu 6501",
        "bench limits --time 0s",
        "bench limits --time 61s",
        "bench limits --subscribers 0",
        "topic list --output xml",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn searches_that_contradict_themselves_are_wrong_usage() {
    for line in [
        "read orders --where 'a > 1' --last 5",
        "read orders --since soon",
        "read orders --since 1h --from 3",
        "read orders --where 'a > 1' --scan-max 0",
        "read orders --where 'a > 1' --scan-max much",
        "read orders --where 'a > 1' --scan-max 1GiB --follow",
        "read orders --cursor 0",
        "read orders --cursor 0:1 --partition 0",
        "read orders --cursor 0:1 --since 1h",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn a_negative_number_is_refused_with_what_was_expected() {
    for (line, expected) in [
        ("read orders --from -x", "expected earliest, latest, an offset"),
        ("subscribe orders -s p --from -1", "expected earliest, latest, an offset"),
        ("subscribe orders -s p --ack-timeout -1", "expected a duration such as"),
        ("subscribe orders -s p --backoff -1s", "expected durations such as 1s,5s,1m"),
        ("route create r --from a --to b --start -1", "expected earliest, latest, an offset"),
        ("topic create orders --backlog-max-bytes -1GiB", "expected a size such as"),
        ("publish orders --rate -5", "expected events a second, a number from 0.001 to 10000000"),
        ("publish orders --rate 1e-300", "expected events a second, a number from 0.001 to 10000000"),
        ("publish orders --rate 10000001", "expected events a second, a number from 0.001 to 10000000"),
        ("bench fanout --rate -5", "expected events a second, a number from 0.001 to 10000000"),
    ] {
        let refused = parse(line).unwrap_err().to_string();
        assert!(refused.contains(expected) && !refused.contains("-- -"), "{line}: {refused}");
    }
    // A value that is missing is no text that happens to look like the next flag.
    assert!(parse("publish orders --key --raw").is_err());
}

/// Every argument of every command, as far as it does not take any text.
#[test]
fn every_argument_that_takes_no_text_refuses_a_negative_number_as_its_own_value() {
    use clap::CommandFactory as _;

    let mut command = Args::command();
    command.build();
    let mut commands = vec![(String::new(), &command)];
    let mut refused = 0;
    while let Some((path, command)) = commands.pop() {
        commands
            .extend(command.get_subcommands().map(|below| (format!("{path} {}", below.get_name()), below)));
        for arg in command.get_arguments() {
            if !arg.get_action().takes_values() || minus::takes_any_text(arg) {
                continue;
            }
            let line = match (arg.get_index(), arg.get_long()) {
                (Some(index), _) => format!("{path} {}-1", "t ".repeat(index - 1)),
                (None, long) => format!("{path} --{} -1", long.expect("an option has a long form")),
            };
            if line == " read --from -1" {
                continue; // It is the last event.
            }
            let error = parse(&line).expect_err(&line).to_string();
            assert!(error.starts_with("error: invalid value '-1' for '"), "{line}: {error}");
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused} arguments were tried");
}

#[test]
fn values_mean_what_they_say() {
    assert_eq!(parse_size("10GiB"), Ok(10 << 30));
    let wrong = parse_size("64XB").unwrap_err();
    assert!(wrong.contains("64MiB or 1GB") && wrong.ends_with("got \"64XB\""), "{wrong}");
    assert_eq!("72h".parse::<DurationMs>(), Ok(DurationMs(259_200_000)));
    assert_eq!(parse_header("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
    let stage = parse_stage(r#"json-filter@2:{"where":"a:b"}"#).unwrap();
    assert_eq!((stage.plugin.as_str(), stage.config.as_str()), ("json-filter@2", r#"{"where":"a:b"}"#));
    assert_eq!(stage.retries, None);
}

#[test]
fn the_last_events_that_can_be_asked_for_are_10000() {
    for flag in ["--last ", "--from -"] {
        assert!(parse(&format!("read orders {flag}10000")).is_ok(), "{flag}");
        assert!(parse(&format!("read orders {flag}10001")).is_err(), "{flag}");
    }
}

#[test]
fn a_backoff_has_64_waits_of_a_week_at_most() {
    let line = |waits: usize, wait: &str| {
        let waits = vec![wait; waits].join(",");
        format!("subscription create orders/payment --backoff {waits}")
    };
    for good in [line(64, "1s"), line(1, "7d")] {
        assert!(parse(&good).is_ok(), "{good}");
    }
    for (bad, expected) in [
        (line(65, "1s"), "expected 64 waits at most, got 65"),
        (line(1, "604800001ms"), "expected waits of 7d at most"),
    ] {
        let refused = parse(&bad).unwrap_err().to_string();
        assert!(refused.contains(expected), "{bad}: {refused}");
    }
}

#[test]
fn flags_of_every_command_may_stand_anywhere() {
    for line in [
        "--output json --quiet topic list",
        "topic --output json --quiet list",
        "topic list --output json -q",
    ] {
        let args = parse(line).unwrap();
        assert!(args.common.quiet && args.common.output == Format::Json, "{line}");
    }
}

#[test]
fn a_chain_takes_its_policy_from_the_flags() {
    use levada_protocol::request::OnError;

    let line =
        "route create r --from a --to b --plugin p --on-error pause --retries 1 --deadline 2s --memory 64MiB";
    let Command::Route(route) = parse(line).unwrap().command else { panic!("it is a route") };
    let RouteAction::Create { chain, .. } = route.action else { panic!("it is created") };
    let stages = chain.stages();
    assert_eq!((stages[0].on_error, stages[0].retries), (Some(OnError::Pause), Some(1)));
    assert_eq!((stages[0].deadline_ms, stages[0].memory_bytes_max), (Some(2_000), Some(64 << 20)));
}

#[test]
fn only_one_thing_can_be_said_of_an_event() {
    let verb = |line: &str| {
        let Command::Subscribe(subscribe) = parse(line).unwrap().command else { panic!("it subscribes") };
        format!("{:?}", subscribe.verb.verb())
    };
    assert_eq!(verb("subscribe t/s"), "Ack");
    assert_eq!(verb("subscribe t/s --no-ack"), "Nothing");
    assert_eq!(verb("subscribe t/s --nack --max 1"), "Nack(None)");
    assert_eq!(verb("subscribe t/s --nack 2s"), "Nack(Some(2s))");
    assert_eq!(verb("subscribe t/s --reject never"), "Reject(\"never\")");
    for (flags, both) in [
        ("--no-ack --nack", ["--no-ack", "--nack"]),
        ("--nack 1s --reject x", ["--nack", "--reject"]),
        ("--reject x --no-ack", ["--reject", "--no-ack"]),
    ] {
        let refused = parse(&format!("subscribe t/s {flags}")).unwrap_err().to_string();
        assert!(both.iter().all(|one| refused.contains(one)), "{refused}");
    }
}

#[test]
fn a_subscription_is_as_the_flags_say_and_else_as_it_is() {
    let options = |line: &str| {
        let Command::Subscribe(subscribe) = parse(line).unwrap().command else { panic!("it subscribes") };
        subscribe.options.options()
    };
    assert_eq!(options("subscribe t -s s --max 3"), SubscriptionOptions::default());
    let timeout = SubscriptionOptions { ack_timeout_ms: Some(5_000), ..SubscriptionOptions::default() };
    assert_eq!(options("subscribe t -s s --ack-timeout 5s"), timeout);
    let said =
        options("subscribe t -s s --max-attempts 2 --max-in-flight 7 --order none --plugin p --retries 0");
    assert_eq!((said.max_attempts, said.max_in_flight, said.order), (Some(2), Some(7), Some(Order::None)));
    let stage = StageSpec { plugin: "p".to_owned(), retries: Some(0), ..StageSpec::default() };
    assert_eq!(said.chain, Some(vec![stage]));
}

#[test]
fn names_of_certificates_and_fingerprints_of_cas_have_their_forms() {
    let fingerprint = format!("sha256:{}", "0A:".repeat(31) + "0a");
    for line in [
        "serve --tls-name engine.example.com --tls-name 192.0.2.1",
        "ca fetch engine.example.com:7600",
        &format!("ca fetch engine.example.com:7600 --fingerprint {fingerprint} --out ca.pem"),
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    for line in [
        "serve --tls-name *.example.com",
        "serve --tls-name engine.example.com:7600",
        "ca",
        "ca fetch",
        "ca fetch engine.example.com:7600 --fingerprint aa",
        &format!("ca fetch engine.example.com:7600 --fingerprint {fingerprint}00"),
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}
