//! Requests about transactions.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use levada_delivery::subscription::Acked;
use levada_protocol::{
    access::{self, Requires, Scope},
    batch::Batch,
    duplicates::Placed,
    error::ErrorCode,
    ids::{DeliveryToken, GroupName, Offset, PartitionId, TopicId, TopicName, TransactionId},
    limits::{
        CHECK_AFTER_MS_MAX, TRANSACTION_ACKS_MAX, TRANSACTION_BATCHES_MAX, TRANSACTION_BYTES_MAX,
        TRANSACTION_EVENTS_MAX,
    },
    publish::PublishHeader,
    request::{
        AckedDelivery, DecideTransaction, ListTransactions, Response, Transact as Asked, TransactionAcks,
        TransactionBatch, TransactionDuplicate, TransactionInfo, TransactionState,
    },
};
use levada_store::Store;
use tokio::sync::oneshot;
use xxhash_rust::xxh3::Xxh3;

use super::pages::{self, Page};
use crate::{
    access::{Principal, Viewer},
    broker::Broker,
    catalogue::Catalogue,
    error::Error,
    log::blocking,
    quotas::Admitted,
    rows::{self, PreparedBatch, Row, Share, Transaction, TransactionKey, Undecided, Verdict},
    shard::{Found, Transact, TransactBatch, Transacted, transaction_exists, transaction_not_found},
    subscription::AckingTransact,
};

/// Rows that one page of a list reads at most.
const PAGE_ROWS_MAX: usize = 10_000;
/// How often a decision is tried about a transaction that changes while it is read.
const DECIDE_TRIES: usize = 4;

impl Broker {
    /// Stores events of any topics all or none, at once or to be decided about. `batches` are the request's, each with the
    /// index of its topic as `correlation`.
    ///
    /// Not cancel safe: a call that is given up may have stored the events, or may still do so. The same call again tells.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, `TOPIC_NOT_FOUND`, `PARTITION_NOT_FOUND`, `OFFSET_MISMATCH`, `TRANSACTION_EXISTS`,
    /// `TRANSACTION_TOO_LARGE`, `INVALID_ARGUMENT` for what cannot be part of a transaction, `TOO_MANY_PREPARED` if the group
    /// has too much undecided, `STORAGE_FULL`. Nothing was stored then.
    pub async fn transact(
        &self,
        principal: &Principal,
        asked: Asked,
        batches: Vec<(PublishHeader, Batch)>,
    ) -> Result<Response, Error> {
        self.check(principal, &asked.required())?;
        self.begin_request(principal).await?;
        self.transact_checked(principal, asked, batches).await
    }

    /// As [`Self::transact`] for a caller who has no producer group: `asked` names one of its listener's own, under an id that
    /// nobody else uses, and neither prepares nor acknowledges. It requires that its topics may be published to, and no more.
    ///
    /// # Errors
    /// As there.
    pub async fn publish_together(
        &self,
        principal: &Principal,
        asked: Asked,
        batches: Vec<(PublishHeader, Batch)>,
    ) -> Result<Response, Error> {
        let topics: Vec<_> = asked.topics.iter().map(access::publishing).collect();
        self.check(principal, &topics)?;
        self.transact_checked(principal, Asked { prepare: None, acks: None, ..asked }, batches).await
    }

    async fn transact_checked(
        &self,
        principal: &Principal,
        asked: Asked,
        batches: Vec<(PublishHeader, Batch)>,
    ) -> Result<Response, Error> {
        check_size(&asked, &batches)?;
        check_acks(&asked)?;
        let key = TransactionKey { group: asked.group.clone(), id: asked.id.clone() };
        let digest = digest(&asked, &batches);
        let batches = match self.placed(&asked, batches) {
            Ok(batches) => batches,
            // A topic may have been deleted since it was stored: then its answer is the one that counts.
            Err(error) => {
                let repeat = self.repeat_of(&key, digest).await?.ok_or(error)?;
                return Ok(self.described(&key, &repeat));
            }
        };
        let check_after_ms = match asked.prepare {
            None => None,
            Some(prepare) if prepare.check_after_ms > CHECK_AFTER_MS_MAX => {
                let message = format!(
                    "check_after_ms is {}, the limit is a day ({CHECK_AFTER_MS_MAX})",
                    prepare.check_after_ms
                );
                return Err(Error::refused(ErrorCode::InvalidArgument, message));
            }
            Some(prepare) if prepare.check_after_ms == 0 => Some(self.inner.check_backs.first_after_ms()),
            Some(prepare) => Some(prepare.check_after_ms),
        };
        let bytes = batches.iter().map(|it| it.batch.bytes().len()).sum();
        let events = batches.iter().map(|it| it.batch.count()).sum();
        let of_principal = match self.inner.authentication.metered(principal) {
            Some(metered) => Some(metered.publish(events, bytes).await?),
            None => None,
        };
        let admitted = Admitted { of_principal, ..self.admit(bytes).await? };
        let (of, acked) = (key.clone(), None);
        let transact = |reply| Transact { key: of, digest, batches, acked, check_after_ms, admitted, reply };
        let transacted = match asked.acks {
            None => self.inner.shard.transact(transact).await?,
            Some(acks) => self.acking(acks, &key, digest, transact).await?,
        };
        Ok(self.described(&key, &transacted))
    }

