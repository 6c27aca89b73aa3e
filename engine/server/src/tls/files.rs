//! Where certificates and keys are, and how they are read and written.
//!
//! It owns the names and modes of the files. It must not know what is made of them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::error::Error;
use crate::{config::TlsConfig, files};

/// Mode of files that hold keys.
pub(super) const KEY_MODE: u32 = 0o600;
/// Mode of files that hold certificates.
pub(super) const CERTIFICATE_MODE: u32 = 0o644;

/// Where the TLS files of an engine are, and what is wanted of them.
#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    dir: PathBuf,
    config: TlsConfig,
}

impl TlsFiles {
    pub(crate) fn new(data_dir: &Path, config: &TlsConfig) -> Self {
        Self { dir: data_dir.join("tls"), config: config.clone() }
    }

    pub(super) fn config(&self) -> &TlsConfig {
        &self.config
    }

    /// Makes the directory if it is absent.
    pub(super) fn make_dir(&self) -> Result<(), Error> {
        files::private_dir(&self.dir).map_err(|source| Error::File {
            path: self.dir.clone(),
            action: "written",
            source,
        })
    }

    /// The CA certificate in the data directory.
    pub(crate) fn ca_pem(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The certificate that is served.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.config.own_files().map_or_else(|| self.path("server.pem"), |own| own.certificate.to_owned())
    }

    /// Its key.
    pub(super) fn key(&self) -> PathBuf {
        self.config.own_files().map_or_else(|| self.path("server.key"), |own| own.key.to_owned())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The content of a file of the directory; `None` if it is absent.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File { path, action: "read", source }),
        }
    }

    pub(super) fn write(&self, name: &str, mode: u32, content: &[u8]) -> Result<(), Error> {
        let path = self.path(name);
        files::replace(&path, mode, content).map_err(|source| Error::File { path, action: "written", source })
    }

    /// The certificates in PEM text that is from this file.
    pub(super) fn certificates(
        &self,
        path: &Path,
        pem: &[u8],
    ) -> Result<Vec<CertificateDer<'static>>, Error> {
        let content = |got: String| self.unusable(path, "certificate", got);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| content(error.to_string()))?;
        if chain.is_empty() { Err(content("it has no CERTIFICATE section".to_owned())) } else { Ok(chain) }
    }

    /// The error about a file that holds something else than it should.
    pub(super) fn unusable(&self, path: &Path, expected: &'static str, got: String) -> Error {
        Error::Content { path: path.to_owned(), expected, got, remedy: self.remedy(path) }
    }

    /// What to do about a file that cannot be put back.
    pub(super) fn remedy(&self, path: &Path) -> &'static str {
        let name = path.file_name().and_then(|name| name.to_str());
        match name.filter(|_| path.parent() == Some(&self.dir)) {
            Some("ca.pem" | "ca.key") => {
                "remove ca.pem, ca.key, server.pem and server.key to have all four created again, and give every client \
                 the new ca.pem"
            }
            Some("reset.key") => "remove it to have it created again",
            Some("server.pem" | "server.key") => {
                "remove server.pem and server.key to have both created again by the CA in ca.pem and ca.key"
            }
            _ => "name another in the section [tls] of the configuration",
        }
    }
}

/// The content of a file that is configured and so must be there.
pub(super) fn read_named(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::File { path: path.to_owned(), action: "read", source })
}
