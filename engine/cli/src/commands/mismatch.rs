//! A subscription that exists with other options than a command gives: which flag it is, in the words of this command line.
//!
//! The engine and the client name fields of the wire.

use levada_client::{Client, Error, ErrorCode, StageSpec};
use levada_protocol::request::SubscriptionOptions;
use levada_terminal::{Failure, choices::order_word, output};

use super::attachment::on_error_word;

/// A flag, and its value there and in the command.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    flag: &'static str,
    has: String,
    wanted: String,
}

/// The same error; of one that refuses an option of the subscription, with the flag that differs if one does.
pub(super) async fn in_flags(
    client: &Client,
    (topic, name): (&str, &str),
    wanted: &SubscriptionOptions,
    error: Error,
) -> anyhow::Error {
    let code = error.code();
    if !matches!(code, ErrorCode::SubscriptionMismatch | ErrorCode::SubscriptionExists) {
        return error.into();
    }
    let found = client.describe_subscription(topic, name).await;
    let mut wanted = wanted.clone();
    if code == ErrorCode::SubscriptionExists {
        // There a plugin's flags that are not given mean their defaults.
        let spelt_out = |chain: Vec<StageSpec>| chain.into_iter().map(StageSpec::with_defaults).collect();
        wanted.chain = wanted.chain.map(spelt_out);
    }
    let Some(Difference { flag, has, wanted }) = found.ok().and_then(|found| first(&found.options, &wanted))
    else {
        return error.into();
    };
    let message = format!("subscription {topic}/{name} exists with --{flag} {has}, expected {wanted}");
    let hint = format!(
        "`levada subscription set {topic}/{name}` with that flag changes it; without the flag it is taken as it is"
    );
    Failure::new(code, message).hint(hint).into()
}

/// The first flag that is given and differs; none of a plugin's own configuration, which has no flags.
fn first(has: &SubscriptionOptions, wanted: &SubscriptionOptions) -> Option<Difference> {
    let SubscriptionOptions {
        order,
        chain,
        ack_timeout_ms,
        max_attempts,
        max_in_flight,
        backoff_ms,
        rate,
        dead_letter_expired,
        expire_after_ms,
    } = wanted;
    let milliseconds = |time: u32| output::duration_ms(time.into());
    differs("order", has.order(), *order, |order| order_word(order).to_owned())
        .or_else(|| differs("ack-timeout", has.ack_timeout_ms(), *ack_timeout_ms, milliseconds))
        .or_else(|| differs("max-attempts", has.max_attempts(), *max_attempts, |most| most.to_string()))
        .or_else(|| differs("max-in-flight", has.max_in_flight(), *max_in_flight, |most| most.to_string()))
        .or_else(|| differs("backoff", has.backoff_ms(), backoff_ms.as_deref(), waits))
        .or_else(|| {
            differs("rate", has.rate.unwrap_or(0), *rate, |rate| or_none(rate.into(), |it| it.to_string()))
        })
        .or_else(|| {
            let is = has.dead_letter_expired();
            differs("dead-letter-expired", is, *dead_letter_expired, |is| is.to_string())
        })
        .or_else(|| {
            let after = has.expire_after_ms.unwrap_or(0);
            differs("expire-after", after, *expire_after_ms, |after| or_none(after, output::duration_ms))
        })
        .or_else(|| of_chain(has.chain(), chain.as_deref()?))
}

fn of_chain(has: &[StageSpec], wanted: &[StageSpec]) -> Option<Difference> {
    let plugins = |chain: &[StageSpec]| match chain {
        [] => "none".to_owned(),
        some => some.iter().map(|stage| stage.plugin.as_str()).collect::<Vec<_>>().join(" | "),
    };
    differs("plugin", plugins(has), Some(plugins(wanted)), |plugins| plugins)
        .or_else(|| has.iter().zip(wanted).find_map(|(has, wanted)| of_stage(has, wanted)))
}

/// The first flag of a stage that differs, unless its configuration does, which is compared before.
fn of_stage(has: &StageSpec, wanted: &StageSpec) -> Option<Difference> {
    let meaning = |stage: &StageSpec| serde_json::from_str::<serde_json::Value>(&stage.config).ok();
    if has.config != wanted.config && meaning(has) != meaning(wanted) {
        return None;
    }
    let milliseconds = |time: u32| output::duration_ms(time.into());
    differs("on-error", has.on_error(), wanted.on_error, |policy| on_error_word(policy).to_owned())
        .or_else(|| differs("retries", has.retries(), wanted.retries, |most| most.to_string()))
        .or_else(|| differs("deadline", has.deadline_ms(), wanted.deadline_ms, milliseconds))
        .or_else(|| {
            differs("memory", has.memory_bytes_max(), wanted.memory_bytes_max, |most| most.to_string())
        })
}

