//! Changes of principals and tokens: decided against those that there are, one at a time, as all changes of the catalogue.

use std::sync::Arc;

use levada_protocol::{
    certificate_name::CertificateName,
    error::ErrorCode,
    ids::{PrincipalId, PrincipalName, Timestamp, TokenId},
    limits::{
        CERTIFICATES_MAX, PERMISSIONS_MAX, TOKEN_DESCRIPTION_BYTES_MAX, TOKEN_EXPIRES_MS_MAX, TOKENS_MAX,
    },
    permission::Permission,
    request::{ChangePrincipal, NewToken, Quotas},
};
use levada_store::Op;

use super::identities::Identities;
use crate::{
    error::Error,
    rows::{PrincipalRecord, Row, TokenRecord},
};

/// Most principals of an engine. They do not count as records of the catalogue: one that is full must not keep an administrator
/// out.
const PRINCIPALS_MAX: usize = 10_000;
/// For how long a token is valid if nothing is said: 90 days.
const EXPIRES_IN_MS: u64 = 90 * 24 * 3_600_000;
/// Each call looks at the lines of all of them.
const ROLES_MAX: usize = 16;
/// How long a token that has ended is still listed.
const ENDED_LISTED_MS: u64 = 30 * 24 * 3_600_000;

/// A token that is to be stored: its id and secret were drawn by whoever asks for it.
#[derive(Debug, Clone)]
pub(crate) struct DrawnToken {
    pub(crate) id: TokenId,
    /// SHA-256 of the secret, in hexadecimal.
    pub(crate) secret_sha256: String,
    pub(crate) new: NewToken,
}

/// A change of principals or tokens.
#[derive(Debug, Clone)]
pub(crate) enum IdentityChange {
    CreatePrincipal {
        name: PrincipalName,
        permissions: Vec<Permission>,
        certificates: Vec<CertificateName>,
        quotas: Quotas,
        token: Option<DrawnToken>,
        owner: String,
    },
    ChangePrincipal(ChangePrincipal),
    DeletePrincipal(PrincipalName),
    CreateToken {
        principal: PrincipalName,
        token: DrawnToken,
        owner: String,
    },
    RevokeToken(TokenId),
    /// It was used.
    UseToken(TokenId),
}

/// The next identities in the making.
pub(super) struct IdentityEdit {
    pub(super) next: Identities,
    pub(super) ops: Vec<Op>,
    now: Timestamp,
}

impl IdentityChange {
    /// The permissions that somebody gets by it.
    pub(crate) fn granted(&self) -> &[Permission] {
        match self {
            Self::CreatePrincipal { permissions, .. } => permissions,
            Self::ChangePrincipal(change) => &change.grant,
            _ => &[],
        }
    }

    /// True if somebody may do more or less after it, or nothing any more.
    pub(super) fn changes_access(&self) -> bool {
        !matches!(self, Self::UseToken(_))
    }

    /// Decides the change; `id` is for a principal that it makes.
    ///
    /// # Errors
    /// Why it is not possible; `LAST_ADMINISTRATOR` if nobody would be left who can undo it.
    pub(super) fn decide(
        &self,
        identities: &Identities,
        now: Timestamp,
        id: impl FnOnce() -> u64,
    ) -> Result<IdentityEdit, Error> {
        let mut edit = IdentityEdit { next: identities.clone(), ops: Vec::new(), now };
        match self {
            Self::CreatePrincipal { name, permissions, certificates, quotas, token, owner } => {
                if identities.principals() >= PRINCIPALS_MAX {
                    let message = format!("there are {PRINCIPALS_MAX} principals, the most there may be");
                    return Err(Error::refused(ErrorCode::LimitExceeded, message));
                }
                if identities.contains(name) {
                    let message = format!("principal {name} exists");
                    return Err(Error::refused(ErrorCode::PrincipalExists, message));
                }
                let record = PrincipalRecord {
                    id: id(),
                    name: name.clone(),
                    permissions: merged(&[], permissions, &[]),
                    certificates: merged(&[], certificates, &[]),
                    quotas: *quotas,
                    created_ms: now.0,
                    owner: owner.clone(),
                };
                let id = PrincipalId(record.id);
                edit.put_principal(record)?;
                token.as_ref().map_or(Ok(()), |token| edit.create_token(id, token, owner))?;
                if identities.is_empty() && (token.is_none() || !edit.next.has_administrator(now)) {
                    return Err(first_is_no_administrator(name));
                }
            }
            Self::ChangePrincipal(change) => edit.change_principal(change)?,
            Self::DeletePrincipal(name) => edit.delete_principal(name)?,
            Self::CreateToken { principal, token, owner } => {
                let id = PrincipalId(edit.next.principal(principal)?.id);
                edit.create_token(id, token, owner)?;
            }
            Self::RevokeToken(id) => edit.revoke_token(*id)?,
            Self::UseToken(id) => edit.use_token(*id),
        }
        if let Self::UseToken(_) = self {
            return Ok(edit);
        }
        // Without principals the engine would serve everybody.
        let opens = !identities.is_empty() && edit.next.is_empty();
        if opens || (identities.has_administrator(now) && !edit.next.has_administrator(now)) {
            let message = "nobody would be left who may administrate the engine and has a valid token or a certificate; make \
                           another administrator first";
            return Err(Error::refused(ErrorCode::LastAdministrator, message));
        }
        Ok(edit)
    }
}

