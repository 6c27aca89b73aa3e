//! What can be typed after `levada ca`.

use std::path::PathBuf;

use clap::Subcommand;
use levada_client::CaFingerprint;

const FETCH_HELP: &str = concat!(
    "`levada serve` prints the fingerprint of its CA when it starts. Carry it over by a way that you trust, such as the \
     terminal that you started the engine from.\n\n",
    "  levada ca fetch engine.example.com:7600 --fingerprint sha256:.. --out ca.pem\n",
    "  levada topic list --addr engine.example.com:7600 --ca ca.pem"
);

#[derive(Debug, clap::Args)]
pub(crate) struct CaArgs {
    #[command(subcommand)]
    pub(crate) action: CaAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaAction {
    /// Get the CA certificate of an engine on another machine, by its fingerprint
    #[command(after_help = FETCH_HELP)]
    Fetch(CaFetchArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CaFetchArgs {
    /// The engine's QUIC address; the host must be a name or an address that its certificate covers
    #[arg(value_name = "HOST:PORT")]
    pub(crate) engine: String,
    /// The SHA-256 of the CA certificate, as `levada serve` prints it. Only a CA that has it, and that has signed the
    /// engine's certificate, is taken. Without it the command prints the fingerprint that it is shown, and fails
    #[arg(long, value_name = "sha256:HEX", value_parser = parse_fingerprint)]
    pub(crate) fingerprint: Option<CaFingerprint>,
    /// Write the certificate to this file, which is replaced if it exists [default: print it]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

fn parse_fingerprint(text: &str) -> Result<CaFingerprint, String> {
    text.parse()
}
