//! Named producers: of all that publish to a topic under one name, the newest alone may. All of them are in memory, as
//! every batch of one is checked; a publisher without a name never comes here.
//!
//! A name is forgotten once nobody has opened it for long and nothing is known of what its owners published;
//! [`crate::idle`] finds such names.

use std::collections::{HashMap, hash_map::Entry};

use levada_protocol::{
    error::{ErrorCode, Refusal},
    ids::{Epoch, ProducerId, ProducerName, Timestamp, TopicId},
    request::OpenedProducer,
};
use levada_store::{Store, commit::OP_HEADER_BYTES};

use crate::{
    error::Error,
    rows::{self, NamedProducer, Row},
    shard::draft::Draft,
};

/// How many names all topics together may have: about 200 bytes of memory each.
const ALL_MAX: usize = 100_000;

/// Which name in which topic: what one row of the named producers is about.
pub(crate) type NameKey = (TopicId, ProducerName);

/// What is known of named producers.
#[derive(Debug)]
pub(in crate::shard) struct NamedProducers {
    topics: HashMap<TopicId, Names>,
    /// How many names a topic may have.
    max: usize,
    /// How many names all topics together may have.
    all_max: usize,
    /// How many names there are.
    count: usize,
}

/// The names of one topic. Each has an owner, and each owner a name.
#[derive(Debug, Default)]
struct Names {
    ids: HashMap<ProducerName, ProducerId>,
    owners: HashMap<ProducerId, Owner>,
}

/// Who owns a name.
#[derive(Debug)]
struct Owner {
    name: ProducerName,
    epoch: Epoch,
    opened: Timestamp,
    /// When it last published, since the engine was started.
    used: Timestamp,
}

impl NamedProducers {
    /// Bytes that opening a name adds to a commit, at most.
    pub(in crate::shard) const OPEN_LEN_MAX: usize = OP_HEADER_BYTES + 256;

    /// Reads all of them; a topic may have at most `max`. Blocks on the disk.
    pub(in crate::shard) fn load(store: &dyn Store, max: usize) -> Result<Self, Error> {
        let (mut topics, mut count) = (HashMap::<TopicId, Names>::new(), 0);
        rows::for_each::<NamedProducer>(store, NamedProducer::all(), |(topic, name), row| {
            topics.entry(topic).or_default().insert(name, row, Timestamp(0));
            count += 1;
        })?;
        Ok(Self { topics, max, all_max: ALL_MAX, count })
    }

    /// Lets a new owner take a name over: under another id if the name is new, else with the next epoch. `fresh` is an id
    /// that nobody has.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` if the topic, or all of them together, has as many names as it may.
    pub(in crate::shard) fn open(
        &mut self,
        (topic, name): NameKey,
        fresh: ProducerId,
        now: Timestamp,
        draft: &mut Draft,
    ) -> Result<OpenedProducer, Refusal> {
        let known = self.topics.get(&topic);
        let current = known.and_then(|names| names.row_of(&name));
        if current.is_none() {
            self.check_room(known)?;
        }
        let next = current.and_then(|(id, epoch)| Some((id, epoch.0.checked_add(1)?)));
        let (id, epoch) = next.unwrap_or_else(|| (fresh.base(), 1));
        let row = NamedProducer { id, epoch: Epoch(epoch), opened: now };
        draft.push(row.put(&(topic, name.clone())));
        self.count += usize::from(current.is_none());
        self.topics.entry(topic).or_default().insert(name, row, now);
        Ok(OpenedProducer { producer_id: id, epoch })
    }

    /// Checks that a topic with these names may have another.
    fn check_room(&self, names: Option<&Names>) -> Result<(), Refusal> {
        let (of_topic, max) = (names.map_or(0, |names| names.ids.len()), self.max);
        let full = if of_topic >= max {
            format!("the topic has {of_topic} names of producers, the most it may")
        } else if self.count >= self.all_max {
            format!("all topics together have {} names of producers, the most there may be", self.count)
        } else {
            return Ok(());
        };
        let message = format!(
            "{full}; use one that there is, or wait: a name is forgotten once nothing was published under it for as long as the \
             engine's publish.producers_idle says, 7 days by default"
        );
        Err(Refusal::new(ErrorCode::LimitExceeded, message))
    }

