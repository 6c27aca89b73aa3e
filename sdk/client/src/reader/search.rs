//! Searching stored events: the public face. A search is a reader that wants some of the events.

use std::num::NonZeroU64;

use bytes::Bytes;
use levada_protocol::{
    ids::TopicName,
    progress::{Scanned, SearchState},
    request::{self, Read, SearchKey, Start},
};

use super::{Cursor, Reader, Step};
use crate::{delivery::Delivery, error::Error, link::Link};

/// What to search for, where, and how far.
#[derive(Debug, Clone)]
pub struct SearchOptions {
    /// The topic's name.
    pub topic: String,
    /// A condition over payload, headers and key, such as `amount > 100 and header.region = "eu"`: the language of the
    /// plugin `json-filter`. Default: none.
    pub condition: Option<String>,
    /// Only events whose key has exactly these bytes. Default: any, and none.
    pub key: Option<Bytes>,
    /// Where to search. Default: everything that is stored.
    pub scope: SearchScope,
    /// How far to search. Default: as far as the engine allows at once.
    pub bound: SearchBound,
    /// Ends the search with so many events. Default: any number.
    pub events_max: Option<NonZeroU64>,
    /// Most events that have come and were not taken. Default 65,536.
    pub credit_events: u64,
    /// Most bytes of them, give or take one frame. Default 4 MiB.
    pub credit_bytes: u64,
}

/// Where to search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SearchScope {
    /// All partitions from this start on.
    All(Start),
    /// These partitions, at least one, from this start on.
    Partitions(Vec<u16>, Start),
    /// Where another search ended.
    Cursor(Cursor),
}

/// How far to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SearchBound {
    /// To the end of what is stored now, or until the engine's own limit of bytes scanned (1 GiB unless configured).
    #[default]
    Engine,
    /// The same with a lower limit of bytes scanned.
    Bytes(NonZeroU64),
    /// Without end: what is stored, and then what comes, until the search is dropped.
    Follow,
}

/// Something that a search has to say.
#[derive(Debug)]
pub enum Found {
    /// Events that match, with their own offsets.
    Events(Delivery),
    /// How much was scanned so far.
    Progress(Scanned),
}

/// How a search has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchEnd {
    /// Everything was searched that was stored when it began.
    Complete,
    /// A bound was reached, and there is more: [`Search::cursor`] says where.
    Limited,
}

impl SearchOptions {
    /// Searches all that the topic holds for events for which the condition holds.
    pub fn new(topic: impl Into<String>, condition: impl Into<String>) -> Self {
        Self { condition: Some(condition.into()), ..Self::of_all(topic) }
    }

    /// Searches all that the topic holds for events of this key.
    pub fn by_key(topic: impl Into<String>, key: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..Self::of_all(topic) }
    }

    /// Searches all that the topic holds, for every event: a bounded read with a cursor.
    pub fn of_all(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            condition: None,
            key: None,
            scope: SearchScope::All(Start::Earliest),
            bound: SearchBound::default(),
            events_max: None,
            credit_events: 65_536,
            credit_bytes: 4 * 1024 * 1024,
        }
    }

    fn read(self) -> Result<Read, Error> {
        let (partitions, from, positions) = match self.scope {
            SearchScope::All(start) => (Vec::new(), start, Vec::new()),
            SearchScope::Partitions(partitions, start) => {
                if partitions.is_empty() {
                    let what = "a search of some partitions needs at least one".to_owned();
                    return Err(Error::Config { what });
                }
                (partitions, start, Vec::new())
            }
            SearchScope::Cursor(cursor) => {
                let positions = cursor.positions();
                (positions.iter().map(|it| it.partition).collect(), Start::Earliest, positions)
            }
        };
        let (follow, scan_bytes_max) = match self.bound {
            SearchBound::Engine => (false, 0),
            SearchBound::Bytes(bytes) => (false, bytes.get()),
            SearchBound::Follow => (true, 0),
        };
        let search = request::Search {
            condition: self.condition,
            key: self.key.map(SearchKey),
            scan_bytes_max,
            events_max: self.events_max.map_or(0, NonZeroU64::get),
        };
        let topic = TopicName::parse_any(&self.topic)?;
        Ok(Read { partitions, from, positions, follow, search: Some(search), ..Read::new(topic) })
    }
}

/// A search under way. The engine tests the events; only those that match come here.
///
/// ```no_run
/// use levada_client::{Client, Found, SearchEnd, SearchOptions};
///
/// # async fn large_orders(client: &Client) -> Result<(), levada_client::Error> {
/// let options = SearchOptions::new("orders", r#"amount > 100 and header.region = "eu""#);
/// let mut search = client.search(options).await?;
/// while let Some(found) = search.next().await? {
///     match found {
///         Found::Events(delivery) => println!("{} events match", delivery.events().count()),
///         Found::Progress(scanned) => println!("{} bytes scanned", scanned.bytes),
///     }
/// }
/// if search.ended() == Some(SearchEnd::Limited) {
///     println!("there is more behind {}", search.cursor());
/// }
/// # Ok(())
/// # }
/// ```
///
/// When the connection is lost the search goes on where it was. A bound in bytes counts on; the engine's own limit begins
/// again.
#[derive(Debug)]
pub struct Search {
    reader: Reader,
    cursor: Cursor,
    scanned: Scanned,
    ended: Option<SearchEnd>,
}

impl Search {
    pub(crate) async fn open(link: Link, options: SearchOptions) -> Result<Self, Error> {
        let (credit_events, credit_bytes) = (options.credit_events, options.credit_bytes);
        let reader = Reader::start(link, options.read()?, credit_events, credit_bytes).await?;
        let cursor = Cursor::new(reader.began_at());
        Ok(Self { reader, cursor, scanned: Scanned::default(), ended: None })
    }

    /// What the search has to say next, waiting for it if need be; `None` at the end, and after the client was closed.
    /// Progress comes after about every 8 MiB scanned, and once at the end.
    ///
    /// Cancel safe: nothing is lost with the wait.
    ///
    /// # Errors
    /// A refusal, such as `OFFSET_OUT_OF_RANGE` after retention dropped what was to be searched next, or
    /// `TOPIC_NOT_FOUND`; `BATCH_INVALID` for events that came damaged.
    pub async fn next(&mut self) -> Result<Option<Found>, Error> {
        Ok(self.reader.step().await?.map(|step| match step {
            Step::Events(delivery) => {
                self.cursor.pass(delivery.partition().0, delivery.last().0.saturating_add(1));
                Found::Events(delivery)
            }
            Step::Progress(progress) => {
                self.scanned = progress.scanned;
                for entry in &progress.positions {
                    self.cursor.pass(entry.partition.0, entry.next.0);
                }
                self.ended = match progress.state {
                    SearchState::Running => None,
                    SearchState::Complete => Some(SearchEnd::Complete),
                    SearchState::Limited => Some(SearchEnd::Limited),
                };
                Found::Progress(progress.scanned)
            }
        }))
    }

    /// What was scanned, as far as [`Search::next`] has told.
    pub fn scanned(&self) -> Scanned {
        self.scanned
    }

    /// Where another search goes on so that it finds what this one has not given yet, and nothing twice.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// How the search has ended, once [`Search::next`] has told.
    pub fn ended(&self) -> Option<SearchEnd> {
        self.ended
    }
}
