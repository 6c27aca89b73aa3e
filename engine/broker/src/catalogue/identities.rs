//! Who may use the engine: principals, their tokens, and the certificate names by which they are known.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use levada_protocol::{
    access::Action,
    certificate_name::CertificateName,
    error::ErrorCode,
    ids::{PluginName, PrincipalId, PrincipalName, Timestamp, TokenId},
    mask::Mask,
    permission::Permission,
    request::StageSpec,
};

use super::names::Names;
use crate::{
    error::Error,
    rows::{PluginRecord, PrincipalRecord, TokenRecord},
};

/// The time of what does not end by itself.
pub(crate) const NEVER: Timestamp = Timestamp(u64::MAX);

/// The principals. Copies share everything until one of them changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identities {
    principals: Names<PrincipalName, PrincipalId, PrincipalRecord>,
    tokens: Arc<BTreeMap<TokenId, Arc<TokenRecord>>>,
    certificates: Arc<HashMap<CertificateName, PrincipalId>>,
}

impl Identities {
    /// True while there is no principal: local callers are served then, and nobody else.
    pub(crate) fn is_empty(&self) -> bool {
        self.principals.len() == 0
    }

    /// How many principals there are.
    pub(crate) fn principals(&self) -> usize {
        self.principals.len()
    }

    /// The principal of this name.
    ///
    /// # Errors
    /// `PRINCIPAL_NOT_FOUND`.
    pub(crate) fn principal(&self, name: &PrincipalName) -> Result<&Arc<PrincipalRecord>, Error> {
        self.principals.get(name).ok_or_else(|| {
            Error::refused(ErrorCode::PrincipalNotFound, format!("there is no principal {name}"))
        })
    }

    pub(crate) fn contains(&self, name: &PrincipalName) -> bool {
        self.principals.contains(name)
    }

    pub(crate) fn by_id(&self, id: PrincipalId) -> Option<&Arc<PrincipalRecord>> {
        self.principals.by_id(id)
    }

    /// The principal that a certificate with this name is one of.
    pub(crate) fn by_certificate(&self, name: &CertificateName) -> Option<&Arc<PrincipalRecord>> {
        self.by_id(*self.certificates.get(name)?)
    }

    pub(crate) fn token(&self, id: TokenId) -> Option<&Arc<TokenRecord>> {
        self.tokens.get(&id)
    }

    /// The principals behind this name, in order.
    pub(crate) fn principals_after(
        &self,
        after: Option<&PrincipalName>,
    ) -> impl Iterator<Item = &Arc<PrincipalRecord>> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.principals.range((begin, Bound::Unbounded)).map(|(_, record)| record)
    }

    /// The tokens behind this id, in order.
    pub(crate) fn tokens_after(&self, after: Option<TokenId>) -> impl Iterator<Item = &Arc<TokenRecord>> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.tokens.range((begin, Bound::Unbounded)).map(|(_, record)| record)
    }

    /// The tokens of a principal, in order of id.
    pub(crate) fn tokens_of(&self, principal: PrincipalId) -> impl Iterator<Item = &Arc<TokenRecord>> {
        self.tokens.values().filter(move |token| token.principal == principal.0)
    }

    /// What a principal may do: by its own lines, and by those of its roles. The roles of these do not count, so that nothing goes in
    /// circles, and what one may do is found in two places at most.
    pub(crate) fn permissions_of<'a>(&'a self, record: &'a PrincipalRecord) -> Cow<'a, [Permission]> {
        let roles = || record.permissions.iter().filter_map(Permission::role);
        if roles().next().is_none() {
            return Cow::Borrowed(&record.permissions);
        }
        let of_roles =
            roles().filter_map(|name| self.principals.get(name)).flat_map(|role| &role.permissions);
        Cow::Owned(record.permissions.iter().chain(of_roles).cloned().collect())
    }

    /// Those who have a principal as a role, in order.
    pub(crate) fn members_of(&self, role: &PrincipalName) -> impl Iterator<Item = &PrincipalName> {
        let has = move |record: &&Arc<PrincipalRecord>| {
            record.permissions.iter().any(|line| line.role() == Some(role))
        };
        self.principals.values().filter(has).map(|record| &record.name)
    }

    /// How many principals read through a version of a plugin; with `unpinned`, also those who do not name the version.
    pub(crate) fn masked_by(&self, plugin: &PluginRecord, unpinned: bool) -> usize {
        let pinned = format!("{}@{}", plugin.name, plugin.version);
        let is_of =
            |stage: StageSpec| stage.plugin == pinned || (unpinned && plugin.name == stage.plugin.as_str());
        let reads = |record: &&Arc<PrincipalRecord>| {
            record.permissions.iter().filter_map(Permission::mask).flat_map(Mask::stages).any(is_of)
        };
        self.principals.values().filter(reads).count()
    }

    /// The configurations with which principals read through the active version of a plugin, each once.
    pub(crate) fn mask_configs_of(&self, plugin: &PluginName) -> BTreeSet<String> {
        let permissions = self.principals.values().flat_map(|record| &record.permissions);
        let stages = permissions.filter_map(Permission::mask).flat_map(Mask::stages);
        stages.filter(|stage| stage.plugin == plugin.as_str()).map(|stage| stage.config).collect()
    }

    /// True if somebody can come in who may do everything.
    pub(crate) fn has_administrator(&self, now: Timestamp) -> bool {
        self.administrators_end(now).is_some()
    }

    /// Until when somebody can come in who may do everything; the end of time if a proof does not expire by itself, or if that is not
    /// known, as of certificates. `None`: nobody can now.
    pub(crate) fn administrators_end(&self, now: Timestamp) -> Option<Timestamp> {
        let may = |record: &&Arc<PrincipalRecord>| {
            self.permissions_of(record).iter().any(|line| line.action() == Some(Action::Admin))
        };
        let ends = |record: &Arc<PrincipalRecord>| {
            let certificate = (!record.certificates.is_empty()).then_some(NEVER);
            let tokens = self.tokens_of(PrincipalId(record.id)).filter(|token| token.is_active(now));
            let tokens = tokens.map(|token| token.expires_ms.map_or(NEVER, Timestamp));
            certificate.into_iter().chain(tokens).max()
        };
        self.principals.values().filter(may).filter_map(ends).max()
    }

    pub(crate) fn put_principal(&mut self, record: Arc<PrincipalRecord>) {
        let id = PrincipalId(record.id);
        self.forget_certificates(id);
        let certificates = Arc::make_mut(&mut self.certificates);
        certificates.extend(record.certificates.iter().map(|name| (name.clone(), id)));
        self.principals.insert(record.name.clone(), id, record);
    }

    /// Removes a principal; its tokens are removed one by one.
    pub(crate) fn remove_principal(&mut self, record: &PrincipalRecord) {
        let id = PrincipalId(record.id);
        self.forget_certificates(id);
        self.principals.remove(&record.name, id);
    }

    fn forget_certificates(&mut self, id: PrincipalId) {
        let Some(record) = self.principals.by_id(id) else { return };
        let certificates = Arc::make_mut(&mut self.certificates);
        record.certificates.iter().for_each(|name| {
            certificates.remove(name);
        });
    }

    pub(crate) fn put_token(&mut self, record: Arc<TokenRecord>) {
        Arc::make_mut(&mut self.tokens).insert(TokenId(record.id), record);
    }

    pub(crate) fn remove_token(&mut self, id: TokenId) {
        Arc::make_mut(&mut self.tokens).remove(&id);
    }
}
