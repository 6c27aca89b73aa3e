//! `levada token`: creates, lists and revokes the tokens of principals.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use levada_client::{Client, ErrorCode, IssuedToken, TokenInfo};
use levada_terminal::{
    Failure,
    output::{self, Output, Rows},
};
use serde::Serialize;

use crate::{
    args::{TokenAction, TokenArgs},
    client,
};

/// A file for a token: only its owner may read it.
const TOKEN_MODE: u32 = 0o600;

pub(super) async fn run(output: &Output, args: TokenArgs) -> anyhow::Result<()> {
    client::with_interruptible(&args.client, async |client| act(output, client, args.action).await).await
}

async fn act(output: &Output, client: &Client, action: TokenAction) -> anyhow::Result<()> {
    match action {
        TokenAction::Create { principal, options } => {
            let file = reserve(options.out.as_deref())?;
            let issued = client.create_token(principal.as_str(), options.new_token()).await?;
            report(output, &issued, file)
        }
        TokenAction::List { principal } => {
            let tokens = client.list_tokens(principal.as_ref().map(|name| name.as_str())).await?;
            Ok(output.rows(&tokens, || table(&tokens))?)
        }
        TokenAction::Revoke { id } => {
            let token = client.revoke_token(id).await?;
            Ok(output
                .result(&token, || format!("revoked token {} of principal {}", token.id, token.principal))?)
        }
    }
}

/// A new file for a token that is to be made; removed again if none comes.
pub(super) struct Reserved {
    path: PathBuf,
    file: File,
    is_written: bool,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.is_written {
            // What is left is an empty file.
            let _left = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes the file before the token: a token that could not be written would be lost, and stay valid.
pub(super) fn reserve(path: Option<&Path>) -> Result<Option<Reserved>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let opened = OpenOptions::new().write(true).create_new(true).mode(TOKEN_MODE).open(path);
    let file = opened.map_err(|error| {
        let message = format!("{} cannot be created for the token: {error}", path.display());
        Failure::new(ErrorCode::ConfigInvalid, message)
            .hint("name a file that does not exist, in a directory that does")
    })?;
    Ok(Some(Reserved { path: path.to_owned(), file, is_written: false }))
}

/// What is said of a token in a file.
#[derive(Serialize)]
struct Written<'a> {
    file: String,
    info: &'a TokenInfo,
}

/// Prints the token, or writes it into its file.
pub(super) fn report(output: &Output, issued: &IssuedToken, file: Option<Reserved>) -> anyhow::Result<()> {
    let info = &issued.info;
    let until = info
        .expires_ms
        .map_or_else(|| "for ever".to_owned(), |end| format!("until {}", output::time_ms(end)));
    let what = format!("token {} of principal {}, valid {until}", info.id, info.principal);
    let Some(mut file) = file else {
        output.remark(&format!("{what}; it is shown this once:"));
        // The token alone is the result, also with --quiet: it is not known otherwise.
        let printed = if output.is_json() { output.json(issued) } else { output.line(&issued.token) };
        return Ok(printed?);
    };
    let written = writeln!(file.file, "{}", issued.token).and_then(|()| file.file.sync_all());
    let path = file.path.display().to_string();
    written.with_context(|| {
        format!("writing {path}; revoke the token with `levada token revoke {}`", info.id)
    })?;
    file.is_written = true;
    let value = Written { file: path.clone(), info };
    Ok(output.result(&value, || format!("wrote {what} to {path}"))?)
}

fn table(tokens: &[TokenInfo]) -> Rows {
    let headings = ["id", "principal", "state", "expires", "last used", "created", "by", "for"];
    let mut rows = Rows::new(&headings);
    for token in tokens {
        let time = |ms: Option<u64>, none: &str| ms.map_or_else(|| none.to_owned(), output::time_ms);
        rows.push([
            token.id.to_string(),
            token.principal.to_string(),
            token.state.as_str().to_owned(),
            time(token.expires_ms, "never"),
            time(token.used_ms, "-"),
            output::time_ms(token.created_ms),
            token.created_by.clone(),
            if token.description.is_empty() { "-".to_owned() } else { token.description.clone() },
        ]);
    }
    rows
}
