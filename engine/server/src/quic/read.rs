//! A read stream: credit up, deliveries down, and `End` where a reader does not follow.
//!
//! It owns nothing but the forwarding. A client may end its direction once it has granted all it will.

use levada_broker::{Broker, CreditSender, Principal};
use levada_protocol::{
    frame::FrameType,
    request::{Opened, Read},
    verbs::Credit,
};

use super::{
    frames::FrameReader,
    stream::{Failure, Stream, both, write_frames},
};

/// Serves a reader until it has read everything, or its client ends the stream.
pub(super) async fn serve(
    broker: &Broker,
    principal: &Principal,
    read: Read,
    stream: &mut Stream,
) -> Result<(), Failure> {
    let reader = broker.read(principal, read).await?;
    stream.answer(&Opened::Read { positions: reader.positions }).await?;
    both(grant_all(&mut stream.frames, reader.credit), write_frames(&mut stream.send, reader.frames)).await
}

async fn grant_all(frames: &mut FrameReader, credit: CreditSender) -> Result<(), Failure> {
    while let Some(frame) = frames.next().await? {
        if frame.kind != FrameType::Credit {
            return Err(Failure::unexpected(frame.kind, "a credit frame"));
        }
        if credit.grant(Credit::read(&frame.payload)?).await.is_err() {
            // The reader has ended; its last frames say why.
            return Ok(());
        }
    }
    Ok(())
}
