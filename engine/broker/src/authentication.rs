//! Who a caller is: what a connection shows is looked up once, when it begins; that it still holds is checked with each call.

use std::{
    collections::HashSet,
    future::pending,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use levada_protocol::{
    access::Requirement,
    certificate_name::CertificateName,
    error::ErrorCode,
    ids::{PrincipalId, Timestamp, TokenId, TopicName},
    token::Token,
};
use tokio::{
    sync::watch,
    time::{Duration, sleep},
};

use crate::{
    access::{Access, Conditions, Principal, Proof, View, not_taken, proof_needed},
    actor::{Actor, Origin},
    catalogue::{Change, IdentityChange, identities::NEVER},
    clock::Clock,
    error::Error,
    identity::sha256_hex,
    metered::{Metered, Meters},
    noted::Noted,
    refusals::{self, Refusals, Sampled},
    shard::ShardHandle,
    tasks::Tasks,
};

/// How often the end of a proof is looked at, in milliseconds.
const LOOK_AGAIN_MS: u64 = 60_000;

/// So long before nobody can administrate the engine any more the log says so.
const ADMINISTRATORS_ALARM: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How often it says so.
const ADMINISTRATORS_LOOK_EVERY: Duration = Duration::from_secs(24 * 3_600);

/// What a caller shows.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// A token. One that is not taken is refused, whatever else there is.
    pub token: Option<Token>,
    /// The names in a client certificate that the listener has verified, in order of preference, and when it expires.
    pub certificate: Option<(Vec<CertificateName>, Timestamp)>,
    /// The address at the other end of its connection, where one is known: the audit topic tells it.
    pub peer: Option<SocketAddr>,
}

/// Tells when principals, permissions or tokens have changed.
#[derive(Debug, Clone)]
pub struct IdentityChanges {
    count: watch::Receiver<u64>,
}

impl IdentityChanges {
    /// Waits for the next change; false when the engine ends. Cancel safe.
    pub async fn next(&mut self) -> bool {
        self.count.changed().await.is_ok()
    }
}

/// What every call passes: who its caller is, and whether they may do what it requires.
#[derive(Debug)]
pub(crate) struct Authentication {
    shard: ShardHandle,
    clock: Clock,
    tasks: Tasks,
    refusals: Refusals,
    meters: Arc<Meters>,
    /// Tokens whose use is being noted.
    token_uses: Mutex<HashSet<TokenId>>,
}

impl Authentication {
    pub(crate) fn new(shard: ShardHandle, clock: Clock, tasks: Tasks) -> Arc<Self> {
        let (refusals, token_uses) = (Refusals::default(), Mutex::default());
        let meters = Meters::new(shard.clone(), clock.clone());
        Arc::new(Self { shard, clock, tasks, refusals, meters, token_uses })
    }

    /// As [`crate::Broker::check`].
    pub(crate) fn check(
        self: &Arc<Self>,
        principal: &Principal,
        required: &[Requirement],
    ) -> Result<(), Error> {
        let catalogue = self.shard.view().catalogue();
        let access = Access::new(&catalogue.identities, self.clock.now());
        access
            .check(principal, required)
            .inspect_err(|error| self.refuse(principal.actor(), access.unmet(principal, required), error))
    }

    /// As [`crate::Broker::check_conditions`].
    pub(crate) fn check_conditions(
        self: &Arc<Self>,
        principal: &Principal,
        conditions: &Conditions,
    ) -> Result<(), Error> {
        self.check(principal, conditions.required())?;
        let catalogue = self.shard.view().catalogue();
        Access::new(&catalogue.identities, self.clock.now()).check_shown(principal, conditions)
    }

    /// How a principal sees the events of a topic now.
    pub(crate) fn view(&self, principal: &Principal, topic: &TopicName) -> Result<View, Error> {
        let catalogue = self.shard.view().catalogue();
        Access::new(&catalogue.identities, self.clock.now()).view(principal, topic)
    }

