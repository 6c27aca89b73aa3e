//! Dead letters: what there are, why, and what becomes of them.

use std::{collections::BTreeMap, ops::Range};

use levada_protocol::{
    dead_letters::DeadLettersOf,
    ids::{Offset, Timestamp, TopicName},
    limits::REDRIVE_EVENTS_MAX,
    request::{
        DeadLetterGroup, DeadLetterSelection, DeadLetterTopic, GroupDeadLetters, PurgeDeadLetters, Purged,
        Redrive, RedriveInfo, RedriveOutcome, Request, Response, Stretch,
    },
};

use crate::{client::Client, error::Error};

/// Which dead letters are redriven, and where to.
#[derive(Debug, Clone)]
pub struct RedriveOptions {
    /// Whose dead letters.
    pub of: DeadLettersOf,
    /// Which of them.
    pub select: RedriveSelection,
    /// Where their events go.
    pub to: RedriveTarget,
    /// Also those that were redriven before, and events that were redriven 8 times. Default: no.
    pub force: bool,
    /// Where to begin, for a forced redrive that goes on: [`Redriving::cursor`] of the one before. Default: with the oldest.
    /// Others need it only to be quicker, as they leave alone what was redriven.
    pub from: Offset,
    /// Where to end, for a forced redrive that goes on: [`Redriving::until`] of the one before. Default: behind the newest
    /// at the first step.
    pub until: Option<Offset>,
}

/// Where the events of dead letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedriveTarget {
    /// Back to the subscription that they are dead letters of, and to nobody else. Each is delivered again as it was, at its
    /// place in the topic, with as many attempts as at first; behind or before newer events of its key. Dead letters of a
    /// route have no subscription, which is refused.
    Subscription,
    /// To this topic, where every subscription of it gets them. None of the engine's own.
    Topic(String),
}

impl From<&str> for RedriveTarget {
    fn from(topic: &str) -> Self {
        Self::Topic(topic.to_owned())
    }
}

impl From<String> for RedriveTarget {
    fn from(topic: String) -> Self {
        Self::Topic(topic)
    }
}

/// Which dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedriveSelection {
    /// Those at these offsets.
    Offsets(Vec<Offset>),
    /// Those for which a condition holds, in the language of the plugin `json-filter`: `header.lv-dlq-reason = "rejected"`.
    Where(String),
    /// All.
    All,
}

impl RedriveOptions {
    /// Redrives all dead letters that were not redriven yet.
    pub fn all(of: DeadLettersOf, to: impl Into<RedriveTarget>) -> Self {
        let (select, to) = (RedriveSelection::All, to.into());
        Self { of, select, to, force: false, from: Offset(0), until: None }
    }

    /// Redrives the dead letters for which a condition holds, and that were not redriven yet.
    pub fn matching(of: DeadLettersOf, condition: impl Into<String>, to: impl Into<RedriveTarget>) -> Self {
        Self { select: RedriveSelection::Where(condition.into()), ..Self::all(of, to) }
    }
}

/// A redrive under way, which the engine does step by step.
///
/// ```no_run
/// use levada_client::{Client, RedriveOptions, RedriveTarget, protocol::request::RedriveOutcome};
///
/// # async fn repair(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
/// let of = "orders/payment".parse()?;
/// let condition = r#"header.lv-dlq-reason = "plugin_error""#;
/// let again = RedriveOptions::matching(of, condition, RedriveTarget::Subscription);
/// let mut redriving = client.redrive(again)?;
/// while let Some(outcomes) = redriving.next().await? {
///     let done = |outcome: &&RedriveOutcome| matches!(outcome, RedriveOutcome::Redriven(_));
///     println!("{} of {} redriven", outcomes.iter().filter(done).count(), outcomes.len());
/// }
/// # Ok(())
/// # }
/// ```
///
/// A dead letter is redriven once, however often this is repeated, and whatever was interrupted: it knows that it was.
#[derive(Debug)]
pub struct Redriving {
    client: Client,
    request: Redrive,
    /// Offsets for the requests after this one.
    later: Vec<Vec<u64>>,
    scanned: u64,
    ended: bool,
}