    /// Has the subscription's owner acknowledge events in the commit of a transaction.
    async fn acking(
        &self,
        acks: TransactionAcks,
        key: &TransactionKey,
        digest: u128,
        transact: impl FnOnce(oneshot::Sender<Result<Transacted, Error>>) -> Transact,
    ) -> Result<Transacted, Error> {
        // Its events are not in flight any more if this is a repeat.
        if let Some(repeat) = self.repeat_of(key, digest).await? {
            return Ok(repeat);
        }
        let record = Arc::clone(self.inner.shard.catalogue().subscription(&acks.topic, &acks.subscription)?);
        let owner = self.owner_of(&record).await?;
        let (reply, answer) = oneshot::channel();
        let acked = acks.deliveries.iter().map(acked).collect();
        owner.transact(AckingTransact { acked, transact: transact(reply) }).await?;
        match answer.await.unwrap_or_else(|_| Err(Error::unanswered())) {
            // An earlier request of this transaction may have acknowledged them meanwhile.
            Err(error) if error.code() == ErrorCode::DeliveryExpired => {
                self.repeat_of(key, digest).await?.ok_or(error)
            }
            answered => answered,
        }
    }

    /// What became of a transaction that an earlier request has stored, once that is durable.
    async fn repeat_of(&self, key: &TransactionKey, digest: u128) -> Result<Option<Transacted>, Error> {
        let reading = self.inner.shard.reading();
        let (store, of) = (Arc::clone(&self.inner.store), key.clone());
        let known = blocking(move || found(store.as_ref(), &of)).await?;
        let Some((transaction, undecided)) = known else { return Ok(None) };
        if transaction.digest != digest {
            return Err(transaction_exists(key));
        }
        reading.confirm().await?;
        Ok(Some(Transacted { transaction, undecided, repeat: true }))
    }

    /// The batches with their topics.
    fn placed(
        &self,
        asked: &Asked,
        batches: Vec<(PublishHeader, Batch)>,
    ) -> Result<Vec<TransactBatch>, Error> {
        let topics = asked.topics.iter().map(|name| self.publishable(name)).collect::<Result<Vec<_>, _>>()?;
        let invalid = |what: String| Err(Error::refused(ErrorCode::InvalidArgument, what));
        for (topic, taken) in topics.iter().zip(&asked.partitions) {
            let has = topic.partitions.len();
            if usize::from(*taken) != has {
                let message = format!(
                    "the number of partitions of topic {} is {has}, the transaction was made for {taken}: ask for the number and choose again",
                    topic.name
                );
                return Err(Error::refused(ErrorCode::PartitionNotFound, message));
            }
        }
        let mut placed = Vec::with_capacity(batches.len());
        for (header, batch) in batches {
            let Some(topic) = topics.get(header.correlation as usize) else {
                let topics = topics.len();
                return invalid(format!(
                    "a batch is for topic {} of the transaction, which has {topics}, counted from 0",
                    header.correlation
                ));
            };
            topic.check_publishable(&header, &batch)?;
            if header.due.is_some() {
                return invalid(format!(
                    "a batch for topic {} has a delay: events of a transaction are appended when it is committed; schedule \
                     them by themselves",
                    topic.name
                ));
            }
            if header.expect_offset.is_some() && asked.prepare.is_some() {
                return invalid(format!(
                    "a batch for topic {} has expect_offset, which contradicts prepare: the offset may be another's when it \
                     is committed; give one of them",
                    topic.name
                ));
            }
            placed.push(TransactBatch {
                topic: Arc::clone(topic),
                partition: header.partition,
                expected: header.expect_offset,
                batch,
            });
        }
        Ok(placed)
    }

