//! A session's notices on its control stream.
//!
//! A client has a notice for certain once QUIC has acknowledged it, which no stream says while it goes on. So a notice of
//! lost events counts as told when the client acknowledges anything after it was written: a client that was gone by then
//! acknowledges nothing, and another consumer is told. Acknowledgements that were on their way when it was written are not
//! told apart: a client that is cut off within a round trip of a notice may have missed it.

use std::{collections::VecDeque, convert::Infallible, future::pending, time::Duration};

use levada_broker::{LossNotice, Told};
use levada_protocol::{
    frame::{self, FrameType},
    request::Notice,
};
use quinn::{Connection, SendStream};
use tokio::{sync::mpsc, time};
use tokio_util::sync::CancellationToken;

/// How long after a notice it is looked whether the client has acknowledged anything.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Sends notices to the client, and once that the engine goes away. `whole` is false while a frame is under way.
pub(super) async fn send(
    connection: &Connection,
    control: &mut SendStream,
    whole: &mut bool,
    mut noticed: mpsc::Receiver<LossNotice>,
    draining: &CancellationToken,
    gone_away: &CancellationToken,
) -> Infallible {
    let mut written = Written { connection, told: VecDeque::new() };
    let mut says_goodbye = false;
    loop {
        let (notice, told) = tokio::select! {
            biased;
            () = draining.cancelled(), if !says_goodbye => {
                says_goodbye = true;
                (Notice::GoAway { reason: "the engine is shutting down".to_owned() }, None)
            }
            notice = noticed.recv() => match notice.map(LossNotice::into_parts) {
                Some((notice, told)) => (notice, Some(told)),
                // The session has ended: it holds the sending side.
                None => return pending().await,
            },
            () = written.wait() => {
                written.confirm();
                continue;
            }
        };
        *whole = false;
        // A client that is gone, or wants no notices, needs none.
        let sent = control.write_chunk(frame::message(FrameType::Notice, &notice)).await;
        *whole = true;
        if sent.is_ok() {
            told.into_iter().for_each(|told| written.add(told));
        }
        if says_goodbye {
            gone_away.cancel();
        }
    }
}

/// Notices that were written, and which the client is not known to have. Those that it is known to have are confirmed at
/// the end of the session, too.
struct Written<'a> {
    connection: &'a Connection,
    /// In the order in which they were written, with how many acknowledgements had come by then.
    told: VecDeque<(u64, Told)>,
}

impl Written<'_> {
    fn acknowledgements(&self) -> u64 {
        self.connection.stats().frame_rx.acks
    }

    fn add(&mut self, told: Told) {
        self.confirm();
        self.told.push_back((self.acknowledgements(), told));
    }

    /// Waits until it is time to look; for ever if there is nothing to look for. Cancel safe.
    async fn wait(&self) {
        if self.told.is_empty() {
            pending::<()>().await;
        }
        time::sleep(LOOK_INTERVAL).await;
    }

    /// Confirms those that the client has.
    fn confirm(&mut self) {
        let acknowledgements = self.acknowledgements();
        while let Some((_, told)) = self.told.pop_front_if(|(before, _)| *before < acknowledgements) {
            told.confirm();
        }
    }
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        self.confirm();
    }
}
