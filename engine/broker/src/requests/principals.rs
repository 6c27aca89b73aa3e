//! Requests about principals and their tokens.

use levada_protocol::{
    error::ErrorCode,
    ids::{PrincipalId, PrincipalName, Timestamp, TokenId},
    permission::Permission,
    request::{
        ChangePrincipal, CreatePrincipal, CreateToken, IssuedToken, NewToken, PrincipalInfo, Quotas, Request,
        Response, TokenInfo,
    },
    token::Token,
};
use levada_stage::AttachmentPoint;

use super::pages::Page;
use crate::{
    access::{Principal, proof_needed},
    catalogue::{Change, DrawnToken, Identities, IdentityChange},
    chains::Chains,
    clock::Clock,
    error::Error,
    identity,
    rows::{PrincipalRecord, TokenRecord},
    shard::ShardHandle,
};

/// Requests about principals and tokens.
pub(crate) struct IdentityRequests<'a> {
    pub(super) shard: &'a ShardHandle,
    pub(super) chains: &'a Chains,
    pub(super) clock: &'a Clock,
}

impl IdentityRequests<'_> {
    /// Executes a request about principals or tokens; any other is one that the engine does not know.
    pub(super) async fn answer(&self, principal: &Principal, request: Request) -> Result<Response, Error> {
        if !matches!(
            request,
            Request::ListPrincipals { .. } | Request::DescribePrincipal { .. } | Request::ListTokens { .. }
        ) {
            tracing::info!(by = principal.as_str(), ?request, "identities are to change");
        }
        match request {
            Request::CreatePrincipal(asked) => self.create_principal(principal, asked).await,
            Request::ChangePrincipal(asked) => self.change_principal(principal, asked).await,
            Request::DeletePrincipal { name } => self.delete_principal(principal, name).await,
            Request::ListPrincipals { limit, after } => self.list_principals(limit, after.as_deref()),
            Request::DescribePrincipal { name } => self.describe_principal(principal, name),
            Request::CreateToken(asked) => self.create_token(principal, asked).await,
            Request::ListTokens { principal, limit, after } => {
                self.list_tokens(principal.as_ref(), limit, after.as_deref())
            }
            Request::RevokeToken { id } => self.revoke_token(principal, id).await,
            _ => Err(unknown()),
        }
    }

    async fn create_principal(&self, caller: &Principal, asked: CreatePrincipal) -> Result<Response, Error> {
        let CreatePrincipal { name, permissions, certificates, quotas, token } = asked;
        self.try_masks(&permissions).await?;
        let drawn = token.map(draw).transpose()?;
        let (text, token) = drawn.unzip();
        let id = token.as_ref().map(|token| token.id);
        let owner = caller.as_str().to_owned();
        let change = IdentityChange::CreatePrincipal {
            name: name.clone(),
            permissions,
            certificates,
            quotas,
            token,
            owner,
        };
        self.shard.change(caller.actor(), Change::Identity(change)).await?;
        self.created(&name, text.zip(id))
    }

    /// What a caller learns of a principal that was made or changed.
    fn created(&self, name: &PrincipalName, token: Option<(Token, TokenId)>) -> Result<Response, Error> {
        let (catalogue, now) = (self.shard.catalogue(), self.clock.now());
        let identities = &catalogue.identities;
        let record = identities.principal(name)?;
        let issued = token.and_then(|(token, id)| {
            let info = token_info(identities, identities.token(id)?, now)?;
            Some(IssuedToken { token: token.reveal(), info })
        });
        Ok(Response::Principal { principal: principal_info(identities, record, now), issued })
    }

    async fn change_principal(&self, caller: &Principal, asked: ChangePrincipal) -> Result<Response, Error> {
        self.try_masks(&asked.grant).await?;
        let name = asked.name.clone();
        self.shard.change(caller.actor(), Change::Identity(IdentityChange::ChangePrincipal(asked))).await?;
        self.created(&name, None)
    }

    /// Attaches the plugins of masks and drops them: what they refuse is refused before anything is stored.
    async fn try_masks(&self, permissions: &[Permission]) -> Result<(), Error> {
        let catalogue = self.shard.catalogue();
        for mask in permissions.iter().filter_map(Permission::mask) {
            let stages: Vec<_> = mask.stages().collect();
            // There is no topic yet, but a pattern.
            let (topic, point) = ("", AttachmentPoint::Read);
            self.chains.attach(&catalogue, &stages, topic, point, self.chains.trial()).await?;
        }
        Ok(())
    }

    async fn delete_principal(&self, caller: &Principal, name: PrincipalName) -> Result<Response, Error> {
        self.shard.change(caller.actor(), Change::Identity(IdentityChange::DeletePrincipal(name))).await?;
        Ok(Response::Done)
    }

    fn list_principals(&self, limit: u32, after: Option<&str>) -> Result<Response, Error> {
        let (catalogue, now) = (self.shard.catalogue(), self.clock.now());
        let after = after.map(str::parse::<PrincipalName>).transpose()?;
        let mut page = Page::new(limit);
        for record in catalogue.identities.principals_after(after.as_ref()) {
            if !page.add(&record.name, principal_info(&catalogue.identities, record, now)) {
                break;
            }
        }
        let (principals, next) = page.finish();
        Ok(Response::Principals { principals, next })
    }

    /// Describes the principal of this name, or the caller.
    fn describe_principal(&self, caller: &Principal, name: Option<PrincipalName>) -> Result<Response, Error> {
        let name = match (name, caller) {
            (Some(name), _) => name,
            (None, Principal::Known(known)) => known.name().clone(),
            (None, Principal::Local) => return Err(proof_needed()),
        };
        self.created(&name, None)
    }

    async fn create_token(&self, caller: &Principal, asked: CreateToken) -> Result<Response, Error> {
        let CreateToken { principal, token } = asked;
        let (text, token) = draw(token)?;
        let (id, owner) = (token.id, caller.as_str().to_owned());
        let change = IdentityChange::CreateToken { principal, token, owner };
        self.shard.change(caller.actor(), Change::Identity(change)).await?;
        let info = self.token_info(id)?;
        Ok(Response::IssuedToken(Box::new(IssuedToken { token: text.reveal(), info })))
    }

    fn list_tokens(
        &self,
        principal: Option<&PrincipalName>,
        limit: u32,
        after: Option<&str>,
    ) -> Result<Response, Error> {
        let (catalogue, now) = (self.shard.catalogue(), self.clock.now());
        let identities = &catalogue.identities;
        let of = principal.map(|name| identities.principal(name)).transpose()?.map(|record| record.id);
        let after = after.map(str::parse::<TokenId>).transpose()?;
        let mut page = Page::new(limit);
        for token in identities.tokens_after(after).filter(|token| of.is_none_or(|of| of == token.principal))
        {
            let Some(info) = token_info(identities, token, now) else { continue };
            if !page.add(TokenId(token.id), info) {
                break;
            }
        }
        let (tokens, next) = page.finish();
        Ok(Response::Tokens { tokens, next })
    }

    async fn revoke_token(&self, caller: &Principal, id: TokenId) -> Result<Response, Error> {
        self.shard.change(caller.actor(), Change::Identity(IdentityChange::RevokeToken(id))).await?;
        Ok(Response::Token(Box::new(self.token_info(id)?)))
    }

    /// As [`crate::Broker::create_administrator`].
    pub(crate) async fn create_administrator(&self, name: PrincipalName) -> Result<Token, Error> {
        let (text, token) =
            draw(NewToken { description: "made at the engine's start".to_owned(), ..NewToken::default() })?;
        let by = Principal::Local.actor();
        let owner = by.principal.clone();
        let permissions = vec![Permission::admin()];
        let exists = self.shard.catalogue().identities.contains(&name);
        let change = if exists {
            let grant = ChangePrincipal { grant: permissions, ..ChangePrincipal::new(name.clone()) };
            self.shard.change(by.clone(), Change::Identity(IdentityChange::ChangePrincipal(grant))).await?;
            IdentityChange::CreateToken { principal: name, token, owner }
        } else {
            let (certificates, quotas, token) = (Vec::new(), Quotas::default(), Some(token));
            IdentityChange::CreatePrincipal { name, permissions, certificates, quotas, token, owner }
        };
        self.shard.change(by, Change::Identity(change)).await?;
        Ok(text)
    }

    fn token_info(&self, id: TokenId) -> Result<TokenInfo, Error> {
        let (catalogue, now) = (self.shard.catalogue(), self.clock.now());
        let identities = &catalogue.identities;
        let info = identities.token(id).and_then(|token| token_info(identities, token, now));
        info.ok_or_else(|| token_not_found(id))
    }
}

