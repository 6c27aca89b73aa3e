//! Who asks, and what they may do. Every call into the broker names its principal and is checked at the entry, before
//! anything is read.
//!
//! What a call requires is derived in `levada_protocol::access`, in one place for all calls; what a principal may do is its
//! record in the catalogue, read anew for each call, so that a change is in force at once.
//!
//! What is refused looks as if it did not exist, except to those who may browse it. A change is refused with
//! `PERMISSION_DENIED` whether or not there is such a thing: it is checked before anybody looks.

use std::{
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
};

use levada_protocol::{
    access::{Action, Requirement, Scope, reading_unmasked, source_of_dead_letters},
    certificate_name::CertificateName,
    error::ErrorCode,
    ids::{PrincipalId, PrincipalName, Timestamp, TokenId, TopicName},
    mask::Mask,
    permission::Permission,
    request::StageSpec,
};

use crate::{
    actor::{Actor, Origin},
    catalogue::{Catalogue, Identities, absent},
    error::Error,
    rows::PrincipalRecord,
};

/// On whose behalf a call is made. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A local caller of an engine without principals, who may do everything. Nobody is local once there is a principal.
    Local,
    /// A principal of the catalogue, which has shown a proof.
    Known(Arc<Known>),
}

/// A principal of the catalogue, how it came in, and from where. Two are the same whose names and proofs are.
#[derive(Debug, Clone)]
pub struct Known {
    id: PrincipalId,
    name: PrincipalName,
    proof: Proof,
    origin: Origin,
}

/// How a principal came in. It stays in only as long as that holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Proof {
    /// With a token.
    Token(TokenId),
    /// With a client certificate that has this name.
    Certificate {
        /// The name, which is one of the principal's.
        name: CertificateName,
        /// When the certificate expires.
        not_after: Timestamp,
    },
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        (self.id, &self.name, &self.proof) == (other.id, &other.name, &other.proof)
    }
}

impl Eq for Known {}

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.id, &self.name, &self.proof).hash(state);
    }
}

impl Known {
    pub(crate) fn name(&self) -> &PrincipalName {
        &self.name
    }
}

impl Principal {
    pub(crate) fn known(record: &PrincipalRecord, proof: Proof, peer: Option<SocketAddr>) -> Self {
        let origin = Origin { peer, request: None };
        Self::Known(Arc::new(Known { id: PrincipalId(record.id), name: record.name.clone(), proof, origin }))
    }

    /// The same for one request, by what names it where somebody looks for it: the audit topic tells it of what the request changes.
    #[must_use]
    pub fn for_request(mut self, id: impl FnOnce() -> String) -> Self {
        if let Self::Known(known) = &mut self {
            Arc::make_mut(known).origin.request = Some(id());
        }
        self
    }

    /// Its id in the catalogue; `None` for a local caller.
    pub(crate) fn id(&self) -> Option<PrincipalId> {
        match self {
            Self::Local => None,
            Self::Known(known) => Some(known.id),
        }
    }

    /// True if it came in with a client certificate, which a browser shows without being asked.
    pub fn has_shown_a_certificate(&self) -> bool {
        matches!(self, Self::Known(known) if matches!(known.proof, Proof::Certificate { .. }))
    }

    /// What is told of who makes a change.
    pub(crate) fn actor(&self) -> Actor {
        let (proof, origin) = match self {
            Self::Local => (None, Origin::default()),
            Self::Known(known) => {
                let proof = match &known.proof {
                    Proof::Token(id) => format!("token {id}"),
                    Proof::Certificate { name, .. } => format!("certificate {name}"),
                };
                (Some(proof), known.origin.clone())
            }
        };
        Actor { principal: self.as_str().to_owned(), proof, origin }
    }

    /// The name that catalogue records keep as their principal, and that logs and refusals show.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Local => "local",
            Self::Known(known) => known.name.as_str(),
        }
    }
}

/// How the events of a topic are shown to one who may read them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum View {
    /// As they are stored.
    Stored,
    /// As these plugins leave them.
    Masked(Vec<StageSpec>),
}

