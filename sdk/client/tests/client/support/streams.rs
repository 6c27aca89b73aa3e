//! Streams of the fake engine: hello, requests, consumers, readers.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use levada_client::{
    Notice, Position, Start, Subscribed,
    protocol::{
        batch::{BatchBuilder, EventParts},
        deliver::{DeliverHeader, EndEntry, Run},
        error::Refusal,
        event::Event,
        frame::{self, FrameHeader, FrameType},
        ids::{DeliveryToken, Offset, PartitionId, ProducerId, Timestamp},
        progress::{Progress, Scanned, SearchState},
        request::{
            Hello, HelloAnswer, Limits, Open, Opened, OpenedProducer, PluginInfo, Read, Request,
            RequestEnvelope, Response, ResponseEnvelope, Subscribe, TopicInfo, TransactionInfo,
            TransactionState,
        },
        verbs::{Credit, Settled, Verbs},
    },
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::mpsc;

use super::{ENGINE_CLOCK_MS, Inner, Transacted};

/// The id of the one name that there is.
pub(crate) const NAMED: ProducerId = ProducerId(7 << 32);

pub(crate) struct Stream {
    pub(crate) connection: Connection,
    pub(crate) inner: Arc<Inner>,
    pub(crate) send: SendStream,
    frames: mpsc::Receiver<(FrameType, Bytes)>,
}

impl Stream {
    pub(crate) fn new(connection: Connection, inner: Arc<Inner>, send: SendStream, recv: RecvStream) -> Self {
        let (sender, frames) = mpsc::channel(64);
        super::spawn(read_frames(recv, sender));
        Self { connection, inner, send, frames }
    }

    /// Cancel safe.
    pub(crate) async fn frame(&mut self) -> Option<(FrameType, Bytes)> {
        self.frames.recv().await
    }

    pub(crate) async fn open(&mut self) -> Option<Open> {
        let (kind, payload) = self.frame().await?;
        assert_eq!(kind, FrameType::Open);
        Some(frame::read_message(&payload).unwrap())
    }

    /// A client that went away is not the engine's concern.
    pub(crate) async fn send(&mut self, frame: Bytes) {
        let _ = self.send.write_chunk(frame).await;
    }

    pub(crate) async fn refuse(mut self, refusal: Refusal) {
        self.send(frame::message(FrameType::Error, &refusal)).await;
        let _ = self.send.finish();
        let _ = self.send.stopped().await;
    }

    pub(crate) fn cut(self) {
        self.connection.close(VarInt::from_u32(0), b"cut");
    }

    pub(crate) async fn hello(mut self, hello: Hello) {
        self.inner.change(|world| world.tokens.push(hello.token));
        let limits = Limits { producer_in_flight_max: 64, ..Limits::default() };
        let answer = HelloAnswer {
            protocol: hello.protocol_max,
            server_time_ms: ENGINE_CLOCK_MS,
            limits,
            ..HelloAnswer::default()
        };
        self.send(frame::message(FrameType::Opened, &Opened::Hello(answer))).await;
        loop {
            let inner = self.inner.clone();
            let notice = tokio::select! {
                notice = inner.until(|world| world.notices.pop_front()) => notice,
                _ = self.connection.closed() => return,
            };
            self.send(frame::message(FrameType::Notice, &notice)).await;
            if matches!(notice, Notice::GoAway { .. }) {
                let _ = self.send.finish();
                let _ = self.send.stopped().await;
                return self.cut();
            }
        }
    }

    pub(crate) async fn request(mut self, envelope: RequestEnvelope) {
        let response = match &envelope.request {
            Request::DeployPlugin { name, size, .. } => {
                let mut parts = Vec::new();
                while let Some((FrameType::Chunk, part)) = self.frame().await {
                    parts.push(part);
                }
                assert_eq!(parts.iter().map(|part| part.len() as u64).sum::<u64>(), *size);
                self.inner.change(|world| world.artefacts.push(parts));
                Response::Plugin(PluginInfo::new(name.clone(), 1))
            }
            Request::Transact(transact) => {
                let mut batches = Vec::new();
                while let Some((FrameType::Publish, batch)) = self.frame().await {
                    batches.push(batch);
                }
                assert_eq!(batches.len(), transact.batches as usize);
                let next = self.inner.change(|world| {
                    world.transacted.push(batches);
                    world.transacts.pop_front()
                });
                match next {
                    None | Some(Transacted::Cut) => return self.cut(),
                    Some(Transacted::Refuse(refusal)) => Response::Refused(refusal),
                    Some(Transacted::Answer(batches)) => Response::Transaction(Box::new(TransactionInfo {
                        group: transact.group.clone(),
                        id: transact.id.clone(),
                        state: TransactionState::Committed,
                        repeat: false,
                        prepared_ms: None,
                        decided_ms: Some(1),
                        checks: 0,
                        next_check_ms: None,
                        batches,
                    })),
                }
            }
            Request::OpenProducer { .. } => {
                let (epoch, cut) = self.inner.change(|world| {
                    world.openings += 1;
                    let cut = world.cut_openings > 0;
                    world.cut_openings -= usize::from(cut);
                    (world.openings, cut)
                });
                if cut {
                    return self.cut();
                }
                Response::Producer(Box::new(OpenedProducer { producer_id: NAMED, epoch }))
            }
            Request::CreateTopic { name, .. } => Response::Topic(TopicInfo::new(name.clone())),
            Request::ListTopics { .. } => Response::Topics { topics: Vec::new(), next: None },
            _ => Response::Done,
        };
        self.inner.change(|world| world.requests.push(envelope.request));
        let answer = ResponseEnvelope { id: envelope.id, response };
        self.send(frame::message(FrameType::Opened, &Opened::Response(answer))).await;
        let _ = self.send.finish();
        let _ = self.send.stopped().await;
    }

