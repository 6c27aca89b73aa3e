//! Which engine a command talks to, as flags: those of every command that talks to one.

use std::path::PathBuf;

use levada_terminal::Reach;

use crate::contexts::ContextName;

/// The engine that is talked to if none is named.
pub(crate) const DEFAULT_ADDR: &str = "127.0.0.1:7600";
/// Where the help shows these flags.
const ENGINE: &str = "Which engine";

/// Which engine to talk to, and as whom. The environment is no matter of clap's: it is weighed with contexts.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ClientArgs {
    /// A context: the address, CA and token that `levada context add` has stored under this name. Without this flag, an
    /// engine named by --addr or LEVADA_ADDR gets nothing of any context [env: LEVADA_CONTEXT] [default: the current one,
    /// see `levada context use`]
    #[arg(long, global = true, value_name = "NAME", help_heading = ENGINE)]
    pub(crate) context: Option<ContextName>,
    /// The engine's address [env: LEVADA_ADDR] [default: the context's, else 127.0.0.1:7600]
    #[arg(long, global = true, value_name = "HOST:PORT", help_heading = ENGINE)]
    pub(crate) addr: Option<String>,
    /// The engine's CA certificate: DATA_DIR/tls/ca.pem of that engine [env: LEVADA_CA] [default: the context's, else
    /// ./levada-data/tls/ca.pem]
    #[arg(long, global = true, value_name = "FILE", help_heading = ENGINE)]
    pub(crate) ca: Option<PathBuf>,
    /// A file that holds a bearer token, see `levada token create` [env: LEVADA_TOKEN_FILE] [default: the context's]. The
    /// variable LEVADA_TOKEN holds the token itself; no flag does, for everyone on the machine could read it in the list of
    /// processes
    #[arg(long, global = true, value_name = "FILE", help_heading = ENGINE)]
    pub(crate) token_file: Option<PathBuf>,
    /// A client certificate to show, in PEM, with --cert-key [env: LEVADA_CERT]
    #[arg(long, global = true, value_name = "FILE", help_heading = ENGINE)]
    pub(crate) cert: Option<PathBuf>,
    /// The certificate's key, in PEM [env: LEVADA_CERT_KEY]
    #[arg(long, global = true, value_name = "FILE", help_heading = ENGINE)]
    pub(crate) cert_key: Option<PathBuf>,
    /// The engine that these flags, the environment and the contexts name together.
    #[arg(skip)]
    pub(crate) reach: Reach,
}