impl IdentityEdit {
    fn put_principal(&mut self, record: PrincipalRecord) -> Result<(), Error> {
        let (name, id) = (&record.name, PrincipalId(record.id));
        let limits = [
            ("permissions", record.permissions.len(), PERMISSIONS_MAX),
            ("certificate names", record.certificates.len(), CERTIFICATES_MAX),
        ];
        for (what, got, max) in limits {
            if got > max {
                let message = format!("principal {name} would have {got} {what}, expected at most {max}");
                return Err(Error::refused(ErrorCode::InvalidArgument, message));
            }
        }
        let roles = record.permissions.iter().filter_map(Permission::role).count();
        if roles > ROLES_MAX {
            let message = format!("principal {name} would have {roles} roles, expected at most {ROLES_MAX}");
            return Err(Error::refused(ErrorCode::InvalidArgument, message));
        }
        for role in record.permissions.iter().filter_map(Permission::role) {
            self.next.principal(role)?;
            if *role == record.name {
                let message = format!("principal {name} cannot be a role of its own");
                return Err(Error::refused(ErrorCode::InvalidArgument, message));
            }
        }
        for certificate in &record.certificates {
            if let Some(other) = self.next.by_certificate(certificate).filter(|other| other.id != record.id) {
                let message = format!("{certificate} is a certificate name of principal {}", other.name);
                return Err(Error::refused(ErrorCode::PrincipalExists, message));
            }
        }
        self.ops.push(record.put(&id));
        self.next.put_principal(Arc::new(record));
        Ok(())
    }

    fn change_principal(&mut self, change: &ChangePrincipal) -> Result<(), Error> {
        let ChangePrincipal { name, grant, revoke, add_certificates, remove_certificates, quotas } = change;
        let record = PrincipalRecord::clone(self.next.principal(name)?);
        self.put_principal(PrincipalRecord {
            permissions: merged(&record.permissions, grant, revoke),
            certificates: merged(&record.certificates, add_certificates, remove_certificates),
            quotas: quotas.of(&record.quotas),
            ..record
        })
    }

    fn delete_principal(&mut self, name: &PrincipalName) -> Result<(), Error> {
        let record = Arc::clone(self.next.principal(name)?);
        let members: Vec<&str> = self.next.members_of(name).map(PrincipalName::as_str).collect();
        if let [first, ..] = members[..] {
            // Another one of this name would give them what it may do.
            let (others, named) =
                (members.len() - 1, format!("`levada principal revoke {first} 'role {name}'`"));
            let others = if others == 0 { String::new() } else { format!(" and {others} more") };
            let message =
                format!("principal {name} is a role of {first}{others}; take it back first, as by {named}");
            return Err(Error::refused(ErrorCode::PrincipalInUse, message));
        }
        let id = PrincipalId(record.id);
        let tokens: Vec<TokenId> = self.next.tokens_of(id).map(|token| TokenId(token.id)).collect();
        tokens.into_iter().for_each(|token| self.remove_token(token));
        self.ops.push(PrincipalRecord::delete(&id));
        self.next.remove_principal(&record);
        Ok(())
    }

