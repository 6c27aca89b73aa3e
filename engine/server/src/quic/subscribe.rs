//! A subscribe stream: credit and verbs up, deliveries down, and on the control stream what was lost.
//!
//! It owns nothing but the forwarding. When the client ends or resets the stream, the consumer is detached at once.

use std::{pin::pin, time::Duration};

use levada_broker::{Broker, ConsumerControl, LossNotice, Principal};
use levada_protocol::{
    error::ErrorCode,
    frame::FrameType,
    request::{Opened, Subscribe},
    verbs::{Credit, Verbs},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    frames::FrameReader,
    stream::{Failure, Stream, write_frames},
};

/// What a consumer's stream needs beside the broker.
pub(super) struct Served<'a> {
    /// Notices for the client on the control stream.
    pub(super) notices: &'a mpsc::Sender<LossNotice>,
    /// How long the stream may take nothing.
    pub(super) unread: Duration,
    /// Set when the engine goes away.
    pub(super) draining: &'a CancellationToken,
}

/// Serves a consumer until its client ends the stream or the subscription ends.
pub(super) async fn serve(
    broker: &Broker,
    principal: &Principal,
    subscribe: Subscribe,
    served: Served<'_>,
    stream: &mut Stream,
) -> Result<(), Failure> {
    let consumer = broker.subscribe(principal, subscribe).await?;
    stream.answer(&Opened::Subscribe(consumer.subscribed)).await?;
    let is_short = || broker.is_short_of_room();
    let mut down = pin!(write_frames(&mut stream.send, consumer.outgoing, served.unread, is_short));
    // Not biased, as in `stream::both`; unlike there, nothing is owed to a client that has ended its direction.
    let gone = tokio::select! {
        ended = forward(&mut stream.frames, consumer.control, served.draining) => ended?,
        ended = &mut down => return ended,
        ended = notify(consumer.notices, served.notices) => return ended,
        never = consumer.room.run() => match never {},
    };
    match gone {
        // Its last frame says why. It comes soon: an owner that takes no commands sends no more frames either.
        Some(gone) => down.await.and_then(|()| Err(gone.into())),
        None => Ok(()),
    }
}

/// Passes notices on as long as the session takes them; never the first to end.
async fn notify(
    mut noticed: mpsc::Receiver<LossNotice>,
    notices: &mpsc::Sender<LossNotice>,
) -> Result<(), Failure> {
    while let Some(notice) = noticed.recv().await {
        notices.send(notice).await.map_err(|_| Failure::Gone)?;
    }
    std::future::pending().await
}

/// Forwards the client's frames until it ends its direction, or with an error when they are not taken any more.
async fn forward(
    frames: &mut FrameReader,
    control: ConsumerControl,
    draining: &CancellationToken,
) -> Result<Option<levada_broker::Error>, Failure> {
    let mut sequence = 0;
    let mut finishing = false;
    loop {
        let frame = tokio::select! {
            biased;
            () = draining.cancelled(), if !finishing => {
                finishing = true;
                match control.finish().await {
                    Ok(()) => continue,
                    Err(gone) => return Ok(Some(gone)),
                }
            }
            frame = frames.next() => frame?,
        };
        let Some(frame) = frame else { return Ok(None) };
        let taken = match frame.kind {
            FrameType::Credit => control.credit(Credit::read(&frame.payload)?).await,
            FrameType::Verbs => {
                let verbs = Verbs::read(&frame.payload)?;
                // `Settled` answers by sequence: one that came before would confirm what is not settled yet.
                if verbs.sequence <= sequence {
                    let message =
                        format!("expected a verbs sequence above {sequence}, got {}", verbs.sequence);
                    return Err(Failure::refused(ErrorCode::Malformed, message));
                }
                sequence = verbs.sequence;
                // A consumer may have so many verbs unconfirmed that this waits: nothing else of it may wait with them.
                drop(frame);
                let mut taken = pin!(control.verbs(verbs));
                loop {
                    tokio::select! {
                        biased;
                        taken = &mut taken => break taken,
                        () = frames.reset() => return Ok(None),
                        () = draining.cancelled(), if !finishing => {
                            finishing = true;
                            if let Err(gone) = control.finish().await {
                                return Ok(Some(gone));
                            }
                        }
                    }
                }
            }
            other => return Err(Failure::unexpected(other, "a credit or verbs frame")),
        };
        if let Err(gone) = taken {
            return Ok(Some(gone));
        }
    }
}