    /// Checks that a batch with an epoch above 0 is of the owner of a name, and notes that this one publishes.
    ///
    /// # Errors
    /// `PRODUCER_FENCED` if another has taken the name over, `PRODUCER_UNKNOWN` if nobody was given this id and epoch.
    pub(in crate::shard) fn check(
        &mut self,
        topic: TopicId,
        (producer, epoch): (ProducerId, Epoch),
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let names = self.topics.get_mut(&topic);
        let Some(owner) = names.and_then(|names| names.owners.get_mut(&producer.base())) else {
            let message = format!(
                "the topic has no name with producer id {}, got epoch {epoch}: the name was forgotten, or is of a topic that was \
                 deleted; open it again (`open_producer`)",
                producer.base()
            );
            return Err(Refusal::new(ErrorCode::ProducerUnknown, message));
        };
        let (name, current) = (&owner.name, owner.epoch);
        if epoch < current {
            let message = format!(
                "the epoch of producer {name} is {current}, got {epoch}: another publisher has taken over this name, and this \
                 one may publish no more"
            );
            return Err(Refusal::new(ErrorCode::ProducerFenced, message));
        }
        if epoch > current {
            let message = format!(
                "the epoch of producer {name} is {current}, got {epoch}, which was never given; open the name again \
                 (`open_producer`)"
            );
            return Err(Refusal::new(ErrorCode::ProducerUnknown, message));
        }
        owner.used = now;
        Ok(())
    }

    /// Forgets a name that was neither opened nor published under since a time, and of whose owners no producer's row was
    /// found. Its row is deleted by the commit.
    pub(in crate::shard) fn forget_if_idle(&mut self, key: &NameKey, before: Timestamp, draft: &mut Draft) {
        let (topic, name) = key;
        let Entry::Occupied(mut names) = self.topics.entry(*topic) else { return };
        let Some(id) = names.get().ids.get(name).copied() else { return };
        let is_idle = |owner: &Owner| owner.opened < before && owner.used < before;
        if !names.get().owners.get(&id).is_some_and(is_idle) {
            return;
        }
        self.count -= 1;
        names.get_mut().ids.remove(name);
        names.get_mut().owners.remove(&id);
        if names.get().ids.is_empty() {
            names.remove();
        }
        draft.push(NamedProducer::delete(key));
    }

    /// Forgets the names of a topic that was deleted.
    pub(in crate::shard) fn forget_topic(&mut self, id: TopicId, draft: &mut Draft) {
        if let Some(names) = self.topics.remove(&id) {
            self.count -= names.ids.len();
            draft.push(NamedProducer::delete_range(NamedProducer::of_topic(id)));
        }
    }
}

impl Names {
    /// The id of a name, and its owner's epoch.
    fn row_of(&self, name: &ProducerName) -> Option<(ProducerId, Epoch)> {
        let id = *self.ids.get(name)?;
        Some((id, self.owners.get(&id)?.epoch))
    }