fn differs<T: PartialEq>(
    flag: &'static str,
    has: T,
    wanted: Option<T>,
    text: impl Fn(T) -> String,
) -> Option<Difference> {
    let wanted = wanted.filter(|wanted| *wanted != has)?;
    Some(Difference { flag, has: text(has), wanted: text(wanted) })
}

/// What is typed for a limit of which 0 is none.
fn or_none(limit: u64, text: impl Fn(u64) -> String) -> String {
    if limit == 0 { "none".to_owned() } else { text(limit) }
}

fn waits(waits: &[u32]) -> String {
    match waits {
        [] => "none".to_owned(),
        some => some.iter().map(|wait| output::duration_ms((*wait).into())).collect::<Vec<_>>().join(","),
    }
}

#[cfg(test)]
mod tests {
    use levada_client::OnError;
    use levada_protocol::request::Order;

    use super::*;

    fn said(has: &SubscriptionOptions, wanted: SubscriptionOptions) -> String {
        let Difference { flag, has, wanted } = first(has, &wanted).unwrap();
        format!("--{flag} {has}, expected {wanted}")
    }

    #[test]
    fn each_option_is_named_by_its_flag_with_values_as_they_are_typed() {
        let none = SubscriptionOptions::default();
        let of = |change: fn(&mut SubscriptionOptions)| {
            let mut options = SubscriptionOptions::default();
            change(&mut options);
            options
        };
        for (change, expected) in [
            (
                (|it| it.order = Some(Order::None)) as fn(&mut SubscriptionOptions),
                "--order key, expected none",
            ),
            (|it| it.ack_timeout_ms = Some(5_000), "--ack-timeout 30s, expected 5s"),
            (|it| it.max_attempts = Some(3), "--max-attempts 16, expected 3"),
            (|it| it.max_in_flight = Some(7), "--max-in-flight 1000, expected 7"),
            (
                |it| it.backoff_ms = Some(vec![500, 60_000]),
                "--backoff 1s,5s,10s,30s,1m,2m,5m,10m,30m,1h,2h, expected 500ms,1m",
            ),
            (|it| it.rate = Some(9), "--rate none, expected 9"),
            (|it| it.dead_letter_expired = Some(true), "--dead-letter-expired false, expected true"),
            (|it| it.expire_after_ms = Some(7 * 86_400_000), "--expire-after none, expected 7d"),
        ] {
            assert_eq!(said(&none, of(change)), expected);
        }
        let kept = SubscriptionOptions { expire_after_ms: Some(0), ..none.clone() };
        assert_eq!(first(&none, &kept), None, "none is none");
        assert_eq!(
            said(&of(|it| it.expire_after_ms = Some(60_000)), kept),
            "--expire-after 1m, expected none"
        );
    }

    #[test]
    fn flags_of_plugins_are_named_and_their_own_configuration_is_left_to_the_engine() {
        let stage = |plugin: &str| StageSpec { plugin: plugin.to_owned(), ..StageSpec::default() };
        let of = |chain: Vec<StageSpec>| SubscriptionOptions {
            chain: Some(chain),
            ..SubscriptionOptions::default()
        };
        let has = of(vec![stage("keep")]);
        assert_eq!(said(&has, of(Vec::new())), "--plugin keep, expected none");
        assert_eq!(said(&has, of(vec![stage("keep"), stage("x@2")])), "--plugin keep, expected keep | x@2");
        let skip = StageSpec { on_error: Some(OnError::Skip), config: "{ }".to_owned(), ..stage("keep") };
        assert_eq!(said(&has, of(vec![skip])), "--on-error dead-letter, expected skip");
        let slow = StageSpec { deadline_ms: Some(60_000), ..stage("keep") };
        assert_eq!(said(&has, of(vec![slow])), "--deadline 100ms, expected 1m");
        let configured = StageSpec { config: r#"{"a":1}"#.to_owned(), retries: Some(9), ..stage("keep") };
        assert_eq!(first(&has, &of(vec![configured])), None);
        assert_eq!(first(&has, &of(vec![stage("keep")])), None, "what is not given differs from nothing");
    }
}
