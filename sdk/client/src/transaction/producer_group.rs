//! Producer groups: who makes transactions, and who decides about prepared ones.

use levada_protocol::{
    ids::GroupName,
    request::{ListTransactions, Request, Response, TransactionInfo},
};

use super::{check_backs::CheckBacks, group::Group, sending::Transaction};
use crate::{client::Client, clock, error::Error};

/// The instances of a service that share the responsibility for their transactions: each can commit and roll back those of
/// the others, and is asked about them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProducerGroup(Group);

impl ProducerGroup {
    /// Its name.
    pub fn name(&self) -> &GroupName {
        self.0.name()
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
        Ok(Transaction::new(self.0.clone(), id.parse()?))
    }

    /// Commits a prepared transaction: its events are appended, each behind what the log holds by then. One that was
    /// committed before stays as it is, and [`TransactionInfo::repeat`] says so.
    ///
    /// Not cancel safe: a call that is dropped may have committed it. The same call again is harmless.
    ///
    /// # Errors
    /// `TRANSACTION_NOT_FOUND`; `ALREADY_DECIDED` if it was rolled back; as [`Client::request`].
    pub async fn commit(&self, id: &str) -> Result<TransactionInfo, Error> {
        self.0.decide(id.parse()?, true).await
    }

    /// Rolls a prepared transaction back: its events are dropped. Otherwise as [`ProducerGroup::commit`].
    ///
    /// # Errors
    /// `TRANSACTION_NOT_FOUND`; `ALREADY_DECIDED` if it was committed; as [`Client::request`].
    pub async fn rollback(&self, id: &str) -> Result<TransactionInfo, Error> {
        self.0.decide(id.parse()?, false).await
    }

    /// A transaction of the group, as it is now.
    ///
    /// Cancel safe: it changes nothing.
    ///
    /// # Errors
    /// `TRANSACTION_NOT_FOUND`; as [`Client::request`].
    pub async fn describe(&self, id: &str) -> Result<TransactionInfo, Error> {
        self.0.describe(id.parse()?).await
    }

    /// Takes part in answering for the group's prepared transactions: whoever is connected is asked about those that nobody
    /// decided in time, as long as the result lives. Roll back only what can no longer be committed by the program's own work:
    /// a transaction whose producer is still at it is not in the database yet.
    ///
    /// ```no_run
    /// # async fn example(client: levada_client::Client) -> Result<(), levada_client::Error> {
    /// # fn is_in_my_database(_: &str) -> Option<bool> { Some(true) }
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
    /// Cancel safe: nothing is left behind. What the engine asked meanwhile is asked again, as with a [`Check`](super::Check) that is dropped.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn check_backs(&self) -> Result<CheckBacks, Error> {
        CheckBacks::open(self.0.clone()).await
    }
}

/// Transactions.
impl Client {
    /// Begins a transaction that is committed at once: events of any topics, all of them or none. Its id is random, its
    /// producer group `default`.
    ///
    /// ```no_run
    /// # async fn example(client: levada_client::Client) -> Result<(), levada_client::Error> {
    /// use levada_client::Event;
    ///
    /// let mut transfer = client.transaction()?;
    /// transfer.publish("withdrawals", Event::new("5").with_key("account-1"))?;
    /// transfer.publish("deposits", Event::new("5").with_key("account-2"))?;
    /// transfer.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `CONFIG_INVALID` if the system gives no randomness.
    pub fn transaction(&self) -> Result<Transaction, Error> {
        self.producer_group("default")?.transaction(&clock::producer_id()?.to_string())
    }

    /// A producer group: transactions whose ids the program chooses, so that they can be prepared, decided later, and asked
    /// about by any member of the group.
    ///
    /// # Errors
    /// `INVALID_NAME`.
    pub fn producer_group(&self, name: &str) -> Result<ProducerGroup, Error> {
        Ok(ProducerGroup(Group::new(self.clone(), name.parse()?)))
    }

    /// Lists the transactions that wait for a decision, of one group or of all, in order of group and id; with `decided` also
    /// those that were decided and are still remembered. At most `max`, and whether there are more.
    ///
    /// Cancel safe: it only reads.
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
