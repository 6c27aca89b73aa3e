//! What an operator has to know about the certificates in force, and how often it is said.
//!
//! It must not change a file.

use std::{path::PathBuf, time::Duration};

use levada_protocol::ids::Timestamp;
use rustls::pki_types::CertificateDer;
use tracing::{error, warn};

use super::{
    DAY, Error, TlsFiles,
    authority::{self, ms},
    certificates,
    dates::Dates,
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
            Kind::OldCopies => {
                warn!(%file, ends = at, "the CA was renewed; clients that have an older copy must fetch it again before that expires");
            }
        }
    }
}

/// Everything about the certificate that is served, and about the CA beside it if there is one.
pub(super) fn all(
    files: &TlsFiles,
    chain: &[CertificateDer<'static>],
    now: Timestamp,
) -> Result<Vec<Concern>, Error> {
    let read = |file: PathBuf, der: &CertificateDer<'static>| {
        Dates::read(der).map_err(|got| Error::Content { path: file, expected: "certificate", got })
    };
    let mut found = Vec::new();
    let server = files.path("server.pem");
    found.extend(Concern::with(server.clone(), &read(server, &chain[0])?, now));
    let Some(pem) = files.read("ca.pem")? else { return Ok(found) };
    let file = files.ca_pem();
    let mut authorities = Vec::new();
    for der in certificates(&file, &pem)? {
        authorities.push(read(file.clone(), &der)?);
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
