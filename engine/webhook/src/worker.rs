//! One push: a consumer of its subscription that hands every event to the receiver, and says of each what became of it.

use std::{future::Future, pin::Pin, sync::Arc};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use levada_broker::{Consumer, Content, Error, Outgoing, PushOutcome, PushRules, PushTarget, Pushing};
use levada_protocol::{
    error::ErrorCode,
    verbs::{Credit, Rejection, Verb, VerbKind, Verbs},
};
use tokio::{
    sync::watch,
    time::{Duration, Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    held::{CREDIT_BYTES, Holding, verb},
    lanes::{Held, Lane},
    sender::Sender,
    sign,
    verdict::Verdict,
};

/// How long requests that are under way are waited for when a push ends.
const GRACE: Duration = Duration::from_secs(3);
/// How long the last verbs may take to become durable then.
const LAST_VERBS: Duration = Duration::from_secs(1);
/// The shortest and the longest wait before a consumer is attached again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How long nothing is sent after the pause of a subscription could not be stored.
const PAUSE_AGAIN: Duration = Duration::from_secs(30);

/// How long nothing is sent after an address was refused.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);

/// A request under way.
type Request = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What became of a request.
struct Done {
    lane: Lane,
    held: Held,
    verdict: Verdict,
    /// The rules by which it was sent: the push may go elsewhere by now.
    rules: Arc<PushRules>,
}

/// Why a consumer's time is over.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The push is to end.
    Stopped,
    /// The rules are other ones, for which a consumer begins anew.
    Changed,
    /// The subscription is paused, as the receiver wants no more.
    Paused,
    /// The broker ended the consumer.
    Lost(ErrorCode),
}

/// One push.
pub(crate) struct Worker {
    pub(crate) pushing: Pushing,
    pub(crate) sender: Sender,
    /// What is to be pushed, as it is now.
    pub(crate) target: watch::Receiver<PushTarget>,
    pub(crate) stop: CancellationToken,
    /// The receiver at this URL asked for a pause until then; it holds for every consumer.
    pub(crate) paused: Option<(String, Instant)>,
}

impl Worker {
    /// Pushes until it is stopped, or the receiver wants no more.
    pub(crate) async fn run(mut self) {
        let mut wait = AGAIN.0;
        loop {
            let target = self.target.borrow_and_update().clone();
            let attached = self.stop.run_until_cancelled(self.pushing.attach(&target)).await;
            let end = match attached {
                None => End::Stopped,
                Some(Ok(consumer)) => {
                    wait = AGAIN.0;
                    target.standing.set_pushing(true);
                    self.serve(target, consumer).await
                }
                Some(Err(error)) => End::Lost(error.code()),
            };
            match end {
                End::Stopped | End::Paused | End::Lost(ErrorCode::ShuttingDown) => return,
                End::Changed | End::Lost(ErrorCode::SubscriptionMoved) => {}
                End::Lost(code) => {
                    tracing::warn!(%code, "a push waits, as its consumer could not be attached or was ended");
                    if self.stop.run_until_cancelled(sleep(wait)).await.is_none() {
                        return;
                    }
                    wait = (wait * 2).min(AGAIN.1);
                }
            }
        }
    }

    /// Pushes what one consumer gets.
    async fn serve(&mut self, target: PushTarget, consumer: Consumer) -> End {
        let Consumer { outgoing, notices, control, room, .. } = consumer;
        let credit = Credit { events: target.rules.max_in_flight.into(), bytes: CREDIT_BYTES };
        if let Err(error) = control.credit(credit).await {
            return End::Lost(error.code());
        }
        let extend = target.rules.ack_timeout / 3;
        let paused = self.paused.take().filter(|(url, _)| *url == target.rules.url);
        let mut attempts = Attempts {
            pushing: self.pushing.clone(),
            sender: self.sender.clone(),
            target,
            holding: Holding::default(),
            requests: FuturesUnordered::new(),
            verbs: Vec::new(),
            sequence: 0,
            confirmed: 0,
            wait_until: paused.map(|(_, until)| until),
        };
        let mut channel = Channel { outgoing, control };
        let serving = attempts.serve(&mut channel, &mut self.target, &self.stop, extend);
        let end = tokio::select! {
            end = serving => end,
            never = room.run() => match never {},
            // Nobody is there to be told of losses: they stay untold, and `describe` shows them.
            never = untold(notices) => match never {},
        };
        if matches!(end, End::Stopped | End::Changed | End::Paused) {
            attempts.finish(&mut channel).await;
        }
        self.paused = attempts.wait_until.map(|until| (attempts.target.rules.url.clone(), until));
        end
    }
}

