//! `levada ca`: how a client on another machine gets the engine's CA certificate.

use std::{fs, path::Path};

use levada_client::{fetch_ca, shown_ca};
use levada_protocol::error::ErrorCode;
use levada_terminal::{Failure, interrupted, output::Output};
use serde::Serialize;

use crate::args::{CaAction, CaArgs, CaFetchArgs};

/// Does what was asked for.
pub(super) async fn run(
    output: &Output,
    CaArgs { action: CaAction::Fetch(args) }: CaArgs,
) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        () = interrupted() => Err(Failure::interrupted().into()),
        done = fetch(output, &args) => done,
    }
}

/// What `levada ca fetch --output json` prints.
#[derive(Serialize)]
struct Fetched<'a> {
    engine: &'a str,
    fingerprint: String,
    /// True if it was compared with the one that was given.
    verified: bool,
    /// The certificate, as PEM text, unless it went to a file or was not verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

async fn fetch(output: &Output, args: &CaFetchArgs) -> anyhow::Result<()> {
    let engine = args.engine.as_str();
    let Some(expected) = args.fingerprint else {
        let fingerprint = shown_ca(engine).await?.to_string();
        let failure = Failure::new(
            ErrorCode::TlsFailed,
            format!("nobody has verified the CA that {engine} shows, so that nothing was written"),
        );
        let failure = failure.hint(format!(
            "compare {fingerprint} with what `levada serve` has printed on the engine's machine; if it is the same: levada \
             ca fetch {engine} --fingerprint {fingerprint}"
        ));
        let shown =
            Fetched { engine, fingerprint: fingerprint.clone(), verified: false, ca: None, file: None };
        match output.is_json() {
            true => output.json(&shown)?,
            false => output.line(&fingerprint)?,
        }
        return Err(failure.into());
    };
    let pem = fetch_ca(engine, &expected).await?;
    let (fingerprint, verified) = (expected.to_string(), true);
    match &args.out {
        Some(file) => {
            write(file, &pem)?;
            let name = file.display().to_string();
            let text = || {
                format!(
                    "the CA of {engine} is in {name}; a client trusts the engine with --ca {name} or LEVADA_CA={name}"
                )
            };
            let file = Some(name.clone());
            output.result(&Fetched { engine, fingerprint, verified, ca: None, file }, text)?;
        }
        None if output.is_json() => {
            output.json(&Fetched { engine, fingerprint, verified, ca: Some(pem), file: None })?;
        }
        None => output.bytes(pem.as_bytes())?,
    }
    Ok(())
}

/// Writes the file in one step: whoever reads it meanwhile finds it whole.
fn write(file: &Path, pem: &str) -> Result<(), Failure> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let written = fs::write(&beside, pem).and_then(|()| fs::rename(&beside, file));
    written.map_err(|error| {
        // What cannot be removed was not written.
        let _ = fs::remove_file(&beside);
        Failure::new(ErrorCode::ConfigInvalid, format!("{} cannot be written: {error}", file.display()))
            .hint("--out names a file in a directory that exists and may be written")
    })
}
