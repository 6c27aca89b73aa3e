//! What can be typed after `levada context`.

use std::path::PathBuf;

use clap::Subcommand;
use levada_client::{ClientConfig, Error};

use crate::contexts::ContextName;

#[derive(Debug, clap::Args)]
pub(crate) struct ContextArgs {
    #[command(subcommand)]
    pub(crate) action: ContextAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextAction {
    /// Store an engine's address, CA and token under a name
    Add(AddContextArgs),
    /// Make a context the current one: commands use it unless they are told otherwise
    Use {
        /// The context
        name: ContextName,
    },
    /// List the contexts: address, SHA-256 of the CA's certificate, whether there is a token; * marks the current one
    ///
    /// The current one is that of LEVADA_CONTEXT, else the one of `levada context use`.
    List,
    /// Show a context, but no secret
    Show {
        /// The context [default: the current one]
        name: Option<ContextName>,
    },
    /// Forget a context, with its token
    ///
    /// The engine knows the token still: `levada token revoke` ends it.
    Remove {
        /// The context
        name: ContextName,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct AddContextArgs {
    /// Its name: up to 63 of a-z 0-9 _ - beginning with a letter or digit
    pub(crate) name: ContextName,
    /// The engine's address, a name or address that its certificate covers; without a port 7600
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_addr)]
    pub(crate) addr: String,
    /// The engine's CA certificate, DATA_DIR/tls/ca.pem of that engine; it is copied [default: what --ca or LEVADA_CA
    /// say where the context is used]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// A file that holds a bearer token, see `levada token create`; it is copied [default: no token]
    #[arg(long, value_name = "FILE", conflicts_with = "token_stdin")]
    pub(crate) token_file: Option<PathBuf>,
    /// Read the bearer token from stdin: the first line
    #[arg(long)]
    pub(crate) token_stdin: bool,
    /// Make it the current context, too
    #[arg(long = "use")]
    pub(crate) chosen: bool,
    /// Replace the context of this name, all of it, if there is one
    #[arg(long)]
    pub(crate) replace: bool,
}

fn parse_addr(text: &str) -> Result<String, String> {
    match ClientConfig::new(text).host_and_port() {
        Ok(_) => Ok(text.to_owned()),
        Err(Error::Config { what }) => Err(what),
        Err(error) => Err(error.to_string()),
    }
}
