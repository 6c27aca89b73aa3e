//! What each command is given: wrong arguments, names that nothing has, and what is right but for the engine.
//!
//! Topic orders is there, with two partitions; nothing else is.

/// A command that does a thing, as opposed to one that has commands of its own.
pub(super) struct Row {
    /// Its words, as a user types them.
    pub(super) command: &'static str,
    /// Arguments that are wrong whatever the engine holds, and what the error says of them.
    pub(super) wrong: &'static [(&'static str, &'static str)],
    /// Arguments that name what is not there, with the code and what the error says.
    pub(super) absent: &'static [(&'static str, &'static str, &'static str)],
    /// Arguments that an engine would have to answer. None if the command needs no engine.
    pub(super) dead: &'static [&'static str],
}

const NO_TOPIC: (&str, &str) = ("TOPIC_NOT_FOUND", "there is no topic absent");
const NO_SUBSCRIPTION: (&str, &str) = ("SUBSCRIPTION_NOT_FOUND", "topic orders has no subscription absent");
const NO_ROUTE_FROM: (&str, &str) = ("ROUTE_NOT_FOUND", "there is no route absent from topic orders");
const NO_PLUGIN: (&str, &str) = ("PLUGIN_NOT_FOUND", "there is no plugin absent");
const NO_ROUTE: (&str, &str) = ("ROUTE_NOT_FOUND", "there is no route absent");
const NO_TRANSACTION: (&str, &str) = ("TRANSACTION_NOT_FOUND", "there is no transaction shop/absent");
const NO_PRINCIPAL: (&str, &str) = ("PRINCIPAL_NOT_FOUND", "there is no principal absent");
const NO_CONTEXT: (&str, &str) = ("CONTEXT_NOT_FOUND", "there is no context absent; there are none");
const NEVER_SCHEDULED: (&str, &str) = ("SCHEDULE_NOT_FOUND", "orders has never scheduled an event 7");

const TOPIC_NAME: &str = "topic name \"Orders\" is invalid: expected 1 to 128 of a-z 0-9 . _ -";
const CONTEXT_NAME: &str = "context name \"Prod\" is invalid: expected 1 to 63 of a-z 0-9 _ -";
const ROUTE_NAME: &str = "route name \"Big\" is invalid: expected 1 to 63 of a-z 0-9 _ -";
const SUBSCRIPTION_NAME: &str = "subscription name \"Big\" is invalid: expected 1 to 63 of a-z 0-9 _ -";
const ONLY_A_TOPIC: &str =
    "expected TOPIC/SUBSCRIPTION, or TOPIC with --subscription, got only the topic orders";
const NO_TRANSACTION_ID: &str = "'order-1' for '<GROUP/ID>': expected GROUP/ID, such as shop/order-42";
const EXTRA: &str = "unexpected argument 'extra' found";

const fn of(
    arguments: &'static str,
    (code, says): (&'static str, &'static str),
) -> (&'static str, &'static str, &'static str) {
    (arguments, code, says)
}

