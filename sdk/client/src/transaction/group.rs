//! A producer group's name and the client that speaks for it: what decides about transactions.

use levada_protocol::{
    ids::{GroupName, TransactionId},
    request::{DecideTransaction, Request, Response, TransactionInfo},
};

use crate::{client::Client, error::Error};

/// A producer group, as one of its members sees it.
#[derive(Debug, Clone)]
pub(super) struct Group {
    client: Client,
    name: GroupName,
}

impl Group {
    pub(super) fn new(client: Client, name: GroupName) -> Self {
        Self { client, name }
    }

    pub(super) fn name(&self) -> &GroupName {
        &self.name
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) async fn decide(&self, id: TransactionId, commit: bool) -> Result<TransactionInfo, Error> {
        let group = self.name.clone();
        let request = Request::DecideTransaction(DecideTransaction { group, id, commit });
        one(self.client.request(request).await?)
    }

    pub(super) async fn describe(&self, id: TransactionId) -> Result<TransactionInfo, Error> {
        let request = Request::DescribeTransaction { group: self.name.clone(), id };
        one(self.client.request(request).await?)
    }
}

/// The answer that describes one transaction.
fn one(response: Response) -> Result<TransactionInfo, Error> {
    match response {
        Response::Transaction(info) => Ok(*info),
        _ => Err(Error::bad_answer("a request was answered with the answer to another")),
    }
}
