//! Has the shard forget decided transactions whose time is over, a little in every retention round.

use std::sync::Arc;

use bytes::Bytes;
use levada_protocol::ids::Timestamp;
use levada_store::{ScanLimit, Store};

use crate::{
    error::Error,
    log::blocking,
    rows::{Row, TransactionEnd},
    shard::ShardHandle,
};

/// Transactions that are forgotten at once: the writer looks up each of them, and publishes wait behind it.
const FORGOTTEN_AT_ONCE_MAX: ScanLimit = ScanLimit::rows(128);

/// Finds decided transactions whose time is over.
pub(crate) struct TransactionEnds {
    store: Arc<dyn Store>,
    shard: ShardHandle,
}

impl TransactionEnds {
    pub(crate) fn new(store: Arc<dyn Store>, shard: ShardHandle) -> Self {
        Self { store, shard }
    }

    /// One round.
    ///
    /// # Errors
    /// If the store fails; what was forgotten until then stays forgotten.
    pub(crate) async fn forget(&self, now: Timestamp) -> Result<(), Error> {
        let (mut from, to) = TransactionEnd::until(now);
        loop {
            let (store, begin, end) = (Arc::clone(&self.store), from, to.clone());
            let page = move || {
                let limit = FORGOTTEN_AT_ONCE_MAX;
                Ok(store.scan(TransactionEnd::FAMILY, &begin, &end, limit)?)
            };
            let rows: Vec<(Bytes, Bytes)> = blocking(page).await?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            from = [last.as_ref(), &[0]].concat().into();
            let parsed = rows.iter().filter_map(|(key, _)| {
                let parsed = TransactionEnd::parse_key(key);
                if parsed.is_none() {
                    // It must not keep the others for ever.
                    tracing::warn!(?key, "the end of a transaction does not decode");
                }
                parsed
            });
            let ends: Vec<_> = parsed.collect();
            tracing::debug!(transactions = ends.len(), "decided transactions are forgotten");
            self.shard.forget_transactions(ends).await?;
        }
    }
}