    pub(super) async fn decide_transaction(
        &self,
        principal: &Principal,
        asked: DecideTransaction,
    ) -> Result<Response, Error> {
        let DecideTransaction { group, id, commit } = asked;
        let key = TransactionKey { group, id };
        let mut tries = DECIDE_TRIES;
        loop {
            tries -= 1;
            match self.decide(principal, &key, commit).await {
                // It is another one now under the same name, or was read in the moment in which it was stored.
                Err(error) if error.code() == ErrorCode::OutcomeUnknown && tries > 0 => {}
                decided => return Ok(self.described(&key, &decided?)),
            }
        }
    }

    /// Decides a transaction as it is read now.
    async fn decide(
        &self,
        principal: &Principal,
        key: &TransactionKey,
        commit: bool,
    ) -> Result<Transacted, Error> {
        let (store, of) = (Arc::clone(&self.inner.store), key.clone());
        let bytes = blocking(move || {
            let undecided = rows::get::<Undecided>(store.as_ref(), &of)?;
            Ok(undecided.map_or(0, |undecided| undecided.bytes as usize))
        });
        // Before its batches are in memory.
        let admitted = self.admit(bytes.await?).await?;
        let (store, of) = (Arc::clone(&self.inner.store), key.clone());
        let found = blocking(move || read_for_decision(store.as_ref(), &of, commit)).await?;
        let verdict = (key.clone(), commit);
        self.inner.shard.decide(principal.actor(), verdict, found, admitted).await
    }

    pub(super) async fn describe_transaction(
        &self,
        group: GroupName,
        id: TransactionId,
    ) -> Result<Response, Error> {
        let key = TransactionKey { group, id };
        let reading = self.inner.shard.reading();
        let (store, of) = (Arc::clone(&self.inner.store), key.clone());
        let found = blocking(move || found(store.as_ref(), &of)).await?;
        reading.confirm().await?;
        let (transaction, undecided) = found.ok_or_else(|| transaction_not_found(&key))?;
        let catalogue = self.inner.shard.catalogue();
        let info = info(&catalogue, &key, &transaction, undecided, false);
        Ok(Response::Transaction(Box::new(info)))
    }

    pub(super) async fn list_transactions(
        &self,
        viewer: Viewer,
        asked: ListTransactions,
    ) -> Result<Response, Error> {
        let reading = self.inner.shard.reading();
        let ListTransactions { group, decided, limit, after } = asked;
        let after = after.as_deref().map(parse_key).transpose()?;
        let (store, catalogue) = (Arc::clone(&self.inner.store), self.inner.shard.catalogue());
        let (transactions, next) = blocking(move || {
            let mut page = Page::new(limit);
            // One more than fits shows that there are more.
            let max = match usize::try_from(limit) {
                Ok(limit @ 1..PAGE_ROWS_MAX) => limit + 1,
                _ => PAGE_ROWS_MAX,
            };
            let keys = if decided {
                let range = group.as_ref().map_or_else(Transaction::all, Transaction::of_group);
                keys::<Transaction>(store.as_ref(), range, after.as_ref(), max)?
            } else {
                let range = group.as_ref().map_or_else(Undecided::all, Undecided::of_group);
                keys::<Undecided>(store.as_ref(), range, after.as_ref(), max)?
            };
            let more = (keys.len() == max).then(|| keys.last().map(ToString::to_string)).flatten();
            for key in keys {
                if !viewer.sees(&Scope::Group(key.group.clone())) {
                    continue;
                }
                // One that is missing was forgotten since its key was read.
                let Some((transaction, undecided)) = found(store.as_ref(), &key)? else { continue };
                if !page.add(&key, info(&catalogue, &key, &transaction, undecided, false)) {
                    return Ok(page.finish());
                }
            }
            Ok((page.finish().0, more))
        })
        .await?;
        reading.confirm().await?;
        Ok(Response::Transactions { transactions, next })
    }

    /// The answer to who has made or decided a transaction.
    fn described(&self, key: &TransactionKey, transacted: &Transacted) -> Response {
        let Transacted { transaction, undecided, repeat } = transacted;
        let catalogue = self.inner.shard.catalogue();
        Response::Transaction(Box::new(info(&catalogue, key, transaction, *undecided, *repeat)))
    }
}

/// What is said of a transaction that comes without its batches.
pub(super) fn without_batches() -> Error {
    let message = "expected the transaction's batches behind its request, got none";
    Error::refused(ErrorCode::InvalidArgument, message)
}

