//! What a client shows of itself: a bearer token, a certificate. Both are read anew for each connection.
//!
//! Owns reading and checking them. Must not know what is done with them in a handshake or a hello.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use levada_protocol::token::Token;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use tokio::{fs::File, io::AsyncReadExt as _};
use tracing::warn;

use crate::{
    config::{BearerToken, ClientCertificate, ClientConfig},
    error::Error,
};

/// Bytes of a token's file that are read at most: more than a token and blanks around it need.
const TOKEN_FILE_BYTES_MAX: u64 = 1_024;
/// Bytes of a certificate's or a key's file that are read at most.
const PEM_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where the proofs come from, and what was last read there.
pub(crate) struct Credentials {
    token: Option<BearerToken>,
    certificate: Option<ClientCertificate>,
    last: Mutex<Proofs>,
}

/// What is shown on one connection.
#[derive(Clone, Default)]
pub(crate) struct Proofs {
    pub(crate) token: Option<Token>,
    pub(crate) identity: Option<Identity>,
}

/// A certificate with those that lead to its CA, and its key.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Credentials {
    /// Reads the configured ones.
    ///
    /// # Errors
    /// If one cannot be read, or is not what it should be.
    pub(crate) async fn load(config: &ClientConfig) -> Result<Self, Error> {
        let token = match &config.token {
            Some(token) => Some(read_token(token).await?),
            None => None,
        };
        let identity = match &config.client_certificate {
            Some(files) => Some(read_identity(files).await?),
            None => None,
        };
        let last = Mutex::new(Proofs { token, identity });
        Ok(Self { token: config.token.clone(), certificate: config.client_certificate.clone(), last })
    }

    /// What to show now: what the files hold. Of one that cannot be read, or that holds something else, what was last read
    /// stays in force: it may be half replaced.
    pub(crate) async fn now(&self) -> Proofs {
        let mut proofs = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(token @ BearerToken::File(_)) = &self.token {
            keep(&mut proofs.token, read_token(token).await);
        }
        if let Some(files) = &self.certificate {
            keep(&mut proofs.identity, read_identity(files).await);
        }
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&proofs);
        proofs
    }
}

fn keep<T>(last: &mut Option<T>, read: Result<T, Error>) {
    match read {
        Ok(read) => *last = Some(read),
        Err(error) => warn!(%error, "what was read before stays in force"),
    }
}

async fn read_token(token: &BearerToken) -> Result<Token, Error> {
    match token {
        BearerToken::Text(text) => {
            Token::parse(text).map_err(|error| invalid(format!("the token is wrong: {error}")))
        }
        BearerToken::File(path) => {
            let bytes = read("token", path, TOKEN_FILE_BYTES_MAX).await?;
            let wrong = |error: &dyn fmt::Display| {
                invalid(format!("the token file {} is wrong: {error}", path.display()))
            };
            let text = std::str::from_utf8(&bytes).map_err(|_| wrong(&"expected the text of a token"))?;
            Token::parse(text.trim()).map_err(|error| wrong(&error))
        }
    }
}

async fn read_identity(files: &ClientCertificate) -> Result<Identity, Error> {
    let ClientCertificate { certificate, key } = files;
    let wrong = |what: &str, path: &Path, error: &dyn fmt::Display| {
        invalid(format!("the client {what} file {} is wrong: {error}", path.display()))
    };
    let pem = read("client certificate", certificate, PEM_FILE_BYTES_MAX).await?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| wrong("certificate", certificate, &error))?;
    if chain.is_empty() {
        return Err(wrong("certificate", certificate, &"expected PEM text with a certificate"));
    }
    let pem = read("client key", key, PEM_FILE_BYTES_MAX).await?;
    let parsed = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| wrong("key", key, &"expected PEM text with a private key"))?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain.clone(), parsed.clone_key(), &provider).map_err(|error| {
        wrong(
            "key",
            key,
            &format_args!("it does not fit the certificate in {} ({error})", certificate.display()),
        )
    })?;
    Ok(Identity { chain, key: parsed })
}

async fn read(what: &str, path: &PathBuf, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let read = async {
        let mut bytes = Vec::new();
        File::open(path).await?.take(bytes_max).read_to_end(&mut bytes).await?;
        Ok(bytes)
    };
    read.await.map_err(|error: std::io::Error| {
        invalid(format!("cannot read the {what} file {}: {error}", path.display()))
    })
}

fn invalid(what: impl Into<String>) -> Error {
    Error::Config { what: what.into() }
}
