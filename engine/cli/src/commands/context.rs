//! `levada context`: engines that a user knows by name. Talks to none of them.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read},
    path::Path,
};

use levada_protocol::{error::ErrorCode, token::Token};
use levada_terminal::{
    Failure, FailureCode,
    output::{self, Output, Rows},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    args::{AddContextArgs, ContextAction, ContextArgs},
    contexts::{Context, ContextName, store::Store},
    reach::context_of_environment,
};

/// Bytes that are read of a CA, and of a token with what is around it, at most.
const CA_BYTES_MAX: u64 = 1024 * 1024;
const TOKEN_BYTES_MAX: u64 = 1_024;

pub(super) fn run(output: &Output, args: ContextArgs) -> anyhow::Result<()> {
    let store = Store::required()?;
    if std::env::var_os("LEVADA_ADDR").is_some() {
        output.remark("LEVADA_ADDR is set: commands use the engine that it names and no context, unless --context names one");
    }
    match args.action {
        ContextAction::Add(args) => add(output, &store, args),
        ContextAction::Use { name } => {
            store.change(|contexts| contexts.choose(&name))?;
            let chosen = serde_json::json!({ "current": name.as_str() });
            Ok(output.result(&chosen, || format!("context {name} is the current one"))?)
        }
        ContextAction::List => list(output, &store),
        ContextAction::Show { name } => show(output, &store, name),
        ContextAction::Remove { name } => {
            let was_current = store.change(|contexts| contexts.remove(&name))?;
            let removed = serde_json::json!({ "removed": name.as_str(), "current": was_current });
            let more = if was_current { ", and no context is the current one now" } else { "" };
            Ok(output.result(&removed, || format!("removed context {name}{more}"))?)
        }
    }
}

fn add(output: &Output, store: &Store, args: AddContextArgs) -> anyhow::Result<()> {
    let AddContextArgs { name, addr, ca, token_file, token_stdin, chosen, replace } = args;
    let ca = ca.as_deref().map(read_ca).transpose()?;
    let token = match &token_file {
        Some(file) => Some(read_token(&file.display().to_string(), &bytes_of(file, TOKEN_BYTES_MAX)?)?),
        None if token_stdin => Some(token_of_stdin(output)?),
        None => None,
    };
    let context = Context { addr, ca, token };
    let shown = Shown::of(&name, &context, chosen)?;
    let current = store.change(|contexts| {
        contexts.add(name.clone(), context.clone(), replace)?;
        if chosen {
            contexts.choose(&name)?;
        }
        Ok(contexts.current().cloned())
    })?;
    let is_current = current.as_ref() == Some(&name);
    output.result(&Shown { current: is_current, ..shown }, || {
        let more = if is_current { ", the current one" } else { "" };
        format!("stored context {name} for {} in {}{more}", context.addr, store.file().display())
    })?;
    if !is_current {
        output.remark(&format!("`levada context use {name}` makes it the current one"));
    }
    Ok(())
}

fn list(output: &Output, store: &Store) -> anyhow::Result<()> {
    let contexts = store.read()?;
    let by_environment = context_of_environment()?;
    let current = by_environment.as_ref().or_else(|| contexts.current());
    let shown = contexts.iter().map(|(name, context)| Shown::of(name, context, current == Some(name)));
    let shown: Vec<Shown> = shown.collect::<Result<_, _>>()?;
    Ok(output.rows(&shown, || table(&shown))?)
}

fn show(output: &Output, store: &Store, name: Option<ContextName>) -> anyhow::Result<()> {
    let contexts = store.read()?;
    let current = context_of_environment()?.or_else(|| contexts.current().cloned());
    let Some(name) = name.or_else(|| current.clone()) else {
        let failure = Failure::new(FailureCode::ContextNotFound, "no context is the current one");
        anyhow::bail!(
            failure.hint("`levada context list` shows the contexts, `levada context use` chooses one")
        );
    };
    let shown = Shown::of(&name, contexts.get(&name)?, current.as_ref() == Some(&name))?;
    if output.is_json() {
        return Ok(output.json(&shown)?);
    }
    Ok(output.line(&describe(&shown, store))?)
}

/// A context without its secret.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    addr: String,
    /// The SHA-256 of each of the CA's certificates, in hexadecimal digits.
    ca_sha256: Vec<String>,
    token: bool,
    /// The part of the token that is no secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<String>,
    current: bool,
}

