//! What can be typed of `levada principal` and `levada token`.

use std::path::PathBuf;

use clap::Subcommand;
use levada_protocol::{
    certificate_name::CertificateName,
    ids::{PrincipalName, TokenId},
    limits::TOKEN_EXPIRES_MS_MAX,
    permission::Permission,
    request::{NewToken, QuotaChanges},
};
use levada_terminal::values::{DurationMs, parse_length, parse_size};

use super::ClientArgs;

/// What permissions look like, behind the help of the commands that take them.
pub(crate) const PERMISSION_HELP: &str = "A permission is a verb and a pattern, in one argument:
  'publish shop.*'             append to topics; group:NAME: transactions of a producer group
  'subscribe orders/payment'   consume a subscription, and create it
  'read orders'                read events without a subscription
  'read orders via json-project:{\"drop\":[\"card\"]}'
                               the same, as the plugins behind via leave them
  'browse **'                  see names, settings and figures, no events
  'manage shop.**'             create, change and delete topics, subscriptions; route:NAME: routes
  'redrive orders/payment'     read, redrive and purge dead letters
  'deploy json-*'              deploy and remove plugins
  admin                        everything, principals and tokens too
  'role shop-team'             what the principal shop-team may do by its own permissions; it needs no token
* stands for any characters within a segment (segments end at dots), ** for all that follow. Whoever may do something with a
thing may browse it";

#[derive(Debug, clap::Args)]
pub(crate) struct PrincipalArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    pub(crate) action: PrincipalAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PrincipalAction {
    /// Create a principal: a service or a person who may use the engine. The first must be an administrator with a token; from
    /// then on nobody is served without a token or a certificate
    #[command(after_help = PERMISSION_HELP)]
    Create {
        /// Its name: up to 63 of a-z 0-9 _ - beginning with a letter or digit
        name: PrincipalName,
        /// A permission; repeatable
        #[arg(long = "grant", value_name = "PERMISSION")]
        permissions: Vec<Permission>,
        /// A name in client certificates by which it is known, uri:URI or dns:NAME, exactly; repeatable
        #[arg(long = "certificate", value_name = "NAME")]
        certificates: Vec<CertificateName>,
        #[command(flatten)]
        quotas: QuotaArgs,
        /// Create a token for it as well, and print it: it cannot be shown again
        #[arg(long)]
        token: bool,
        #[command(flatten)]
        options: TokenOptions,
    },
    /// List all principals
    List,
    /// Describe a principal: what it may do, its certificate names and its tokens
    Describe {
        /// Its name [default: the principal on whose behalf this command acts]
        name: Option<PrincipalName>,
    },
    /// Allow a principal more; in force for its next call
    #[command(after_help = PERMISSION_HELP)]
    Grant {
        /// Its name
        name: PrincipalName,
        /// The permissions, each in one argument
        #[arg(required_unless_present = "certificates", value_name = "PERMISSION")]
        permissions: Vec<Permission>,
        /// A name in client certificates by which it is known from now on, uri:URI or dns:NAME; repeatable
        #[arg(long = "certificate", value_name = "NAME")]
        certificates: Vec<CertificateName>,
    },
    /// Take permissions back, by the very lines that describe shows; what is open and not allowed any more ends within a second
    Revoke {
        /// Its name
        name: PrincipalName,
        /// The permissions, each in one argument
        #[arg(required_unless_present = "certificates", value_name = "PERMISSION")]
        permissions: Vec<Permission>,
        /// A name in client certificates by which it is not known any more; repeatable
        #[arg(long = "certificate", value_name = "NAME")]
        certificates: Vec<CertificateName>,
    },
    /// Change how much a principal may do, over all of its connections; in force at once. What is over a limit waits up to a second and
    /// is refused with QUOTA then
    Limit {
        /// Its name
        name: PrincipalName,
        #[command(flatten)]
        quotas: QuotaArgs,
    },
    /// Delete a principal with its tokens; its connections are closed
    Delete {
        /// Its name
        name: PrincipalName,
    },
}

/// How much a principal may do.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Quotas")]
pub(crate) struct QuotaArgs {
    /// Events published per second; 0: no limit
    #[arg(long, value_name = "N")]
    publish_events: Option<u64>,
    /// Bytes published per second, such as 1MiB; 0: no limit
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    publish_bytes: Option<u64>,
    /// Requests per second; opening a stream is one, and a publish or a pull by HTTP; 0: no limit
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Open QUIC connections; 0: no limit
    #[arg(long, value_name = "N")]
    connections: Option<u64>,
    /// Published bytes that are not durable yet, such as 8MiB; 0: no limit
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    in_flight_bytes: Option<u64>,
}

impl QuotaArgs {
    /// What is to change.
    pub(crate) fn changes(&self) -> QuotaChanges {
        QuotaChanges {
            publish_events: self.publish_events,
            publish_bytes: self.publish_bytes,
            requests: self.requests,
            connections: self.connections,
            in_flight_bytes: self.in_flight_bytes,
        }
    }
}

/// What a new token is to be, and where it goes.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenOptions {
    /// How long the token is valid, up to ten years, or never to let it not expire [default: 90d]
    #[arg(long, value_name = "DURATION", value_parser = parse_expires)]
    pub(crate) expires: Option<DurationMs>,
    /// What the token is for, up to 256 bytes; `levada token list` shows it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) description: String,
    /// Write the token into this new file, which only you may read, instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

impl TokenOptions {
    /// True if anything is said of the token.
    pub(crate) fn is_given(&self) -> bool {
        self.expires.is_some() || !self.description.is_empty() || self.out.is_some()
    }

    /// The token as it is asked for.
    pub(crate) fn new_token(&self) -> NewToken {
        NewToken { description: self.description.clone(), expires_in_ms: self.expires.map(|length| length.0) }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Create a token of a principal, and print it: it cannot be shown again
    Create {
        /// The principal
        principal: PrincipalName,
        #[command(flatten)]
        options: TokenOptions,
    },
    /// List tokens, without their secrets; those that were revoked or expired in the last 30 days too
    List {
        /// Those of this principal [default: all]
        principal: Option<PrincipalName>,
    },
    /// Revoke a token; the connections that were made with it are closed
    Revoke {
        /// Its id, as `levada token list` prints it; never the token itself
        id: TokenId,
    },
}

/// A duration, or `never` as 0.
fn parse_expires(text: &str) -> Result<DurationMs, String> {
    if text == "never" {
        return Ok(DurationMs(0));
    }
    match parse_length(text)? {
        DurationMs(ms @ 1..=TOKEN_EXPIRES_MS_MAX) => Ok(DurationMs(ms)),
        _ => Err("expected 1ms to 3650d, or never".to_owned()),
    }
}
