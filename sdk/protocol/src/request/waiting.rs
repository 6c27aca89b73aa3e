//! What a subscription waits for before it delivers more.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What has to happen before a subscription delivers more. As text it is one sentence's object: "waits for …".
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WaitingFor {
    /// Nothing: it delivers.
    #[default]
    Nothing,
    /// New events: all there are have come to their end.
    Events,
    /// A consumer: none is attached.
    Consumer,
    /// Credit: its consumers ask for no events.
    Credit {
        /// How many are attached.
        consumers: u64,
    },
    /// The connections of its consumers, which take nothing.
    Connection {
        /// How many are attached.
        consumers: u64,
    },
    /// Acknowledgements: its consumers have every event that they may have.
    Acknowledgements {
        /// How many events they have.
        events: u64,
        /// The one that was delivered first.
        #[serde(default)]
        oldest: Option<Holding>,
    },
    /// The next attempt of an event that failed.
    Retry(Retry),
    /// Events that failed: so many are to be delivered again that no new ones are.
    Failures {
        /// How many runs of neighbouring events that ended alike.
        runs: u64,
        /// The next attempt of one of them.
        #[serde(default)]
        retry: Option<Retry>,
    },
    /// The oldest unacknowledged offset of a partition: the window above it is full.
    Window {
        /// The partition.
        partition: u16,
        /// The offset.
        offset: u64,
        /// Its next attempt, if it failed.
        #[serde(default)]
        retry: Option<Retry>,
    },
    /// Earlier events of their keys: as many events wait for those as may.
    Keys {
        /// How many wait.
        events: u64,
        /// The event that was delivered first of those that are not acknowledged.
        #[serde(default)]
        oldest: Option<Holding>,
        /// The next attempt of one of those earlier events, if one failed.
        #[serde(default)]
        retry: Option<Retry>,
    },
    /// Its rate.
    Rate {
        /// Events a second.
        per_second: u64,
    },
    /// Somebody who resumes it.
    Resume {
        /// Why it is paused; empty if that was asked for.
        #[serde(default)]
        why: String,
    },
    /// Its own next try, after an error.
    Recovery {
        /// The error.
        why: String,
    },
    /// Something that a newer version knows.
    #[serde(other)]
    Unknown,
}

/// An event at a consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Its partition.
    pub partition: u16,
    /// Its offset.
    pub offset: u64,
    /// The name of the consumer that has it.
    #[serde(default)]
    pub consumer: String,
}

/// An event that failed, and when it is due again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Its partition.
    pub partition: u16,
    /// Its offset.
    pub offset: u64,
    /// How many of its deliveries failed.
    pub attempts: u16,
    /// When it is due, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl WaitingFor {
    /// The word for it in metrics, and the kind in JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Events => "events",
            Self::Consumer => "consumer",
            Self::Credit { .. } => "credit",
            Self::Connection { .. } => "connection",
            Self::Acknowledgements { .. } => "acknowledgements",
            Self::Retry(_) => "retry",
            Self::Failures { .. } => "failures",
            Self::Window { .. } => "window",
            Self::Keys { .. } => "keys",
            Self::Rate { .. } => "rate",
            Self::Resume { .. } => "resume",
            Self::Recovery { .. } => "recovery",
            Self::Unknown => "unknown",
        }
    }

    /// Partition and offset of the event that it is about, if it is about one.
    pub fn event(&self) -> Option<(u16, u64)> {
        match self {
            Self::Retry(retry)
            | Self::Failures { retry: Some(retry), .. }
            | Self::Window { retry: Some(retry), .. }
            | Self::Keys { retry: Some(retry), .. } => Some((retry.partition, retry.offset)),
            Self::Window { partition, offset, retry: None } => Some((*partition, *offset)),
            Self::Acknowledgements { oldest: Some(oldest), .. }
            | Self::Keys { oldest: Some(oldest), retry: None, .. } => Some((oldest.partition, oldest.offset)),
            _ => None,
        }
    }

    /// When it ends by itself, if that is known, in milliseconds since the Unix epoch.
    pub fn until_ms(&self) -> Option<u64> {
        match self {
            Self::Retry(retry)
            | Self::Failures { retry: Some(retry), .. }
            | Self::Window { retry: Some(retry), .. }
            | Self::Keys { retry: Some(retry), .. } => Some(retry.at_ms),
            _ => None,
        }
    }
}