/// What must stay true for something that goes on: all that its principal must be allowed to do, and, where events are shown through
/// plugins, that these are the plugins.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditions {
    required: Vec<Requirement>,
    shown: Option<(TopicName, View)>,
}

impl Conditions {
    /// For a reader of a topic that is shown in this way.
    pub(crate) fn reading(topic: &TopicName, view: &View) -> Self {
        match view {
            View::Stored => vec![reading_unmasked(topic)].into(),
            View::Masked(_) => {
                let required = vec![(Action::Read, Scope::Topic(topic.clone()))];
                Self { required, shown: Some((topic.clone(), view.clone())) }
            }
        }
    }

    /// What the principal must be allowed to do.
    pub(crate) fn required(&self) -> &[Requirement] {
        &self.required
    }
}

impl From<Vec<Requirement>> for Conditions {
    fn from(required: Vec<Requirement>) -> Self {
        Self { required, shown: None }
    }
}

/// One who asks for a list, and gets what they may browse.
#[derive(Debug, Clone)]
pub(crate) struct Viewer {
    principal: Principal,
    catalogue: Arc<Catalogue>,
    now: Timestamp,
}

impl Viewer {
    pub(crate) fn new(principal: &Principal, catalogue: &Arc<Catalogue>, now: Timestamp) -> Self {
        Self { principal: principal.clone(), catalogue: Arc::clone(catalogue), now }
    }

    /// What there is.
    pub(crate) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// True if they are allowed to do this.
    pub(crate) fn may(&self, required: &Requirement) -> bool {
        let access = Access::new(&self.catalogue.identities, self.now);
        access.check(&self.principal, std::slice::from_ref(required)).is_ok()
    }

    /// True if the thing is in their lists.
    pub(crate) fn sees(&self, scope: &Scope) -> bool {
        Access::new(&self.catalogue.identities, self.now).may_browse(&self.principal, scope)
    }
}

/// The identities of one moment, and what they are asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access<'a> {
    identities: &'a Identities,
    now: Timestamp,
}

impl<'a> Access<'a> {
    pub(crate) fn new(identities: &'a Identities, now: Timestamp) -> Self {
        Self { identities, now }
    }

    /// Checks everything that a call requires.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if the principal is gone or its proof does not hold any more. Else for the first requirement that is
    /// not met: `PERMISSION_DENIED` naming it, or that there is no such thing.
    pub(crate) fn check(self, principal: &Principal, required: &[Requirement]) -> Result<(), Error> {
        let Some(record) = self.standing(principal)? else { return Ok(()) };
        let lines = self.identities.permissions_of(record);
        let unmet = required.iter().find(|(action, scope)| !allows(&lines, *action, scope));
        unmet.map_or(Ok(()), |(action, scope)| Err(denied(&record.name, &lines, *action, scope)))
    }

    /// The first of these requirements that is not met, in words.
    pub(crate) fn unmet(self, principal: &Principal, required: &[Requirement]) -> String {
        if let [(action, scope)] = required {
            return format!("{action} {scope}");
        }
        let is_unmet =
            |requirement: &&Requirement| self.check(principal, std::slice::from_ref(requirement)).is_err();
        let unmet = required.iter().find(is_unmet);
        // Nothing is required of a connection but that its principal is one.
        unmet.map_or_else(|| "keep the connection".to_owned(), |(action, scope)| format!("{action} {scope}"))
    }

    /// Checks that the principal may browse everything.
    pub(crate) fn check_browses_all(self, principal: &Principal) -> Result<(), Error> {
        let Some(record) = self.standing(principal)? else { return Ok(()) };
        if self
            .identities
            .permissions_of(record)
            .iter()
            .any(|line| line.allows(Action::Browse, &Scope::Engine))
        {
            return Ok(());
        }
        let message = format!("principal {} may not browse **, expected that permission", record.name);
        Err(Error::refused(ErrorCode::PermissionDenied, message))
    }

