//! Producer groups: who decides about prepared transactions.

use levada_protocol::{
    ids::{GroupName, TransactionId},
    request::{DecideTransaction, ListTransactions, Request, Response, TransactionInfo},
};

use super::{Layout, Transaction, check_backs::CheckBacks};
use crate::{client::Client, error::Error, publisher::Receipt};

/// The instances of a service that share the responsibility for their transactions: each can commit and roll back those of
/// the others, and is asked about them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProducerGroup {
    client: Client,
    name: GroupName,
}

impl ProducerGroup {
    pub(crate) fn new(client: Client, name: GroupName) -> Self {
        Self { client, name }
    }

    /// Its name.
    pub fn name(&self) -> &GroupName {
        &self.name
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Begins a transaction with an id of the program's own, 1 to 128 visible characters of ASCII: one from which the program
    /// knows later whether it did its part, such as an order's number. An id is for one transaction: the same again with
    /// other events is refused with `TRANSACTION_EXISTS`.
    ///
    /// ```no_run
    /// # async fn example(client: levada_client::Client) -> Result<(), levada_client::Error> {
    /// # fn insert_order(_: &str) -> bool { true }
    /// use levada_client::Event;
    ///
    /// let mut transaction = client.producer_group("orders")?.transaction("order-42")?;
    /// transaction.publish("orders.created", Event::new("order 42"))?;
    /// let prepared = transaction.prepare().await?;
    /// // A row of the program's own database, with the transaction's id in it.
    /// if insert_order("order-42") {
    ///     prepared.commit().await?;
    /// } else {
    ///     prepared.rollback().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `INVALID_NAME`.
    pub fn transaction(&self, id: &str) -> Result<Transaction, Error> {
        Ok(Transaction::new(self.clone(), id.parse()?))
    }

    /// Commits a prepared transaction: its events are appended, each behind what the log holds by then. One that was
    /// committed before stays as it is, and [`TransactionInfo::repeat`] says so.
    ///
    /// Not cancel safe: a call that is dropped may have committed it. The same call again is harmless.
    ///
    /// # Errors
    /// `TRANSACTION_NOT_FOUND`; `ALREADY_DECIDED` if it was rolled back; as [`Client::request`].
    pub async fn commit(&self, id: &str) -> Result<TransactionInfo, Error> {
        self.decide(id.parse()?, true).await
    }

    /// Rolls a prepared transaction back: its events are dropped. Otherwise as [`ProducerGroup::commit`].
    ///
    /// # Errors
    /// `TRANSACTION_NOT_FOUND`; `ALREADY_DECIDED` if it was committed; as [`Client::request`].
    pub async fn rollback(&self, id: &str) -> Result<TransactionInfo, Error> {
        self.decide(id.parse()?, false).await
    }

    pub(super) async fn decide(&self, id: TransactionId, commit: bool) -> Result<TransactionInfo, Error> {
        let group = self.name.clone();
        let request = Request::DecideTransaction(DecideTransaction { group, id, commit });
        one(self.client.request(request).await?)
    }

    /// A transaction of the group.
    ///
    /// # Errors
    /// `TRANSACTION_NOT_FOUND`; as [`Client::request`].
    pub async fn describe(&self, id: &str) -> Result<TransactionInfo, Error> {
        let request = Request::DescribeTransaction { group: self.name.clone(), id: id.parse()? };
        one(self.client.request(request).await?)
    }

    /// Takes part in answering for the group's prepared transactions: whoever is connected is asked about those that nobody
    /// decided in time, as long as the result lives. Roll back only what can no longer be committed by the program's own work:
    /// a transaction whose producer is still at it is not in the database yet.
    ///
    /// ```no_run
    /// # async fn example(client: levada_client::Client) -> Result<(), levada_client::Error> {
    /// # fn is_in_my_database(_: &str) -> Option<bool> { None }
    /// let mut checks = client.producer_group("orders")?.check_backs().await?;
    /// while let Some(check) = checks.next().await? {
    ///     let decided = match is_in_my_database(check.id().as_str()) {
    ///         Some(true) => check.commit().await,
    ///         Some(false) => check.rollback().await,
    ///         None => continue, // not known yet: the group is asked again
    ///     };
    ///     if let Err(error) = decided {
    ///         eprintln!("{error}"); // such as ALREADY_DECIDED: somebody was faster
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn check_backs(&self) -> Result<CheckBacks, Error> {
        CheckBacks::open(self.clone()).await
    }
}

/// The answer that describes one transaction.
fn one(response: Response) -> Result<TransactionInfo, Error> {
    match response {
        Response::Transaction(info) => Ok(*info),
        _ => Err(Error::bad_answer("a request was answered with the answer to another")),
    }
}

/// A transaction whose events are stored and invisible. Dropping it decides nothing: the group is asked about it.
#[derive(Debug)]
#[must_use = "a prepared transaction waits until it is committed or rolled back"]
pub struct Prepared {
    group: ProducerGroup,
    info: TransactionInfo,
    layout: Layout,
}

impl Prepared {
    pub(super) fn new(group: ProducerGroup, info: TransactionInfo, layout: Layout) -> Self {
        Self { group, info, layout }
    }

    /// Its id.
    pub fn id(&self) -> &TransactionId {
        &self.info.id
    }

    /// What the engine knows of it.
    pub fn info(&self) -> &TransactionInfo {
        &self.info
    }

    /// Commits it: its events are appended. Returns a receipt for each, in the order in which they were added; an event whose
    /// topic was deleted meanwhile has no offset: it was dropped. After an error it can be called again.
    ///
    /// Not cancel safe: a call that is dropped may have committed it.
    ///
    /// # Errors
    /// As [`ProducerGroup::commit`].
    pub async fn commit(&self) -> Result<Vec<Receipt>, Error> {
        let info = self.group.decide(self.info.id.clone(), true).await?;
        Ok(self.layout.receipts(&info))
    }

    /// Rolls it back: its events are dropped. After an error it can be called again.
    ///
    /// Not cancel safe: a call that is dropped may have rolled it back.
    ///
    /// # Errors
    /// As [`ProducerGroup::rollback`].
    pub async fn rollback(&self) -> Result<(), Error> {
        self.group.decide(self.info.id.clone(), false).await.map(drop)
    }
}

/// Transactions, over all groups.
impl Client {
    /// Lists the transactions that wait for a decision, of one group or of all, in order of group and id; with `decided` also
    /// those that were decided and are still remembered. At most `max`, and whether there are more.
    ///
    /// # Errors
    /// `INVALID_NAME`; as [`Client::request`].
    pub async fn list_transactions(
        &self,
        group: Option<&str>,
        decided: bool,
        max: usize,
    ) -> Result<(Vec<TransactionInfo>, bool), Error> {
        let group = group.map(str::parse::<GroupName>).transpose()?;
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let list = ListTransactions { group: group.clone(), decided, limit: 0, after: after.take() };
            let request = Request::ListTransactions(list);
            let Response::Transactions { mut transactions, next } = self.request(request).await? else {
                return Err(Error::bad_answer("a request was answered with the answer to another"));
            };
            all.append(&mut transactions);
            let more = next.is_some() || all.len() > max;
            all.truncate(max);
            if next.is_none() || all.len() == max {
                return Ok((all, more));
            }
            after = next;
        }
    }
}