fn unknown() -> Error {
    Error::refused(ErrorCode::Unsupported, "this engine does not know the request")
}

fn token_not_found(id: TokenId) -> Error {
    Error::refused(ErrorCode::TokenNotFound, format!("token {id} was removed with its principal"))
}

/// A token with a secret of its own, and what is to be stored of it.
fn draw(new: NewToken) -> Result<(Token, DrawnToken), Error> {
    let (id, secret) = identity::new_token()?;
    let secret_sha256 = identity::sha256_hex(&secret);
    Ok((Token::new(id, secret), DrawnToken { id, secret_sha256, new }))
}

fn principal_info(identities: &Identities, record: &PrincipalRecord, now: Timestamp) -> PrincipalInfo {
    let active = identities.tokens_of(PrincipalId(record.id)).filter(|token| token.is_active(now)).count();
    PrincipalInfo {
        name: record.name.clone(),
        permissions: record.permissions.clone(),
        certificates: record.certificates.clone(),
        quotas: record.quotas,
        tokens: u32::try_from(active).unwrap_or(u32::MAX),
        created_ms: record.created_ms,
        created_by: record.owner.clone(),
    }
}

/// What is shown of a token; `None` if its principal is gone.
fn token_info(identities: &Identities, record: &TokenRecord, now: Timestamp) -> Option<TokenInfo> {
    Some(TokenInfo {
        id: TokenId(record.id),
        principal: identities.by_id(PrincipalId(record.principal))?.name.clone(),
        state: record.state(now),
        description: record.description.clone(),
        created_ms: record.created_ms,
        created_by: record.owner.clone(),
        expires_ms: record.expires_ms,
        revoked_ms: record.revoked_ms,
        used_ms: record.used_ms,
    })
}