    /// How the principal sees a topic's events: as they are stored if a permission without a mask allows that, else through the masks of
    /// all permissions that allow reading it, one after another.
    ///
    /// # Errors
    /// As [`Access::check`] of one who may not read the topic.
    pub(crate) fn view(self, principal: &Principal, topic: &TopicName) -> Result<View, Error> {
        let Some(record) = self.standing(principal)? else { return Ok(View::Stored) };
        let (lines, scope) = (self.identities.permissions_of(record), Scope::Topic(topic.clone()));
        if allows(&lines, Action::ReadUnmasked, &scope) {
            return Ok(View::Stored);
        }
        let mut masks = Vec::<&Mask>::new();
        for mask in lines.iter().filter(|line| line.allows(Action::Read, &scope)).filter_map(Permission::mask)
        {
            // A role and its member may have the same.
            if !masks.contains(&mask) {
                masks.push(mask);
            }
        }
        if masks.is_empty() {
            return Err(denied(&record.name, &lines, Action::Read, &scope));
        }
        Ok(View::Masked(masks.into_iter().flat_map(Mask::stages).collect()))
    }

    /// Checks that events are shown as they would be to one who begins to read now.
    ///
    /// # Errors
    /// `VIEW_CHANGED`; or as [`Access::check`] of one who may not read the topic.
    pub(crate) fn check_shown(self, principal: &Principal, conditions: &Conditions) -> Result<(), Error> {
        let Some((topic, shown)) = &conditions.shown else { return Ok(()) };
        if self.view(principal, topic)? == *shown {
            return Ok(());
        }
        let message = format!(
            "the permissions that say through which plugins principal {} reads topic {topic} have changed; read again from where you are",
            principal.as_str()
        );
        Err(Error::refused(ErrorCode::ViewChanged, message))
    }