    /// Lets a name have an owner, in place of the one that it has.
    fn insert(&mut self, name: ProducerName, row: NamedProducer, used: Timestamp) {
        let NamedProducer { id, epoch, opened } = row;
        if let Some(before) = self.ids.insert(name.clone(), id) {
            self.owners.remove(&before);
        }
        self.owners.insert(id, Owner { name, epoch, opened, used });
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::ids::CommitIndex;
    use levada_store::{Commit, MemoryStore, commit::Term};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const TOPIC: TopicId = TopicId(1);
    const OTHER: TopicId = TopicId(2);

    fn key(topic: TopicId, name: &str) -> NameKey {
        (topic, name.parse().unwrap())
    }

    /// An id that nobody has.
    fn fresh(number: u128) -> ProducerId {
        ProducerId(number << 32)
    }

    fn draft(store: &MemoryStore) -> Draft {
        Draft::new(CommitIndex(store.last().index.0 + 1))
    }

    fn commit(store: &MemoryStore, draft: Draft) {
        let expected = draft.encoded_len();
        let commit = Commit::after(&store.last(), Term(1), Timestamp(0), draft.into_ops());
        assert_eq!(commit.encoded_len(), expected);
        store.apply(&commit).unwrap();
    }

    fn none(max: usize) -> (MemoryStore, NamedProducers) {
        let store = MemoryStore::new();
        let names = NamedProducers::load(&store, max).unwrap();
        (store, names)
    }

    fn code(result: Result<(), Refusal>) -> Option<ErrorCode> {
        result.err().map(|refusal| refusal.code)
    }

    #[test]
    fn the_newest_owner_publishes_and_those_before_it_do_not() {
        let (store, mut names) = none(10);
        let mut draft = draft(&store);
        let mut open = |fresh| names.open(key(TOPIC, "a"), fresh, Timestamp(5), &mut draft).unwrap();
        let (first, second) = (open(fresh(7)), open(fresh(8)));
        assert_eq!(first, OpenedProducer { producer_id: fresh(7), epoch: 1 });
        assert_eq!(second, OpenedProducer { epoch: 2, ..first });
        let mut check =
            |topic, id: u128, epoch| names.check(topic, (ProducerId(id), Epoch(epoch)), Timestamp(6));
        let id = fresh(7).0;
        for id in [id, id + 1, id + u128::from(u32::MAX)] {
            assert_eq!(check(TOPIC, id, 2), Ok(()));
            let fenced = check(TOPIC, id, 1).unwrap_err();
            assert_eq!(fenced.code, ErrorCode::ProducerFenced);
            let said = "the epoch of producer a is 2, got 1: another publisher has taken over this name, and this one may \
                        publish no more";
            assert_eq!(fenced.message, said);
        }
        assert_eq!(code(check(TOPIC, id, 3)), Some(ErrorCode::ProducerUnknown), "never given");
        assert_eq!(code(check(TOPIC, fresh(8).0, 1)), Some(ErrorCode::ProducerUnknown), "never used");
        assert_eq!(code(check(OTHER, id, 2)), Some(ErrorCode::ProducerUnknown), "a name is of one topic");
    }

    #[test]
    fn after_the_last_epoch_a_name_gets_another_id() {
        let (store, mut names) = none(10);
        let mut draft = draft(&store);
        let row = NamedProducer { id: fresh(7), epoch: Epoch(u32::MAX), opened: Timestamp(1) };
        names.topics.entry(TOPIC).or_default().insert("a".parse().unwrap(), row, Timestamp(1));
        let opened = names.open(key(TOPIC, "a"), fresh(8), Timestamp(2), &mut draft);
        assert_eq!(opened, Ok(OpenedProducer { producer_id: fresh(8), epoch: 1 }));
        let old = names.check(TOPIC, (fresh(7), Epoch(u32::MAX)), Timestamp(3));
        assert_eq!(code(old), Some(ErrorCode::ProducerUnknown));
    }

    #[test]
    fn a_topic_has_as_many_names_as_it_may_and_no_more() {
        let (store, mut names) = none(2);
        let mut draft = draft(&store);
        let mut open = |topic, name, fresh| names.open(key(topic, name), fresh, Timestamp(5), &mut draft);
        assert!(open(TOPIC, "a", fresh(1)).is_ok() && open(TOPIC, "b", fresh(2)).is_ok());
        let refused = open(TOPIC, "c", fresh(3)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::LimitExceeded);
        assert!(refused.message.starts_with("the topic has 2 names of producers, the most it may;"));
        assert!(open(OTHER, "c", fresh(4)).is_ok(), "each topic has its own");
        assert_eq!(open(TOPIC, "a", fresh(5)).map(|it| it.epoch), Ok(2), "one that it has is taken over");
        names.forget_if_idle(&key(TOPIC, "b"), Timestamp(6), &mut draft);
        assert!(names.open(key(TOPIC, "c"), fresh(6), Timestamp(7), &mut draft).is_ok());
    }

    #[test]
    fn all_topics_together_have_as_many_names_as_they_may_and_no_more() {
        let (store, mut names) = none(10);
        assert_eq!(names.all_max, 100_000, "the limit that the refusal and the documents tell");
        names.all_max = 3;
        let mut draft = draft(&store);
        let mut open = |names: &mut NamedProducers, topic, name, number| {
            names.open(key(topic, name), fresh(number), Timestamp(5), &mut draft)
        };
        for (number, (topic, name)) in (1..).zip([(TOPIC, "a"), (OTHER, "a"), (OTHER, "b")]) {
            assert!(open(&mut names, topic, name, number).is_ok(), "{name}");
        }
        let refused = open(&mut names, TOPIC, "c", 4).unwrap_err();
        assert_eq!(refused.code, ErrorCode::LimitExceeded);
        assert!(
            refused
                .message
                .starts_with("all topics together have 3 names of producers, the most there may be;")
        );
        assert_eq!(
            open(&mut names, OTHER, "a", 5).map(|it| it.epoch),
            Ok(2),
            "one that there is is taken over"
        );
        names.forget_topic(OTHER, &mut Draft::new(CommitIndex(1)));
        assert!(open(&mut names, TOPIC, "c", 6).is_ok() && open(&mut names, TOPIC, "d", 7).is_ok());
        assert!(open(&mut names, TOPIC, "e", 8).is_err(), "what was forgotten made room once");
    }

    #[test]
    fn a_name_is_forgotten_that_was_neither_opened_nor_published_under() {
        let (store, mut names) = none(10);
        let mut first = draft(&store);
        for (number, name) in (1..).zip(["old", "used", "new"]) {
            let opened = Timestamp(if name == "new" { 9 } else { 5 });
            names.open(key(TOPIC, name), fresh(number), opened, &mut first).unwrap();
        }
        commit(&store, first);
        // As after a start: what was published before that is told by the producers' rows.
        let mut names = NamedProducers::load(&store, 10).unwrap();
        names.check(TOPIC, (fresh(2), Epoch(1)), Timestamp(9)).unwrap();
        let mut second = draft(&store);
        for name in ["old", "used", "new", "absent"] {
            names.forget_if_idle(&key(TOPIC, name), Timestamp(9), &mut second);
        }
        commit(&store, second);
        let mut found = Vec::new();
        rows::for_each::<NamedProducer>(&store, NamedProducer::all(), |(_, name), _| {
            found.push(name.to_string());
        })
        .unwrap();
        assert_eq!(found, ["new", "used"]);
        let gone = names.check(TOPIC, (fresh(1), Epoch(1)), Timestamp(9));
        assert_eq!(code(gone), Some(ErrorCode::ProducerUnknown));
        let mut third = draft(&store);
        let again = names.open(key(TOPIC, "old"), fresh(4), Timestamp(9), &mut third);
        assert_eq!(again, Ok(OpenedProducer { producer_id: fresh(4), epoch: 1 }), "as a new one");
    }

    #[test]
    fn a_deleted_topic_s_names_go_with_their_rows() {
        let (store, mut names) = none(10);
        let mut draft = draft(&store);
        for topic in [TOPIC, OTHER] {
            names.open(key(topic, "a"), fresh(topic.0.into()), Timestamp(5), &mut draft).unwrap();
        }
        names.forget_topic(TOPIC, &mut draft);
        let ops = draft.encoded_len();
        names.forget_topic(TopicId(3), &mut draft);
        assert_eq!(draft.encoded_len(), ops, "a topic without names costs nothing");
        commit(&store, draft);
        let unknown = names.check(TOPIC, (fresh(1), Epoch(1)), Timestamp(6));
        assert_eq!(code(unknown), Some(ErrorCode::ProducerUnknown));
        let loaded = NamedProducers::load(&store, 10).unwrap();
        assert_eq!(loaded.topics.keys().collect::<Vec<_>>(), [&OTHER]);
    }

    proptest! {
        /// Whatever was opened and forgotten, and whenever the engine was started again: of each name the last one that
        /// opened it may publish, and nobody else.
        #[test]
        fn of_each_name_the_last_to_open_it_may_publish_and_nobody_else(steps in vec((0..3_u8, 0..12_u8), 1..60)) {
            let (store, mut names) = none(3);
            let mut given: Vec<(u8, OpenedProducer)> = Vec::new();
            let mut owners: HashMap<u8, OpenedProducer> = HashMap::new();
            for (now, (name, what)) in (1_u64..).zip(steps) {
                let (mut draft, of) = (draft(&store), key(TOPIC, &format!("n{name}")));
                match what {
                    0..=6 => {
                        let opened = names.open(of, fresh(now.into()), Timestamp(now), &mut draft).unwrap();
                        given.push((name, opened));
                        owners.insert(name, opened);
                    }
                    7..=8 => {
                        names.forget_if_idle(&of, Timestamp(now), &mut draft);
                        owners.remove(&name);
                    }
                    9 => {
                        names.forget_topic(TOPIC, &mut draft);
                        owners.clear();
                    }
                    _ => {
                        commit(&store, draft);
                        names = NamedProducers::load(&store, 3).unwrap();
                        continue;
                    }
                }
                commit(&store, draft);
                for (name, opened) in &given {
                    let id = ProducerId(opened.producer_id.0 | u128::from(now as u32));
                    // What is not noted as used is forgotten by the next step that says so.
                    let may = names.check(TOPIC, (id, Epoch(opened.epoch)), Timestamp(0)).is_ok();
                    prop_assert_eq!(may, owners.get(name) == Some(opened), "{:?}", opened);
                }
            }
        }
    }
}