/// Refuses what is empty, too large, or not what was announced.
fn check_size(asked: &Asked, batches: &[(PublishHeader, Batch)]) -> Result<(), Error> {
    if batches.is_empty() || batches.len() != asked.batches as usize {
        let message = format!(
            "expected the {} batches of the transaction, at least 1, got {}",
            asked.batches,
            batches.len()
        );
        return Err(Error::refused(ErrorCode::InvalidArgument, message));
    }
    let events: u64 = batches.iter().map(|(_, batch)| u64::from(batch.count())).sum();
    let bytes: usize = batches.iter().map(|(_, batch)| batch.bytes().len()).sum();
    let over = |what: &str, got: u64, limit: usize| {
        let message =
            format!("the transaction has {got} {what}, the limit is {limit}: divide it into several");
        Err(Error::refused(ErrorCode::TransactionTooLarge, message))
    };
    if batches.len() > TRANSACTION_BATCHES_MAX {
        return over("batches", batches.len() as u64, TRANSACTION_BATCHES_MAX);
    }
    if events > TRANSACTION_EVENTS_MAX as u64 {
        return over("events", events, TRANSACTION_EVENTS_MAX);
    }
    if bytes > TRANSACTION_BYTES_MAX {
        return over("bytes of batches", bytes as u64, TRANSACTION_BYTES_MAX);
    }
    Ok(())
}

/// Refuses acknowledgements that cannot be part of a transaction.
fn check_acks(asked: &Asked) -> Result<(), Error> {
    let Some(acks) = &asked.acks else { return Ok(()) };
    let got = acks.deliveries.len();
    let message = || {
        format!(
            "expected 1 to {TRANSACTION_ACKS_MAX} deliveries that the transaction acknowledges, got {got}"
        )
    };
    if asked.prepare.is_some() {
        let contradiction = "acks and prepare contradict each other: what is acknowledged cannot wait for a decision; give one of them";
        return Err(Error::refused(ErrorCode::InvalidArgument, contradiction));
    }
    match got {
        0 => Err(Error::refused(ErrorCode::InvalidArgument, message())),
        1..=TRANSACTION_ACKS_MAX => Ok(()),
        _ => Err(Error::refused(ErrorCode::TransactionTooLarge, message())),
    }
}