    /// The quotas of a principal; `None` for a local caller, who has none.
    pub(crate) fn metered(&self, principal: &Principal) -> Option<Metered> {
        self.meters.of(principal)
    }

    /// Takes a request of the principal, once it may have one.
    ///
    /// # Errors
    /// `QUOTA`.
    pub(crate) async fn begin_request(&self, principal: &Principal) -> Result<(), Error> {
        match self.metered(principal) {
            Some(metered) => metered.request().await,
            None => Ok(()),
        }
    }

    /// As [`crate::Broker::check_browses_all`].
    pub(crate) fn check_browses_all(self: &Arc<Self>, principal: &Principal) -> Result<(), Error> {
        let catalogue = self.shard.view().catalogue();
        let checked = Access::new(&catalogue.identities, self.clock.now()).check_browses_all(principal);
        checked.inspect_err(|error| self.refuse(principal.actor(), "browse **".to_owned(), error))
    }

    /// How often calls were refused for who made them, by the reason.
    pub(crate) fn refused(&self) -> [(&'static str, u64); 2] {
        self.refusals.counts()
    }

    /// As [`crate::Broker::authenticate`].
    pub(crate) fn authenticate(self: &Arc<Self>, shown: &Credentials) -> Result<Principal, Error> {
        let unknown = || {
            let origin = Origin { peer: shown.peer, request: None };
            Actor { principal: "unknown".to_owned(), proof: None, origin }
        };
        self.principal_of(shown).inspect_err(|error| self.refuse(unknown(), "authenticate".to_owned(), error))
    }

    fn principal_of(self: &Arc<Self>, shown: &Credentials) -> Result<Principal, Error> {
        let (catalogue, now) = (self.shard.catalogue(), self.clock.now());
        let identities = &catalogue.identities;
        if identities.is_empty() {
            return Ok(Principal::Local);
        }
        if let Some(token) = &shown.token {
            // Hashed and compared whether or not there is such a token.
            let shown_hash = sha256_hex(token.secret());
            let record = identities.token(token.id());
            let stored_hash = record.map_or("", |record| record.secret_sha256.as_str());
            let is_same = is_same_in_constant_time(shown_hash.as_bytes(), stored_hash.as_bytes());
            let record = record.filter(|record| is_same && record.is_active(now)).ok_or_else(not_taken)?;
            let principal = identities.by_id(PrincipalId(record.principal)).ok_or_else(not_taken)?;
            if record.is_use_news(now) {
                self.note_use(TokenId(record.id));
            }
            return Ok(Principal::known(principal, Proof::Token(token.id()), shown.peer));
        }
        if let Some((names, not_after)) = &shown.certificate {
            let found = names.iter().find_map(|name| Some((name, identities.by_certificate(name)?)));
            let (name, principal) = found.filter(|_| *not_after > now).ok_or_else(not_taken)?;
            let proof = Proof::Certificate { name: name.clone(), not_after: *not_after };
            return Ok(Principal::known(principal, proof, shown.peer));
        }
        Err(proof_needed())
    }

    /// As [`crate::Broker::has_principals`].
    pub(crate) fn has_principals(&self) -> bool {
        !self.shard.catalogue().identities.is_empty()
    }

    /// As [`crate::Broker::follow_identities`].
    pub(crate) fn follow_identities(&self) -> IdentityChanges {
        IdentityChanges { count: self.shard.view().follow_identities() }
    }

    /// As [`crate::Broker::until_denied`].
    pub(crate) async fn until_denied(
        self: &Arc<Self>,
        principal: &Principal,
        conditions: &Conditions,
    ) -> Error {
        let mut changes = self.follow_identities();
        loop {
            if let Err(error) = self.check_conditions(principal, conditions) {
                return error;
            }
            self.identities_may_differ(principal, &mut changes).await;
        }
    }

    /// As [`crate::Broker::identities_may_differ`].
    pub(crate) async fn identities_may_differ(&self, principal: &Principal, changes: &mut IdentityChanges) {
        let ended = async {
            match self.proof_ends_in_ms(principal) {
                // The time of day may be set meanwhile.
                Some(ms) => sleep(Duration::from_millis(ms.min(LOOK_AGAIN_MS))).await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = changes.next() => if !changed {
                pending().await
            },
            () = ended => {}
        }
    }

    /// As [`crate::Broker::proof_ends_in_ms`].
    pub(crate) fn proof_ends_in_ms(&self, principal: &Principal) -> Option<u64> {
        let (catalogue, now) = (self.shard.catalogue(), self.clock.now());
        let ends = Access::new(&catalogue.identities, now).ends(principal)?;
        Some(ends.0.saturating_sub(now.0))
    }

    /// Counts a refusal, and notes it in the audit topic beside the call: once a minute for each caller and reason.
    fn refuse(self: &Arc<Self>, by: Actor, required: String, error: &Error) {
        self.refusals.count(error);
        let Some(of) = self.refusals.sample(Sampled { principal: by.principal.clone(), required }) else {
            return;
        };
        let (this, code) = (Arc::clone(self), error.code());
        self.tasks.spawn(tracing::debug_span!("refusal"), async move {
            this.tell_refusals(by, &of, code).await;
        });
    }

    /// Tells of a refusal, and once an interval of those that follow, until there are none. When the engine ends it tells of those that
    /// have followed by then.
    async fn tell_refusals(&self, by: Actor, of: &Sampled, code: ErrorCode) {
        let (mut times, mut ends) = (Some(1), false);
        while let Some(count) = times {
            let change = Change::Noted(Noted::refused(of.required.clone(), code, count));
            if let Err(error) = self.shard.change(by.clone(), change).await {
                tracing::debug!(%error, "a refusal was not noted");
            }
            if ends {
                return;
            }
            ends = self.tasks.cancelled().run_until_cancelled(sleep(refusals::INTERVAL)).await.is_none();
            times = self.refusals.since(of);
        }
    }

    /// For how long somebody can still come in who may do everything; `None`: without an end that is known, or there are no principals.
    pub(crate) fn administrators_end_in(&self) -> Option<Duration> {
        let (catalogue, now) = (self.shard.catalogue(), self.clock.now());
        if catalogue.identities.is_empty() {
            return None;
        }
        let end = catalogue.identities.administrators_end(now).unwrap_or(now);
        (end != NEVER).then(|| Duration::from_millis(end.0.saturating_sub(now.0)))
    }

    /// Says in the log, once a day, that soon nobody can come in who may do everything. Never ends; may be dropped at any await.
    pub(crate) async fn watch_administrators(&self) {
        loop {
            if let Some(left) = self.administrators_end_in().filter(|left| *left < ADMINISTRATORS_ALARM) {
                let hours = left.as_secs() / 3_600;
                tracing::warn!(
                    hours,
                    "the last proof of an administrator expires soon; while it holds, `levada token create` makes another"
                );
            }
            sleep(ADMINISTRATORS_LOOK_EVERY).await;
        }
    }

    /// Notes that a token is in use, beside the call that uses it: once an hour at most, by the record.
    fn note_use(self: &Arc<Self>, id: TokenId) {
        if !self.token_uses.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return;
        }
        let this = Arc::clone(self);
        self.tasks.spawn(tracing::debug_span!("token-use"), async move {
            let noting = this.shard.change(Actor::engine(), Change::Identity(IdentityChange::UseToken(id)));
            if let Some(Err(error)) = this.tasks.cancelled().run_until_cancelled(noting).await {
                tracing::debug!(%error, "the use of a token was not noted");
            }
            this.token_uses.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        });
    }
}

/// Compares without telling by its time how much is the same. The lengths are no secret.
fn is_same_in_constant_time(left: &[u8], right: &[u8]) -> bool {
    let difference =
        left.iter().zip(right).fold(0_u8, |difference, (left, right)| difference | (left ^ right));
    left.len() == right.len() && std::hint::black_box(difference) == 0
}
