//! Principals and their tokens, as they are made and shown.

use serde::{Deserialize, Serialize};

use crate::{
    certificate_name::CertificateName,
    ids::{PrincipalName, TokenId},
    permission::Permission,
};

/// Makes a principal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreatePrincipal {
    /// Its name.
    pub name: PrincipalName,
    /// What it may do; nothing without any.
    #[serde(default)]
    pub permissions: Vec<Permission>,
    /// The names in client certificates by which it is known.
    #[serde(default)]
    pub certificates: Vec<CertificateName>,
    /// How much it may do.
    #[serde(default)]
    pub quotas: Quotas,
    /// A token to make with it, in the same commit.
    #[serde(default)]
    pub token: Option<NewToken>,
}

/// Changes a principal. What is granted or added twice, and what is revoked or removed and is not there, changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangePrincipal {
    /// The principal.
    pub name: PrincipalName,
    /// Permissions that it gets.
    #[serde(default)]
    pub grant: Vec<Permission>,
    /// Permissions that it loses: these very lines, not what they cover.
    #[serde(default)]
    pub revoke: Vec<Permission>,
    /// Certificate names that it gets.
    #[serde(default)]
    pub add_certificates: Vec<CertificateName>,
    /// Certificate names that it loses.
    #[serde(default)]
    pub remove_certificates: Vec<CertificateName>,
    /// Quotas that are others from now on.
    #[serde(default)]
    pub quotas: QuotaChanges,
}

impl ChangePrincipal {
    /// A change of nothing yet.
    pub fn new(name: PrincipalName) -> Self {
        Self {
            name,
            grant: Vec::new(),
            revoke: Vec::new(),
            add_certificates: Vec::new(),
            remove_certificates: Vec::new(),
            quotas: QuotaChanges::default(),
        }
    }
}

/// How much a principal may do, over all of its connections. 0, the default of each: no limit.
///
/// A call over a quota waits up to a second, which holds up its stream; then it is refused with `QUOTA` and `retry_after_ms`. A rate
/// allows a second's worth at once, and a batch of more whenever the one before is paid off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Quotas {
    /// Events published per second.
    pub publish_events: u64,
    /// Encoded bytes published per second.
    pub publish_bytes: u64,
    /// Requests per second; opening a stream is one, a transaction, and a publish or a pull by HTTP.
    pub requests: u64,
    /// Open QUIC connections. One more is refused.
    pub connections: u64,
    /// Published bytes that are not durable yet.
    pub in_flight_bytes: u64,
}

impl Quotas {
    /// True if nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What is to change of a principal's quotas; what is not given stays as it is, 0 lifts a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct QuotaChanges {
    /// See [`Quotas::publish_events`].
    pub publish_events: Option<u64>,
    /// See [`Quotas::publish_bytes`].
    pub publish_bytes: Option<u64>,
    /// See [`Quotas::requests`].
    pub requests: Option<u64>,
    /// See [`Quotas::connections`].
    pub connections: Option<u64>,
    /// See [`Quotas::in_flight_bytes`].
    pub in_flight_bytes: Option<u64>,
}

impl QuotaChanges {
    /// What the quotas are once this has changed.
    #[must_use]
    pub fn of(&self, quotas: &Quotas) -> Quotas {
        Quotas {
            publish_events: self.publish_events.unwrap_or(quotas.publish_events),
            publish_bytes: self.publish_bytes.unwrap_or(quotas.publish_bytes),
            requests: self.requests.unwrap_or(quotas.requests),
            connections: self.connections.unwrap_or(quotas.connections),
            in_flight_bytes: self.in_flight_bytes.unwrap_or(quotas.in_flight_bytes),
        }
    }
}

/// What a token is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NewToken {
    /// What it is for, for a person.
    pub description: String,
    /// For how long it is valid, in milliseconds, up to ten years; `None` means 90 days, 0 for ever.
    pub expires_in_ms: Option<u64>,
}

/// Makes a token of a principal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateToken {
    /// The principal.
    pub principal: PrincipalName,
    /// What the token is to be.
    #[serde(default)]
    pub token: NewToken,
}

/// A token that was made, with its secret. The engine keeps a hash of it alone.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct IssuedToken {
    /// The whole token, as a client sends it.
    pub token: String,
    /// What is shown of it from now on.
    pub info: TokenInfo,
}

impl std::fmt::Debug for IssuedToken {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken").field("info", &self.info).finish_non_exhaustive()
    }
}

/// The description of a principal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrincipalInfo {
    /// Its name.
    pub name: PrincipalName,
    /// What it may do, in the order of the lines.
    #[serde(default)]
    pub permissions: Vec<Permission>,
    /// The names in client certificates by which it is known.
    #[serde(default)]
    pub certificates: Vec<CertificateName>,
    /// How much it may do.
    #[serde(default)]
    pub quotas: Quotas,
    /// How many of its tokens are active.
    #[serde(default)]
    pub tokens: u32,
    /// When it was made, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub created_ms: u64,
    /// Who made it.
    #[serde(default)]
    pub created_by: String,
}

/// Whether a token is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// It is.
    Active,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
    /// A state of a newer version.
    #[default]
    #[serde(other)]
    Unknown,
}

impl TokenState {
    /// The word used on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
        }
    }
}

/// The description of a token, without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Its id, which is a part of its text.
    pub id: TokenId,
    /// Whose it is.
    pub principal: PrincipalName,
    /// Whether it is taken.
    #[serde(default)]
    pub state: TokenState,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// When it was made, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub created_ms: u64,
    /// Who made it.
    #[serde(default)]
    pub created_by: String,
    /// Until when it is valid, in milliseconds since the Unix epoch; `None` means for ever.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// When it was revoked, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub revoked_ms: Option<u64>,
    /// When it was used last, to the hour, in milliseconds since the Unix epoch; `None`: not yet.
    #[serde(default)]
    pub used_ms: Option<u64>,
}