impl fmt::Display for WaitingFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing: it delivers"),
            Self::Events => f.write_str("new events: all others are acknowledged"),
            Self::Consumer => f.write_str("a consumer: none is attached"),
            Self::Credit { consumers: 1 } => f.write_str("credit: its consumer asks for no events"),
            Self::Credit { consumers } => {
                write!(f, "credit: none of its {consumers} consumers asks for events")
            }
            Self::Connection { consumers: 1 } => {
                f.write_str("its consumer's connection, which takes nothing")
            }
            Self::Connection { consumers } => {
                write!(f, "the connections of its {consumers} consumers, which take nothing")
            }
            Self::Acknowledgements { events: 1, oldest: Some(oldest) } => {
                write!(f, "the acknowledgement of {oldest}")
            }
            Self::Acknowledgements { events, oldest: Some(oldest) } => {
                write!(f, "acknowledgements of {events} events, first of {oldest}")
            }
            Self::Acknowledgements { events, oldest: None } => {
                write!(f, "acknowledgements of {events} events")
            }
            Self::Retry(retry) => write!(f, "the next attempt of {retry}"),
            Self::Failures { runs, retry: Some(retry) } => {
                write!(
                    f,
                    "the next attempt of {retry}, as {runs} runs of failed events are as many as may be"
                )
            }
            Self::Failures { runs, retry: None } => {
                write!(f, "failed events that are delivered again: {runs} runs of them are as many as may be")
            }
            Self::Window { retry: Some(retry), .. } => {
                write!(f, "the next attempt of {retry}, above which too many events have been delivered")
            }
            Self::Window { partition, offset, retry: None } => write!(
                f,
                "the acknowledgement of offset {offset} of partition {partition}, above which too many events \
                 have been delivered"
            ),
            Self::Keys { events, retry: Some(retry), .. } => {
                write!(
                    f,
                    "the next attempt of {retry}, as {events} events wait for earlier ones of their keys"
                )
            }
            Self::Keys { events, oldest: Some(oldest), retry: None } => write!(
                f,
                "the acknowledgement of {oldest}, as {events} events wait for earlier ones of their keys"
            ),
            Self::Keys { events, oldest: None, retry: None } => {
                write!(f, "acknowledgements, as {events} events wait for earlier ones of their keys")
            }
            Self::Rate { per_second: 1 } => f.write_str("its rate of 1 event a second"),
            Self::Rate { per_second } => write!(f, "its rate of {per_second} events a second"),
            Self::Resume { why } if why.is_empty() => f.write_str("somebody who resumes it: it was paused"),
            Self::Resume { why } => write!(f, "somebody who resumes it: {why}"),
            Self::Recovery { why } => write!(f, "its own next try: {why}"),
            Self::Unknown => f.write_str("something that this version does not know"),
        }
    }
}

impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, offset, consumer } = self;
        write!(f, "offset {offset} of partition {partition}")?;
        if consumer.is_empty() { Ok(()) } else { write!(f, " by {consumer}") }
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, offset, attempts, .. } = self;
        write!(f, "offset {offset} of partition {partition}")?;
        match attempts {
            0 => Ok(()),
            1 => f.write_str(", which failed once"),
            _ => write!(f, ", which failed {attempts} times"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_the_end_of_one_sentence_and_its_word_is_the_kind() {
        let retry = Retry { partition: 1, offset: 7, attempts: 2, at_ms: 5 };
        let oldest = Some(Holding { partition: 0, offset: 3, consumer: "a".to_owned() });
        for (it, text) in [
            (WaitingFor::Consumer, "a consumer: none is attached"),
            (WaitingFor::Credit { consumers: 2 }, "credit: none of its 2 consumers asks for events"),
            (
                WaitingFor::Acknowledgements { events: 1_000, oldest: oldest.clone() },
                "acknowledgements of 1000 events, first of offset 3 of partition 0 by a",
            ),
            (WaitingFor::Retry(retry), "the next attempt of offset 7 of partition 1, which failed 2 times"),
            (
                WaitingFor::Keys { events: 9, oldest: oldest.clone(), retry: None },
                "the acknowledgement of offset 3 of partition 0 by a, as 9 events wait for earlier ones of their keys",
            ),
            (
                WaitingFor::Failures { runs: 9, retry: Some(retry) },
                "the next attempt of offset 7 of partition 1, which failed 2 times, as 9 runs of failed events are as many \
                 as may be",
            ),
            (WaitingFor::Rate { per_second: 50 }, "its rate of 50 events a second"),
            (WaitingFor::Resume { why: String::new() }, "somebody who resumes it: it was paused"),
        ] {
            assert_eq!(it.to_string(), text);
            assert_eq!(serde_json::to_value(&it).unwrap()["kind"], it.as_str());
        }
        assert_eq!(WaitingFor::Retry(retry).until_ms(), Some(5));
        assert_eq!(WaitingFor::Retry(retry).event(), Some((1, 7)));
        let keys = |retry| WaitingFor::Keys { events: 9, oldest: oldest.clone(), retry };
        assert_eq!((keys(None).event(), keys(Some(retry)).event()), (Some((0, 3)), Some((1, 7))));
        assert_eq!(WaitingFor::Events.event(), None);
        let newer = serde_json::from_str::<WaitingFor>(r#"{"kind":"moon","phase":4}"#).unwrap();
        assert_eq!(newer, WaitingFor::Unknown);
    }
}
