//! Who a caller is: what a connection shows is looked up once, when it begins; that it still holds is checked with each call.

use std::{future::pending, sync::PoisonError};

use levada_protocol::{
    access::Requirement,
    certificate_name::CertificateName,
    ids::{PrincipalId, Timestamp, TokenId},
    token::Token,
};
use tokio::{
    sync::watch,
    time::{Duration, sleep},
};

use crate::{
    access::{Access, Principal, Proof, not_taken, proof_needed},
    broker::Broker,
    catalogue::{Change, IdentityChange},
    error::Error,
    identity::sha256_hex,
};

/// How often the end of a proof is looked at, in milliseconds.
const LOOK_AGAIN_MS: u64 = 60_000;

/// What a caller shows.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// A token. One that is not taken is refused, whatever else there is.
    pub token: Option<Token>,
    /// The names in a client certificate that the listener has verified, in order of preference, and when it expires.
    pub certificate: Option<(Vec<CertificateName>, Timestamp)>,
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

impl Broker {
    /// Finds out on whose behalf a caller's calls are made. Without principals a caller that shows nothing is
    /// [`Principal::Local`]: who may connect at all is the listener's decision.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`: nothing was shown, or what was shown is unknown, expired or revoked; the latter three look alike, also
    /// in the time that they take.
    pub fn authenticate(&self, shown: &Credentials) -> Result<Principal, Error> {
        let (catalogue, now) = (self.inner.shard.catalogue(), self.inner.config.clock.now());
        let identities = &catalogue.identities;
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
            return Ok(Principal::known(principal, Proof::Token(token.id())));
        }
        if let Some((names, not_after)) = &shown.certificate
            && !identities.is_empty()
        {
            let found = names.iter().find_map(|name| Some((name, identities.by_certificate(name)?)));
            let (name, principal) = found.filter(|_| *not_after > now).ok_or_else(not_taken)?;
            return Ok(Principal::known(
                principal,
                Proof::Certificate { name: name.clone(), not_after: *not_after },
            ));
        }
        if identities.is_empty() { Ok(Principal::Local) } else { Err(proof_needed()) }
    }

    /// True if there are principals: nobody is served any more who shows nothing.
    pub fn has_principals(&self) -> bool {
        !self.inner.shard.catalogue().identities.is_empty()
    }

    /// Follows the changes of principals from now on.
    pub fn follow_identities(&self) -> IdentityChanges {
        IdentityChanges { count: self.inner.shard.view().follow_identities() }
    }

    /// Waits until the principal may not do all this any more; returns the refusal. Cancel safe.
    pub async fn until_denied(&self, principal: &Principal, required: &[Requirement]) -> Error {
        let mut changes = self.follow_identities();
        loop {
            if let Err(error) = self.check(principal, required) {
                return error;
            }
            self.identities_may_differ(principal, &mut changes).await;
        }
    }

    /// Waits until principals, permissions or tokens have changed, or the principal's own proof may have ended by itself. Never
    /// when the engine ends. Cancel safe.
    pub async fn identities_may_differ(&self, principal: &Principal, changes: &mut IdentityChanges) {
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

    /// How long until the principal's proof ends by itself, in milliseconds of the time of day; `None`: never.
    pub fn proof_ends_in_ms(&self, principal: &Principal) -> Option<u64> {
        let (catalogue, now) = (self.inner.shard.catalogue(), self.inner.config.clock.now());
        let ends = Access::new(&catalogue.identities, now).ends(principal)?;
        Some(ends.0.saturating_sub(now.0))
    }

    /// Notes that a token is in use, beside the call that uses it: once an hour at most, by the record.
    fn note_use(&self, id: TokenId) {
        if !self.inner.token_uses.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return;
        }
        let broker = self.clone();
        self.inner.tasks.spawn(tracing::debug_span!("token-use"), async move {
            let noting = broker.inner.shard.change(Change::Identity(IdentityChange::UseToken(id)));
            if let Some(Err(error)) = broker.inner.tasks.cancelled().run_until_cancelled(noting).await {
                tracing::debug!(%error, "the use of a token was not noted");
            }
            broker.inner.token_uses.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        });
    }
}

/// Compares without telling by its time how much is the same. The lengths are no secret.
fn is_same_in_constant_time(left: &[u8], right: &[u8]) -> bool {
    let difference =
        left.iter().zip(right).fold(0_u8, |difference, (left, right)| difference | (left ^ right));
    left.len() == right.len() && std::hint::black_box(difference) == 0
}