/// What tells a repeat from another transaction under the same id: everything that its producer chose, event by event.
/// Neither times, which a program that begins again gives anew, nor the layout of the batches' bytes.
fn digest(asked: &Asked, batches: &[(PublishHeader, Batch)]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&[u8::from(asked.prepare.is_some())]);
    let mut text = |bytes: Option<&[u8]>| {
        hash.update(&bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    for (header, batch) in batches {
        let topic = asked.topics.get(header.correlation as usize).map_or("", TopicName::as_str);
        text(Some(topic.as_bytes()));
        text(Some(&header.partition.0.to_le_bytes()));
        text(header.expect_offset.map(|offset| offset.0.to_le_bytes()).as_ref().map(<[u8; 8]>::as_slice));
        for event in batch.events() {
            text(event.key());
            text(event.id().map(str::as_bytes));
            text(event.payload());
            for (name, value) in event.headers() {
                text(Some(name));
                text(Some(value));
            }
            // The next event begins.
            text(None);
        }
    }
    if let Some(acks) = &asked.acks {
        text(Some(acks.topic.as_str().as_bytes()));
        text(Some(acks.subscription.as_str().as_bytes()));
        for AckedDelivery { token, partition, first, last, events } in &acks.deliveries {
            text(Some(&partition.to_le_bytes()));
            [token, first, last, events].iter().for_each(|number| text(Some(&number.to_le_bytes())));
        }
    }
    hash.digest128()
}

fn acked(delivery: &AckedDelivery) -> Acked {
    let AckedDelivery { token, partition, first, last, events } = *delivery;
    let (token, partition) = (DeliveryToken(token), PartitionId(partition));
    Acked { token, partition, first: Offset(first), last: Offset(last), events }
}

/// What a decision about a transaction needs of it: its batches, if they are to be appended. Blocks on the disk.
fn read_for_decision(store: &dyn Store, key: &TransactionKey, commit: bool) -> Result<Found, Error> {
    let transaction = rows::get::<Transaction>(store, key)?.ok_or_else(|| transaction_not_found(key))?;
    let (digest, shares) = (transaction.digest, transaction.batches.len());
    if !commit || transaction.verdict != Verdict::Prepared {
        return Ok(Found { digest, shares, batches: Vec::new() });
    }
    let stored = rows::scan::<PreparedBatch>(store, PreparedBatch::of(key))?;
    let damaged = |what: String| Error::Store { code: ErrorCode::StorageCorrupt, message: what };
    // It may have been decided since its row was read: then its batches are gone.
    if stored.len() != shares && rows::get::<Transaction>(store, key)?.as_ref() == Some(&transaction) {
        let got = stored.len();
        return Err(damaged(format!("transaction {key} has {shares} batches, {got} of them are stored")));
    }
    let batch = |(_, PreparedBatch(bytes))| {
        let damage = |error| damaged(format!("a prepared batch of transaction {key} is damaged: {error}"));
        Batch::check(bytes).map_err(damage)
    };
    let batches = stored.into_iter().map(batch).collect::<Result<_, _>>()?;
    Ok(Found { digest, shares, batches })
}

/// A transaction, and how it waits if it is not decided. Blocks on the disk.
fn found(store: &dyn Store, key: &TransactionKey) -> Result<Option<(Transaction, Option<Undecided>)>, Error> {
    let Some(transaction) = rows::get::<Transaction>(store, key)? else { return Ok(None) };
    let undecided = match transaction.verdict {
        Verdict::Prepared => rows::get::<Undecided>(store, key)?,
        Verdict::Committed | Verdict::RolledBack => None,
    };
    Ok(Some((transaction, undecided)))
}

/// The transactions that rows of a kind are about, behind one. Blocks on the disk.
fn keys<R: Row<Key = TransactionKey>>(
    store: &dyn Store,
    (from, to): rows::KeyRange,
    after: Option<&TransactionKey>,
    max: usize,
) -> Result<Vec<TransactionKey>, Error> {
    let behind = after.map(|after| Bytes::from([R::key(after).as_ref(), &[0]].concat()));
    let from = behind.map_or_else(|| from.clone(), |behind| behind.max(from.clone()));
    if from >= to {
        return Ok(Vec::new());
    }
    rows::keys::<R>(store, (from, to), max)
}

fn parse_key(text: &str) -> Result<TransactionKey, Error> {
    let key = text
        .split_once('/')
        .and_then(|(group, id)| Some(TransactionKey { group: group.parse().ok()?, id: id.parse().ok()? }));
    key.ok_or_else(|| pages::not_a_page(text, "a page's next"))
}

/// A transaction as it is told.
fn info(
    catalogue: &Catalogue,
    key: &TransactionKey,
    transaction: &Transaction,
    undecided: Option<Undecided>,
    repeat: bool,
) -> TransactionInfo {
    let next_check = undecided.and_then(|it| it.next_check);
    let (state, decided) = match transaction.verdict {
        Verdict::Prepared if undecided.is_some_and(|it| it.next_check.is_none()) => {
            (TransactionState::Parked, None)
        }
        Verdict::Prepared => (TransactionState::Prepared, None),
        Verdict::Committed => (TransactionState::Committed, Some(transaction.decided.0)),
        Verdict::RolledBack => (TransactionState::RolledBack, Some(transaction.decided.0)),
    };
    let mut names = BTreeMap::<TopicId, Option<TopicName>>::new();
    let mut name = |id| {
        let of = |id| catalogue.topics.by_id(id).map(|record| record.name.clone());
        names.entry(id).or_insert_with(|| of(id)).clone()
    };
    TransactionInfo {
        group: key.group.clone(),
        id: key.id.clone(),
        state,
        repeat,
        prepared_ms: transaction.prepared.map(|time| time.0),
        decided_ms: decided,
        checks: undecided.map_or(0, |it| u32::from(it.checks)),
        next_check_ms: next_check.map(|time| time.0),
        batches: transaction.batches.iter().map(|share| batch_info(share, name(share.topic))).collect(),
    }
}

fn batch_info(share: &Share, topic: Option<TopicName>) -> TransactionBatch {
    let duplicates = share.duplicates.iter().flat_map(|duplicates| {
        (0..share.events).filter_map(|index| match duplicates.placed(index) {
            Placed::Stored(_) => None,
            Placed::Duplicate(first) => {
                Some(TransactionDuplicate { index, offset: first.map(|offset| offset.0) })
            }
        })
    });
    TransactionBatch {
        topic,
        partition: share.partition.0,
        events: share.events,
        offset: share.base.map(|base| base.0),
        duplicates: duplicates.collect(),
    }
}
