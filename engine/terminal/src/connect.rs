//! A connection to the engine that is named: whom to trust there, and as whom to come.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use levada_client::{BearerToken, Ca, Client, ClientCertificate, ClientConfig};
use levada_protocol::{error::ErrorCode, token::Token};

use crate::failure::Failure;

/// The default path of the CA: that of an engine started in the same directory.
const CA_BESIDE: &str = "levada-data/tls/ca.pem";
/// How a certificate begins in PEM text.
const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// An engine, and what a client needs to be served there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Host and port.
    pub addr: String,
    /// Who signs the engine's certificate; without it, the CA of an engine started in the current directory.
    pub ca: Option<Ca>,
    /// The bearer token to show.
    pub token: Option<BearerToken>,
    /// The client certificate to show.
    pub certificate: Option<ClientCertificate>,
}

impl Reach {
    /// Connects. `request_timeout` bounds each request; without it the client's default does.
    ///
    /// # Errors
    /// If there is no CA or no token where one is named, or what the client says.
    pub async fn connect(&self, request_timeout: Option<Duration>) -> anyhow::Result<Client> {
        let config = self.config()?;
        let config = match request_timeout {
            Some(timeout) => config.request_timeout(timeout),
            None => config,
        };
        Ok(Client::connect(config).await?)
    }

    /// As [`Reach::connect`]; `mtu_max` bounds the UDP payload, without it the path does.
    ///
    /// # Errors
    /// As there.
    pub async fn connect_over(&self, mtu_max: Option<u16>) -> anyhow::Result<Client> {
        let config = self.config()?;
        let config = match mtu_max {
            Some(bytes) => config.mtu_max(bytes),
            None => config,
        };
        Ok(Client::connect(config).await?)
    }

    fn config(&self) -> Result<ClientConfig, Failure> {
        let config =
            ClientConfig::new(&self.addr).client_name(concat!("levada-cli/", env!("CARGO_PKG_VERSION")));
        let config = match &self.ca {
            Some(Ca::Pem(pem)) => config.ca_pem(pem.as_slice()),
            Some(Ca::File(file)) => config.ca_file(ca_file(Some(file))?),
            None => config.ca_file(ca_file(None)?),
        };
        let config = match &self.certificate {
            None => config,
            Some(ClientCertificate { certificate, key }) => {
                for file in [certificate, key] {
                    fs::File::open(file).map_err(|error| {
                        Failure::unreadable(file, &error)
                            .hint("--cert and --cert-key, or LEVADA_CERT and LEVADA_CERT_KEY, name PEM files of a client certificate")
                    })?;
                }
                config.client_certificate_files(certificate, key)
            }
        };
        match &self.token {
            None => Ok(config),
            Some(BearerToken::Text(text)) => Ok(config.token(text)),
            Some(BearerToken::File(file)) => {
                fs::File::open(file).map_err(|error| {
                    Failure::unreadable(file, &error).hint(
                        "it is to hold the text of a token, see `levada token create`; --token-file or \
                         LEVADA_TOKEN_FILE names it",
                    )
                })?;
                Ok(config.token_file(file))
            }
        }
    }
}

/// What the environment says of a token: the text in `LEVADA_TOKEN`, or the file in `LEVADA_TOKEN_FILE`.
#[derive(Default)]
pub struct TokenVariables {
    /// `LEVADA_TOKEN`.
    pub text: Option<String>,
    /// `LEVADA_TOKEN_FILE`.
    pub file: Option<PathBuf>,
}

impl TokenVariables {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self {
            text: env::var("LEVADA_TOKEN").ok(),
            file: env::var_os("LEVADA_TOKEN_FILE").map(PathBuf::from),
        }
    }

    /// The token to show: that of the file that a flag names, else that of the environment.
    ///
    /// # Errors
    /// If both variables are set, or the text is no token.
    pub fn or_flag(self, flag: Option<&Path>) -> Result<Option<BearerToken>, Failure> {
        match (flag, self.text, self.file) {
            (Some(file), _, _) => Ok(Some(BearerToken::File(file.to_owned()))),
            (None, Some(_), Some(_)) => {
                let message = "LEVADA_TOKEN and LEVADA_TOKEN_FILE are both set, expected one of them";
                Err(Failure::new(ErrorCode::ConfigInvalid, message))
            }
            (None, Some(text), None) => match Token::parse(&text) {
                Ok(_) => Ok(Some(BearerToken::Text(text))),
                Err(error) => {
                    Err(Failure::new(ErrorCode::ConfigInvalid, format!("LEVADA_TOKEN is wrong: {error}")))
                }
            },
            (None, None, file) => Ok(file.map(BearerToken::File)),
        }
    }
}

/// The file that holds the CA, once it is certain that it does: the client's own error would not say what to do.
fn ca_file(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = named.map_or_else(|| PathBuf::from(CA_BESIDE), Path::to_owned);
    let wrong = |what: String| {
        Failure::new(ErrorCode::ConfigInvalid, what)
            .hint("the engine keeps it in DATA_DIR/tls/ca.pem; name it with --ca FILE or LEVADA_CA")
    };
    let text = fs::read(&path).map_err(|error| match named {
        Some(file) => Failure::unreadable(file, &error).hint(
            "it is to be the engine's CA certificate, which the engine keeps in DATA_DIR/tls/ca.pem; --ca or LEVADA_CA \
             names it",
        ),
        None => wrong(format!("no CA certificate: neither --ca nor LEVADA_CA is set, and ./{CA_BESIDE}: {error}")),
    })?;
    if text.windows(PEM_BEGIN.len()).any(|part| part == PEM_BEGIN) {
        return Ok(path);
    }
    Err(wrong(format!("{} holds no certificate, expected the PEM text of the engine's CA", path.display())))
}
