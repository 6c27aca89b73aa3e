//! x
use super::{Context, SubscriptionHandle};
use crate::{catalogue::SubscriptionRecord, error::Error, topic::Topic};
use std::sync::Arc;
pub(crate) struct OwnerTask;
impl OwnerTask {
    pub(crate) async fn run(self) {}
}
pub(crate) fn open(
    _record: &Arc<SubscriptionRecord>,
    _topic: &Arc<Topic>,
    _context: &Context,
) -> Result<(SubscriptionHandle, OwnerTask), Error> {
    Err(Error::ShuttingDown)
}