impl Redriving {
    /// What became of the next dead letters, which may be none of a stretch where none was selected; `None` at the end.
    ///
    /// Cancel safe: the step may take effect, and the next call asks for it again, which then says of its dead letters that
    /// they were redriven already. With `force`, it redrives them again.
    ///
    /// # Errors
    /// A refusal, after which nothing of the step was done, and the next call tries it again; `OUTCOME_UNKNOWN` and errors
    /// of the connection, after which that is not known. `REDRIVE_LOOP` for a target of the engine's own,
    /// `SUBSCRIPTION_NOT_FOUND` if there is no subscription any more to take its dead letters back.
    pub async fn next(&mut self) -> Result<Option<Vec<RedriveOutcome>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let Response::Redriven(step) = self.client.request(Request::Redrive(self.request.clone())).await?
        else {
            return Err(Error::bad_answer("a redrive was answered with something else"));
        };
        let Stretch { next, until, scanned, .. } = step.stretch;
        self.scanned += scanned;
        self.request.until = Some(until);
        match (next, self.later.pop()) {
            (Some(next), later) => {
                if next <= self.request.from {
                    return Err(Error::bad_answer("a step of a redrive came no further"));
                }
                self.request.from = next;
                self.later.extend(later);
            }
            (None, Some(offsets)) => self.request.select = DeadLetterSelection::Offsets { offsets },
            (None, None) => self.ended = true,
        }
        Ok(Some(step.outcomes))
    }

    /// Where another redrive of the same selection goes on.
    pub fn cursor(&self) -> Offset {
        Offset(self.request.from)
    }

    /// The offset before which it ends; `None` before the first step, if none was given.
    pub fn until(&self) -> Option<Offset> {
        self.request.until.map(Offset)
    }

    /// How many dead letters were looked at so far.
    pub fn scanned(&self) -> u64 {
        self.scanned
    }
}

/// A count of dead letters under way, which the engine does step by step.
#[derive(Debug)]
pub struct Grouping {
    client: Client,
    request: GroupDeadLetters,
    groups: BTreeMap<(String, Option<String>), DeadLetterGroup>,
    scanned: u64,
    scanned_bytes: u64,
    undecodable: u64,
    ended: bool,
}

impl Grouping {
    /// Counts on for a step of about 8 MiB; false at the end. Cancel safe.
    ///
    /// # Errors
    /// A refusal, such as `INVALID_ARGUMENT` for a condition with a mistake.
    pub async fn step(&mut self) -> Result<bool, Error> {
        if self.ended {
            return Ok(false);
        }
        let request = Request::GroupDeadLetters(self.request.clone());
        let Response::DeadLetterGroups(found) = self.client.request(request).await? else {
            return Err(Error::bad_answer("a count of dead letters was answered with something else"));
        };
        for group in found.groups {
            match self.groups.get_mut(&(group.reason.clone(), group.plugin.clone())) {
                Some(known) => known.add(group),
                None => drop(self.groups.insert((group.reason.clone(), group.plugin.clone()), group)),
            }
        }
        let Stretch { next, until, scanned_bytes, scanned, undecodable } = found.stretch;
        self.scanned += scanned;
        self.scanned_bytes += scanned_bytes;
        self.undecodable += undecodable;
        self.request.until = Some(until);
        match next {
            Some(next) if next <= self.request.from => {
                return Err(Error::bad_answer("a step of a count came no further"));
            }
            Some(next) => self.request.from = next,
            None => self.ended = true,
        }
        Ok(!self.ended)
    }

    /// What was counted so far, in order of reason and plugin.
    pub fn groups(&self) -> impl Iterator<Item = &DeadLetterGroup> {
        self.groups.values()
    }

    /// Where another count goes on; `None` if this one is complete.
    pub fn cursor(&self) -> Option<Offset> {
        (!self.ended).then_some(Offset(self.request.from))
    }

    /// How many dead letters were looked at so far.
    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    /// How many stored bytes were scanned so far.
    pub fn scanned_bytes(&self) -> u64 {
        self.scanned_bytes
    }

    /// How many dead letters did not match because their payload is no JSON although the condition names a field of it.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }
}

/// Which dead letters a purge drops: always the oldest up to somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// All that are stored.
    All,
    /// Those before the first that became a dead letter at this time or later.
    Before(Timestamp),
}