    /// True if the principal may see that there is such a thing.
    pub(crate) fn may_browse(self, principal: &Principal, scope: &Scope) -> bool {
        match self.standing(principal) {
            Ok(Some(record)) => allows(&self.identities.permissions_of(record), Action::Browse, scope),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// The principal's record; `None` for a local caller.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if it is not one any more.
    fn standing(self, principal: &Principal) -> Result<Option<&'a PrincipalRecord>, Error> {
        let known = match principal {
            Principal::Local if self.identities.is_empty() => return Ok(None),
            Principal::Local => return Err(proof_needed()),
            Principal::Known(known) => known,
        };
        let record = self.identities.by_id(known.id).ok_or_else(not_taken)?;
        let holds = match &known.proof {
            Proof::Token(id) => self
                .identities
                .token(*id)
                .is_some_and(|token| token.principal == record.id && token.is_active(self.now)),
            Proof::Certificate { name, not_after } => {
                record.certificates.contains(name) && *not_after > self.now
            }
        };
        if holds { Ok(Some(record)) } else { Err(not_taken()) }
    }

    /// When the principal's proof ends by itself; `None`: never.
    pub(crate) fn ends(self, principal: &Principal) -> Option<Timestamp> {
        let Principal::Known(known) = principal else { return None };
        match &known.proof {
            Proof::Token(id) => self.identities.token(*id)?.expires_ms.map(Timestamp),
            Proof::Certificate { not_after, .. } => Some(*not_after),
        }
    }
}

/// What is said to one who has shown nothing.
pub(crate) fn proof_needed() -> Error {
    let message = "the engine serves principals alone: expected a token (`levada token create` makes one; LEVADA_TOKEN, \
                   LEVADA_TOKEN_FILE, `levada context add`, by HTTP Authorization: Bearer) or a client certificate, got none";
    Error::refused(ErrorCode::Unauthenticated, message)
}

/// What is said of a proof that is unknown, expired or revoked: the same of all three.
pub(crate) fn not_taken() -> Error {
    let message = "the token or certificate is unknown, expired or revoked; ask an administrator for another";
    Error::refused(ErrorCode::Unauthenticated, message)
}

/// True if these permissions allow the action.
///
/// Whoever may do anything with a thing may browse it; whoever may do anything at all may ask for lists, which show what they
/// may browse. Whoever may redrive dead letters may read them.
fn allows(permissions: &[Permission], action: Action, scope: &Scope) -> bool {
    if permissions.iter().any(|permission| permission.allows(action, scope)) {
        return true;
    }
    let of_dead_letters = |action: Action| match scope {
        Scope::Topic(topic) => {
            source_of_dead_letters(topic).is_some_and(|source| allows(permissions, action, &source))
        }
        _ => false,
    };
    match (action, scope) {
        (Action::Browse, Scope::Engine) => !permissions.is_empty(),
        (Action::Browse, _) => {
            permissions.iter().any(|permission| permission.concerns(scope)) || of_dead_letters(Action::Browse)
        }
        (Action::Read | Action::ReadUnmasked, _) => of_dead_letters(Action::Redrive),
        _ => false,
    }
}

fn denied(name: &PrincipalName, lines: &[Permission], action: Action, scope: &Scope) -> Error {
    let is_change = matches!(action, Action::Manage | Action::Deploy | Action::Admin);
    if !is_change
        && !allows(lines, Action::Browse, scope)
        && let Some(absent) = absent(scope, |scope| allows(lines, Action::Browse, scope))
    {
        return absent;
    }
    if action == Action::ReadUnmasked && allows(lines, Action::Read, scope) {
        let message = format!(
            "principal {name} may read {scope} through plugins alone (`read … via …`): expected a permission to read it without"
        );
        return Error::refused(ErrorCode::PermissionDenied, message);
    }
    let action = if action == Action::ReadUnmasked { Action::Read } else { action };
    let message = format!("principal {name} may not {action} {scope}; see `levada principal grant {name}`");
    Error::refused(ErrorCode::PermissionDenied, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(permissions: &[&str], action: Action, scope: &Scope) -> bool {
        let permissions: Vec<Permission> = permissions.iter().map(|line| line.parse().unwrap()).collect();
        allows(&permissions, action, scope)
    }

    fn topic(name: &str) -> Scope {
        Scope::Topic(name.parse().unwrap())
    }

    fn subscription(topic: &str, name: &str) -> Scope {
        Scope::Subscription(topic.parse().unwrap(), name.parse().unwrap())
    }

    #[test]
    fn whoever_may_do_something_with_a_thing_may_browse_it_and_nothing_else() {
        let (orders, payment) = (topic("orders"), subscription("orders", "payment"));
        for line in ["publish orders", "read orders", "manage orders", "subscribe orders/payment"] {
            assert!(may(&[line], Action::Browse, &orders), "{line}");
            assert!(may(&[line], Action::Browse, &Scope::Engine), "{line}");
            assert!(!may(&[line], Action::Browse, &topic("others")), "{line}");
        }
        assert!(may(&["subscribe orders/payment"], Action::Browse, &payment));
        assert!(!may(&["subscribe orders/stock"], Action::Browse, &payment));
        assert!(!may(&["browse **"], Action::Read, &orders));
        assert!(!may(&[], Action::Browse, &Scope::Engine));
        for action in Action::ALL {
            assert!(may(&["admin"], action, &orders));
        }
    }

    #[test]
    fn dead_letters_are_read_by_those_who_may_redrive_them() {
        let dead = topic("dlq.orders.payment");
        for line in [
            "redrive orders/payment",
            "redrive orders",
            "redrive **",
            "read dlq.orders.payment",
            "read dlq.**",
        ] {
            assert!(may(&[line], Action::Read, &dead), "{line}");
        }
        for line in ["redrive orders/stock", "read orders", "subscribe orders/payment", "manage orders"] {
            assert!(!may(&[line], Action::Read, &dead), "{line}");
        }
        assert!(may(&["subscribe orders/payment"], Action::Browse, &dead));
        let of_route = topic("dlq.orders.route-copy");
        assert!(may(&["redrive route:copy"], Action::Read, &of_route));
        assert!(!may(&["redrive route:other"], Action::Read, &of_route));
    }
}
