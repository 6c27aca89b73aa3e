//! A stream that takes the check-backs of a producer group: questions down, nothing up. The answers come as requests.

use levada_broker::{Broker, Principal};
use levada_protocol::{
    error::{ErrorCode, Refusal},
    frame::{self, FrameType},
    ids::GroupName,
    request::Opened,
};
use tokio::time::{Duration, timeout};
use tokio_util::sync::CancellationToken;

use super::stream::{Failure, Stream};

/// Serves until the client ends the stream, or the engine goes away.
pub(super) async fn serve(
    broker: &Broker,
    principal: &Principal,
    group: GroupName,
    unread: Duration,
    draining: &CancellationToken,
    stream: &mut Stream,
) -> Result<(), Failure> {
    let mut member = broker.join_group(principal, group)?;
    stream.answer(&Opened::CheckBacks).await?;
    loop {
        let check = tokio::select! {
            biased;
            () = draining.cancelled() => return Err(levada_broker::Error::ShuttingDown.into()),
            frame = stream.frames.next() => match frame? {
                Some(frame) => return Err(Failure::unexpected(frame.kind, "nothing more on this stream")),
                None => return Ok(()),
            },
            check = member.next() => check,
        };
        let Some(check) = check else { return Err(levada_broker::Error::ShuttingDown.into()) };
        let write = stream.send.write_chunk(frame::message(FrameType::CheckBack, &check));
        tokio::select! {
            biased;
            () = draining.cancelled() => return Err(levada_broker::Error::ShuttingDown.into()),
            written = timeout(unread, write) => written.map_err(|_| {
                let message = format!("the stream took no check in {unread:?}");
                Failure::Unread(Refusal::new(ErrorCode::DeadlineExceeded, message))
            })??,
        }
    }
}