    pub(crate) async fn subscribe(mut self, subscribe: Subscribe) {
        let (partitions, ack_timeout_ms) = self.inner.change(|world| {
            world.subscribes.push(subscribe);
            (world.partitions, world.ack_timeout_ms)
        });
        let answer = Subscribed { partitions, ack_timeout_ms, ..Subscribed::default() };
        self.send(frame::message(FrameType::Opened, &Opened::Subscribe(answer))).await;
        let (mut events, mut bytes, mut listening) = (0, 0, true);
        loop {
            let inner = self.inner.clone();
            let next = tokio::select! {
                biased;
                frame = self.frame(), if listening => Err(frame),
                delivery = inner.until(|world| {
                    let fits = world.deliveries.front().is_some_and(|(count, _)| *count <= events);
                    if fits && bytes > 0 { world.deliveries.pop_front() } else { None }
                }) => Ok(delivery),
                refusal = inner.until(|world| {
                    if world.deliveries.is_empty() { world.end_consumers.pop_front() } else { None }
                }) => return self.refuse(refusal).await,
                () = inner.until(|world| world.deaf.then_some(())), if listening => {
                    listening = false;
                    self.frames.close();
                    continue;
                }
            };
            match next {
                Ok((count, frame)) => {
                    events -= count;
                    bytes -= i64::try_from(frame.len() - 8).unwrap();
                    self.send(frame).await;
                }
                Err(Some((FrameType::Credit, payload))) => {
                    let credit = Credit::read(&payload).unwrap();
                    events += credit.events;
                    bytes += i64::try_from(credit.bytes).unwrap();
                    self.inner.change(|world| world.credits.push(credit));
                }
                Err(Some((FrameType::Verbs, payload))) => {
                    let verbs = Verbs::read(&payload).unwrap();
                    let refused = self.inner.change(|world| {
                        world.verb_frames += 1;
                        world.verbs.extend(verbs.verbs);
                        std::mem::take(&mut world.refuse_verbs)
                    });
                    if !self.inner.world().silent {
                        self.send(Settled { sequence: verbs.sequence, refused }.frame()).await;
                    }
                }
                Err(Some((kind, _))) => panic!("a consumer sent a {kind:?} frame"),
                Err(None) => {
                    self.inner.change(|world| world.detached += 1);
                    return;
                }
            }
        }
    }

    pub(crate) async fn read(mut self, read: Read) {
        let (frames, ends) = self.inner.change(|world| {
            world.reads.push(read.clone());
            stored(world, &read)
        });
        let positions: Vec<_> = ends
            .iter()
            .map(|end| Position { partition: end.partition.0, offset: begin(&read, end.partition.0) })
            .collect();
        let mut scanned = Scanned::default();
        self.send(frame::message(FrameType::Opened, &Opened::Read { positions })).await;
        let (mut events, mut bytes) = (0, 0);
        for (count, delivery) in frames {
            while events < count || bytes <= 0 {
                let Some((FrameType::Credit, payload)) = self.frame().await else { return };
                let credit = Credit::read(&payload).unwrap();
                events += credit.events;
                bytes += i64::try_from(credit.bytes).unwrap();
                self.inner.change(|world| world.credits.push(credit));
            }
            events -= count;
            bytes -= i64::try_from(delivery.len() - 8).unwrap();
            self.send(delivery).await;
            let cut = self.inner.change(|world| {
                world.cut_read_after.as_mut().is_some_and(|left| {
                    *left = left.saturating_sub(1);
                    *left == 0
                })
            });
            if cut {
                self.inner.change(|world| world.cut_read_after = None);
                // What was sent shall arrive before the connection ends.
                let _ = self.send.finish();
                let _ = self.send.stopped().await;
                return self.cut();
            }
            // As if every event had 10 bytes and matched.
            scanned = Scanned {
                bytes: scanned.bytes + 10 * count,
                events: scanned.events + count,
                matched: scanned.matched + count,
                ..Scanned::default()
            };
            if read.search.is_some() {
                let (state, positions) = (SearchState::Running, Vec::new());
                self.send(Progress { scanned, state, positions }.frame()).await;
            }
        }
        let refusal = self.inner.change(|world| world.end_reader.take());
        if let Some(refusal) = refusal {
            return self.refuse(refusal).await;
        }
        if read.search.is_some() {
            let (state, positions) = (SearchState::Complete, ends.clone());
            self.send(Progress { scanned, state, positions }.frame()).await;
        }
        self.send(EndEntry::frame(&ends)).await;
        let _ = self.send.finish();
        let _ = self.send.stopped().await;
    }
}