impl Shown {
    fn of(name: &ContextName, context: &Context, current: bool) -> Result<Self, Failure> {
        let fingerprints = match &context.ca {
            Some(pem) => fingerprints(pem).map_err(|what| {
                Failure::new(ErrorCode::ConfigInvalid, format!("the CA of context {name}: {what}"))
            })?,
            None => Vec::new(),
        };
        Ok(Self {
            name: name.to_string(),
            addr: context.addr.clone(),
            ca_sha256: fingerprints,
            token: context.token.is_some(),
            token_id: context.token.as_ref().map(|token| token.id().to_string()),
            current,
        })
    }
}

fn table(contexts: &[Shown]) -> Rows {
    let mut rows = Rows::new(&["", "name", "address", "token", "ca sha256"]);
    for context in contexts {
        let fingerprint = match context.ca_sha256.as_slice() {
            [] => "-".to_owned(),
            [only] => only.clone(),
            [first, more @ ..] => format!("{first} and {} more", more.len()),
        };
        rows.push([
            if context.current { "*" } else { "" }.to_owned(),
            context.name.clone(),
            context.addr.clone(),
            if context.token { "yes" } else { "no" }.to_owned(),
            fingerprint,
        ]);
    }
    rows
}

fn describe(context: &Shown, store: &Store) -> String {
    let token = match &context.token_id {
        Some(id) => format!("stored, its id is {id}"),
        None => "none".to_owned(),
    };
    let ca = match context.ca_sha256.as_slice() {
        [] => "none: --ca or LEVADA_CA names it, else it is ./levada-data/tls/ca.pem".to_owned(),
        all => all.iter().map(|one| format!("sha256 {one}")).collect::<Vec<_>>().join("\n"),
    };
    let current = if context.current { "yes" } else { "no" }.to_owned();
    output::fields([
        ("context", context.name.clone()),
        ("address", context.addr.clone()),
        ("ca", ca),
        ("token", token),
        ("current", current),
        ("file", store.file().display().to_string()),
    ])
}

fn read_ca(file: &Path) -> Result<String, Failure> {
    let wrong = |what: &str| {
        let message = format!("{} is no CA: {what}", file.display());
        Failure::new(ErrorCode::ConfigInvalid, message)
            .hint("the engine keeps its CA's certificate in DATA_DIR/tls/ca.pem")
    };
    let pem = String::from_utf8(bytes_of(file, CA_BYTES_MAX)?)
        .map_err(|_| wrong("expected the PEM text of certificates"))?;
    if pem.contains("PRIVATE KEY-----") {
        return Err(wrong("it holds a private key, which belongs to the engine alone"));
    }
    fingerprints(&pem).map_err(|what| wrong(&what))?;
    Ok(pem)
}

/// The SHA-256 of each certificate in a CA's PEM text.
fn fingerprints(pem: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = der.map_err(|error| format!("expected the PEM text of certificates ({error})"))?;
        let digest = Sha256::digest(&der);
        RootCertStore::empty().add(der).map_err(|error| format!("it holds no certificate ({error})"))?;
        found.push(digest.iter().map(|byte| format!("{byte:02x}")).collect());
    }
    if found.is_empty() { Err("expected the PEM text of certificates".to_owned()) } else { Ok(found) }
}

fn token_of_stdin(output: &Output) -> Result<Token, Failure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        output.remark("paste the token and press Enter");
    }
    let mut line = Vec::new();
    io::BufRead::read_until(&mut stdin.lock().take(TOKEN_BYTES_MAX), b'\n', &mut line).map_err(|error| {
        Failure::new(ErrorCode::InvalidArgument, format!("stdin cannot be read: {error}"))
    })?;
    read_token("stdin", &line)
}

fn read_token(from: &str, bytes: &[u8]) -> Result<Token, Failure> {
    let text = String::from_utf8_lossy(bytes);
    Token::parse(text.trim()).map_err(|error| {
        Failure::new(ErrorCode::ConfigInvalid, format!("the token from {from} is wrong: {error}"))
            .hint("`levada token create` makes a token, and shows it once")
    })
}

fn bytes_of(file: &Path, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(bytes_max).read_to_end(&mut bytes))
        .map_err(|error| Failure::unreadable(file, &error))?;
    Ok(bytes)
}