    fn create_token(&mut self, principal: PrincipalId, token: &DrawnToken, owner: &str) -> Result<(), Error> {
        let refused = |message| Err(Error::refused(ErrorCode::InvalidArgument, message));
        let NewToken { description, expires_in_ms } = &token.new;
        if description.len() > TOKEN_DESCRIPTION_BYTES_MAX {
            let got = description.len();
            return refused(format!(
                "the description of a token has {got} bytes, expected at most {TOKEN_DESCRIPTION_BYTES_MAX}"
            ));
        }
        let expires_in_ms = expires_in_ms.unwrap_or(EXPIRES_IN_MS);
        if expires_in_ms > TOKEN_EXPIRES_MS_MAX {
            return refused(format!(
                "expires_in_ms is {expires_in_ms}, expected 0 (for ever) to {TOKEN_EXPIRES_MS_MAX} (ten years)"
            ));
        }
        self.forget_ended(principal);
        let active = self.next.tokens_of(principal).filter(|token| token.is_active(self.now)).count();
        if active >= TOKENS_MAX {
            let message = format!("the principal has {active} active tokens, the most it may: revoke some");
            return Err(Error::refused(ErrorCode::LimitExceeded, message));
        }
        // One in 2^64: the secret of another token must not become this one's.
        if self.next.token(token.id).is_some() {
            return Err(Error::refused(ErrorCode::Internal, "the token's id was drawn before; try again"));
        }
        self.put_token(TokenRecord {
            id: token.id.0,
            principal: principal.0,
            secret_sha256: token.secret_sha256.clone(),
            description: description.clone(),
            created_ms: self.now.0,
            owner: owner.to_owned(),
            expires_ms: (expires_in_ms > 0).then(|| self.now.0.saturating_add(expires_in_ms)),
            revoked_ms: None,
            used_ms: None,
        });
        Ok(())
    }

    /// Removes the tokens of a principal that ended long ago, so that what is kept of them has a bound.
    fn forget_ended(&mut self, principal: PrincipalId) {
        let is_old = |token: &TokenRecord| {
            token.ended_ms(self.now).is_some_and(|end| end.saturating_add(ENDED_LISTED_MS) < self.now.0)
        };
        let of_principal = self.next.tokens_of(principal);
        let mut old: Vec<TokenId> =
            of_principal.filter(|token| is_old(token)).map(|token| TokenId(token.id)).collect();
        // Who revokes as fast as they create keeps the newest that have ended.
        let ended =
            self.next.tokens_of(principal).filter(|token| !is_old(token) && !token.is_active(self.now));
        let mut ended: Vec<(Option<u64>, TokenId)> =
            ended.map(|token| (token.ended_ms(self.now), TokenId(token.id))).collect();
        ended.sort_unstable();
        let beyond = ended.len().saturating_sub(TOKENS_MAX);
        old.extend(ended.into_iter().take(beyond).map(|(_, id)| id));
        old.into_iter().for_each(|id| self.remove_token(id));
    }

    fn revoke_token(&mut self, id: TokenId) -> Result<(), Error> {
        let record = self
            .next
            .token(id)
            .map(|record| TokenRecord::clone(record))
            .ok_or_else(|| Error::refused(ErrorCode::TokenNotFound, format!("there is no token {id}")))?;
        let revoked_ms = record.revoked_ms.or(Some(self.now.0));
        self.put_token(TokenRecord { revoked_ms, ..record });
        Ok(())
    }

    fn use_token(&mut self, id: TokenId) {
        let Some(record) = self.next.token(id).filter(|record| record.is_use_news(self.now)) else { return };
        let record = TokenRecord::clone(record);
        self.put_token(TokenRecord { used_ms: Some(TokenRecord::hour_of(self.now)), ..record });
    }

    fn put_token(&mut self, record: TokenRecord) {
        self.ops.push(record.put(&TokenId(record.id)));
        self.next.put_token(Arc::new(record));
    }

    fn remove_token(&mut self, id: TokenId) {
        self.ops.push(TokenRecord::delete(&id));
        self.next.remove_token(id);
    }
}

/// What there is, with what is added and without what is removed, in order and each once.
fn merged<T: Ord + Clone>(have: &[T], add: &[T], remove: &[T]) -> Vec<T> {
    let mut all: Vec<T> = have.iter().chain(add).filter(|one| !remove.contains(one)).cloned().collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn first_is_no_administrator(name: &PrincipalName) -> Error {
    let message = format!(
        "principal {name} would be the first, and from then on nobody is served without a token or a certificate: expected the \
         permission admin and a token for it as well"
    );
    Error::refused(ErrorCode::InvalidArgument, message)
}