/// Takes notices, and tells nobody.
async fn untold<T>(mut notices: tokio::sync::mpsc::Receiver<T>) -> std::convert::Infallible {
    while notices.recv().await.is_some() {}
    std::future::pending().await
}

/// The way from and to the broker.
struct Channel {
    outgoing: tokio::sync::mpsc::Receiver<Result<Outgoing, Error>>,
    control: levada_broker::ConsumerControl,
}

/// The attempts to hand over what one consumer gets.
struct Attempts {
    pushing: Pushing,
    sender: Sender,
    target: PushTarget,
    holding: Holding,
    requests: FuturesUnordered<Request>,
    /// To be said next.
    verbs: Vec<Verb>,
    /// The number of the verbs frame that was said last.
    sequence: u64,
    /// The last one that is durable.
    confirmed: u64,
    /// The receiver asked for a pause until then.
    wait_until: Option<Instant>,
}

impl Attempts {
    async fn serve(
        &mut self,
        channel: &mut Channel,
        targets: &mut watch::Receiver<PushTarget>,
        stop: &CancellationToken,
        extend: Duration,
    ) -> End {
        let mut extend_at = Instant::now() + extend;
        loop {
            if let Err(error) = self.say(channel).await {
                return End::Lost(error.code());
            }
            self.begin();
            let waits = self.wait_until;
            tokio::select! {
                biased;
                () = stop.cancelled() => return End::Stopped,
                changed = targets.changed() => {
                    if changed.is_err() || self.follow(targets.borrow_and_update().clone()) {
                        return if changed.is_err() { End::Stopped } else { End::Changed };
                    }
                }
                () = sleep_until(extend_at) => {
                    extend_at = Instant::now() + extend;
                    self.verbs.extend(self.holding.in_progress());
                }
                Some(done) = self.requests.next() => {
                    if let Some(end) = self.done(done).await {
                        return end;
                    }
                }
                () = sleep_until(waits.unwrap_or_else(Instant::now)), if waits.is_some() => {
                    self.wait_until = None;
                }
                received = channel.outgoing.recv() => match received {
                    None => return End::Lost(ErrorCode::SubscriptionNotFound),
                    Some(Err(error)) => return End::Lost(error.code()),
                    Some(Ok(outgoing)) => self.receive(outgoing),
                },
            }
        }
    }

    /// Takes what the broker sent.
    fn receive(&mut self, outgoing: Outgoing) {
        let (content, unwritten) = outgoing.into_parts();
        match content {
            Content::Delivery(delivery) => {
                unwritten.written();
                if let Err(why) = self.holding.take(&self.target, &delivery) {
                    tracing::error!(topic = %self.target.topic, %why, "stored events are damaged, and are not pushed");
                }
            }
            Content::Settled(settled) => {
                unwritten.written();
                self.confirmed = self.confirmed.max(settled.sequence);
                self.holding.lanes.heard(settled.sequence);
            }
            Content::End(_) | Content::Progress(_) => {}
        }
    }

    /// Takes the rules over; true if a consumer has to begin anew for them.
    fn follow(&mut self, target: PushTarget) -> bool {
        let (before, next) = (&self.target.rules, &target.rules);
        let anew = before.max_in_flight != next.max_in_flight
            || before.order != next.order
            || before.ack_timeout != next.ack_timeout;
        if before.url != next.url {
            self.wait_until = None;
        }
        self.target = target;
        anew
    }

    /// Begins requests for what may go now.
    fn begin(&mut self) {
        if self.wait_until.is_some() {
            return;
        }
        let rules = Arc::new(self.target.rules.clone());
        while let Some((lane, held)) = self.holding.lanes.next() {
            let (sender, rules, now) = (self.sender.clone(), Arc::clone(&rules), self.pushing.now());
            let id = sign::message_id(self.target.topic_id, held.partition, held.offset);
            self.requests.push(Box::pin(async move {
                let verdict = sender.send(&rules, &id, held.body.clone(), now).await;
                Done { lane, held, verdict, rules }
            }));
        }
    }

