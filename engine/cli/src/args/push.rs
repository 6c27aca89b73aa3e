//! What can be typed of `levada subscription push`.

use std::path::PathBuf;

use clap::Subcommand;
use levada_protocol::limits::{
    PUSH_IN_FLIGHT_MAX, PUSH_PREVIOUS_FOR_MS_MAX, PUSH_TIMEOUT_MS_MAX, PUSH_TIMEOUT_MS_MIN,
};
use levada_terminal::values::DurationMs;

use super::path::SubscriptionPath;

/// What a receiver has to know, behind the help of the command that makes one.
pub(crate) const PUSH_HELP: &str = "Each event is one POST: a CloudEvent in JSON, signed by Standard Webhooks with the headers webhook-id, \
webhook-timestamp and webhook-signature. A status of 2xx acknowledges it; 410 pauses the subscription; 429 and 503 with Retry-After are \
waited for; anything else is a failed attempt, which is repeated by the subscription's backoff, up to its --max-attempts.

  levada subscription push set orders/payment --url https://shop.example/hooks";

#[derive(Debug, Subcommand)]
pub(crate) enum PushAction {
    /// Have the engine push a subscription's events to a URL, or change that; what is not given stays as it is
    #[command(after_help = PUSH_HELP)]
    Set {
        #[command(flatten)]
        subscription: SubscriptionPath,
        /// Where to: https://HOST/PATH, at an address of the public internet, or of a network that the engine's --push-allow names
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// A file with the secret that signs: whsec_ and 24 to 64 bytes in Base64 [default: the one that there is; at first one
        /// that the engine makes, which is printed: it cannot be shown again]
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        /// Most events that the receiver has at a time, 1 to 1000 [default: as it is; at first 32]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(PUSH_IN_FLIGHT_MAX)))]
        max_in_flight: Option<u32>,
        /// How long the receiver may take to respond, 100ms to 2m [default: as it is; at first 15s]
        #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
        timeout: Option<u32>,
    },
    /// Sign with another secret; the one before signs as well for a while, so that the receiver can change over
    Rotate {
        #[command(flatten)]
        subscription: SubscriptionPath,
        /// A file with the new secret [default: one that the engine makes, and that is printed: it cannot be shown again]
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        /// For how long the one before signs as well, 0s to 30d
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_keep)]
        keep: DurationMs,
    },
    /// End a subscription's push; the subscription stays, for any consumer
    Remove {
        #[command(flatten)]
        subscription: SubscriptionPath,
    },
}

impl PushAction {
    /// Which subscription it is about.
    pub(crate) fn subscription(&self) -> &SubscriptionPath {
        match self {
            Self::Set { subscription, .. }
            | Self::Rotate { subscription, .. }
            | Self::Remove { subscription } => subscription,
        }
    }
}

fn parse_timeout(text: &str) -> Result<u32, String> {
    let DurationMs(length) = text.parse()?;
    let length =
        u32::try_from(length).ok().filter(|ms| (PUSH_TIMEOUT_MS_MIN..=PUSH_TIMEOUT_MS_MAX).contains(ms));
    length.ok_or_else(|| "expected a duration from 100ms to 2m".to_owned())
}

fn parse_keep(text: &str) -> Result<DurationMs, String> {
    match text.parse()? {
        DurationMs(ms @ 0..=PUSH_PREVIOUS_FOR_MS_MAX) => Ok(DurationMs(ms)),
        _ => Err("expected a duration of 30d at most".to_owned()),
    }
}