/// Requests about dead letters. They behave as [`Client::request`], in errors and when cancelled.
impl Client {
    /// Lists the dead-letter topics of all topics, or of one, in order of name.
    pub async fn list_dead_letters(&self, topic: Option<&str>) -> Result<Vec<DeadLetterTopic>, Error> {
        let topic = topic.map(TopicName::parse_any).transpose()?;
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let request = Request::ListDeadLetters { topic: topic.clone(), limit: 0, after };
            let Response::DeadLetterTopics { topics, next } = self.request(request).await? else {
                return Err(Error::bad_answer("a list of dead letters was answered with something else"));
            };
            if topics.is_empty() && next.is_some() {
                return Err(Error::bad_answer("a page of a list is empty, and not the last"));
            }
            all.extend(topics);
            match next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// Counts dead letters by reason and plugin version, from an offset on: all, or those for which a condition holds.
    pub fn group_dead_letters(&self, of: &DeadLettersOf, condition: Option<&str>, from: Offset) -> Grouping {
        let condition = condition.map(str::to_owned);
        let request = GroupDeadLetters {
            condition,
            from: from.0,
            ..GroupDeadLetters::new(of.dead_letter_topic().clone())
        };
        Grouping {
            client: self.clone(),
            request,
            groups: BTreeMap::new(),
            scanned: 0,
            scanned_bytes: 0,
            undecodable: 0,
            ended: false,
        }
    }

    /// Lists which dead letters of a range of offsets were redriven, when and where to.
    pub async fn list_redrives(
        &self,
        of: &DeadLettersOf,
        offsets: Range<Offset>,
    ) -> Result<Vec<RedriveInfo>, Error> {
        let (mut all, mut from) = (Vec::new(), offsets.start.0);
        loop {
            let (topic, until) = (of.dead_letter_topic().clone(), Some(offsets.end.0));
            let Response::Redrives { redrives, next } =
                self.request(Request::ListRedrives { topic, from, until }).await?
            else {
                return Err(Error::bad_answer("a list of redrives was answered with something else"));
            };
            all.extend(redrives);
            match next {
                Some(next) if next <= from => {
                    return Err(Error::bad_answer("a page of redrives came no further"));
                }
                Some(next) => from = next,
                None => return Ok(all),
            }
        }
    }

    /// Redrives dead letters: gives their events back to the subscription alone, or appends them to a topic, each once. Nothing is done before [`Redriving::next`].
    ///
    /// # Errors
    /// `INVALID_NAME` for the target.
    pub fn redrive(&self, options: RedriveOptions) -> Result<Redriving, Error> {
        let RedriveOptions { of, select, to, force, from, until } = options;
        let mut later = Vec::new();
        let select = match select {
            RedriveSelection::All => DeadLetterSelection::All,
            RedriveSelection::Where(condition) => DeadLetterSelection::Where { condition },
            RedriveSelection::Offsets(offsets) => {
                let mut offsets: Vec<u64> = offsets.into_iter().map(|offset| offset.0).collect();
                offsets.sort_unstable();
                offsets.dedup();
                // The last one is taken first.
                later = offsets.chunks(REDRIVE_EVENTS_MAX).rev().map(<[u64]>::to_vec).collect();
                DeadLetterSelection::Offsets { offsets: later.pop().unwrap_or_default() }
            }
        };
        let to = match to {
            RedriveTarget::Subscription => None,
            RedriveTarget::Topic(name) => Some(TopicName::parse_any(&name)?),
        };
        let topic = of.dead_letter_topic().clone();
        let until = until.map(|until| until.0);
        let request = Redrive { topic, to, select, from: from.0, until, force };
        Ok(Redriving { client: self.clone(), request, later, scanned: 0, ended: false })
    }

    /// Drops dead letters, the oldest first, none at `until` or behind. Unless it is forced, it is refused with
    /// `NOT_REDRIVEN`, which says how many, if some of them were never redriven, and with `TOPIC_IN_USE` if a subscription
    /// or route that reads the dead-letter topic has not come so far.
    pub async fn purge_dead_letters(
        &self,
        of: &DeadLettersOf,
        purge: Purge,
        until: Option<Offset>,
        force: bool,
    ) -> Result<Purged, Error> {
        let before_ms = match purge {
            Purge::All => None,
            Purge::Before(time) => Some(time.0),
        };
        let (topic, until) = (of.dead_letter_topic().clone(), until.map(|until| until.0));
        let request = Request::PurgeDeadLetters(PurgeDeadLetters { topic, before_ms, until, force });
        match self.request(request).await? {
            Response::Purged(purged) => Ok(purged),
            _ => Err(Error::bad_answer("a purge was answered with something else")),
        }
    }
}