pub(super) const ROWS: &[Row] = &[
    Row {
        command: "serve",
        wrong: &[
            (
                "--listen nowhere",
                "'nowhere' for '--listen <ADDR>': expected an address such as 127.0.0.1:7600",
            ),
            ("--http nowhere", "'nowhere' for '--http <ADDR>': expected an address such as 127.0.0.1:7600"),
            (
                "--tls-name *.example.com",
                "'*.example.com' for '--tls-name <NAME_OR_IP>': expected a DNS name",
            ),
            (
                "--push-allow intranet",
                "'intranet' for '--push-allow <NETWORK>': \"intranet\" is no network: expected",
            ),
            ("--log-format xml", "'xml' for '--log-format <LOG_FORMAT>' [possible values: text, json]"),
        ],
        absent: &[],
        dead: &[],
    },
    Row {
        command: "demo",
        wrong: &[
            ("--events 5", "'5' for '--events <N>': expected 10 to 1000000"),
            ("--rate fast", "'fast' for '--rate <R>'"),
            ("--keep", "'--keep <DIR>'"),
        ],
        absent: &[],
        dead: &[],
    },
    Row {
        command: "context add",
        wrong: &[
            ("Prod --addr a:1", CONTEXT_NAME),
            ("prod", "required arguments were not provided: --addr <HOST:PORT>"),
            ("prod --addr a:port", "'a:port' for '--addr <HOST:PORT>': expected host:port as address"),
            ("prod --addr :7600", "':7600' for '--addr <HOST:PORT>': expected host:port as address"),
            ("prod --addr a:1 --token-file f --token-stdin", "cannot be used with '--token-stdin'"),
            ("prod --addr a:1 --token lv1_x", "unexpected argument '--token' found"),
            ("prod extra --addr a:1", EXTRA),
        ],
        absent: &[],
        dead: &[],
    },
    Row {
        command: "context use",
        wrong: &[("Prod", CONTEXT_NAME)],
        absent: &[of("absent", NO_CONTEXT)],
        dead: &[],
    },
    Row { command: "context list", wrong: &[("extra", EXTRA)], absent: &[], dead: &[] },
    Row {
        command: "context show",
        wrong: &[("Prod", CONTEXT_NAME)],
        absent: &[of("absent", NO_CONTEXT)],
        dead: &[],
    },
    Row {
        command: "context remove",
        wrong: &[("Prod", CONTEXT_NAME)],
        absent: &[of("absent", NO_CONTEXT)],
        dead: &[],
    },
    Row {
        command: "topic create",
        wrong: &[
            ("Orders", TOPIC_NAME),
            ("dlq.orders.s", "expected a name that begins neither with _ nor with dlq. (the engine's own)"),
            ("x --partitions 0", "'0' for '--partitions <N>': expected 1 to 1024"),
            ("x --partitions many", "'many' for '--partitions <N>': expected a whole number"),
            ("x --durability none", "'none' for '--durability <DURABILITY>' [possible values: sync, os]"),
            ("x --retain compacted", "'compacted' for '--retain <RETAIN>' [possible values: "),
            ("x --retain-for soon", "'soon' for '--retain-for <DURATION>': expected a duration such as 90s"),
            ("x --max-bytes 64XB", "'64XB' for '--max-bytes <SIZE>': expected a size such as"),
            ("x --dedup-window soon", "--dedup-window [<DURATION>]': expected off, or a duration such as 2m"),
            (
                "x --dedup-window 8d",
                "'8d' for '--dedup-window [<DURATION>]': expected a duration of 7d or less",
            ),
            ("x --dedup-header source", "--dedup-header source has no effect without --dedup-window"),
            ("x --backlog-max-events many", "'many' for '--backlog-max-events <N>': expected a whole number"),
            ("x --backlog-max-bytes -1", "'-1' for '--backlog-max-bytes <SIZE>': expected a size such as"),
            (
                "x --backlog-max-age old",
                "'old' for '--backlog-max-age <DURATION>': expected off, or a duration",
            ),
            ("x --on-full drop-oldest", "--on-full drop-oldest has no effect without a limit of the backlog"),
        ],
        absent: &[],
        dead: &["orders", "orders --retain compact"],
    },
    Row { command: "topic list", wrong: &[("extra", EXTRA)], absent: &[], dead: &[""] },
    Row {
        command: "topic describe",
        wrong: &[("Orders", TOPIC_NAME), ("", "arguments were not provided: <TOPIC>")],
        absent: &[of("absent", NO_TOPIC)],
        dead: &["orders"],
    },
    Row {
        command: "topic set",
        wrong: &[
            ("orders", "arguments were not provided: <--durability <DURABILITY>|--retain <RETAIN>|"),
            ("orders --on-full explode", "'explode' for '--on-full <ON_FULL>' [possible values: reject,"),
            ("orders --dedup-header lv-attempt", "expected a header of your own, got \"lv-attempt\""),
        ],
        absent: &[
            of("absent --retain compact", NO_TOPIC),
            of("absent --retain-for 1h", NO_TOPIC),
            of("absent --backlog-max-events 1", NO_TOPIC),
            of("absent --dedup-window", NO_TOPIC),
        ],
        dead: &[
            "orders --retain compact",
            "orders --retain-for 1h",
            "orders --backlog-max-age 1h",
            "orders --dedup-window",
        ],
    },
    Row {
        command: "topic purge",
        wrong: &[
            ("orders", "arguments were not provided: <--before <TIME>|--until <OFFSET>|--all>"),
            ("orders --all --until 5", "'--all' cannot be used with '--until <OFFSET>'"),
            (
                "orders --until 5",
                "--until names an offset of one partition, and topic orders has 2 partitions",
            ),
            ("orders --until soon", "'soon' for '--until <OFFSET>': expected a whole number"),
            (
                "orders --before noon",
                "'noon' for '--before <TIME>': expected a duration back from now such as 1h",
            ),
            (
                "dlq.orders.s --all",
                "dlq.orders.s holds the dead letters of orders/s, expected a topic of events",
            ),
        ],
        absent: &[of("absent --all", NO_TOPIC), of("absent --before 1h --force", NO_TOPIC)],
        dead: &["orders --all"],
    },
    Row {
        command: "topic delete",
        wrong: &[("Orders", TOPIC_NAME), ("orders --yes", "unexpected argument '--yes' found")],
        absent: &[of("absent", NO_TOPIC), of("absent --force", NO_TOPIC)],
        dead: &["orders", "orders --force"],
    },
    Row {
        command: "publish",
        wrong: &[
            ("orders hello", "expected no event behind the topic, got \"hello\""),
            ("dlq.orders.s", "expected a name that begins neither with _ nor with dlq. (the engine's own)"),
            (
                "orders --rate many",
                "'many' for '--rate <R>': expected events a second, a number from 0.001 to 10000000",
            ),
            ("orders --header x", "'x' for '--header <N=V>': expected NAME=VALUE"),
            ("orders --partition x", "'x' for '--partition <P>': expected a whole number"),
            (
                "orders --expect-offset first",
                "'first' for '--expect-offset <OFFSET>': expected a whole number",
            ),
            (
                "orders --expect-offset 0 --rate 1",
                "'--expect-offset <OFFSET>' cannot be used with '--rate <R>'",
            ),
            ("orders --prepare order-1", "'order-1' for '--prepare <GROUP/ID>': expected GROUP/ID, such as"),
            ("orders --prepare shop/1 --delay 1m", "'--prepare <GROUP/ID>' cannot be used with '--delay"),
            (
                "orders --producer Big",
                "'Big' for '--producer <NAME>': producer name \"Big\" is invalid: expected",
            ),
            (
                "orders --producer importer --prepare shop/1",
                "'--producer <NAME>' cannot be used with '--prepare <GROUP/ID>'",
            ),
            ("orders --check-after 1m", "arguments were not provided: --prepare <GROUP/ID>"),
            ("orders --ttl 0s", "'0s' for '--ttl <DURATION>': expected a duration of 1ms or more"),
            ("orders --ttl 50d", "'50d' for '--ttl <DURATION>': expected a duration of 49d or less"),
            ("orders --ttl -1s", "'-1s' for '--ttl <DURATION>': expected a duration such as 90s"),
            ("orders --ttl soon", "'soon' for '--ttl <DURATION>': expected a duration such as 90s"),
            ("orders --delay 366d", "'366d' for '--delay <DURATION>': expected a duration of 365d or less"),
            ("orders --delay soon", "'soon' for '--delay <DURATION>': expected a duration such as 90s"),
            ("orders --delay -5s", "'-5s' for '--delay <DURATION>': expected a duration such as 90s"),
            (
                "orders --delay 1m --deliver-at 2026-01-31T12:00:00Z",
                "'--delay <DURATION>' cannot be used with",
            ),
            ("orders --deliver-at tomorrow", "'tomorrow' for '--deliver-at <TIME>': expected a time such as"),
            ("orders --timeout 7d", "'7d' for '--timeout <DURATION>': expected a duration from 1ms to 6d"),
            ("orders --timeout never", "'never' for '--timeout <DURATION>': expected a duration such as 90s"),
        ],
        absent: &[
            of("absent", NO_TOPIC),
            of("absent --no-wait", NO_TOPIC),
            of("absent --expect-offset 0", NO_TOPIC),
            of("absent --prepare shop/1", NO_TOPIC),
            of("absent --producer importer", NO_TOPIC),
            of("absent --delay 1m", NO_TOPIC),
            (
                "orders --file absent.ndjson",
                "FILE_UNREADABLE",
                "absent.ndjson cannot be read: there is no such",
            ),
            ("orders --file /", "FILE_UNREADABLE", "/ cannot be read: it is a directory"),
        ],
        dead: &[
            "orders",
            "orders --timeout 1s",
            "orders --no-wait",
            "orders --expect-offset 0",
            "orders --prepare shop/1",
            "orders --producer importer",
            "orders --delay 1m",
        ],
    },
    Row {
        command: "subscribe",
        wrong: &[
            ("orders", ONLY_A_TOPIC),
            ("orders -s publish", "subscription name \"publish\" is invalid: expected a name that is not"),
            ("orders/s --from never", "'never' for '--from <START>': expected earliest, latest, an offset"),
            ("orders/s --wait 0s", "'0s' for '--wait <DURATION>': expected a duration of 1ms or more"),
            ("orders/s --wait soon", "'soon' for '--wait <DURATION>': expected a duration such as 90s"),
            ("orders/s --max 0", "'0' for '--max <N>'"),
            ("orders/s --max-attempts 0", "'0' for '--max-attempts <N>': expected 1 to 10000"),
            ("orders/s --max-in-flight 0", "'0' for '--max-in-flight <N>': expected 1 to 1048576"),
            ("orders/s --order random", "'random' for '--order <ORDER>' [possible values: key,"),
            ("orders/s --plugin p@0", "'p@0' for '--plugin <P[@V][:CONFIG]>': expected a version from 1"),
            ("orders/s --retries 5", "arguments were not provided: --plugin"),
            ("orders/s --publish-to Orders", TOPIC_NAME),
            ("orders/s --publish-to orders", "expected another topic than orders for --publish-to"),
            (
                "orders/s --publish-to a --nack 5s",
                "'--publish-to <TOPIC>' cannot be used with '--nack [<DELAY>]'",
            ),
        ],
        absent: &[
            of("absent/s", NO_TOPIC),
            of("absent/s --max 1 --wait 1s", NO_TOPIC),
            of("orders/s --publish-to absent", NO_TOPIC),
            of("orders/s --plugin absent", NO_PLUGIN),
        ],
        dead: &["orders/s", "orders/s --max 1 --wait 1s", "orders/s --publish-to invoices"],
    },
    Row {
        command: "read",
        wrong: &[
            ("Orders", TOPIC_NAME),
            (
                "orders --from tomorrow",
                "'tomorrow' for '--from <START>': expected earliest, latest, an offset",
            ),
            ("orders --from -10001", "expected at most 10000 as the number of last events, got 10001"),
            ("orders --where a>1 --from -3", "expected a place or time as --from of a search"),
            ("orders --last 0", "'0' for '--last <N>': expected 1 to 10000"),
            ("orders --last 10001", "'10001' for '--last <N>': expected 1 to 10000"),
            (
                "orders --since never",
                "'never' for '--since <TIME>': expected a duration back from now such as 1h",
            ),
            (
                "orders --cursor x",
                "'x' for '--cursor <CURSOR>': expected PARTITION:OFFSET, several separated by",
            ),
            ("orders --partition x", "'x' for '--partition <P>': expected a whole number"),
        ],
        absent: &[
            of("absent", NO_TOPIC),
            of("absent --last 3", NO_TOPIC),
            of("absent --follow", NO_TOPIC),
            of("absent --where a>1", NO_TOPIC),
        ],
        dead: &["orders", "orders --last 3", "orders --follow", "orders --where a>1"],
    },
    Row {
        command: "subscription create",
        wrong: &[
            ("orders", ONLY_A_TOPIC),
            ("orders/Big", SUBSCRIPTION_NAME),
            ("orders/s --from never", "'never' for '--from <START>': expected earliest, latest, an offset"),
            (
                "orders/s --backoff 1s,soon",
                "'1s,soon' for '--backoff <DURATION,..>': expected a duration such",
            ),
            ("orders/s --expire-after never", "expected none, or a duration from 1m to 365d such as 7d, got"),
        ],
        absent: &[of("absent/s", NO_TOPIC), of("orders/s --plugin absent", NO_PLUGIN)],
        dead: &["orders/s"],
    },
    Row {
        command: "subscription list",
        wrong: &[("Orders", TOPIC_NAME)],
        absent: &[of("absent", NO_TOPIC)],
        dead: &["", "orders"],
    },
    Row {
        command: "subscription describe",
        wrong: &[("orders", ONLY_A_TOPIC), ("orders/Big", SUBSCRIPTION_NAME)],
        absent: &[of("orders/absent", NO_SUBSCRIPTION), of("absent/s", NO_TOPIC)],
        dead: &["orders/s"],
    },
    Row {
        command: "subscription delete",
        wrong: &[("orders", ONLY_A_TOPIC), ("orders/Big", SUBSCRIPTION_NAME)],
        absent: &[
            of("orders/absent", NO_SUBSCRIPTION),
            of("orders/absent --force", NO_SUBSCRIPTION),
            of("absent/s", NO_TOPIC),
        ],
        dead: &["orders/s", "orders/s --force"],
    },
    Row {
        command: "subscription set",
        wrong: &[
            ("orders/s", "nothing to change was given"),
            ("orders/s --rate -3", "'-3' for '--rate <N>': expected events a second, 1 to 10000000, or none"),
            ("orders/s --rate 0", "'0' for '--rate <N>': expected events a second, 1 to 10000000, or none"),
            (
                "orders/s --rate 10000001",
                "'10000001' for '--rate <N>': expected events a second, 1 to 10000000, or none",
            ),
            ("orders/s --backoff 1s,soon", "got \"soon\"; expected durations such as 1s,5s,1m"),
            ("orders/s --backoff 8d", "'8d' for '--backoff <DURATION,..>': expected waits of 7d at most"),
            (
                "orders/s --expire-after 59s",
                "'59s' for '--expire-after <DURATION>': expected none, or a duration",
            ),
            (
                "orders/s --expire-after 366d",
                "'366d' for '--expire-after <DURATION>': expected none, or a duration",
            ),
            ("orders/s --plugin p --no-plugins", "cannot be used with '--no-plugins'"),
        ],
        absent: &[of("orders/absent --rate 5", NO_SUBSCRIPTION), of("absent/s --rate 5", NO_TOPIC)],
        dead: &["orders/s --rate 5"],
    },
    Row {
        command: "subscription seek",
        wrong: &[
            ("orders/s", "arguments were not provided: --to <START>"),
            (
                "orders/s --to yesterday",
                "'yesterday' for '--to <START>': expected earliest, latest, an offset",
            ),
            ("orders/s --to earliest --partition x", "'x' for '--partition <N>': expected a whole number"),
        ],
        absent: &[of("orders/absent --to earliest", NO_SUBSCRIPTION), of("absent/s --to earliest", NO_TOPIC)],
        dead: &["orders/s --to earliest"],
    },
    Row {
        command: "subscription pause",
        wrong: &[("orders", ONLY_A_TOPIC), ("orders/Big", SUBSCRIPTION_NAME)],
        absent: &[of("orders/absent", NO_SUBSCRIPTION), of("absent/s", NO_TOPIC)],
        dead: &["orders/s"],
    },
    Row {
        command: "subscription resume",
        wrong: &[("orders", ONLY_A_TOPIC), ("orders/Big", SUBSCRIPTION_NAME)],
        absent: &[of("orders/absent", NO_SUBSCRIPTION), of("absent/s", NO_TOPIC)],
        dead: &["orders/s"],
    },
    Row {
        command: "subscription push set",
        wrong: &[
            ("orders/s", "nothing to set was given"),
            (
                "orders/s --timeout 1ms",
                "'1ms' for '--timeout <DURATION>': expected a duration from 100ms to 2m",
            ),
            ("orders/s --max-in-flight 0", "'0' for '--max-in-flight <N>'"),
        ],
        absent: &[
            of("orders/absent --url https://shop.example", NO_SUBSCRIPTION),
            of("absent/s --url https://shop.example", NO_TOPIC),
        ],
        dead: &["orders/s --url https://shop.example"],
    },
    Row {
        command: "subscription push rotate",
        wrong: &[(
            "orders/s --keep 31d",
            "'31d' for '--keep <DURATION>': expected a duration of 30d at most",
        )],
        absent: &[of("orders/absent", NO_SUBSCRIPTION), of("absent/s", NO_TOPIC)],
        dead: &["orders/s"],
    },
    Row {
        command: "subscription push remove",
        wrong: &[("orders", ONLY_A_TOPIC), ("orders/Big", SUBSCRIPTION_NAME)],
        absent: &[of("orders/absent", NO_SUBSCRIPTION), of("absent/s", NO_TOPIC)],
        dead: &["orders/s"],
    },
    Row {
        command: "dlq list",
        wrong: &[
            ("Orders", TOPIC_NAME),
            ("--where a>1", "TOPIC/SUBSCRIPTION"),
            ("orders --where a>1", "--where and --from count the dead letters of one subscription or route"),
            ("orders/s --scan-max 0", "'0' for '--scan-max <SIZE>': expected a size of 1 byte or more"),
        ],
        absent: &[
            of("absent", NO_TOPIC),
            of("orders/absent", NO_SUBSCRIPTION),
            of("absent/s", NO_TOPIC),
            of("orders/route-absent", NO_ROUTE_FROM),
        ],
        dead: &["", "orders", "orders/s"],
    },
    Row {
        command: "dlq show",
        wrong: &[
            ("", "arguments were not provided: <TOPIC/SUBSCRIPTION>"),
            (
                "orders",
                "'orders' for '<TOPIC/SUBSCRIPTION>': dead-letter topic name \"orders\" is invalid: expected TOPIC/SUBSCRIPTION",
            ),
            ("orders/s --max 0", "'0' for '--max <N>'"),
        ],
        absent: &[
            of("orders/absent", NO_SUBSCRIPTION),
            of("orders/absent --offset 7", NO_SUBSCRIPTION),
            of("absent/route-big", NO_TOPIC),
            ("absent/s", "TOPIC_NOT_FOUND", "`levada dlq list` shows whose dead letters there are"),
        ],
        dead: &["orders/s"],
    },
    Row {
        command: "dlq redrive",
        wrong: &[
            ("orders/s --to paid", "arguments were not provided: <--offset <N>|--where <CONDITION>|--all>"),
            (
                "orders/route-big --all",
                "route big has no subscription that its dead letters could go back to",
            ),
            ("orders/s --all --offset 1 --to paid", "'--all' cannot be used with '--offset <N>'"),
            ("orders/s --offset one --to paid", "'one' for '--offset <N>': expected a whole number"),
        ],
        absent: &[
            of("orders/absent --all", NO_SUBSCRIPTION),
            of("orders/absent --all --to orders", NO_SUBSCRIPTION),
            of("orders/absent --offset 7", NO_SUBSCRIPTION),
            of("orders/route-absent --all --to orders", NO_ROUTE_FROM),
            of("absent/s --all", NO_TOPIC),
        ],
        dead: &["orders/s --all", "orders/s --all --to paid"],
    },
    Row {
        command: "dlq purge",
        wrong: &[
            ("orders/s", "arguments were not provided: <--before <TIME>|--all>"),
            (
                "orders/s --before soon",
                "'soon' for '--before <TIME>': expected a duration back from now such as 1h",
            ),
            ("orders/s --all --before 1h", "'--all' cannot be used with '--before <TIME>'"),
        ],
        absent: &[of("orders/absent --all", NO_SUBSCRIPTION), of("absent/s --all", NO_TOPIC)],
        dead: &["orders/s --all"],
    },
    Row {
        command: "plugin deploy",
        wrong: &[
            ("p", "arguments were not provided: <FILE>"),
            ("Big x.wasm", "plugin name \"Big\" is invalid: expected 1 to 63 of a-z 0-9 _ -"),
            ("p x.wasm --config {", "'{' for '--config <JSON>': expected JSON such as"),
            ("--bundled p", "'--bundled' cannot be used with '[NAME]'"),
        ],
        absent: &[("p absent.wasm", "FILE_UNREADABLE", "absent.wasm cannot be read: there is no such file")],
        dead: &["--bundled", "p Cargo.toml"],
    },
    Row { command: "plugin list", wrong: &[("extra", EXTRA)], absent: &[], dead: &[""] },
    Row {
        command: "plugin remove",
        wrong: &[("p@x", "'p@x' for '<NAME[@VERSION]>': expected a version from 1 after @, got \"x\"")],
        absent: &[of("absent", NO_PLUGIN), ("absent@3", "PLUGIN_NOT_FOUND", "there is no plugin absent@3")],
        dead: &["p", "p@1"],
    },
    Row {
        command: "route create",
        wrong: &[
            ("Big --from orders --to paid", ROUTE_NAME),
            ("r --from orders", "arguments were not provided: --to <T>"),
            (
                "r --from orders --to paid --start never",
                "'never' for '--start <START>': expected earliest, latest",
            ),
            ("r --from orders --to paid --plugin p@0", "'p@0' for '--plugin <P[@V][:CONFIG]>': expected a"),
        ],
        absent: &[of("r --from absent --to orders", NO_TOPIC), of("r --from orders --to absent", NO_TOPIC)],
        dead: &["r --from orders --to paid"],
    },
    Row { command: "route list", wrong: &[("extra", EXTRA)], absent: &[], dead: &[""] },
    Row {
        command: "route describe",
        wrong: &[("Big", ROUTE_NAME)],
        absent: &[of("absent", NO_ROUTE)],
        dead: &["r"],
    },
    Row {
        command: "route delete",
        wrong: &[("Big", ROUTE_NAME)],
        absent: &[of("absent", NO_ROUTE), of("absent --force", NO_ROUTE)],
        dead: &["r", "r --force"],
    },
    Row {
        command: "route resume",
        wrong: &[("Big", ROUTE_NAME)],
        absent: &[of("absent", NO_ROUTE)],
        dead: &["r"],
    },
    Row {
        command: "schedule list",
        wrong: &[("orders --max 0", "'0' for '--max <N>'"), ("Orders", TOPIC_NAME)],
        absent: &[of("absent", NO_TOPIC)],
        dead: &["orders"],
    },
    Row {
        command: "schedule show",
        wrong: &[("orders x", "'x' for '<ID>': expected a whole number"), ("Orders 7", TOPIC_NAME)],
        absent: &[of("absent 7", NO_TOPIC), of("orders 7", NEVER_SCHEDULED)],
        dead: &["orders 7"],
    },
    Row {
        command: "schedule cancel",
        wrong: &[("orders x", "'x' for '<ID>': expected a whole number"), ("Orders 7", TOPIC_NAME)],
        absent: &[of("absent 7", NO_TOPIC), of("orders 7", NEVER_SCHEDULED)],
        dead: &["orders 7"],
    },
    Row {
        command: "transaction publish",
        wrong: &[
            ("order-1", "'order-1' for '[GROUP/ID]': expected GROUP/ID, such as shop/order-42"),
            ("--prepare", "arguments were not provided: <GROUP/ID>"),
            ("shop/1 --check-after 1m", "arguments were not provided: --prepare"),
            ("shop/1 --prepare --check-after 2d", "'2d' for '--check-after <DURATION>': expected a duration"),
            ("--timeout 6m", "'6m' for '--timeout <DURATION>': expected a duration from 1ms to 5m"),
            ("--header x", "'x' for '--header <N=V>': expected NAME=VALUE"),
            ("--ttl 0s", "'0s' for '--ttl <DURATION>': expected a duration of 1ms or more"),
        ],
        absent: &[
            of("", ("TOPIC_NOT_FOUND", "line 1: there is no topic absent")),
            of("shop/1", ("TOPIC_NOT_FOUND", "line 1: there is no topic absent")),
            of("shop/1 --prepare", ("TOPIC_NOT_FOUND", "line 1: there is no topic absent")),
            ("--file absent.ndjson", "FILE_UNREADABLE", "absent.ndjson cannot be read: there is no such"),
        ],
        dead: &["", "shop/1", "shop/1 --prepare"],
    },
    Row {
        command: "transaction list",
        wrong: &[
            ("--group Shop", "producer group name \"Shop\" is invalid: expected 1 to 63 of a-z 0-9 _ -"),
            ("--max 0", "'0' for '--max <N>'"),
        ],
        absent: &[],
        dead: &["", "--group shop"],
    },
    Row {
        command: "transaction describe",
        wrong: &[("order-1", NO_TRANSACTION_ID)],
        absent: &[of("shop/absent", NO_TRANSACTION)],
        dead: &["shop/order-1"],
    },
    Row {
        command: "transaction commit",
        wrong: &[("order-1", NO_TRANSACTION_ID)],
        absent: &[of("shop/absent", NO_TRANSACTION)],
        dead: &["shop/order-1"],
    },
    Row {
        command: "transaction rollback",
        wrong: &[("order-1", NO_TRANSACTION_ID)],
        absent: &[of("shop/absent", NO_TRANSACTION)],
        dead: &["shop/order-1"],
    },
    Row {
        command: "bench publish",
        wrong: &[("--connections 0", "'0' for '--connections <N>': expected 1 to 4096")],
        absent: &[("--token-file absent", "FILE_UNREADABLE", "absent cannot be read: there is no such file")],
        dead: &["--events 10"],
    },
    Row {
        command: "bench latency",
        wrong: &[("--size 1", "'1' for '--size <B>': expected 24 to 1000000")],
        absent: &[],
        dead: &["--events 10"],
    },
    Row {
        command: "bench fanout",
        wrong: &[("--subscribers 0", "'0' for '--subscribers <N>': expected 1 to 1024")],
        absent: &[],
        dead: &["--events 10"],
    },
    Row {
        command: "bench catchup",
        wrong: &[("--batch 0", "'0' for '--batch <N>': expected 1 to 10000")],
        absent: &[],
        dead: &["--events 10"],
    },
    Row {
        command: "bench delivery",
        wrong: &[("--consumers 0", "'0' for '--consumers <N>': expected 1 to 1024")],
        absent: &[],
        dead: &["--events 10"],
    },
    Row {
        command: "bench plugin",
        wrong: &[
            ("--pass 2", "'2' for '--pass <SHARE>': expected a share above 0 and at most 1"),
            ("--plugin absent", "'absent' for '--plugin <PLUGIN>' [possible values: trivial,"),
        ],
        absent: &[],
        dead: &["--events 10"],
    },
    Row {
        command: "bench dedup",
        wrong: &[("--window never", "'never' for '--window <DURATION>': expected a duration such as 90s")],
        absent: &[],
        dead: &["--events 10"],
    },
    Row {
        command: "bench delay",
        wrong: &[("--within soon", "'soon' for '--within <DURATION>': expected a duration such as 90s")],
        absent: &[],
        dead: &["--events 10"],
    },
    Row {
        command: "bench prepare",
        wrong: &[("--events none", "'none' for '--events <N>': expected a whole number")],
        absent: &[],
        dead: &["--events 10"],
    },
    Row {
        command: "bench network",
        wrong: &[("--only all", "'all' for '--only <MEASURE>' [possible values: http,")],
        absent: &[],
        dead: &[],
    },
    Row {
        command: "bench limits",
        wrong: &[
            ("--time 2m", "'2m' for '--time <DURATION>': expected a duration of 1m or less"),
            ("--mtu 10", "'10' for '--mtu <BYTES>': expected 1200 to 6500"),
        ],
        absent: &[],
        dead: &[],
    },
    Row {
        command: "principal create",
        wrong: &[
            ("Big", "principal name \"Big\" is invalid: expected 1 to 63 of a-z 0-9 _ -"),
            ("shop --grant publish", "\"publish\" is no permission: expected behind publish a topic"),
            ("shop --certificate shop", "certificate name \"shop\" is invalid: expected uri: and a URI"),
            ("shop --token --expires 3651d", "'3651d' for '--expires <DURATION>': expected 1ms to 3650d"),
            (
                "shop --expires 1d",
                "expected --token as well: --expires, --description and --out are about the token",
            ),
        ],
        absent: &[],
        dead: &["shop --grant admin --token"],
    },
    Row { command: "principal list", wrong: &[("extra", EXTRA)], absent: &[], dead: &[""] },
    Row {
        command: "principal describe",
        wrong: &[("shop extra", EXTRA)],
        absent: &[of("absent", NO_PRINCIPAL)],
        dead: &["", "shop"],
    },
    Row {
        command: "principal grant",
        wrong: &[
            ("shop", "arguments were not provided: <PERMISSION>"),
            ("shop write", "\"write\" is no permission: expected one of publish, subscribe, read"),
        ],
        absent: &[of("absent admin", NO_PRINCIPAL)],
        dead: &["shop admin"],
    },
    Row {
        command: "principal revoke",
        wrong: &[("shop admin*", "\"admin*\" is no permission: expected one of publish")],
        absent: &[of("absent admin", NO_PRINCIPAL)],
        dead: &["shop admin"],
    },
    Row {
        command: "principal limit",
        wrong: &[
            ("shop", "expected at least one limit, such as --publish-events 1000"),
            ("shop --publish-bytes much", "expected a size such as 4096, 64MiB or 1GB"),
        ],
        absent: &[of("absent --requests 1", NO_PRINCIPAL)],
        dead: &["shop --requests 1"],
    },
    Row {
        command: "principal delete",
        wrong: &[("", "arguments were not provided: <NAME>")],
        absent: &[of("absent", NO_PRINCIPAL)],
        dead: &["shop"],
    },
    Row {
        command: "token create",
        wrong: &[("shop --expires soon", "'soon' for '--expires <DURATION>'")],
        absent: &[of("absent", NO_PRINCIPAL)],
        dead: &["shop"],
    },
    Row {
        command: "token list",
        wrong: &[("shop extra", EXTRA)],
        absent: &[of("absent", NO_PRINCIPAL)],
        dead: &["", "shop"],
    },
    Row {
        command: "token revoke",
        wrong: &[("lv1", "not the id of a token: expected 11 of 0-9 A-Z a-z")],
        absent: &[("00000000000", "TOKEN_NOT_FOUND", "there is no token 00000000000")],
        dead: &["00000000000"],
    },
    Row {
        command: "ca fetch",
        wrong: &[
            ("", "arguments were not provided: <HOST:PORT>"),
            (
                "localhost:7600 --fingerprint sha256:12",
                "'sha256:12' for '--fingerprint <sha256:HEX>': expected sha256: and 64 hexadecimal digits",
            ),
        ],
        absent: &[(
            "localhost:port",
            "CONFIG_INVALID",
            "expected host:port as address, got \"localhost:port\"",
        )],
        dead: &[],
    },
    Row {
        command: "completion",
        wrong: &[
            ("tcsh", "'tcsh' for '<SHELL>' [possible values: bash, elvish, fish, powershell, zsh]"),
            ("", "arguments were not provided: <SHELL>"),
        ],
        absent: &[],
        dead: &[],
    },
];
