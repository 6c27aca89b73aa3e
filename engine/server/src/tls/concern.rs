//! What an operator has to know about the certificates in force, and how often it is said.
//!
//! It must not change a file.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use levada_protocol::ids::Timestamp;
use rustls::pki_types::CertificateDer;
use tracing::{error, warn};

use super::{
    authority::{self, ms},
    dates::Dates,
    error::Error,
    files::{TlsFiles, read_named},
    lifetime::DAY,
    names,
};

/// A certificate of others that expires within this time is worth a warning; within a quarter of its life, if that is
/// less, as some are renewed every few weeks.
const WARN_BEFORE: Duration = DAY.saturating_mul(30);
/// What has not changed is said this often.
const SAY_EVERY: Duration = DAY;

/// One certificate that needs an operator to act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Concern {
    kind: Kind,
    file: PathBuf,
    subject: String,
    /// When it ends or begins; or the names that it lacks.
    at: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Clients refuse it.
    Ended,
    /// Clients refuse it, or a clock is wrong.
    NotBegun,
    /// It is not ours to renew.
    EndsSoon,
    /// The CA was renewed; clients that have only the older certificate must fetch the file.
    OldCopies,
    /// Clients that use a configured name refuse it.
    LacksNames,
    /// A CA of clients has expired.
    ClientCaEnded,
}

impl Concern {
    fn new(kind: Kind, file: PathBuf, dates: &Dates) -> Self {
        let at = if kind == Kind::NotBegun { dates.begin() } else { dates.end() };
        Self { kind, file, subject: dates.subject.clone(), at }
    }

    /// The concern about a certificate that the engine does not renew.
    fn with(file: PathBuf, dates: &Dates, now: Timestamp) -> Option<Self> {
        let soon = ms(WARN_BEFORE).min(dates.lifetime_ms() / 4);
        let kind = match () {
            () if dates.has_ended(now, 0) => Kind::Ended,
            () if !dates.has_begun(now) => Kind::NotBegun,
            () if dates.has_ended(now, soon) => Kind::EndsSoon,
            () => return None,
        };
        Some(Self::new(kind, file, dates))
    }

    fn say(&self) {
        let Self { kind, file, subject, at } = self;
        let file = file.display();
        match kind {
            Kind::Ended => {
                error!(%file, subject, ended = at, "certificate has expired; clients refuse it until it is replaced");
            }
            Kind::NotBegun => {
                error!(%file, subject, begins = at, "certificate is not valid yet; is the clock right?");
            }
            Kind::EndsSoon => {
                warn!(%file, subject, ends = at, "certificate expires soon and is not ours to renew; replace it");
            }
            Kind::LacksNames => {
                warn!(%file, subject, names = at, "certificate does not cover names of tls.names; clients that use them refuse it");
            }
            Kind::ClientCaEnded => {
                warn!(%file, subject, ended = at, "a CA for clients has expired; replace it");
            }
            Kind::OldCopies => {
                warn!(%file, ends = at, "the CA was renewed; clients that have an older copy must fetch it again before that expires");
            }
        }
    }
}

/// Everything about the certificate that is served, the CA beside it if there is one, and the CA of clients.
pub(super) fn all(
    files: &TlsFiles,
    chain: &[CertificateDer<'static>],
    now: Timestamp,
) -> Result<Vec<Concern>, Error> {
    let mut found = of_clients(files, now)?;
    let (certificate, dates) = (files.certificate(), read(files, &files.certificate(), &chain[0])?);
    found.extend(Concern::with(certificate.clone(), &dates, now));
    let missing = names::not_covered(files.config(), &chain[0]);
    if !missing.is_empty() {
        let (kind, subject, at) = (Kind::LacksNames, dates.subject, missing.join(", "));
        found.push(Concern { kind, file: certificate, subject, at });
    }
    if files.config().own_files().is_some() {
        return Ok(found);
    }
    let Some(pem) = files.read("ca.pem")? else { return Ok(found) };
    let file = files.ca_pem();
    let mut authorities = Vec::new();
    for der in files.certificates(&file, &pem)? {
        authorities.push(read(files, &file, &der)?);
    }
    let ours = authority::is_ours(&authorities[0]) && files.path("ca.key").exists();
    if ours {
        let older = authorities[1..].iter().filter(|dates| !dates.has_ended(now, 0));
        found.extend(older.map(|dates| Concern::new(Kind::OldCopies, file.clone(), dates)));
    } else {
        // Clients need one of them.
        let concerns: Vec<_> =
            authorities.iter().map(|dates| Concern::with(file.clone(), dates, now)).collect();
        if concerns.iter().all(Option::is_some) {
            found.extend(concerns.into_iter().flatten());
        }
    }
    Ok(found)
}

/// The CAs of clients that have ended.
fn of_clients(files: &TlsFiles, now: Timestamp) -> Result<Vec<Concern>, Error> {
    let mut found = Vec::new();
    let Some(asked) = files.config().asked_of_clients() else { return Ok(found) };
    for der in files.certificates(asked.ca, &read_named(asked.ca)?)? {
        let dates = read(files, asked.ca, &der)?;
        if dates.has_ended(now, 0) {
            found.push(Concern::new(Kind::ClientCaEnded, asked.ca.to_owned(), &dates));
        }
    }
    Ok(found)
}

fn read(files: &TlsFiles, file: &Path, der: &CertificateDer<'static>) -> Result<Dates, Error> {
    Dates::read(der).map_err(|got| files.unusable(file, "certificate", got))
}

/// Says concerns when they are new, and then once a day.
#[derive(Debug, Default)]
pub(crate) struct Concerns {
    said: Vec<Concern>,
    at: Timestamp,
}

impl Concerns {
    /// Logs these if it is time to; returns whether it was.
    pub(crate) fn say(&mut self, concerns: Vec<Concern>, now: Timestamp) -> bool {
        // A clock that was set back must not silence it for as long.
        let long_ago = now.0.abs_diff(self.at.0) >= ms(SAY_EVERY);
        if concerns == self.said && !long_ago {
            return false;
        }
        concerns.iter().for_each(Concern::say);
        (self.said, self.at) = (concerns, now);
        true
    }
}
