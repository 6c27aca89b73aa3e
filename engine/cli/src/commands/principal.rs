//! `levada principal`: who may use the engine, and for what.

use levada_client::{
    ChangePrincipal, Client, CreatePrincipal, PrincipalInfo, PrincipalName, QuotaChanges, Quotas,
};
use levada_terminal::{
    Failure,
    output::{self, Output, Rows},
};
use serde::Serialize;

use super::token;
use crate::{
    args::{PrincipalAction, PrincipalArgs},
    client,
};

pub(super) async fn run(output: &Output, args: PrincipalArgs) -> anyhow::Result<()> {
    client::with_interruptible(&args.client, async |client| act(output, client, args.action).await).await
}

async fn act(output: &Output, client: &Client, action: PrincipalAction) -> anyhow::Result<()> {
    match action {
        PrincipalAction::Create { name, permissions, certificates, quotas, token: with_token, options } => {
            if !with_token && options.is_given() {
                let message =
                    "expected --token as well: --expires, --description and --out are about the token";
                return Err(Failure::usage(message).into());
            }
            let file = token::reserve(options.out.as_deref())?;
            let token = with_token.then(|| options.new_token());
            let quotas = quotas.changes().of(&Quotas::default());
            let new = CreatePrincipal { name, permissions, certificates, quotas, token };
            let (principal, issued) = client.create_principal(new).await?;
            output.remark(&format!("created principal {}", principal.name));
            match issued {
                Some(issued) => token::report(output, &issued, file),
                None => Ok(output.result(&principal, || described(&principal))?),
            }
        }
        PrincipalAction::List => {
            let principals = client.list_principals().await?;
            Ok(output.rows(&principals, || table(&principals))?)
        }
        PrincipalAction::Describe { name } => {
            let principal = client.describe_principal(name.as_ref().map(|name| name.as_str())).await?;
            Ok(output.result(&principal, || described(&principal))?)
        }
        PrincipalAction::Grant { name, permissions, certificates } => {
            let change = ChangePrincipal {
                grant: permissions,
                add_certificates: certificates,
                ..ChangePrincipal::new(name)
            };
            changed(output, &client.change_principal(change).await?)
        }
        PrincipalAction::Revoke { name, permissions, certificates } => {
            let before = client.describe_principal(Some(name.as_str())).await?;
            let missing = permissions.iter().find(|line| !before.permissions.contains(line));
            let missing = missing.map(ToString::to_string).or_else(|| {
                let name = certificates.iter().find(|name| !before.certificates.contains(name))?;
                Some(format!("--certificate {name}"))
            });
            if let Some(missing) = missing {
                let message = format!("principal {name} does not have {missing:?}, nothing was revoked");
                let hint = format!("`levada principal describe {name}` shows what it has, line by line");
                return Err(Failure::new(levada_client::ErrorCode::InvalidArgument, message)
                    .hint(hint)
                    .into());
            }
            let change = ChangePrincipal {
                revoke: permissions,
                remove_certificates: certificates,
                ..ChangePrincipal::new(name)
            };
            changed(output, &client.change_principal(change).await?)
        }
        PrincipalAction::Limit { name, quotas } => limit(output, client, name, quotas.changes()).await,
        PrincipalAction::Delete { name } => {
            client.delete_principal(name.as_str()).await?;
            let gone = Gone { deleted: true, principal: name.as_str() };
            Ok(output.result(&gone, || format!("deleted principal {name} with its tokens"))?)
        }
    }
}

async fn limit(
    output: &Output,
    client: &Client,
    name: PrincipalName,
    quotas: QuotaChanges,
) -> anyhow::Result<()> {
    if quotas == QuotaChanges::default() {
        let message = "expected at least one limit, such as --publish-events 1000, or 0 to lift one";
        return Err(Failure::usage(message).into());
    }
    let change = ChangePrincipal { quotas, ..ChangePrincipal::new(name) };
    changed(output, &client.change_principal(change).await?)
}

#[derive(Serialize)]
struct Gone<'a> {
    deleted: bool,
    principal: &'a str,
}

fn changed(output: &Output, principal: &PrincipalInfo) -> anyhow::Result<()> {
    Ok(output.result(principal, || described(principal))?)
}

fn described(principal: &PrincipalInfo) -> String {
    let listed = |what: &str, lines: &mut dyn Iterator<Item = String>| {
        let lines: Vec<String> = lines.map(|line| format!("  {line}")).collect();
        if lines.is_empty() { format!("{what}: none") } else { format!("{what}:\n{}", lines.join("\n")) }
    };
    [
        format!("principal {}", principal.name),
        listed("may", &mut principal.permissions.iter().map(ToString::to_string)),
        listed("certificate names", &mut principal.certificates.iter().map(ToString::to_string)),
        listed("quotas", &mut quotas_in_words(&principal.quotas).into_iter()),
        format!("active tokens: {}", principal.tokens),
        format!("created {} by {}", output::time_ms(principal.created_ms), principal.created_by),
    ]
    .join("\n")
}

fn quotas_in_words(quotas: &Quotas) -> Vec<String> {
    [
        (quotas.publish_events, "events published per second"),
        (quotas.publish_bytes, "bytes published per second"),
        (quotas.requests, "requests per second"),
        (quotas.connections, "connections"),
        (quotas.in_flight_bytes, "bytes in flight"),
    ]
    .into_iter()
    .filter(|(limit, _)| *limit > 0)
    .map(|(limit, what)| format!("{limit} {what}"))
    .collect()
}

fn table(principals: &[PrincipalInfo]) -> Rows {
    let mut rows = Rows::new(&["principal", "tokens", "certificates", "created", "by", "may"]);
    for principal in principals {
        let may: Vec<String> = principal.permissions.iter().map(ToString::to_string).collect();
        rows.push([
            principal.name.to_string(),
            principal.tokens.to_string(),
            principal.certificates.len().to_string(),
            output::time_ms(principal.created_ms),
            principal.created_by.clone(),
            if may.is_empty() { "nothing".to_owned() } else { may.join(", ") },
        ]);
    }
    rows
}
