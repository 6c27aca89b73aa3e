//! The other process of the limits, in the engine's place: QUIC, RocksDB and what leads from one to the other.
//!
//! It serves one bench on this machine, which started it and trusts its certificate; it ends when its stdin does.

use std::{
    io::{self, Read as _},
    sync::Arc,
    thread,
};

use anyhow::Context as _;
use bytes::Bytes;
use levada_server::{ServerConfig, bare_endpoint};
use levada_store::{BareStore, RocksOptions};
use levada_terminal::Output;
use quinn::{Incoming, RecvStream, SendStream};
use serde::Serialize;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::{
    frame::{self, FrameReader, Framer, Mode, Request},
    writer::{Job, Writer},
};
use crate::{args::CounterpartArgs, clock::Clock};

/// Frames written to a subscriber in one go.
const GATHERED_MAX: usize = 64;
/// Payload bytes of a frame that only shows how fast a stream is.
const SOURCE_FRAME_BYTES: usize = 64 * 1024;

/// The line that tells the bench where this process is reached: as that of `levada serve`.
#[derive(Serialize)]
struct Started {
    quic: String,
    ca: String,
}

/// Runs until stdin ends.
pub(crate) async fn run(output: &Output, args: &CounterpartArgs) -> anyhow::Result<()> {
    let mut config = ServerConfig { data_dir: args.data_dir.clone(), ..ServerConfig::default() };
    config.listen.address = args.listen;
    let bare = bare_endpoint(&config)?;
    let store = BareStore::open(&args.data_dir.join("bare"), &RocksOptions::default())?;
    let (writer, thread) = Writer::start(store)?;
    let mut stdin_closed = watch_stdin()?;
    let quic = bare.endpoint.local_addr().context("finding the port")?.to_string();
    output.json(&Started { quic, ca: bare.ca_pem_path.display().to_string() })?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = &mut stdin_closed => break,
            incoming = bare.endpoint.accept() => match incoming {
                Some(incoming) => drop(connections.spawn(serve(incoming, writer.clone()))),
                None => break,
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
    bare.endpoint.close(0_u32.into(), b"");
    bare.endpoint.wait_idle().await;
    connections.shutdown().await;
    drop(writer);
    thread.ended().await;
    Ok(())
}

/// Resolves when stdin ends.
pub(crate) fn watch_stdin() -> io::Result<oneshot::Receiver<()>> {
    let (closed, wait) = oneshot::channel();
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        while matches!(io::stdin().read(&mut [0; 64]), Ok(1..)) {}
        // Nobody waits any more if this process ends already.
        let _late = closed.send(());
    })?;
    Ok(wait)
}

async fn serve(incoming: Incoming, writer: Writer) {
    let Ok(connection) = incoming.await else { return };
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    let (connection, writer) = (connection.clone(), writer.clone());
                    streams.spawn(async move {
                        if let Err(error) = answer(send, recv, writer).await {
                            connection.close(1_u32.into(), error.to_string().as_bytes());
                        }
                    });
                }
                Err(_ended) => return,
            },
            Some(_ended) = streams.join_next() => {}
        }
    }
}

async fn answer(send: SendStream, mut recv: RecvStream, writer: Writer) -> anyhow::Result<()> {
    let mut bytes = [0; Request::BYTES];
    recv.read_exact(&mut bytes).await?;
    let request = Request::decode(bytes)?;
    match request.mode {
        Mode::Publish => publish(send, FrameReader::new(recv), writer, request.synced).await,
        Mode::Subscribe => subscribe(send, writer).await,
        Mode::Sink => sink(send, recv).await,
        Mode::Source => source(send, request).await,
        Mode::Echo => echo(send, FrameReader::new(recv)).await,
    }
}

/// Stores every frame and acknowledges it.
async fn publish(
    mut send: SendStream,
    mut frames: FrameReader,
    writer: Writer,
    synced: bool,
) -> anyhow::Result<()> {
    let (stored, mut told) = watch::channel(0);
    let submit = async {
        let stored = Arc::new(stored);
        while let Some(frame) = frames.next().await? {
            writer.submit(Job { frame, synced, stored: Arc::clone(&stored) }).await?;
        }
        anyhow::Ok(())
    };
    let acknowledge = async {
        let mut acknowledged = 0;
        // It fails once the last frame is stored and seen.
        while told.changed().await.is_ok() {
            let stored = *told.borrow_and_update();
            send.write_all(&frame::ack(stored - acknowledged)).await?;
            acknowledged = stored;
        }
        anyhow::Ok(())
    };
    let done = tokio::try_join!(submit, acknowledge);
    writer.end_listening();
    done?;
    Ok(send.finish()?)
}

/// Sends an empty frame to say that it listens, then every frame that is stored.
async fn subscribe(mut send: SendStream, writer: Writer) -> anyhow::Result<()> {
    let mut frames = writer.listen();
    send.write_all(&[0; frame::FRAME_HEADER_BYTES]).await?;
    let (mut ready, mut chunks) = (Vec::new(), Vec::<Bytes>::new());
    while frames.recv_many(&mut ready, GATHERED_MAX).await > 0 {
        chunks.extend(ready.drain(..).map(|frame| frame.bytes));
        send.write_all_chunks(&mut chunks).await?;
        chunks.clear();
    }
    Ok(send.finish()?)
}

async fn sink(mut send: SendStream, mut recv: RecvStream) -> anyhow::Result<()> {
    let mut pieces = vec![Bytes::new(); GATHERED_MAX];
    while recv.read_chunks(&mut pieces).await?.is_some() {}
    send.write_all(&[1]).await?;
    Ok(send.finish()?)
}

async fn source(mut send: SendStream, request: Request) -> anyhow::Result<()> {
    let frame = Framer::new(SOURCE_FRAME_BYTES, 1).frame(1, 0);
    let clock = Clock::start();
    let nanoseconds = u64::from(request.milliseconds) * 1_000_000;
    let mut sent = 0;
    while sent < request.bytes && clock.now() < nanoseconds {
        send.write_chunk(frame.clone()).await?;
        sent += frame.len() as u64;
    }
    Ok(send.finish()?)
}

async fn echo(mut send: SendStream, mut frames: FrameReader) -> anyhow::Result<()> {
    while let Some(frame) = frames.next().await? {
        send.write_chunk(frame.bytes).await?;
    }
    Ok(send.finish()?)
}