/// Where a read begins in a partition.
fn begin(read: &Read, partition: u16) -> u64 {
    let named = read.positions.iter().find(|position| position.partition == partition);
    match (named, read.from) {
        (Some(position), _) => position.offset,
        (None, Start::Offset(offset)) => offset,
        (None, _) => 0,
    }
}

async fn read_frames(mut recv: RecvStream, frames: mpsc::Sender<(FrameType, Bytes)>) {
    let mut header = [0; 8];
    loop {
        // Whoever holds the other end may stop listening; the stream is stopped with `recv`.
        tokio::select! {
            () = frames.closed() => return,
            read = recv.read_exact(&mut header) => if read.is_err() { return },
        }
        let header = FrameHeader::read(&header).unwrap();
        let mut payload = vec![0; header.len];
        if recv.read_exact(&mut payload).await.is_err() {
            return;
        }
        if frames.send((header.kind, payload.into())).await.is_err() {
            return;
        }
    }
}

/// The delivery frames of a read, one a batch, and where each partition ends.
fn stored(world: &super::World, read: &Read) -> (Vec<(u64, Bytes)>, Vec<EndEntry>) {
    let (mut frames, mut ends) = (Vec::new(), Vec::new());
    for partition in 0..world.partitions {
        if !read.partitions.is_empty() && !read.partitions.contains(&partition) {
            continue;
        }
        let mut next = 0;
        for (base, batch) in world.log.get(&partition).into_iter().flatten() {
            next = base + u64::from(batch.count());
            if *base >= begin(read, partition) {
                frames.push((u64::from(batch.count()), delivery(partition, *base, 0, 1, batch.bytes())));
            }
        }
        ends.push(EndEntry { partition: PartitionId(partition), next: Offset(next) });
    }
    (frames, ends)
}

/// A whole delivery frame of one batch.
pub(crate) fn delivery(partition: u16, base: u64, token: u64, attempt: u8, batch: &Bytes) -> Bytes {
    let header = frame_header(batch);
    let run = Run { base: Offset(base), append_time: Timestamp(1), hops: 0, batches: batch.clone() };
    let mut runs = BytesMut::new();
    run.write(&mut runs);
    let header = DeliverHeader {
        partition: PartitionId(partition),
        built: false,
        attempt,
        count: header.0,
        token: DeliveryToken(token),
        span: header.1,
    };
    let mut whole = BytesMut::from(&header.frame_prefix(runs.len())[..]);
    whole.extend_from_slice(&runs);
    whole.freeze()
}

fn frame_header(batch: &Bytes) -> (u32, u32) {
    let header = levada_client::protocol::batch::BatchHeader::read(batch).unwrap();
    (header.count, header.span)
}

/// A delivery of `count` events with their offsets as payloads.
pub(crate) fn numbered(base: u64, count: u64, token: u64) -> (u64, Bytes) {
    let mut builder = BatchBuilder::new();
    for offset in base..base + count {
        builder.push(&Event::new(offset.to_string()).at(Timestamp(1))).unwrap();
    }
    let batch = builder.finish(levada_client::protocol::batch::Stamp::ENGINE);
    (count, delivery(0, base, token, 1, batch.bytes()))
}

/// A delivery of events at these offsets with their offsets as payloads.
pub(crate) fn scattered(offsets: &[u64], token: u64) -> (u64, Bytes) {
    let mut builder = BatchBuilder::selection();
    for offset in offsets {
        let payload = offset.to_string();
        let parts = EventParts { payload: Some(payload.as_bytes()), ..EventParts::default() };
        let delta = u32::try_from(offset - offsets[0]).unwrap();
        builder.push_parts(delta, &parts, std::iter::empty()).unwrap();
    }
    let batch = builder.finish(levada_client::protocol::batch::Stamp::ENGINE);
    (u64::from(batch.count()), delivery(0, offsets[0], token, 1, batch.bytes()))
}