    /// Takes what became of a request, and of those that ended with it.
    async fn done(&mut self, done: Done) -> Option<End> {
        let (mut next, mut end) = (Some(done), None);
        while let Some(Done { lane, held, verdict, rules }) = next {
            let now = self.pushing.now();
            self.target.standing.note(verdict.outcome(), now, verdict.message());
            let is_elsewhere = rules.url != self.target.rules.url;
            match verdict {
                Verdict::Delivered => self.settled(&lane, &held, VerbKind::Ack),
                // What a receiver wants holds for itself alone.
                Verdict::Wait(..) | Verdict::Gone(_) | Verdict::Failed(PushOutcome::Refused, _)
                    if is_elsewhere =>
                {
                    self.holding.lanes.again(lane);
                }
                Verdict::Wait(pause, _) => self.wait(lane, pause),
                // The event has nothing to do with it: it is sent once the address is one that may be connected to.
                Verdict::Failed(PushOutcome::Refused, _) => self.wait(lane, REFUSED_AGAIN),
                Verdict::Gone(_) if end.is_some() => self.holding.lanes.again(lane),
                Verdict::Gone(message) => match self.pushing.pause(&self.target, message).await {
                    Ok(()) => {
                        self.holding.lanes.again(lane);
                        end = Some(End::Paused);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a subscription whose receiver wants no more could not be paused yet");
                        self.wait(lane, PAUSE_AGAIN);
                    }
                },
                Verdict::Failed(_, message) => self.failed(&lane, &held, &message),
            }
            next = self.requests.next().now_or_never().flatten();
        }
        end
    }

    /// The event goes again, once the receiver wants it; nothing else goes until then.
    fn wait(&mut self, lane: Lane, pause: Duration) {
        let until = Instant::now() + pause;
        self.wait_until = Some(self.wait_until.map_or(until, |before| before.max(until)));
        self.holding.lanes.again(lane);
    }

    /// An attempt failed: there is another, by the subscription's back-off, unless this was the last.
    fn failed(&mut self, lane: &Lane, held: &Held, message: &str) {
        if u16::from(held.attempt) >= self.target.rules.max_attempts {
            let (reason, kind) = (message.to_owned(), Rejection::PushFailed);
            return self.settled(lane, held, VerbKind::Reject { reason, kind });
        }
        self.verbs.push(verb(held, VerbKind::Nack { delay_ms: None }));
        let gone = self.holding.lanes.fail(lane, self.sequence + 1);
        gone.iter().for_each(|held| self.holding.release(held));
    }

    fn settled(&mut self, lane: &Lane, held: &Held, kind: VerbKind) {
        self.verbs.push(verb(held, kind));
        if let Some(settled) = self.holding.lanes.settle(lane) {
            self.holding.release(&settled);
        }
    }

    /// Says what became of events, and that more may come.
    async fn say(&mut self, channel: &Channel) -> Result<(), Error> {
        if !self.verbs.is_empty() {
            self.sequence += 1;
            let verbs = Verbs { sequence: self.sequence, verbs: std::mem::take(&mut self.verbs) };
            channel.control.verbs(verbs).await?;
        }
        match self.holding.owed() {
            Some(credit) => channel.control.credit(credit).await,
            None => Ok(()),
        }
    }

    /// Waits a little for what is under way, and until what became of it is durable. What is left is delivered again.
    async fn finish(&mut self, channel: &mut Channel) {
        let until = Instant::now() + GRACE;
        while let Ok(Some(done)) = timeout_at(until, self.requests.next()).await {
            // A pause is stored, and ends nothing that is under way.
            self.done(done).await;
            if self.say(channel).await.is_err() {
                return;
            }
        }
        if self.say(channel).await.is_err() {
            return;
        }
        let until = Instant::now() + LAST_VERBS;
        while self.confirmed < self.sequence {
            match timeout_at(until, channel.outgoing.recv()).await {
                Ok(Some(Ok(outgoing))) => self.receive(outgoing),
                _ => return,
            }
        }
    }
}
