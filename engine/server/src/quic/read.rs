//! A read stream: credit up, deliveries down, and `End` where a reader does not follow.
//!
//! It owns nothing but the forwarding. A client may end its direction once it has granted all it will.

use std::time::Duration;

use levada_broker::CreditSender;
use levada_protocol::{
    frame::FrameType,
    request::{Opened, Read},
    verbs::Credit,
};

use tokio_util::sync::CancellationToken;

use super::{
    frames::FrameReader,
    permits::Permits,
    stream::{Failure, Stream, both, write_frames},
};

/// Serves a reader, by the number of its stream among the permits, until it has read everything, or its client ends the stream.
pub(super) async fn serve(
    (permits, number): (&Permits, u64),
    read: Read,
    unread: Duration,
    draining: &CancellationToken,
    stream: &mut Stream,
) -> Result<(), Failure> {
    let broker = permits.broker();
    let reader = broker.read(permits.principal(), read).await?;
    permits.require(number, reader.conditions)?;
    stream.answer(&Opened::Read { positions: reader.positions }).await?;
    let down = write_frames(&mut stream.send, reader.outgoing, unread, || broker.is_short_of_room());
    both(grant_all(&mut stream.frames, reader.credit, draining), down).await
}

async fn grant_all(
    frames: &mut FrameReader,
    credit: CreditSender,
    draining: &CancellationToken,
) -> Result<(), Failure> {
    let mut finishing = false;
    loop {
        let frame = tokio::select! {
            biased;
            () = draining.cancelled(), if !finishing => {
                finishing = true;
                credit.finish();
                continue;
            }
            frame = frames.next() => frame?,
        };
        let Some(frame) = frame else { return Ok(()) };
        if frame.kind != FrameType::Credit {
            return Err(Failure::unexpected(frame.kind, "a credit frame"));
        }
        if credit.grant(Credit::read(&frame.payload)?).await.is_err() {
            // The reader has ended; its last frames say why.
            return Ok(());
        }
    }
}
